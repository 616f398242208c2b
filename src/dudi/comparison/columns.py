"""Which columns a table of compared models has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dudi.errors import ConfigError, DataError, did_you_mean
from dudi.evaluation.benchmarks import find
from dudi.evaluation.metrics import METRICS, OVERALL, Metric, metric_of
from dudi.evaluation.records import Evaluation, part_of
from dudi.languages.registry import LANGUAGES


def find_metric(evaluations: Sequence[Evaluation], by: str, asked: str | None) -> Metric:
    """The metric to show: the one that was asked for, else the first of `METRICS` that is there, else the first.

    Raises:
        ConfigError: nobody has the one that was asked for.
        DataError: there is no metric at all.
    """
    found: dict[str, None] = {}
    every = [run.scores for one in evaluations for run in one.runs]
    for leaf in (leaf for own in every for leaf in (own.get(OVERALL), *part_of(own, f"by_{by}").values())):
        for name, value in part_of(leaf).items():
            if name != "questions" and value is not None and not isinstance(value, Mapping):
                found[name] = None
    if not found:
        raise DataError(f"{evaluations[0].name}: the scores hold no metric")
    if asked is None:
        asked = next((name for name in METRICS if name in found), next(iter(found)))
    if asked not in found:
        hint = did_you_mean(asked, found) or f"; there is {', '.join(found)}"
        raise ConfigError(f"metric: the scores have no '{asked}'{hint}")
    told = {one.metric(asked).better: one.metric(asked) for one in evaluations}
    directed = [metric for better, metric in told.items() if better]
    return directed[0] if len(directed) == 1 else metric_of(asked)


def column_place(by: str, column: str) -> tuple[str, ...]:
    """The keys of a column in the scores."""
    return (OVERALL,) if column == OVERALL else (f"by_{by}", column)


def find_columns(evaluations: Sequence[Evaluation], by: str) -> list[str]:
    """The keys that any run has under `by_...`, in the benchmark's own order, others behind; then `overall`.

    Raises:
        ConfigError: no run has such scores, or they have two keys.
    """
    if by == OVERALL:
        return [OVERALL]
    keys = list(dict.fromkeys(key for one in evaluations for key in one.keys(by)))
    if not keys or _two_keys(evaluations, by):
        every = (key for one in evaluations for run in one.runs for key in run.scores)
        tables = dict.fromkeys(key.removeprefix("by_") for key in every if key.startswith("by_"))
        known = [OVERALL, *(key for key in tables if not _two_keys(evaluations, key))]
        if keys:
            raise ConfigError(f"by: 'by_{by}' has two keys, and columns have one; there is {', '.join(known)}")
        hint = did_you_mean(by, known) or f"; there is {', '.join(known)}"
        raise ConfigError(f"by: the scores have no 'by_{by}'{hint}")
    orders = find(evaluations[0].benchmark.get("name")).orders
    order = list(LANGUAGES if by == "language" else orders.get(by, ()))
    return [*sorted(keys, key=lambda key: order.index(key) if key in order else len(order)), OVERALL]


def _two_keys(evaluations: Sequence[Evaluation], by: str) -> bool:
    """Whether scores stand below two keys, as those of a language and task: no column holds them."""
    tables = (part_of(run.scores, f"by_{by}") for one in evaluations for run in one.runs)
    inside = (part_of(table, key) for table in tables for key in table)
    return any(isinstance(value, Mapping) for leaf in inside for name, value in leaf.items() if name != "stderr")


def column_scores(evaluations: Sequence[Evaluation], place: Sequence[str], metric: Metric) -> dict[str, list[float]]:
    """One column: each evaluation's scores over its runs, in the metric's shown unit; empty where it has none.

    Raises:
        DataError: a score is not a finite number.
    """
    found = {}
    for one in evaluations:
        try:
            values = one.values(metric.name, *place)
        except (TypeError, ValueError):
            values = [math.nan]
        if not all(map(math.isfinite, values)):
            raise DataError(f"{one.name}: {'.'.join((*place, metric.name))} is not a finite number")
        found[one.name] = [metric.scale * value for value in values]
    return found


def column_questions(evaluation: Evaluation, place: Sequence[str]) -> float:
    """How many questions a column's scores say that they are of, of several runs the fewest; else infinitely many."""
    try:
        return min(evaluation.values("questions", *place), default=math.inf)
    except (TypeError, ValueError):  # a count that is no number tells nothing
        return math.inf
