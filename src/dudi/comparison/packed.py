"""Scores of single answers of one run in a few kilobytes, for files of results that stand in a repository.

What resampling needs of `answers.jsonl` is what an item's rows scored in each language, split and task. Runs that were
asked the same rows number the items alike: in the order in which they come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dudi.evaluation.question_scores import question_score

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PLACES = 4
"""Decimals of a score that is no count, such as bits."""
Cell = tuple[str, str | None, bool, str | None]
"""Language, split, whether it counts overall, and task where answers say one."""


def pack(lines: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """Lines of `answers.jsonl` of one run.

    Args:
        lines: As they come: runs of the same rows have them in the same order.
        metric: Such as `accuracy` or `bits_per_byte`; lines without it are left out.

    Returns:
        `metric`, `pooled` where all answers weigh alike and no cells are averaged, and `cells`: language, split,
        whether it counts overall, and of each item what its rows scored there and what they weigh (as many as there
        are; of bits per byte bits and bytes): a digit (base 36) each where all are counts below 36, or a list. A single
        digit weighs all of them. Behind them, where they are not None and 0, the task and the number of the first item.
    """
    told = []
    for line in lines:
        told.append(((line["language"], line.get("split"), line.get("overall") is not False, line.get("task")), line))
    if not any("item" in line for line in lines):
        # No item is in two cells: cell by cell, none has the numbers of others between its own.
        cells_in_order = list(dict.fromkeys(cell for cell, _ in told))
        told.sort(key=lambda pair: cells_in_order.index(pair[0]))
    places: dict[Any, int] = {}
    cells: dict[Cell, dict[int, tuple[float, float]]] = {}
    pooled = False
    for cell, line in told:
        place = places.setdefault(line.get("item", line.get("id")), len(places))
        if (score := question_score(line, metric)) is not None:
            own, weight = cells.setdefault(cell, {}).get(place, (0.0, 0.0))
            cells[cell][place] = own + score.value * score.weight, weight + score.weight
            pooled = not score.cell
    about: dict[str, Any] = {"metric": metric} | ({"pooled": True} if pooled else {})
    return about | {"cells": [_packed(cell, own) for cell, own in cells.items()]}


def _packed(cell: Cell, own: Mapping[int, tuple[float, float]]) -> list[Any]:
    language, split, counts, task = cell
    first = min(own)
    columns = zip(*(own.get(place, (0.0, 0.0)) for place in range(first, max(own) + 1)), strict=True)
    scored, weights = map(_digits, columns)
    same = isinstance(weights, str) and len(set(weights)) == 1
    return [
        language,
        split,
        counts,
        scored,
        weights[:1] if same else weights,
        *([task, first] if task or first else []),
    ]


def _digits(numbers: Sequence[float]) -> str | list[float] | list[int]:
    if any(number != int(number) for number in numbers):
        return [round(number, _PLACES) for number in numbers]
    counts = list(map(int, numbers))
    return "".join(_DIGITS[count] for count in counts) if max(counts) < len(_DIGITS) else counts


def _numbers(packed: str | list[float]) -> list[float]:
    """What `_digits` was given."""
    if isinstance(packed, str):
        return [int(digit, len(_DIGITS)) for digit in packed]
    return packed


def unpacked(packed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lines that read as those of `answers.jsonl`, one for all rows of an item in a cell; what `pack` returned."""
    metric = packed["metric"]
    for language, split, counts, *columns in packed["cells"]:
        task, first = columns[2:] or (None, 0)
        scored, weights = map(_numbers, columns[:2])
        several = weights * (len(scored) if len(weights) == 1 else 1)
        for place, (own, weight) in enumerate(zip(scored, several, strict=True), first):
            if weight:
                line: dict[str, Any] = {
                    "id": "/".join(map(str, (language, split, *([] if task is None else [task]), place))),
                    "item": place,
                    "language": language,
                    "split": split,
                    "scores": {metric: own / weight},
                    "weights": {metric: weight},
                }
                line |= {"task": task} if task is not None else {}
                line |= {"pooled": True} if packed.get("pooled") else {}
                yield line if counts else line | {"overall": False}
