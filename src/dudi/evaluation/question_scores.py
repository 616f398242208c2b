"""What single questions scored: the lines of `answers.jsonl` as numbers that can be held against another model's."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from dudi.evaluation.metrics import OVERALL
from dudi.evaluation.records import part_of

_FIELDS = {"exact_match": "exact"}
"""Metrics whose field in a line has another name."""


@dataclasses.dataclass(frozen=True, slots=True)
class QuestionScore:
    """One question in one metric.

    Attributes:
        value: Its score, in the stored unit.
        weight: What it weighs among the questions of its cell: bytes for bits per byte, else 1.
        cell: Language and task, where the benchmark averages cells; else empty: all questions weigh alike (lines that
            were packed say `pooled`).
        item: What it has in common with the same question in other languages: the line's `item`, else its `id`.
    """

    value: float
    weight: float
    cell: tuple[str, str] | tuple[()] = ()
    item: Hashable = None


def question_scores(
    lines: Iterable[Mapping[str, Any]], metric: str, by: str = OVERALL, column: str = OVERALL
) -> dict[str, QuestionScore]:
    """The scores of single questions in a metric, by their ids, as far as they have it; arguments as of `in_column`."""
    scores = {str(line.get("id")): question_score(line, metric) for line in in_column(lines, by, column)}
    return {name: score for name, score in scores.items() if score is not None}


def in_column(lines: Iterable[Mapping[str, Any]], by: str, column: str) -> list[Mapping[str, Any]]:
    """The lines whose scores a column of a table shows.

    Args:
        lines: Lines of `answers.jsonl`, of one model, benchmark and seed.
        by: `language`, `split`, `task`: what a line must say.
        column: What it must say there; `overall` takes every line. Those that say `overall: false` are of the language
            that a task was learned in: it has a column of its own, and is in no other unless it is alone there.
    """
    own = [line for line in lines if column == OVERALL or line.get(by) == column]
    if column != OVERALL and by == "language":
        return own
    return [line for line in own if line.get("overall") is not False] or own


def question_score(line: Mapping[str, Any], metric: str) -> QuestionScore | None:
    """What one line scored in a metric, such as `exact_match` or `acc`; None where it does not have it."""
    own = line.get("scores")
    cell: tuple[str, str] | tuple[()] = ()
    weight: Any = 1.0
    if isinstance(own, Mapping):
        value, weight = own.get(metric), part_of(line, "weights").get(metric, 1.0)
        cell = () if line.get("pooled") else (str(line.get("language")), str(line.get("task")))
    elif metric == "bits_per_byte":
        bits, weight = line.get("bits"), line.get("bytes")
        value = bits / weight if _is_number(bits) and _is_number(weight) and weight else None
    else:
        value = line.get(_FIELDS.get(metric, metric))
    if not _is_number(value) or not _is_number(weight):
        return None
    return QuestionScore(float(value), float(weight), cell, line.get("item", str(line.get("id"))))


def class_scores(line: Mapping[str, Any]) -> dict[Hashable, QuestionScore]:
    """What one line has to say of the F1 of classes, 2 tp / (2 tp + fp + fn): of each its part of that ratio.

    A line without `label` and `answer` has nothing to say.
    """
    label, answer = line.get("label"), line.get("answer")
    known = question_score({**line, "scores": {"macro_f1": float(label == answer)}}, "macro_f1")
    if known is None or label is None or answer is None:
        return {}
    weight = 2.0 if label == answer else 1.0
    return {name: dataclasses.replace(known, weight=weight) for name in (label, answer)}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, bool | int | float)


def weights_of(scores: Sequence[QuestionScore]) -> list[float]:
    """What each question weighs in the column's mean; they sum to 1.

    Within a cell the weights of its questions, and all cells alike: the mean of the cells' means. Without cells all
    questions are one.
    """
    sums: Counter[tuple[str, ...]] = Counter()
    for score in scores:
        sums[score.cell] += score.weight  # type: ignore[assignment]  # a Counter of floats
    return [score.weight / sums[score.cell] / len(sums) for score in scores]
