"""What SEA-HELM wrote for one run: a score per language and task, and what is missing."""

from __future__ import annotations

import dataclasses
import glob
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.evaluation.seahelm.catalogue import Catalogue, Task

NEVER = "SEA-HELM has not written it"


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """One task in one language.

    Attributes:
        score: 0 to 100; None: missing, or a task that is scored with others only (`counts`).
        why: Why it is missing; None when it is not.
        counts: By phenomenon, how many of how many were right (pragmatics).
        errors: Answers that are an error of the server's, and that SEA-HELM has scored as wrong.
    """

    score: float | None
    why: str | None = None
    counts: Mapping[str, tuple[float, float]] | None = None
    errors: int = 0


Results = Mapping[str, Mapping[str, Result]]
"""By language, then task."""


def read_run(folder: Path, catalogue: Catalogue, chosen: Mapping[str, Sequence[str]]) -> Results:
    """The newest results of a run.

    Args:
        folder: SEA-HELM's `run_N`; it need not be there.
        catalogue: The checkout's.
        chosen: The tasks that were asked for, by language.

    Returns:
        One `Result` for each of them.
    """
    content = newest_results(folder)
    return {
        language: {name: _result(content, catalogue.tasks[name], language, folder) for name in tasks}
        for language, tasks in chosen.items()
    }


def newest_results(folder: Path) -> dict[str, Any]:
    """The results file with the newest time in its name; empty where there is none that can be read."""
    files = sorted((folder / "results").glob("*_seahelm_results_*.json"), key=lambda file: file.stem.rpartition("_")[2])
    for file in files[-1:]:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # it was being written when SEA-HELM was stopped
            return {}
        return content if isinstance(content, dict) else {}
    return {}


def missing(results: Results) -> dict[str, str]:
    """Why each missing task is missing, by `language/task`."""
    return {
        f"{language}/{name}": result.why
        for language, tasks in results.items()
        for name, result in tasks.items()
        if result.why is not None
    }


def untouched(results: Results) -> bool:
    """Whether SEA-HELM left before it had something to say of every task."""
    return any(result.why == NEVER for tasks in results.values() for result in tasks.values())


def _result(content: Mapping[str, Any], task: Task, language: str, folder: Path) -> Result:
    entry = content.get(language, {}).get(task.competency, {}).get(task.name)
    if not isinstance(entry, Mapping):
        return Result(None, NEVER)
    if "error" in entry:  # written with a score of 0
        return Result(None, _reason(folder, task, language) or str(entry["error"]))
    counts, score = _counts(entry), entry.get(task.metric)
    errors = _answer_errors(folder, task, language)
    if counts is not None and score is None:
        return Result(None, None, counts, errors)
    if not isinstance(score, int | float) or math.isnan(score):
        return Result(None, NEVER if set(entry) <= {"inference_time_taken", "is_cached"} else f"has no {task.metric}")
    return Result(float(score), None, None, errors)


def _reason(folder: Path, task: Task, language: str) -> str | None:
    """What the newest log says of a task that failed: the first error is the cause, later ones follow from it."""
    logs = sorted((folder / "logs").glob("logfile_*.log"))
    text = logs[-1].read_text(encoding="utf-8", errors="replace") if logs else ""
    failed = rf"Failed to run \w+ for task {re.escape(task.name)} and lang {re.escape(language)}\n"
    found = re.search(rf"{failed}[^\n]*\| ERROR *\|[^\n|]*\| ([^\n]+)", text)
    return found[1].strip() if found else None


def _counts(entry: Mapping[str, Any]) -> dict[str, tuple[float, float]] | None:
    parts = entry.get("subcategories")
    if not isinstance(parts, Mapping) or not all(isinstance(pair, list) and len(pair) == 2 for pair in parts.values()):
        return None
    return {name: (float(right), float(total)) for name, (right, total) in parts.items()}


def _answer_errors(folder: Path, task: Task, language: str) -> int:
    """Answers in the raw responses that carry an error in place of text."""
    place, model = folder / "inferences" / language / (task.group or task.name), folder.parent.name
    files = place.glob(f"{glob.escape(model)}_{task.name}_{language}_turn*_batch_response.jsonl")
    return sum(_is_error(line) for file in files for line in file.read_text(encoding="utf-8").splitlines())


def _is_error(line: str) -> bool:
    try:
        return json.loads(line).get("errors") is not None
    except ValueError:
        return False
