"""What SEA-HELM wrote for one run: a score per language and task, and what is missing."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.evaluation.seahelm.catalogue import Catalogue, SeaHelmTask
from dudi.training.runlog import read_jsonl

NEVER = "SEA-HELM has not written it"


@dataclasses.dataclass(frozen=True, slots=True)
class TaskResult:
    """One task in one language.

    Attributes:
        score: 0 to 100; None: missing, or a task that is scored with others only (`counts`).
        why: Why it is missing; None when it is not.
        counts: By phenomenon, how many of how many were right (pragmatics).
    """

    score: float | None
    why: str | None = None
    counts: Mapping[str, tuple[float, float]] | None = None


Results = Mapping[str, Mapping[str, TaskResult]]
"""By language, then task."""


def read_run(folder: Path, catalogue: Catalogue, chosen: Mapping[str, Sequence[str]]) -> Results:
    """A `TaskResult` for each task that was asked for, by language, of SEA-HELM's `run_N`, which need not be there."""
    # The newest by the time in its name; one that was being written when SEA-HELM was stopped holds nothing.
    files = sorted((folder / "results").glob("*_seahelm_results_*.json"), key=lambda file: file.stem.rpartition("_")[2])
    try:
        content = json.loads(files[-1].read_text(encoding="utf-8")) if files else {}
    except (OSError, ValueError):
        content = {}
    found: dict[str, dict[str, TaskResult]] = {}
    for language, tasks in chosen.items():
        found[language] = {name: _result(content, catalogue.tasks[name], language, folder) for name in tasks}
    return found


def missing(results: Results) -> dict[str, str]:
    """Why each missing task is missing, by `language/task`."""
    found: dict[str, str] = {}
    for language, own in results.items():
        found |= {f"{language}/{name}": one.why for name, one in own.items() if one.why is not None}
    return found


def answer_errors(folder: Path) -> int:
    """Answers of a run that are an error of the server's, and that SEA-HELM has scored as wrong."""
    count = 0
    for file in folder.glob("inferences/*/*/*_batch_response.jsonl"):
        count += sum(record.get("errors") is not None for record in read_jsonl(file))
    return count


def _result(content: Mapping[str, Any], task: SeaHelmTask, language: str, folder: Path) -> TaskResult:
    entry = content.get(language, {}).get(task.competency, {}).get(task.name)
    if not isinstance(entry, Mapping):
        return TaskResult(None, NEVER)
    if "error" in entry:  # written with a score of 0
        return TaskResult(None, _reason(folder, task, language) or str(entry["error"]))
    parts, score = entry.get("subcategories"), entry.get(task.metric)
    if score is None and isinstance(parts, Mapping):
        return TaskResult(None, None, {name: (float(right), float(total)) for name, (right, total) in parts.items()})
    if isinstance(score, int | float) and not math.isnan(score):
        return TaskResult(float(score))
    return TaskResult(None, NEVER if set(entry) <= {"inference_time_taken", "is_cached"} else f"has no {task.metric}")


def _reason(folder: Path, task: SeaHelmTask, language: str) -> str | None:
    """What the newest log says of a task that failed: the first error is the cause, later ones follow from it."""
    logs = sorted((folder / "logs").glob("logfile_*.log"))
    text = logs[-1].read_text(encoding="utf-8", errors="replace") if logs else ""
    failed = rf"Failed to run \w+ for task {re.escape(task.name)} and lang {re.escape(language)}\n"
    found = re.search(rf"{failed}[^\n]*\| ERROR *\|[^\n|]*\| ([^\n]+)", text)
    return found[1].strip() if found else None
