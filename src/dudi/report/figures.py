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
from dudi.report.language_figures import language_charts, stack_language_charts, teacher_charts
from dudi.report.lines import Lines, Series
from dudi.report.run_folder import RunFolder, overlap_key, points
from dudi.report.scales import MOST_POINTS
from dudi.report.wording import in_unit

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
    """Figures under one heading, with one or two sentences on how to read them."""

    title: str
    lead: str
    figures: tuple[Figure, ...]

    @property
    def drawn(self) -> list[Figure]:
        return [figure for figure in self.figures if figure.svg is not None]


_Metric = tuple[str, str, str]
"""Of a chart of lines: its title, the metric, and its unit."""
_Metrics = tuple[str, str, tuple[_Metric, ...]]
"""Of a section: its title, its lead, and its charts."""
_LOSSES: _Metrics = (
    "Losses",
    "The weighted sum is what was minimised; the signals are shown without their weights. A sequence signal starts "
    "at log 2 = 0.693.",
    (
        ("Weighted sum", "loss", ""),
        ("Sequence signal", "loss/sequence", "nats a pair"),
        ("Off-policy token signal", "loss/off_policy", "nats a token"),
        ("On-policy token signal", "loss/on_policy", "nats a token"),
    ),
)
_EVALUATION: _Metrics = (
    "Evaluation during training",
    "On rows that are not trained on: the off-policy signal (cross-entropy for a method without one).",
    (
        ("Loss on the evaluation rows", "eval_loss", "nats a token"),
        ("Bits per byte of their targets", "eval_bits_per_byte", "bits"),
    ),
)
_COLD_START: _Metrics = (
    "Cold start",
    "The stage before the method, trained on the ground truth.",
    (("Loss of the cold start", "loss", "nats a token"),),
)
_ROLLOUTS: _Metrics = (
    "Rollouts",
    "The health of what the student writes. Few ends or a growing length mean that answers are cut off; a wrong "
    "language is counted against the one that was asked for.",
    (
        ("Mean length", "rollout/mean_length", "tokens"),
        ("Ended by themselves", "rollout/eos_rate", "%"),
        ("In a wrong language", "rollout/wrong_language_rate", "%"),
    ),
)
_OPTIMISER: _Metrics = (
    "Optimizer",
    "A gradient norm that jumps or a loss that follows it upwards is worth a look at the learning rate.",
    (("Learning rate", "learning_rate", ""), ("Norm of the gradient", "grad_norm", "")),
)
LEARNING: tuple[_Metric, ...] = (
    ("Loss", "loss", ""),
    ("Fraction of variance unexplained", "fvu", "share"),
    ("Cosine to the teacher", "cosine", ""),
    ("Accuracy in training", "accuracy", "share"),
)
"""What stages of stacks measure, each as far as it has it."""
_method: Callable[[RunFolder], Records] = functools.partial(RunFolder.stage, cold=False)


def sections(groups: Sequence[Group]) -> list[FigureSection]:
    """Every section with charts, in the order of the page."""
    if groups[0].runs[0].is_stack:
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
    groups: Sequence[Group], title: str, key: str, unit: str, stage: Callable[[RunFolder], Records] = _method
) -> Figure:
    series = lines_of(groups, lambda run: in_unit(unit, points(stage(run), key)))
    return Figure(Lines(title, series, y=unit, legend=legend(groups, series)), _averaged(series))


def _averaged(series: Sequence[Series]) -> str:
    """What a long line's points are."""
    longest = max((len(line.points) for line in series), default=0)
    group = math.ceil(longest / MOST_POINTS)
    return f"Each point is the mean of up to {group} steps." if group > 1 else ""


def _agreement(groups: Sequence[Group]) -> FigureSection:
    keys = {overlap_key(_method(run)) or "" for group in groups for run in group.runs}
    series = lines_of(groups, lambda run: points(_method(run), overlap_key(_method(run)) or ""))
    named = sorted(key.removeprefix("overlap@") for key in keys if key)
    title = "Overlap ratio" + (f" of the top {' or '.join(named)}" if named else "")
    overlap = Figure(Lines(title, series, y="share", legend=legend(groups, series)), _averaged(series))
    run = groups[0].runs[0]
    if len(groups) > 1 or len(groups[0].runs) > 1:  # in one chart the dashes would be the seeds'
        pair = (("Entropy of the student", "student_entropy"), ("Entropy of the teacher", "teacher_entropy"))
        entropies = [_lines(groups, title, key, "nats") for title, key in pair]
    else:
        both = []
        for colour, who in enumerate(("student", "teacher")):
            both.append(Series(who, points(_method(run), f"{who}_entropy"), colour, dash=colour))
        entropies = [Figure(Lines("Entropies", both, y="nats"), _averaged(both), own_legend=True)]
    return FigureSection(
        "Student and teacher",
        "Measured where the student wrote. The overlap is the share of the teacher's likeliest tokens that are among "
        "the student's (Figure 5 of the paper); entropies say how sure each of them is.",
        (overlap, *entropies),
    )


def _languages(groups: Sequence[Group]) -> list[FigureSection]:
    """Nothing where no run was measured by language: runs of former versions, and of one language."""
    run = next((run for group in groups for run in group.runs if language_charts(run)), None)
    if run is None:
        return []
    several = len(groups) > 1 or len(groups[0].runs) > 1
    figures = [Figure(chart, own_legend=True) for chart in (*language_charts(run), *teacher_charts(run))]
    lead = (
        "A line is a language: that of the ground truth on the targets, the one that was asked for on rollouts. Shares "
        "are of a signal's weight." + (f" Shown is the run {run.name}." if several else "")
    )
    drawn = tuple(figure for figure in figures if figure.svg is not None)
    return [FigureSection("Languages", lead, drawn)]


def learning(runs: Sequence[RunFolder]) -> list[_Metric]:
    """Of `LEARNING` the loss, and what any of some runs has measured: a stage without labels has no accuracy."""
    return [one for one in LEARNING if one[1] == "loss" or any(points(run.metrics, one[1]) for run in runs)]


def _stack(groups: Sequence[Group]) -> list[FigureSection]:
    learned = _section(
        groups,
        "Learning",
        "The loss of this stage, and how near its vectors come to the teacher's within a batch: a fraction of variance "
        "unexplained of 0 is perfect, of 1 no better than the mean.",
        learning([run for group in groups for run in group.runs]),
    )
    languages = FigureSection(
        "Languages",
        "On parallel text: the stack's vector of a text against the LLM's vector of its English. No label is used.",
        tuple(Figure(chart, own_legend=True) for chart in stack_language_charts(groups[0].runs[0])),
    )
    return [learned, *([languages] if languages.drawn else [])]


def _cost(groups: Sequence[Group]) -> FigureSection:
    bars = Figure(Bars("Time by phase", phase_bars(groups), "seconds a step", PHASES), own_legend=True)
    phases = () if groups[0].runs[0].is_stack else (bars,)  # a step of a stack has none
    return FigureSection(
        "Cost",
        "What the runs took. Seconds a step are means over a run's steps, and over the runs of a method.",
        (
            *phases,
            _lines(groups, "Time of a step", "time/step", "seconds"),
            _lines(groups, "Throughput", "tokens_per_second", "tokens / s"),
            _lines(groups, "Peak memory", "memory/peak", "GiB"),
        ),
    )
