"""A language small enough to be known exactly, and the language models that any tokenizer makes of it.

The source is a Markov chain over a few letters, cut at some length, so that every string and its probability can be
listed. Tokenised strings give the exact next-token probabilities of a model that knows the source perfectly.
"""

import collections
import math

import numpy as np
import torch

ALMOST_NOTHING = -200.0


def byte_source(letters="abc", length=6, seed=1):
    """String -> probability; they sum to 1."""
    rng = np.random.default_rng(seed)
    rows = {last: rng.dirichlet(np.ones(len(letters) + 1)) for last in ["", *letters]}
    found = {}

    def grow(text, share):
        if len(text) == length:
            found[text] = share
            return
        *goes_on, ends = rows[text[-1:]]
        found[text] = share * ends
        for letter, chance in zip(letters, goes_on, strict=True):
            grow(text + letter, share * chance)

    grow("", 1.0)
    return found


class PerfectModel:
    """The token model of a source.

    Attributes:
        ids: String -> its tokens with the end.
    """

    def __init__(self, source, tokenizer):
        self.size = len(tokenizer)
        self.ids = {text: [*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in source}
        self.after = collections.defaultdict(lambda: collections.defaultdict(float))
        for text, share in source.items():
            for place, token in enumerate(self.ids[text]):
                self.after[tuple(self.ids[text][:place])][token] += share

    def logits(self, ids):
        """(T, V) log-probabilities of each next token, fp64."""
        out = torch.full((len(ids), self.size), ALMOST_NOTHING, dtype=torch.float64)
        for place in range(len(ids)):
            shares = self.after[tuple(ids[:place])]
            total = sum(shares.values())
            for token, share in shares.items():
                out[place, token] = math.log(share / total)
        return out


def next_byte(source, text):
    """Next letter, or "" for the end -> its exact probability after some letters."""
    found = collections.defaultdict(float)
    for other, share in source.items():
        if other.startswith(text):
            found[other[len(text) : len(text) + 1]] += share
    total = sum(found.values())
    return {letter: share / total for letter, share in found.items()}
