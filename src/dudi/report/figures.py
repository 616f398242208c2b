"""The figures of a report: which metrics make which chart. Runs of one method share a colour."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from dudi.report.bars import Bars
from dudi.report.charts import DASHES, Chart, Key, inline
from dudi.report.cost import PHASES, phase_bars
from dudi.report.groups import Group
from dudi.report.language_figures import language_charts as measured_by_language
from dudi.report.language_figures import teacher_charts
from dudi.report.lines import Lines, Series
from dudi.report.run_folder import RunFolder, overlap_key, points
from dudi.report.scales import MOST_POINTS
from dudi.report.stack_figures import is_stack, language_charts, learning
from dudi.report.wording import GIB

Records = Sequence[Mapping[str, Any]]
Select = Callable[[RunFolder], list[tuple[float, float]]]


@dataclasses.dataclass(frozen=True)
class Figure:
    """One chart with its caption, and with a legend of its own where the section's does not fit it."""

    chart: Chart
    caption: str = ""
    own_legend: bool = False

    @functools.cached_property
    def svg(self) -> Markup | None:
        """For the page; None when no run measured it."""
        return inline(self.chart)

    @property
    def file(self) -> str:
        """Its name as a file, without the ending: `overlap-ratio`."""
        return re.sub(r"[^a-z0-9]+", "-", re.sub(r" of the top \d.*", "", self.chart.title.lower())).strip("-")


@dataclasses.dataclass(frozen=True, slots=True)
class FigureSection:
    """Figures under one heading.

    Attributes:
        title: The heading.
        lead: One or two sentences on how to read them.
        figures: The charts.
    """

    title: str
    lead: str
    figures: tuple[Figure, ...]

    @property
    def drawn(self) -> list[Figure]:
        return [figure for figure in self.figures if figure.svg is not None]


_Metric = tuple[str, str, str, float]
"""Of a chart of lines: its title, the metric, its unit, and what values are multiplied with."""
_Metrics = tuple[str, str, tuple[_Metric, ...]]
"""Of a section: its title, its lead, and its charts."""
_LOSSES: _Metrics = (
    "Losses",
    "The weighted sum is what was minimised; the signals are shown without their weights. A sequence signal starts "
    "at log 2 = 0.693.",
    (
        ("Weighted sum", "loss", "", 1.0),
        ("Sequence signal", "loss/sequence", "nats a pair", 1.0),
        ("Off-policy token signal", "loss/off_policy", "nats a token", 1.0),
        ("On-policy token signal", "loss/on_policy", "nats a token", 1.0),
    ),
)
_EVALUATION: _Metrics = (
    "Evaluation during training",
    "On rows that are not trained on: the off-policy signal (cross-entropy for a method without one).",
    (
        ("Loss on the evaluation rows", "eval_loss", "nats a token", 1.0),
        ("Bits per byte of their targets", "eval_bits_per_byte", "bits", 1.0),
    ),
)
_COLD_START: _Metrics = (
    "Cold start",
    "The stage before the method, trained on the ground truth.",
    (("Loss of the cold start", "loss", "nats a token", 1.0),),
)
_ROLLOUTS: _Metrics = (
    "Rollouts",
    "The health of what the student writes. Few ends or a growing length mean that answers are cut off; a wrong "
    "language is counted against the one that was asked for.",
    (
        ("Mean length", "rollout/mean_length", "tokens", 1.0),
        ("Ended by themselves", "rollout/eos_rate", "%", 100.0),
        ("In a wrong language", "rollout/wrong_language_rate", "%", 100.0),
    ),
)
_OPTIMISER: _Metrics = (
    "Optimizer",
    "A gradient norm that jumps or a loss that follows it upwards is worth a look at the learning rate.",
    (("Learning rate", "learning_rate", "", 1.0), ("Norm of the gradient", "grad_norm", "", 1.0)),
)
_method: Callable[[RunFolder], Records] = functools.partial(RunFolder.stage, cold=False)


def sections(groups: Sequence[Group]) -> list[FigureSection]:
    """Every section with charts, in the order of the page."""
    if is_stack(groups[0].runs[0]):
        return [*_stack(groups), _cost(groups), _section(groups, *_OPTIMISER)]
    evaluated = any(run.evaluated() for group in groups for run in group.runs)
    return [
        _section(groups, *_LOSSES),
        *([_section(groups, *_EVALUATION, stage=RunFolder.evaluated)] if evaluated else []),
        _section(groups, *_COLD_START, stage=functools.partial(RunFolder.stage, cold=True)),
        _agreement(groups),
        _section(groups, *_ROLLOUTS),
        *_languages(groups),
        _cost(groups),
        _section(groups, *_OPTIMISER),
    ]


def _section(
    groups: Sequence[Group],
    title: str,
    lead: str,
    metrics: Sequence[_Metric],
    stage: Callable[[RunFolder], Records] = _method,
) -> FigureSection:
    return FigureSection(title, lead, tuple(_lines(groups, *metric, stage=stage) for metric in metrics))


def lines_of(groups: Sequence[Group], select: Select) -> list[Series]:
    """A line a run; several runs of a group are thin, each with its own dash, and their mean is thick."""
    found = []
    for group in groups:
        own = [points for run in group.runs if (points := select(run))]
        alone = len(group.runs) == 1
        for place, (run, seed) in enumerate(zip(group.runs, group.seeds, strict=True)):
            label = run.name if alone else f"{group.label}, seed {seed}"
            dash, weight = (0, "normal") if alone else (place % DASHES, "thin")
            found.append(Series(label, select(run), group.colour, dash, weight))  # type: ignore[arg-type]
        if len(own) > 1:
            found.append(Series(f"{group.label}, mean of {len(own)}", _mean(own), group.colour, weight="thick"))
    return found


