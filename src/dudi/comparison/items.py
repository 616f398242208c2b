"""The answers of runs as items that can be drawn again: from lines of `answers.jsonl` to `bootstrap.lead`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dudi.comparison.bootstrap import Answer
from dudi.evaluation.metrics import OVERALL
from dudi.evaluation.question_scores import question_scores


def answers_by_run(
    lines: Iterable[Mapping[str, Any]], metric: str, by: str = OVERALL, column: str = OVERALL
) -> dict[int, list[Answer]]:
    """What each answer of each run is worth in one column of a table.

    Args:
        lines: Lines of `answers.jsonl`, of one model and benchmark; a line's `seed` says which run it is of.
        metric: Such as `accuracy`, `exact_match` or `bits_per_byte`.
        by: `language`, `split`, `task`: what a line must say.
        column: What it must say there; `overall` takes every line that counts there.

    Returns:
        By seed. An item is a line's `item`, what it has in common with the same question in other languages, else its
        `id`; a group is the cell that the benchmark averages, where it averages cells.
    """
    runs: dict[int, list[Answer]] = {}
    for line in lines:
        for name, score in question_scores([line], metric, by, column).items():
            own = Answer(line.get("item", name), score.cell, score.value * score.weight, score.weight)
            runs.setdefault(int(line.get("seed") or 0), []).append(own)
    return runs
