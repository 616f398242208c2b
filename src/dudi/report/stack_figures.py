"""What a run of `dudi stack` shows in the place of a method's signals."""

from __future__ import annotations

from collections.abc import Sequence

from dudi.report.charts import Chart
from dudi.report.facts import model_name
from dudi.report.groups import Group
from dudi.report.lines import Lines, Series
from dudi.report.run_folder import RunFolder, points

KEYS = ("encoder", "llm")
Metric = tuple[str, str, str]

LEARNING: tuple[Metric, ...] = (
    ("Loss", "loss", ""),
    ("Fraction of variance unexplained", "fvu", "share"),
    ("Cosine to the teacher", "cosine", ""),
    ("Accuracy in training", "accuracy", "share"),
)
"""(title, key, unit) of what stages measure, each as far as it has it."""


def is_stack(run: RunFolder) -> bool:
    """Whether `dudi stack` made this run."""
    return all(isinstance(run.values.get(key), dict) for key in KEYS)


def stacked(run: RunFolder) -> str:
    """The models that were joined, from below: `encoder + llm`."""
    start = model_name(run.value("start"))
    names = [model_name(run.value(key)) for key in KEYS if run.value(f"{key}.model")]
    return start if run.value("start.model") else " + ".join(names)


def learning(runs: Sequence[RunFolder]) -> list[Metric]:
    """Of `LEARNING` the loss, and what any of some runs has measured: a stage without labels has no accuracy."""
    return [one for one in LEARNING if one[1] == "loss" or any(points(run.metrics, one[1]) for run in runs)]


def languages_measured(run: RunFolder) -> list[str]:
    """The languages of the parallel text, in the order of the record."""
    keys = (key for record in run.metrics for key in record if key.startswith("fvu/"))
    return list(dict.fromkeys(key.removeprefix("fvu/") for key in keys))


def language_charts(groups: Sequence[Group]) -> list[Chart]:
    """FVU and cosine of each language over the steps; of the first run, since a line is a language here."""
    run = groups[0].runs[0]
    charts: list[Chart] = []
    for title, key in (("FVU by language", "fvu"), ("Cosine by language", "cosine")):
        series = [
            Series(code, points(run.metrics, f"{key}/{code}"), colour, dash=colour)
            for colour, code in enumerate(languages_measured(run))
        ]
        charts.append(Lines(title, series, y="share" if key == "fvu" else ""))
    return charts
