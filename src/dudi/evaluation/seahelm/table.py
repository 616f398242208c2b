"""SEA-HELM scores as a table for a terminal: languages by competencies, mean and deviation over seeds."""

from __future__ import annotations

from io import StringIO

from rich.console import Console
from rich.table import Table

from dudi.evaluation.records import Evaluation
from dudi.evaluation.seahelm.totals import COMPETENCIES, mean_and_std

DASH = "-"
PARTIAL = "*"


def seahelm_table(evaluation: Evaluation, *, width: int = 100) -> str:
    """Languages down, competencies across; a dash is missing, a star stands on fewer tasks than were asked."""
    names = list(evaluation.runs[0].scores["by_competency"]) if evaluation.runs else []
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in names:
        table.add_column(COMPETENCIES.get(name, f"({name})"), justify="right", no_wrap=True)
    table.add_column("total", justify="right", no_wrap=True)
    for code in evaluation.runs[0].scores["by_language_and_competency"]:
        cells = [cell(evaluation, "by_language_and_competency", code, name) for name in names]
        table.add_row(code, *cells, cell(evaluation, "by_language", code))
    over = [cell(evaluation, "by_competency", name) for name in names]
    table.add_row("all", *over, cell(evaluation, "overall"), style="bold")
    console = Console(file=StringIO(), width=width, highlight=False)
    console.print(table)
    text = console.file
    lines = text.getvalue().splitlines() if isinstance(text, StringIO) else []
    return "\n".join([_title(evaluation), *(line.rstrip() for line in lines), *_notes(evaluation)])


def cell(evaluation: Evaluation, *keys: str) -> str:
    """`31.2 ±0.4`, `31.2` of one seed, `31.2*` where tasks are missing, `-` where nothing was measured."""
    mean, deviation = mean_and_std(evaluation.values("score", *keys))
    if mean is None:
        return DASH
    spread = "" if deviation is None else f" ±{deviation:.1f}"
    return f"{mean:.1f}{spread}{PARTIAL if partial(evaluation, *keys) else ''}"


def partial(evaluation: Evaluation, *keys: str) -> bool:
    """Whether a total stands, for any seed, on fewer tasks than were asked."""
    tasks, asked = evaluation.values("tasks", *keys), evaluation.values("asked", *keys)
    return tasks != asked


def _title(evaluation: Evaluation) -> str:
    seeds = len(evaluation.runs)
    return f"SEA-HELM {evaluation.benchmark['version']}: {evaluation.name}, {seeds} seed{'s' if seeds > 1 else ''}"


def _notes(evaluation: Evaluation) -> list[str]:
    """What the reader must know of these numbers."""
    notes = []
    if (limit := evaluation.benchmark.get("limit")) is not None:
        notes.append(f"Only {limit} examples per task: a trial, no result.")
    if lost := evaluation.about.get("missing"):
        tasks = sorted({name for own in lost.values() for name in own})
        more = f" and {len(tasks) - 6} more" if len(tasks) > 6 else ""
        notes.append(f"Missing ({PARTIAL}): {', '.join(tasks[:6])}{more}; the reasons are in evaluation.json.")
    if wrong := sum(evaluation.about.get("answer_errors", {}).values()):
        notes.append(f"{wrong} answers are errors of the server, which SEA-HELM counts as wrong.")
    apart = [name for name in evaluation.runs[0].scores["by_competency"] if name not in evaluation.benchmark["counted"]]
    if apart:
        notes.append(f"Not in the totals: {', '.join(apart)}.")
    return notes
