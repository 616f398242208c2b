"""Translate-test: rows are put into English by the same MT model's decoder, and the LLM reads the translation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi.errors import ConfigError
from dudi.stacking.rows import StackRow
from dudi.stacking.tokens import Source


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
    max_length: int = 256,
    max_new_tokens: int = 256,
) -> list[str]:
    """Translate texts with a whole MT model, by beam search over batches of similar length.

    Args:
        model: With its decoder.
        source: Its tokenizer.
        texts: The texts.
        languages: The language of each.
        target: The language to translate into, as the tokenizer or `source.codes` calls it.
        num_beams: Beams; 1 is greedy.
        batch_size: Texts at a time.
        max_length: Tokens of a text that are read.
        max_new_tokens: Longest translation.

    Raises:
        ConfigError: a language code is unknown, or the model has no decoder.
    """
    if not model.can_generate():
        raise ConfigError(f"translate: a {type(model).__name__} has no decoder; name the whole MT model")
    begin_with = _begin(source.tokenizer, source.check(target))
    writer: Any = model.eval()  # `generate` is a mixin's, which the base class does not name
    encoded = source.encode(texts, languages, max_length=max_length)
    order = sorted(range(len(texts)), key=lambda place: len(encoded[place]["input_ids"]))
    found = [""] * len(texts)
    for begin in range(0, len(order), batch_size):
        places = order[begin : begin + batch_size]
        batch = {key: value.to(model.device) for key, value in source.pad([encoded[p] for p in places]).items()}
        written = writer.generate(
            **batch,
            forced_bos_token_id=begin_with,
            num_beams=num_beams,
            do_sample=False,
            max_new_tokens=max_new_tokens,
        )
        for place, text in zip(places, source.tokenizer.batch_decode(written, skip_special_tokens=True), strict=True):
            found[place] = text.strip()
    return found


def _begin(tokenizer: PreTrainedTokenizerBase, code: str) -> int | None:
    """The token that makes a decoder write a language: its code, which M2M100 writes as `__en__`."""
    for token in (code, f"__{code}__"):
        found = tokenizer.convert_tokens_to_ids(token)
        if isinstance(found, int) and found != tokenizer.unk_token_id:
            return found
    return None


def translate_rows(
    model: PreTrainedModel, source: Source, rows: Sequence[StackRow], target: str, **options: int
) -> tuple[list[StackRow], float]:
    """Rows with every text of theirs translated; a row that is in the target language already stays as it is.

    Args:
        model: The MT model.
        source: Its tokenizer.
        rows: The rows.
        target: The language to translate into.
        options: As `translate` takes them.

    Returns:
        The rows, and the wall time for each row that was translated.
    """
    source.check_rows(rows)
    code = source.check(target)
    foreign = [row for row in rows if source.check(row.language) != code]
    pieces = [(row.text, *([row.pair] if row.pair is not None else []), *row.choices) for row in foreign]
    texts = [text for piece in pieces for text in piece]
    languages = [row.language for row, piece in zip(foreign, pieces, strict=True) for _ in piece]
    started = time.perf_counter()
    english = iter(translate(model, source, texts, languages, target, **options) if texts else [])
    seconds = (time.perf_counter() - started) / max(len(foreign), 1)
    done = {id(row): _replaced(row, [next(english) for _ in piece]) for row, piece in zip(foreign, pieces, strict=True)}
    return [done.get(id(row), row) for row in rows], seconds


def _replaced(row: StackRow, texts: list[str]) -> StackRow:
    rest = iter(texts)
    # An empty translation is no text; what stands for it must be one.
    text = next(rest) or "-"
    pair = None if row.pair is None else next(rest) or "-"
    return dataclasses.replace(row, text=text, pair=pair, choices=tuple(choice or "-" for choice in rest))
