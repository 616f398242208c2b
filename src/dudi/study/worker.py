"""One job of a study, from its recipe to `evaluation.json`: a run, a count of FLOPs, or a row of stacks."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from dudi.command import say
from dudi.distill.loading import Loaded
from dudi.distill.run import make_trainer, read_rows, train
from dudi.distill.stages.cold_start import COLD_START
from dudi.environment import package_version, quiet_libraries
from dudi.evaluation.of_run import evaluate_run
from dudi.evaluation.records import STUDENT, Evaluation, SeedScores, keep_evaluations
from dudi.files import write_json
from dudi.study.counting import counted_flops
from dudi.study.jobs import CACHE, FLOPS, AnyJob, Job
from dudi.study.results import SECONDS_FILE, of_stack
from dudi.study.stacks import StackJob, StackVerbs


def run_job(job: AnyJob, runs: Path, *, keep_models: bool = False, verbs: StackVerbs | None = None) -> list[Evaluation]:
    """Do one job and keep what it finds; what it prints goes to `log.txt` in its folder.

    Stages that runs share are cached in the study's folder. Weights are deleted once they have been asked, unless
    `keep_models` says otherwise. The verbs run the stages of a stack; no other job needs them.
    """
    folder = runs / job.id
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as until:
        log = until.enter_context((folder / "log.txt").open("a", encoding="utf-8"))
        until.enter_context(contextlib.redirect_stdout(log))
        until.enter_context(contextlib.redirect_stderr(log))
        quiet_libraries()
        if isinstance(job, StackJob):
            assert verbs is not None
            train_and_ask(job, runs, verbs, keep_models=keep_models)
            return list(of_stack(job, runs).values())
        config = job.config("disable_tqdm=true", f"cache_dir={runs / CACHE}")
        loaded = Loaded(config, config.dudi_config(folder))
        found = _count(job, loaded) if job.kind == "cost" else _train(job, loaded)
    if not keep_models:
        for part in ("checkpoints", "stages", "model"):
            shutil.rmtree(folder / part, ignore_errors=True)
    return found


def _train(job: Job, loaded: Loaded) -> list[Evaluation]:
    """As `dudi train` does, as far as those go who are asked; with clocks, and without a report."""
    seconds: dict[str, Any] = {}
    if {COLD_START, STUDENT} & {*job.subjects}:
        with clock() as seconds[COLD_START]:  # alone, and reading the models: the other clock is the method's own
            _start(loaded)
    if STUDENT in job.subjects:
        with clock() as seconds[STUDENT]:
            train(loaded)
    write_json(loaded.args.folder / SECONDS_FILE, seconds)
    return evaluate_run(loaded, job.subjects)


def _start(loaded: Loaded) -> None:
    """Train the cold start, or take it from another run that has."""
    make_trainer(loaded, *read_rows(loaded.config, loaded.args)).run_cold_start()


def _count(job: Job, loaded: Loaded) -> list[Evaluation]:
    """FLOPs of the cold start and of the method, by stage."""
    config, scores = loaded.config, {}
    if config.settings["cold_start"] != "none":
        scores[COLD_START] = counted_flops(loaded, cold_start=True)
    _start(loaded)  # so that its FLOPs are in nobody else's
    scores[STUDENT] = counted_flops(loaded, cold_start=False)
    about = {"job": job.id, "versions": {name: package_version(name) for name in ("torch", "transformers")}}
    found = Evaluation(
        config.method, config.student.model, {"name": FLOPS}, (SeedScores(job.seed, scores),), about, FLOPS
    )
    keep_evaluations([found], [], loaded.args.folder)
    return [found]


def train_and_ask(job: StackJob, runs: Path, verbs: StackVerbs, *, keep_models: bool) -> None:
    """Train what is missing of a row's stages, each by whoever comes first, and ask the last one.

    `evaluation.json` lies in the job's folder then. `keep_models` leaves the checkpoints of stages too; their models
    stay anyhow: rows share them.

    Raises:
        DudiError: as the verb raises it.
    """
    for stage in job.stages:
        folder = runs / stage.id
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the stage's folder, which a run that is begun anew moves away. Waits for the row that trains it.
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if stage.is_trained(runs):
                continue
            command = stage.command(runs)
            say(shlex.join(["dudi", "stack", *command]))
            with clock() as spent:
                verbs(command)
            write_json(folder / SECONDS_FILE, spent)
            if not keep_models:
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    verbs(job.asking(runs))


@contextlib.contextmanager
def clock() -> Iterator[dict[str, float]]:
    """Wall time, and processor time: the second hardly changes when other jobs run beside. Known at the end."""
    spent: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield spent
    spent |= {"wall": round(time.perf_counter() - wall, 2), "cpu": round(time.process_time() - cpu, 2)}
