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

from dudi.evaluation.seahelm import COMPETENCIES
from dudi.evaluation.seahelm.catalogue import Catalogue
from dudi.evaluation.seahelm.results import Results, TaskResult

_PRAGMATIC_TASKS = ("pragmatic-single", "pragmatic-pair")
_PHENOMENA = ("scalar_implicatures", "presuppositions")
_UNCOUNTED = "syntax-criteria"
"""A judged task of linguistic diagnostics that SEA-HELM leaves out of the competency."""


@dataclasses.dataclass(frozen=True, slots=True)
class Total:
    """A mean of scores, 0 to 100 (None when nothing was measured), on how many tasks it stands and on how many not."""

    score: float | None
    tasks: int
    asked: int


def scores(results: Results, catalogue: Catalogue, counted: Sequence[str] = tuple(COMPETENCIES)) -> dict[str, Any]:
    """One run's scores in the form of `dudi.evaluation.records.SeedScores.scores`.

    `counted` are the competencies that enter a language's score and the total.

    Returns:
        `overall`, `by_language`, `by_competency`, `by_language_and_competency`, `by_task` (`language/task`); each leaf
        has `score`, `tasks` and `asked` of `Total`. A competency that is not counted appears where competencies do.
    """
    table = {language: _competencies(own, catalogue) for language, own in results.items()}
    languages: dict[str, Total] = {}
    tasks: dict[str, Total] = {}
    over: dict[str, list[Total]] = {name: [] for name in COMPETENCIES}
    for language, own in table.items():
        languages[language] = _mean(own[name] for name in own if name in counted)
        tasks |= {f"{language}/{name}": total for name, total in _tasks(results[language]).items()}
        for name, total in own.items():
            over.setdefault(name, []).append(total)
    competencies = {name: _mean(own) for name, own in over.items()}
    return {
        "overall": dataclasses.asdict(_mean(languages.values())),
        "by_language": _leaves(languages),
        "by_competency": _leaves(competencies),
        "by_language_and_competency": {language: _leaves(own) for language, own in table.items()},
        "by_task": _leaves(tasks),
    }


def _leaves(totals: Mapping[str, Total]) -> dict[str, Any]:
    """Those of which anything was asked."""
    return {name: dataclasses.asdict(total) for name, total in totals.items() if total.asked}


def pragmatics(results: Mapping[str, TaskResult]) -> Total:
    """The pragmatic tasks of one language as SEA-HELM scores them: counts pooled per phenomenon, then their mean.

    Chance is half: 50% right is 0, all right is 100. Both tasks are needed, and both phenomena.
    """
    own = [results[name] for name in _PRAGMATIC_TASKS if name in results]
    counts = [result.counts for result in own if result.counts is not None]
    shares = []
    for phenomenon in _PHENOMENA:
        rights, totals = zip((0, 0), *(one.get(phenomenon, (0, 0)) for one in counts), strict=True)
        shares += [sum(rights) / sum(totals)] if sum(totals) else []
    if len(counts) < len(_PRAGMATIC_TASKS) or len(shares) < len(_PHENOMENA):
        return Total(None, 0, len(own))
    above = 2 * statistics.fmean(shares) - 1
    return Total(100 * max(above, 0.0), len(own), len(own))


def _competencies(results: Mapping[str, TaskResult], catalogue: Catalogue) -> dict[str, Total]:
    units: dict[str, dict[str, list[Total]]] = {}
    for name, total in _tasks(results).items():
        task = catalogue.tasks.get(name)  # none for the pragmatics, which two tasks make
        if name != _UNCOUNTED:
            competency = "linguistic-diagnostics" if task is None else task.competency
            unit = name if task is None else task.group or name
            units.setdefault(competency, {}).setdefault(unit, []).append(total)
    return {competency: _mean(map(_mean, own.values())) for competency, own in units.items()}


def _tasks(results: Mapping[str, TaskResult]) -> dict[str, Total]:
    """Single tasks, and `pragmatics` for the two that are scored together."""
    single = {name: result for name, result in results.items() if name not in _PRAGMATIC_TASKS}
    totals = {name: Total(result.score, int(result.score is not None), 1) for name, result in single.items()}
    return totals if len(single) == len(results) else totals | {"pragmatics": pragmatics(results)}


def _mean(totals: Iterable[Total]) -> Total:
    own = list(totals)
    found = [total.score for total in own if total.score is not None]
    score = statistics.fmean(found) if found else None
    tasks = sum(total.tasks for total in own)
    return Total(score, tasks, sum(total.asked for total in own))
