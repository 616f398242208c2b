"""What the jobs of a study will take, from those that are done, or from what they took where the study was made."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from dudi.study.jobs import RESULT, Job, method_of

SECONDS = {
    "reference": 20.0,
    "cost": 25.0,
    "cold_start": 100.0,
    "sft": 35.0,
    "dft": 35.0,
    "spin": 90.0,
    "sdft": 75.0,
    "seqkd": 70.0,
    "gkd": 75.0,
    "dudi": 140.0,
}
"""Seconds of a job on one core of the machine where `docs/results/study.md` was made, its questions included."""


def expected_seconds(left: Sequence[Job], jobs: Sequence[Job], runs: Path) -> float:
    """Seconds of one core that some jobs will take.

    Args:
        left: The jobs that will run.
        jobs: All of the study; those that are done say how long such a job takes here.
        runs: Where results lie.
    """
    measured: dict[str, list[float]] = {}
    for job in jobs:
        file = runs / job.id / RESULT
        if file.is_file() and job.kind != "cost":
            measured.setdefault(sort_of(job), []).append(_seconds(json.loads(file.read_text(encoding="utf-8"))))
    typical = SECONDS | {name: statistics.median(own) for name, own in measured.items()}
    return sum(typical[sort_of(job)] for job in left)


def sort_of(job: Job) -> str:
    """The key of `SECONDS` that a job falls under."""
    return method_of(job) if job.kind == "method" else job.kind


def _seconds(result: dict[str, dict[str, float]]) -> float:
    return sum(result.get(part, {}).get("wall", 0.0) for part in ("seconds", "asking_seconds"))
