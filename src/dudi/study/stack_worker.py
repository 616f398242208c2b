"""One row of stacks at one seed: its stages, each trained by whoever comes first, and then its answers."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from dudi.command import say
from dudi.files import write_json
from dudi.study.results import SECONDS_FILE
from dudi.study.stacks import StackJob, Stage

StackVerbs = Callable[[list[str]], int]
"""Runs the words that follow `dudi stack`. The verbs stand above this package, and are handed down."""


def train_and_ask(job: StackJob, runs: Path, verbs: StackVerbs, *, keep_models: bool) -> None:
    """Train what is missing of a row's stages, and ask the last one; `evaluation.json` lies in the job's folder then.

    Args:
        job: The row.
        runs: The study's folder.
        verbs: What runs a stage.
        keep_models: Leave the checkpoints of stages too. Their models stay: rows share them.

    Raises:
        DudiError: as the verb raises it.
    """
    for stage in job.stages:
        with FileLock(_lock_of(stage, runs)):  # waits for the row that trains it
            if not stage.is_trained(runs):
                _train(stage, runs, verbs)
                if not keep_models:
                    shutil.rmtree(runs / stage.id / "checkpoints", ignore_errors=True)
    verbs(job.asking(runs))


@contextlib.contextmanager
def clock() -> Iterator[dict[str, float]]:
    """Wall time, and processor time: the second hardly changes when other jobs run beside. Known at the end."""
    spent: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield spent
    spent |= {"wall": round(time.perf_counter() - wall, 2), "cpu": round(time.process_time() - cpu, 2)}


def _lock_of(stage: Stage, runs: Path) -> Path:
    """Beside the stage's folder: a run that is begun anew moves its folder away."""
    file = runs / f"{stage.id}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _train(stage: Stage, runs: Path, verbs: StackVerbs) -> None:
    command = stage.command(runs)
    say(shlex.join(["dudi", "stack", *command]))
    with clock() as spent:
        verbs(command)
    write_json(runs / stage.id / SECONDS_FILE, spent)
