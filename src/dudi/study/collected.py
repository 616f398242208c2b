"""What a study's jobs found: read from the runs, kept in one file that stands in the repository."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.errors import DataError
from dudi.evaluation.records import Evaluation, Run
from dudi.study.grid import Row, Study
from dudi.study.jobs import RESULT, every_job, jobs_of, reference_job

FILE = "study.json"
Results = Mapping[str, Mapping[str, Any]]
"""By job id."""

_KEPT = ("exact_match",)
"""Metrics that are kept for every part of the scores; the overall ones are all kept."""
CURVE_POINTS = 24
"""A curve is kept as the means of this many neighbouring groups of steps."""


def collect(studies: Sequence[Study], runs: Path, file: Path) -> dict[str, dict[str, Any]]:
    """The results of all jobs of some studies, by job id; those of the runs win over those of the file.

    Args:
        studies: The tables.
        runs: The folder that `dudi study run` fills; it need not exist.
        file: `study.json`, as an earlier report left it; it need not exist.
    """
    known = read(file)
    found: dict[str, dict[str, Any]] = {}
    for job in every_job(studies):
        result = runs / job.id / RESULT
        if result.is_file():
            found[job.id] = _shortened(json.loads(result.read_text(encoding="utf-8")))
        elif job.id in known:
            found[job.id] = known[job.id]
    return found


def write(results: Results, file: Path) -> None:
    """Write `study.json`: a line per job, so that a difference shows which. Jobs of other studies stay in it."""
    kept = read(file) | dict(results)
    lines = (f"{json.dumps(name)}: {json.dumps(result, ensure_ascii=False)}" for name, result in kept.items())
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read(file: Path) -> dict[str, dict[str, Any]]:
    """What `study.json` holds; nothing where there is none.

    Raises:
        DataError: it is there and is not a study's results.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: is not a study's results")
    return content


def _shortened(result: dict[str, Any]) -> dict[str, Any]:
    """Without what no table shows: a page of results should be readable in a repository."""
    for part in ("scores", "floor"):
        if part in result:
            scores = result[part]
            result[part] = {"overall": scores["overall"]} | {
                name: _only_kept(own) for name, own in scores.items() if name.startswith("by_")
            }
    result["curves"] = {name: _grouped(values) for name, values in result.get("curves", {}).items()}
    return result


def _only_kept(tree: Mapping[str, Any]) -> dict[str, Any]:
    if "questions" in tree:
        return {name: round(tree[name], 5) for name in _KEPT if tree.get(name) is not None}
    return {name: _only_kept(own) for name, own in tree.items()}


def _grouped(values: Sequence[float | None]) -> list[float | None]:
    """Means of `CURVE_POINTS` groups of neighbours; None where a group has no value."""
    means: list[float | None] = []
    for i in range(min(CURVE_POINTS, len(values))):
        begin, end = (len(values) * j // min(CURVE_POINTS, len(values)) for j in (i, i + 1))
        own = [value for value in values[begin:end] if value is not None]
        means.append(round(sum(own) / len(own), 5) if own else None)
    return means


def result_of(study: Study, row: Row, seed: int, results: Results) -> Mapping[str, Any] | None:
    """The result that holds a row's score at one seed."""
    return results.get(jobs_of(study, row, seed)[-1].id)


def results_of(study: Study, row: Row, results: Results) -> list[tuple[int, Mapping[str, Any]]]:
    """(seed, result) of those that are there."""
    found = ((seed, result_of(study, row, seed, results)) for seed in range(study.seeds))
    return [(seed, result) for seed, result in found if result is not None]


def overall(study: Study, row: Row, results: Results) -> list[float]:
    """A row's scores over the seeds, in percent."""
    return [100 * result["scores"]["overall"]["exact_match"] for _, result in results_of(study, row, results)]


def evaluations(study: Study, results: Results) -> list[Evaluation]:
    """A study's rows as evaluations; a row that was not run has no runs."""
    found = [(row, results_of(study, row, results)) for row in study.rows]
    asked: Mapping[str, Any] = next((own[0][1]["benchmark"] for _, own in found if own), {})
    return [
        Evaluation(row.name, row.name, asked, tuple(Run(seed, result["scores"]) for seed, result in own))
        for row, own in found
    ]


def reference(study: Study, row: Row, which: Any, results: Results) -> Mapping[str, Any] | None:
    """What the row's student knew before, or what its teacher knows; `floor` in it is guessing."""
    return results.get(reference_job(study, row, which).id)


def reference_evaluations(study: Study, results: Results) -> list[Evaluation]:
    """Guessing, the base student and the teacher of a study's first row."""
    row = study.rows[0]
    found = []
    base, teacher = (reference(study, row, which, results) for which in ("student", "teacher"))
    if base is not None:
        found.append(Evaluation("guessing", "", base["benchmark"], (Run(0, base["floor"]),)))
        found.append(Evaluation("base student", "", base["benchmark"], (Run(0, base["scores"]),)))
    if teacher is not None:
        found.append(Evaluation("teacher", "", teacher["benchmark"], (Run(0, teacher["scores"]),)))
    return found
