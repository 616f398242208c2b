"""The figures of a report: which metrics make which chart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dudi.report.charts import MOST_POINTS, Bar, Series, line_chart, stacked_bars
from dudi.report.run_folder import RunFolder, mean, overlap_key, points

PHASES = ("rollout", "teacher", "reference", "student", "other")
_GIB = 2**30

Records = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One chart with its caption; `svg` is None when no run measured it."""

    title: str
    svg: Markup | None
    caption: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """Figures under one heading.

    Attributes:
        title: The heading.
        lead: One or two sentences on how to read them.
        figures: The charts.
        legend: Labels of the colours where they are not the runs.
    """

    title: str
    lead: str
    figures: tuple[Figure, ...]
    legend: tuple[str, ...] = ()

    @property
    def drawn(self) -> list[Figure]:
        """Figures that somebody measured."""
        return [figure for figure in self.figures if figure.svg is not None]

    @property
    def not_measured(self) -> list[str]:
        """Titles of the others."""
        return [figure.title for figure in self.figures if figure.svg is None]


def sections(runs: Sequence[RunFolder]) -> list[Section]:
    """Every section with charts, in the order of the page."""
    return [_losses(runs), _cold_start(runs), _agreement(runs), _rollouts(runs), _cost(runs), _optimiser(runs)]


def _method(run: RunFolder) -> Records:
    return run.stage(cold=False)


def _cold(run: RunFolder) -> Records:
    return run.stage(cold=True)


def _lines(
    runs: Sequence[RunFolder],
    title: str,
    key: str,
    unit: str = "",
    caption: str = "",
    stage: Callable[[RunFolder], Records] = _method,
    scale: float = 1.0,
) -> Figure:
    """One metric, one line a run."""
    series = [
        Series(run.name, [(x, y * scale) for x, y in points(stage(run), key)], colour)
        for colour, run in enumerate(runs)
    ]
    return Figure(title, line_chart(title, series, unit), caption or _averaged(series))


def _averaged(series: Sequence[Series]) -> str:
    """What a long line's points are."""
    longest = max((len(line.points) for line in series), default=0)
    group = math.ceil(longest / MOST_POINTS)
    return f"Each point is the mean of up to {group} steps." if group > 1 else ""


def _losses(runs: Sequence[RunFolder]) -> Section:
    return Section(
        "Losses",
        "The weighted sum is what was minimised; the signals are shown without their weights. A sequence signal starts "
        "at log 2 = 0.693.",
        (
            _lines(runs, "Weighted sum", "loss"),
            _lines(runs, "Sequence signal", "loss/sequence", "nats a pair"),
            _lines(runs, "Off-policy token signal", "loss/off_policy", "nats a token"),
            _lines(runs, "On-policy token signal", "loss/on_policy", "nats a token"),
        ),
    )


def _cold_start(runs: Sequence[RunFolder]) -> Section:
    return Section(
        "Cold start",
        "The stage before the method, trained on the ground truth.",
        (_lines(runs, "Loss of the cold start", "loss", "nats a token", stage=_cold),),
    )


def _agreement(runs: Sequence[RunFolder]) -> Section:
    return Section(
        "Student and teacher",
        "Measured where the student wrote. The overlap is the share of the teacher's likeliest tokens that are among "
        "the student's; entropies say how sure each of them is.",
        (_overlap(runs), _entropies(runs)),
    )


def _overlap(runs: Sequence[RunFolder]) -> Figure:
    keys = [overlap_key(_method(run)) for run in runs]
    series = [
        Series(run.name, points(_method(run), key), colour)
        for colour, (run, key) in enumerate(zip(runs, keys, strict=True))
        if key is not None
    ]
    named = sorted({key.removeprefix("overlap@") for key in keys if key is not None})
    title = "Overlap ratio" + (f" of the top {' or '.join(named)}" if named else "")
    return Figure(title, line_chart(title, series), _averaged(series))


def _entropies(runs: Sequence[RunFolder]) -> Figure:
    series = []
    for colour, run in enumerate(runs):
        records = _method(run)
        series.append(Series(f"{run.name}, student", points(records, "student_entropy"), colour))
        series.append(Series(f"{run.name}, teacher", points(records, "teacher_entropy"), colour, dashed=True))
    return Figure(
        "Entropies",
        line_chart("Entropies", series, "nats"),
        f"Solid: student. Dashed: teacher. {_averaged(series)}".strip(),
    )


def _rollouts(runs: Sequence[RunFolder]) -> Section:
    return Section(
        "Rollouts",
        "The health of what the student writes. Few ends or a growing length mean that answers are cut off; a wrong "
        "language is counted against the one that was asked for.",
        (
            _lines(runs, "Mean length", "rollout/mean_length", "tokens"),
            _lines(runs, "Ended by themselves", "rollout/eos_rate", "%", scale=100.0),
            _lines(runs, "In a wrong language", "rollout/wrong_language_rate", "%", scale=100.0),
        ),
    )


def _cost(runs: Sequence[RunFolder]) -> Section:
    return Section(
        "Cost",
        "Where the time of an optimizer step goes, on average over the run, and how much was done in it.",
        (
            _phases(runs),
            _lines(runs, "Time of a step", "time/step", "seconds"),
            _lines(runs, "Throughput", "tokens_per_second", "tokens / s"),
            _lines(runs, "Peak memory", "memory/peak", "GiB", scale=1 / _GIB),
        ),
        legend=PHASES,
    )


def _phases(runs: Sequence[RunFolder]) -> Figure:
    bars = [bar for run in runs if (bar := _bar(run)) is not None]
    title = "Time by phase"
    return Figure(title, stacked_bars(title, bars, "seconds a step", PHASES), "")


def _bar(run: RunFolder) -> Bar | None:
    records = _method(run)
    parts = [(phase, mean(records, f"time/{phase}")) for phase in PHASES[:-1]]
    known = [(phase, seconds) for phase, seconds in parts if seconds is not None]
    whole = mean(records, "time/step")
    if whole is not None and whole > sum(seconds for _, seconds in known):
        known.append(("other", whole - sum(seconds for _, seconds in known)))
    return Bar(run.name, known) if known else None


def _optimiser(runs: Sequence[RunFolder]) -> Section:
    return Section(
        "Optimizer",
        "A gradient norm that jumps or a loss that follows it upwards is worth a look at the learning rate.",
        (_lines(runs, "Learning rate", "learning_rate"), _lines(runs, "Norm of the gradient", "grad_norm")),
    )
