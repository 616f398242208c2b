"""Translate-test: rows are put into English by the same MT model's decoder, and the LLM reads the translation."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi.errors import ConfigError
from dudi.stacking.checks import check_room
from dudi.stacking.codes import names_of, same_language
from dudi.stacking.rows import StackRow
from dudi.stacking.tokens import SHORTENED, Source, of_like_length

LENGTH = 1024
"""Tokens of a text that a translator reads: as many as NLLB has places for; the authors' value."""


@dataclasses.dataclass(frozen=True, slots=True)
class Translated:
    """Rows in the target language.

    Attributes:
        rows: All rows; those that were in the target language are as they were.
        seconds: Wall time for each row that was translated.
        cut: Texts of each language that were longer than the translator reads; languages without any are left out.
        unfinished: Texts of each language whose translation stopped at the longest that is written; likewise.
    """

    rows: list[StackRow]
    seconds: float
    cut: dict[str, int]
    unfinished: dict[str, int] = dataclasses.field(default_factory=dict)


@torch.no_grad()
def translate(
    model: PreTrainedModel,
    source: Source,
    texts: Sequence[str],
    languages: Sequence[str],
    target: str,
    *,
    num_beams: int = 5,
    batch_size: int = 32,
    max_length: int = LENGTH,
    max_new_tokens: int = 256,
    cut: Counter[str] | None = None,
    unfinished: Counter[str] | None = None,
) -> list[str]:
    """Translate texts with a whole MT model, by beam search over batches of similar length.

    Args:
        model: With its decoder.
        source: Its tokenizer.
        texts: The texts.
        languages: The language of each.
        target: The language to translate into, as the tokenizer, `source.codes` or the table of languages calls it.
        num_beams: Beams; 1 is greedy.
        batch_size: Texts at a time.
        max_length: Tokens of a text that are read.
        max_new_tokens: Longest translation.
        cut: Counts texts of each language that were longer than `max_length`.
        unfinished: Counts texts of each language whose translation had not ended after `max_new_tokens`.

    Raises:
        ConfigError: a language code is unknown, the model has no decoder, it cannot be told what to write, or
            `max_length` has no place for a word.
    """
    if not model.can_generate():
        raise ConfigError(f"translate: a {type(model).__name__} has no decoder; name the whole MT model")
    check_room(source, max_length, "--translate-length")
    if not texts:
        return []
    begin_with, prefix = _asked_for(source, target)
    writer: Any = model.eval()  # `generate` is a mixin's, which the base class does not name
    encoded = source.encode([prefix + text for text in texts], languages, max_length=max_length)
    if cut is not None:
        cut.update(language for language, ids in zip(languages, encoded, strict=True) if SHORTENED in ids)
    found = [""] * len(texts)
    for places in of_like_length(encoded, batch_size):
        padded = source.pad([encoded[place] for place in places])
        batch = {key: value.to(model.device) for key, value in padded.items()}
        written = writer.generate(
            **batch, forced_bos_token_id=begin_with, num_beams=num_beams, do_sample=False, max_new_tokens=max_new_tokens
        )
        for place, text in zip(places, source.tokenizer.batch_decode(written, skip_special_tokens=True), strict=True):
            found[place] = text.strip()
        if unfinished is not None:
            ended = _ended(writer, written, max_new_tokens)
            unfinished.update(languages[place] for place, one in zip(places, ended, strict=True) if not one)
    return found


def _ended(writer: Any, written: Tensor, max_new_tokens: int) -> list[bool]:
    """Of each translation whether it came to its end by itself."""
    settings = writer.generation_config
    ends = torch.tensor(settings.eos_token_id if settings.eos_token_id is not None else -1, device=written.device)
    # The first token is the decoder's start, which is NLLB's end too; the last one may be an end by force (mBART).
    new = written[:, 1 : max_new_tokens + (settings.forced_eos_token_id is None)]
    return torch.isin(new, ends).any(dim=1).tolist()


def _asked_for(source: Source, target: str) -> tuple[int | None, str]:
    """How a model is told what to write: the token that its decoder begins with, or words in front of the text.

    NLLB, M2M100 and mBART begin with the language; MADLAD reads `<2en>`, a Marian model of several targets `>>eng<<`;
    one of a single target needs nothing.
    """
    if source.languages:
        found = _token(source.tokenizer, (code := source.check(target)), f"__{code}__")
        if found is None:
            raise ConfigError(f"target: this tokenizer has no token for '{code}'")
        return found, ""
    names = names_of(target)
    for mark in ("<2{}>", ">>{}<<"):
        for name in names:
            if _token(source.tokenizer, mark.format(name)) is not None:
                return None, f"{mark.format(name)} "
    if "marian" in type(source.tokenizer).__name__.lower():
        return None, ""
    raise ConfigError(
        f"target: this {type(source.tokenizer).__name__} knows no languages, so that the model cannot be told to write "
        f"'{target}'; take a model of many languages (NLLB, M2M100, mBART, MADLAD) or a Marian one"
    )


def _token(tokenizer: PreTrainedTokenizerBase, *words: str) -> int | None:
    """The id of the first of some tokens that there is."""
    for word in words:
        found = tokenizer.convert_tokens_to_ids(word)
        if isinstance(found, int) and found != tokenizer.unk_token_id:
            return found
    return None


def translate_rows(
    model: PreTrainedModel, source: Source, rows: Sequence[StackRow], target: str, **options: int
) -> Translated:
    """Rows with every text of theirs translated, each alone: passage, question and each choice, premise and hypothesis.

    Args:
        model: The MT model.
        source: Its tokenizer.
        rows: The rows; those in the target language already stay as they are.
        target: The language to translate into.
        options: As `translate` takes them.

    Raises:
        ConfigError: as in `translate`.
        DataError: a row's language is unknown.
    """
    source.check_rows(rows)
    foreign = [row for row in rows if not _same(source, row.language, target)]
    texts = [text for row in foreign for text in row.texts]
    languages = [row.language for row in foreign for _ in row.texts]
    started, cut, unfinished = time.perf_counter(), Counter[str](), Counter[str]()
    found = translate(model, source, texts, languages, target, cut=cut, unfinished=unfinished, **options)
    seconds = (time.perf_counter() - started) / max(len(foreign), 1)
    english = (text or "-" for text in found)  # an empty translation is no text; what stands for it must be one
    done = {}
    for row in foreign:
        text = next(english)
        pair = None if row.pair is None else next(english)
        choices = tuple(itertools.islice(english, len(row.choices)))
        done[id(row)] = dataclasses.replace(row, text=text, pair=pair, choices=choices, language=target)
    return Translated([done.get(id(row), row) for row in rows], seconds, dict(cut), dict(unfinished))


def _same(source: Source, language: str, target: str) -> bool:
    if source.languages:
        return source.check(language) == source.check(target)
    return same_language(language, target)
