"""Totals recomputed from single tasks: a task that failed is missing and counts for nothing, least of all as 0.

As SEA-HELM does it: tasks of a group are averaged, then groups and tasks make a competency, competencies a language,
languages the total; each step is a plain mean. What differs: SEA-HELM averages a failed task in as 0, and puts the
cultural and multi-turn competencies into the total, which the paper's seven do not have.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dudi.evaluation.seahelm.catalogue import Catalogue
from dudi.evaluation.seahelm.results import Result, Results

COMPETENCIES: dict[str, str] = {
    "nlu": "NLU",
    "nlg": "NLG",
    "nlr": "NLR",
    "safety": "Safety",
    "linguistic-diagnostics": "LD",
    "instruction-following": "IF",
    "knowledge": "Knowledge",
}
"""The seven of the paper's Table 8: SEA-HELM's name and the paper's."""

DIAGNOSTICS = "linguistic-diagnostics"
PRAGMATICS = "pragmatics"
_PRAGMATIC_TASKS = ("pragmatic-single", "pragmatic-pair")
_PHENOMENA = ("scalar_implicatures", "presuppositions")
_PRAGMATICS_BASELINE = 0.5
_UNCOUNTED = {"syntax-criteria"}
"""Judged tasks of linguistic diagnostics that SEA-HELM leaves out of the competency."""


@dataclasses.dataclass(frozen=True, slots=True)
class Total:
    """A mean of scores.

    Attributes:
        score: 0 to 100; None when nothing below it was measured.
        tasks: Tasks that it stands on.
        asked: Tasks that it should stand on; more than `tasks` says that some are missing.
    """

    score: float | None
    tasks: int
    asked: int


def scores(results: Results, catalogue: Catalogue, counted: Sequence[str] = tuple(COMPETENCIES)) -> dict[str, Any]:
    """One run's scores in the form of `dudi.evaluation.records.Run.scores`.

    Args:
        results: Of `read_run`.
        catalogue: The checkout's.
        counted: The competencies that enter a language's score and the total.

    Returns:
        `overall`, `by_language`, `by_competency`, `by_language_and_competency`, `by_task` (`language/task`); each leaf
        has `score`, `tasks` and `asked` of `Total`. A competency that is not counted appears where competencies do.
    """
    table = {language: _competencies(own, catalogue) for language, own in results.items()}
    languages = {language: _mean(own[name] for name in own if name in counted) for language, own in table.items()}
    names = list(dict.fromkeys([*COMPETENCIES, *(name for own in table.values() for name in own)]))
    over = {name: _mean(own[name] for own in table.values() if name in own) for name in names}
    return {
        "overall": _leaf(_mean(languages.values())),
        "by_language": {language: _leaf(total) for language, total in languages.items() if total.asked},
        "by_competency": {name: _leaf(total) for name, total in over.items() if total.asked},
        "by_language_and_competency": {
            language: {name: _leaf(total) for name, total in own.items()} for language, own in table.items()
        },
        "by_task": {
            f"{language}/{name}": _leaf(total)
            for language, own in results.items()
            for name, total in _tasks(own).items()
        },
    }


def mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard deviation over seeds, n - 1 in the denominator (ddof = 1).

    Returns:
        The mean, None of no value; the deviation, None of fewer than two: one seed says nothing about spread.
    """
    mean = statistics.fmean(values) if values else None
    return mean, statistics.stdev(values) if len(values) > 1 else None


def pragmatics(results: Mapping[str, Result]) -> Total:
    """The pragmatic tasks of one language as SEA-HELM scores them: counts pooled per phenomenon, then their mean.

    Chance is half: 50% right is 0, all right is 100. Both tasks are needed, and both phenomena.
    """
    own = [results[name] for name in _PRAGMATIC_TASKS if name in results]
    counted = [result.counts for result in own if result.counts is not None]
    if len(counted) < len(_PRAGMATIC_TASKS):
        return Total(None, 0, len(own))
    shares = []
    for phenomenon in _PHENOMENA:
        right, total = (sum(counts.get(phenomenon, (0, 0))[part] for counts in counted) for part in (0, 1))
        if total == 0:
            return Total(None, 0, len(own))
        shares.append(right / total)
    above = (statistics.fmean(shares) - _PRAGMATICS_BASELINE) / (1 - _PRAGMATICS_BASELINE)
    return Total(100 * max(above, 0.0), len(own), len(own))


def _competencies(results: Mapping[str, Result], catalogue: Catalogue) -> dict[str, Total]:
    units: dict[str, dict[str, list[Total]]] = {}
    for name, total in _tasks(results).items():
        task = catalogue.tasks.get(name)
        if name in _UNCOUNTED:
            continue
        competency = DIAGNOSTICS if task is None else task.competency
        unit = name if task is None else task.group or name
        units.setdefault(competency, {}).setdefault(unit, []).append(total)
    return {competency: _mean(_mean(group) for group in own.values()) for competency, own in units.items()}


def _tasks(results: Mapping[str, Result]) -> dict[str, Total]:
    """Single tasks, and `pragmatics` for the two that are scored together."""
    single = {name: result for name, result in results.items() if name not in _PRAGMATIC_TASKS}
    totals = {name: Total(result.score, int(result.score is not None), 1) for name, result in single.items()}
    if len(single) < len(results):
        totals[PRAGMATICS] = pragmatics(results)
    return totals


def _mean(totals: Iterable[Total]) -> Total:
    own = list(totals)
    found = [total.score for total in own if total.score is not None]
    return Total(
        score=statistics.fmean(found) if found else None,
        tasks=sum(total.tasks for total in own),
        asked=sum(total.asked for total in own),
    )


def _leaf(total: Total) -> dict[str, float | int | None]:
    return dataclasses.asdict(total)
