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


def pack(lines: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any] | None:
    """Lines of `answers.jsonl` of one run, each with a score of 0 or 1.

    Args:
        lines: As they come: runs of the same rows have them in the same order.
        metric: Such as `accuracy`.

    Returns:
        `metric`, and `cells`: language, split, whether it counts overall, and of each item a digit (base 36) of its
        right answers and one of its rows, 0 where it has none there. None where there are no lines, a score is another
        number, or an item has more than 35 rows in a cell.
    """
    items = list(dict.fromkeys(line["item"] for line in lines))
    place_of = {item: place for place, item in enumerate(items)}
    cells: dict[Cell, tuple[list[int], list[int]]] = {}
    for line in lines:
        cell = (line["language"], line.get("split"), line.get("overall") is not False)
        right, rows = cells.setdefault(cell, ([0] * len(items), [0] * len(items)))
        if line["scores"][metric] not in (0, 1):
            return None
        right[place_of[line["item"]]] += int(line["scores"][metric])
        rows[place_of[line["item"]]] += 1
    if not cells or max(max(rows) for _, rows in cells.values()) >= len(_DIGITS):
        return None
    return {"metric": metric, "cells": [[*cell, *map(_digits, counts)] for cell, counts in cells.items()]}


def _digits(counts: Sequence[int]) -> str:
    return "".join(_DIGITS[count] for count in counts)


def unpacked(packed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lines that read as those of `answers.jsonl`, one for all rows of an item in a cell; what `pack` returned."""
    metric = packed["metric"]
    for language, split, counts, right, rows in packed["cells"]:
        for place, (own, every) in enumerate(zip(right, rows, strict=True)):
            if count := int(every, len(_DIGITS)):
                line: dict[str, Any] = {
                    "id": f"{language}/{split}/{place}",
                    "item": place,
                    "language": language,
                    "split": split,
                    "scores": {metric: int(own, len(_DIGITS)) / count},
                    "weights": {metric: count},
                }
                yield line if counts else line | {"overall": False}