def _mean(lines: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """The mean of the lines as they are drawn, straight between points, wherever all of them are.

    Runs whose metric comes at other steps than their neighbours' (a coin decides with `mixing: sample`) have one too.
    """
    low = max(line[0][0] for line in lines)
    high = min(line[-1][0] for line in lines)
    places = sorted({x for line in lines for x, _ in line if low <= x <= high})
    heights = []
    for line in lines:
        xs, ys = zip(*line, strict=True)
        heights.append(np.interp(places, xs, ys))
    return [(x, float(y)) for x, y in zip(places, np.mean(heights, axis=0), strict=True)] if places else []


def legend(groups: Sequence[Group], series: Sequence[Series]) -> list[Key]:
    """Who is who in a chart that stands alone: those who have a line in it; nothing for a single run."""
    if len(groups) == 1 and len(groups[0].runs) == 1:
        return []
    drawn = {line.colour for line in series if line.points}
    groups = [group for group in groups if group.colour in drawn]
    several = {group.label: f", mean of {len(group.runs)} (thin: each)" for group in groups if len(group.runs) > 1}
    return [Key(group.label + several.get(group.label, ""), group.colour, 0) for group in groups]


def _lines(
    groups: Sequence[Group],
    title: str,
    key: str,
    unit: str,
    scale: float = 1.0,
    stage: Callable[[RunFolder], Records] = _method,
) -> Figure:
    series = lines_of(groups, lambda run: [(x, y * scale) for x, y in points(stage(run), key)])
    return Figure(Lines(title, series, y=unit, legend=legend(groups, series)), _averaged(series))


def _averaged(series: Sequence[Series]) -> str:
    """What a long line's points are."""
    longest = max((len(line.points) for line in series), default=0)
    group = math.ceil(longest / MOST_POINTS)
    return f"Each point is the mean of up to {group} steps." if group > 1 else ""


def _agreement(groups: Sequence[Group]) -> FigureSection:
    return FigureSection(
        "Student and teacher",
        "Measured where the student wrote. The overlap is the share of the teacher's likeliest tokens that are among "
        "the student's (Figure 5 of the paper); entropies say how sure each of them is.",
        (_overlap(groups), *_entropies(groups)),
    )


def _overlap(groups: Sequence[Group]) -> Figure:
    keys = {overlap_key(_method(run)) or "" for group in groups for run in group.runs}
    series = lines_of(groups, lambda run: points(_method(run), overlap_key(_method(run)) or ""))
    named = sorted(key.removeprefix("overlap@") for key in keys if key)
    title = "Overlap ratio" + (f" of the top {' or '.join(named)}" if named else "")
    return Figure(Lines(title, series, y="share", legend=legend(groups, series)), _averaged(series))


def _entropies(groups: Sequence[Group]) -> tuple[Figure, ...]:
    """Student and teacher in one chart where there is one run; else the dashes are the seeds'."""
    if len(groups) > 1 or len(groups[0].runs) > 1:
        pair = (("Entropy of the student", "student_entropy"), ("Entropy of the teacher", "teacher_entropy"))
        return tuple(_lines(groups, title, key, "nats") for title, key in pair)
    records = _method(groups[0].runs[0])
    series = [
        Series(who, points(records, f"{who}_entropy"), colour, dash=colour)
        for colour, who in enumerate(("student", "teacher"))
    ]
    return (Figure(Lines("Entropies", series, y="nats"), _averaged(series), own_legend=True),)


def _languages(groups: Sequence[Group]) -> list[FigureSection]:
    """Nothing where no run was measured by language: runs of former versions, and of one language."""
    run = next((run for group in groups for run in group.runs if measured_by_language(run)), None)
    if run is None:
        return []
    several = len(groups) > 1 or len(groups[0].runs) > 1
    figures = [Figure(chart, own_legend=True) for chart in (*measured_by_language(run), *teacher_charts(run))]
    lead = (
        "A line is a language: that of the ground truth on the targets, the one that was asked for on rollouts. Shares "
        "are of a signal's weight." + (f" Shown is the run {run.name}." if several else "")
    )
    drawn = tuple(figure for figure in figures if figure.svg is not None)
    return [FigureSection("Languages", lead, drawn)]


def _stack(groups: Sequence[Group]) -> list[FigureSection]:
    learned = _section(
        groups,
        "Learning",
        "The loss of this stage, and how near its vectors come to the teacher's within a batch: a fraction of variance "
        "unexplained of 0 is perfect, of 1 no better than the mean.",
        [(*metric, 1.0) for metric in learning([run for group in groups for run in group.runs])],
    )
    languages = FigureSection(
        "Languages",
        "On parallel text: the stack's vector of a text against the LLM's vector of its English. No label is used.",
        tuple(Figure(chart, own_legend=True) for chart in language_charts(groups)),
    )
    return [learned, *([languages] if languages.drawn else [])]


def _cost(groups: Sequence[Group]) -> FigureSection:
    bars = Figure(Bars("Time by phase", phase_bars(groups), "seconds a step", PHASES), own_legend=True)
    phases = () if is_stack(groups[0].runs[0]) else (bars,)  # a step of a stack has none
    return FigureSection(
        "Cost",
        "What the runs took. Seconds a step are means over a run's steps, and over the runs of a method.",
        (
            *phases,
            _lines(groups, "Time of a step", "time/step", "seconds"),
            _lines(groups, "Throughput", "tokens_per_second", "tokens / s"),
            _lines(groups, "Peak memory", "memory/peak", "GiB", scale=1 / GIB),
        ),
    )
