"""Right and wrong answers of one run in a few kilobytes, for files of results that stand in a repository.

What resampling needs of `answers.jsonl` is how many of an item's rows were right in each language and split. Runs that
were asked the same rows number the items alike: in the order in which they come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
Cell = tuple[str, str | None, bool]
"""Language, split, and whether it counts overall."""


def pack(lines: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """Lines of `answers.jsonl` of one run, each with a score of 0 or 1.

    Args:
        lines: As they come: runs of the same rows have them in the same order.
        metric: Such as `accuracy`.

    Returns:
        `metric`, and `cells`: language, split, whether it counts overall, and of each item how many answers were right
        and how many rows it has there: a digit (base 36) each, or a list where a count is above 35.
    """
    items = list(dict.fromkeys(line["item"] for line in lines))
    place_of = {item: place for place, item in enumerate(items)}
    cells: dict[Cell, tuple[list[int], list[int]]] = {}
    for line in lines:
        cell = (line["language"], line.get("split"), line.get("overall") is not False)
        right, rows = cells.setdefault(cell, ([0] * len(items), [0] * len(items)))
        right[place_of[line["item"]]] += int(line["scores"][metric])
        rows[place_of[line["item"]]] += 1
    return {"metric": metric, "cells": [[*cell, *map(_digits, counts)] for cell, counts in cells.items()]}


def _digits(counts: list[int]) -> str | list[int]:
    return "".join(_DIGITS[count] for count in counts) if max(counts) < len(_DIGITS) else counts


def _numbers(counts: str | list[int]) -> list[int]:
    return [int(count, len(_DIGITS)) for count in counts] if isinstance(counts, str) else counts


def unpacked(packed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lines that read as those of `answers.jsonl`, one for all rows of an item in a cell; what `pack` returned."""
    metric = packed["metric"]
    for language, split, counts, right, rows in packed["cells"]:
        for place, (own, count) in enumerate(zip(_numbers(right), _numbers(rows), strict=True)):
            if count:
                line: dict[str, Any] = {
                    "id": f"{language}/{split}/{place}",
                    "item": place,
                    "language": language,
                    "split": split,
                    "scores": {metric: own / count},
                    "weights": {metric: count},
                }
                yield line if counts else line | {"overall": False}
