"""SEA-HELM scores as a table for a terminal: languages by competencies, mean and deviation over seeds."""

from __future__ import annotations

from dudi.errors import first_of
from dudi.evaluation.metrics import METRICS
from dudi.evaluation.records import Evaluation
from dudi.evaluation.seahelm.totals import COMPETENCIES
from dudi.tables import grid_of, terminal

PARTIAL = "*"


def seahelm_table(evaluation: Evaluation, *, width: int = 100) -> str:
    """Languages down, competencies across; a dash is missing, a star stands on fewer tasks than were asked."""
    names, seeds = evaluation.keys("competency"), len(evaluation.runs)
    rows = []
    for code in evaluation.keys("language_and_competency"):
        cells = [cell(evaluation, "by_language_and_competency", code, name) for name in names]
        rows.append((code, [*cells, cell(evaluation, "by_language", code)]))
    over = [cell(evaluation, "by_competency", name) for name in names]
    rows.append(("all", [*over, cell(evaluation, "overall")]))
    table = grid_of([*(COMPETENCIES.get(name, f"({name})") for name in names), "total"], rows)
    title = f"SEA-HELM {evaluation.benchmark['version']}: {evaluation.name}, {seeds} seed{'s' if seeds > 1 else ''}"
    return "\n".join([terminal(table, title=title, width=width), *_notes(evaluation)])


def cell(evaluation: Evaluation, *keys: str) -> str:
    """`31.2 ±0.4`, `31.2` of one seed, `31.2*` where tasks are missing, `-` where nothing was measured."""
    mean, deviation = METRICS["score"].shown(evaluation.values("score", *keys))
    if mean == "-":
        return mean
    partial = evaluation.values("tasks", *keys) != evaluation.values("asked", *keys)
    return f"{mean}{'' if deviation == '-' else f' ±{deviation}'}{PARTIAL if partial else ''}"


def _notes(evaluation: Evaluation) -> list[str]:
    """What the reader must know of these numbers."""
    notes = []
    if (limit := evaluation.benchmark.get("limit")) is not None:
        notes.append(f"Only {limit} examples per task: a trial, no result.")
    if lost := evaluation.about.get("missing"):
        tasks = sorted({name for own in lost.values() for name in own})
        notes.append(f"Missing ({PARTIAL}): {first_of(tasks, 6)}; the reasons are in evaluation.json.")
    if wrong := sum(evaluation.about.get("answer_errors", {}).values()):
        notes.append(f"{wrong} answers are errors of the server, which SEA-HELM counts as wrong.")
    apart = [name for name in evaluation.keys("competency") if name not in evaluation.benchmark["counted"]]
    return [*notes, *([f"Not in the totals: {', '.join(apart)}."] if apart else [])]
