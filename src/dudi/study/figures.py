"""The study's figures as SVG files: curves over the steps, and score against size."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from dudi.evaluation.records import Evaluation
from dudi.report.plots import Series, line_chart, save, score_against_size
from dudi.study.grid import Study
from dudi.study.results import Results, overall, results_of

TITLES = {
    "overlap@16": "Overlap ratio of student and teacher, top 16",
    "student_entropy": "Entropy of the student",
    "teacher_entropy": "Entropy of the teacher",
}
SIZE = "score-against-size"


def write_figures(studies: Sequence[Study], results: Results, folder: Path) -> list[Path]:
    """Write what can be drawn into a folder; returns the files."""
    files = []
    for study in studies:
        for metric in study.curves:
            if lines := curves(study, metric, results):
                svg = line_chart(lines, title=TITLES.get(metric, metric), y="share" if "overlap" in metric else "nats")
                files.append(save(svg, folder / f"{curve_name(study, metric)}.svg"))
    if lines := sizes([study for study in studies if study.size], results):
        svg = score_against_size(lines, title="Exact match against the student's size", y="%")
        files.append(save(svg, folder / f"{SIZE}.svg"))
    return files


def curve_name(study: Study, metric: str) -> str:
    """The file of a study's curve, without a suffix."""
    return f"{study.name}-{metric.replace('@', '-').replace('/', '-')}"


def curves(study: Study, metric: str, results: Results) -> list[Series]:
    """A line for each row that has the metric: the mean over its seeds."""
    found: list[Series] = []
    for row in study.rows:
        runs = [one for one in results_of(study, row, results) if metric in one.about["curves"]]
        if runs:
            found.append(Series(row.name, _mean_curve(runs, metric, row.score), colour=len(found)))
    return found


def _mean_curve(runs: Sequence[Evaluation], metric: str, stage: str) -> list[tuple[float, float]]:
    """Points (optimizer step, mean over the runs), at the middle of each group of steps."""
    own = [run.about["curves"][metric] for run in runs]
    points, width = [], runs[0].about["steps"][stage] / len(own[0])
    for place, column in enumerate(zip(*own, strict=True)):
        if values := [value for value in column if value is not None]:
            points.append(((place + 0.5) * width, statistics.fmean(values)))
    return points


def sizes(studies: Sequence[Study], results: Results) -> list[Series]:
    """The paper's Figure 1: a line for each method over the sizes of its students, +- std over seeds."""
    points: dict[str, list[tuple[float, float, float]]] = {}
    for study in studies:
        for row in study.rows:
            values, runs = overall(study, row, results), results_of(study, row, results)
            if len(values) > 1 and "parameters" in runs[0].about:
                point = (float(runs[0].about["parameters"]), statistics.fmean(values), statistics.stdev(values))
                points.setdefault(row.name, []).append(point)
    found: list[Series] = []
    for name, own in points.items():
        if len(own) > 1:
            x, y, spread = zip(*sorted(own), strict=True)
            found.append(Series(name, list(zip(x, y, strict=True)), colour=len(found), spread=list(spread)))
    return found
