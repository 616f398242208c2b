"""A start for the connector: the linear map from encoder states to the LLM's word embeddings, by least squares."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from dudi.errors import ConfigError
from dudi.stacking.modeling import MTLLMModel
from dudi.stacking.tokens import Ids, Source

_WORD = re.compile(r"\S+")
BATCH = 32
RIDGE = 1e-6
"""Relative to the mean square of the states: keeps rare directions from growing without bound."""


@torch.no_grad()
def start_connector(
    model: MTLLMModel, source: Source, llm_source: Source, texts: Sequence[str], language: str, *, max_length: int = 256
) -> float:
    """Set the connector to the least-squares map from words as the encoder sees them to words as the LLM spells them.

    For each word of each text: x is the mean of the encoder's states over its tokens, y the mean of the LLM's input
    embeddings over its tokens, and W minimises the sum of |W x + b - y|^2 (the authors' later recipe).

    The texts are English, of which `max_length` tokens are read, and `language` is its code.

    Returns:
        The share of the embeddings' variance that the map leaves unexplained.

    Raises:
        ConfigError: a part is missing, or a tokenizer gives no offsets.
    """
    if model.connector is None or model.llm is None:
        raise ConfigError("a connector starts between an encoder and an LLM")
    for tokenizer in (source.tokenizer, llm_source.tokenizer):
        if not tokenizer.is_fast:
            raise ConfigError(
                f"connector_start: least_squares needs fast tokenizers, and this {type(tokenizer).__name__} is none; "
                "set connector_start: random"
            )
    width, size = model.config.encoder_size + 1, model.config.hidden_size
    xx, xy = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, size, dtype=torch.float64)
    y_sum, y_squares, words = torch.zeros(size, dtype=torch.float64), 0.0, 0
    embed = model.llm.get_input_embeddings()
    for begin in range(0, len(texts), BATCH):
        part = texts[begin : begin + BATCH]
        languages = [language] * len(part)
        below = source.encode(part, languages, max_length=max_length, offsets=True)
        above = llm_source.encode(part, languages, max_length=max_length, offsets=True)
        padded = {key: value.to(model.device) for key, value in source.pad(below).items()}
        states = model.encode(padded["input_ids"], padded["attention_mask"])
        for row, text in enumerate(part):
            ids = torch.tensor(above[row]["input_ids"], device=model.device)
            x, y = word_pairs(text, (below[row], states[row]), (above[row], embed(ids)))
            x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
            xx, xy = xx + x.T @ x, xy + x.T @ y
            y_sum, y_squares, words = y_sum + y.sum(dim=0), y_squares + float(y.square().sum()), words + len(y)
    if not words:
        raise ConfigError("connector_start: least_squares found no word that both tokenizers spell; use random")
    ridge = RIDGE * xx.diagonal().mean() * torch.eye(width, dtype=torch.float64)
    solved = torch.linalg.solve(xx + ridge, xy)  # (E + 1, D)
    model.connector.weight.copy_(solved[:-1].T)
    model.connector.bias.copy_(solved[-1])
    residual = y_squares - 2 * float((solved * xy).sum()) + float((solved * (xx @ solved)).sum())
    return residual / max(y_squares - float(y_sum.square().sum()) / words, 1e-12)


def word_pairs(text: str, below: tuple[Ids, Tensor], above: tuple[Ids, Tensor]) -> tuple[Tensor, Tensor]:
    """(words, E) and (words, D): means over the tokens of each word that both sides have in full, fp64 on the CPU.

    Each side is token ids with offsets, and a vector for each token.
    """
    spans = [match.span() for match in _WORD.finditer(text)]
    first, first_counts = _means(spans, *below)
    second, second_counts = _means(spans, *above)
    both = (first_counts > 0) & (second_counts > 0)
    return first[both], second[both]


def _means(spans: Sequence[tuple[int, int]], ids: Ids, vectors: Tensor) -> tuple[Tensor, Tensor]:
    starts = [start for start, _ in spans]
    # The last character decides: a token may begin with the blank in front of its word.
    words = [bisect.bisect_right(starts, last - 1) - 1 if last > first else -1 for first, last in ids["offset_mapping"]]
    kept = [column for column, word in enumerate(words) if word >= 0]
    index = torch.tensor([words[column] for column in kept], dtype=torch.long)
    sums = torch.zeros(len(spans), vectors.shape[-1], dtype=torch.float64)
    sums.index_add_(0, index, vectors[kept].double().cpu())
    counts = torch.bincount(index, minlength=len(spans))
    return sums / counts.clamp(min=1)[:, None], counts
