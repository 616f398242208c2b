"""Rows with choices as one text, made to fit: what is too long loses passage, then question, then ends of choices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dudi.errors import ConfigError
from dudi.stacking.rows import StackRow

Ids = dict[str, list[Any]]
Span = tuple[int, int]
Encode = Callable[[Sequence[str], Sequence[int]], list[Ids]]


def fit(rows: Sequence[StackRow], encode: Encode, max_length: int) -> Iterator[tuple[Ids, list[Span], bool]]:
    """Encode rows with their choices behind them, each in at most `max_length` tokens.

    `encode` makes texts, and the places of their rows, to token ids with `offset_mapping`, and cuts nothing.

    Yields:
        Of each row its ids, the place of each choice in characters, and whether anything was left out.

    Raises:
        ConfigError: the numbers of the choices alone are too long.
    """
    written = [with_choices(row) for row in rows]
    encoded = encode([text for text, _ in written], range(len(rows)))
    for place, (row, ids, (_, spans)) in enumerate(zip(rows, encoded, written, strict=True)):
        kept = row
        while (excess := len(ids["input_ids"]) - max_length) > 0:
            smaller = _less(kept, ids["offset_mapping"], spans, excess)
            if smaller is None:
                raise ConfigError(f"{row.name}: max_length {max_length} has no place for {len(row.choices)} choices")
            kept = smaller
            text, spans = with_choices(kept)
            ids = encode([text], [place])[0]
        yield ids, spans, kept is not row


def with_choices(row: StackRow) -> tuple[str, list[Span]]:
    """Passage, question and choices as one text, a line each choice, and the place of each choice in characters."""
    whole = " ".join(part for part in (row.text, row.pair) if part)
    spans = []
    for number, choice in enumerate(row.choices, start=1):
        whole += f"\n{number} "
        spans.append((len(whole), len(whole) + len(choice)))
        whole += choice
    return whole, spans


def _less(row: StackRow, offsets: Sequence[Span], spans: Sequence[Span], excess: int) -> StackRow | None:
    """A row with fewer tokens in its passage, else its question, else its longest choice; None: there are no more."""
    if row.text:
        return dataclasses.replace(row, text=_without(row.text, 0, offsets, excess))
    if row.pair:
        return dataclasses.replace(row, pair=_without(row.pair, 0, offsets, excess))
    columns = [token_span(offsets, *span) for span in spans]
    counts = [end - start for start, end in columns]
    longest = max(range(len(counts)), key=counts.__getitem__)
    if not row.choices[longest]:
        return None
    # One token at a time, so that no choice loses more than another that is longer.
    shorter = _without(row.choices[longest], spans[longest][0], offsets, 1)
    return dataclasses.replace(row, choices=(*row.choices[:longest], shorter, *row.choices[longest + 1 :]))


def _without(text: str, start: int, offsets: Sequence[Span], excess: int) -> str:
    """A text that begins at a character of the whole, without its last `excess` tokens."""
    first, last = token_span(offsets, start, start + len(text))
    if last - first <= excess:
        return ""
    shorter = text[: max(offsets[last - excess - 1][1] - start, 0)].rstrip()
    # A character of several tokens, or a blank at the end, may give back the same text: then a character goes.
    return shorter if len(shorter) < len(text) else text[:-1].rstrip()


def choice_columns(offsets: Sequence[Span], span: Span) -> Span:
    """The columns of a choice's tokens; those of its number where the tokenizer has no token for the choice itself."""
    start, end = token_span(offsets, *span)
    return (start, end) if start < end else token_span(offsets, max(span[0] - 2, 0), span[1])


def token_span(offsets: Sequence[Span], start: int, end: int) -> Span:
    """The columns of the tokens that overlap characters `start` to `end`; (0, 0) when there are none."""
    inside = [column for column, (first, last) in enumerate(offsets) if first < end and last > start and last > first]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)
