"""One job of a study, from its recipe to `evaluation.json`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from dudi.study.stack_worker import StackVerbs, clock, train_and_ask
from dudi.study.stacks import StackJob


def run_job(job: AnyJob, runs: Path, *, keep_models: bool = False, verbs: StackVerbs | None = None) -> list[Evaluation]:
    """Do one job and keep what it finds; what it prints goes to `log.txt` in its folder.

    Args:
        job: What to do.
        runs: The study's folder; stages that runs share are cached in it.
        keep_models: Leave the weights; otherwise they are deleted once they have been asked.
        verbs: What runs the stages of a stack; no other job needs it.

    Returns:
        What was found out.
    """
    folder = runs / job.id
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(job, StackJob):
        assert verbs is not None
        with (folder / "log.txt").open("a", encoding="utf-8") as log, _into(log):
            train_and_ask(job, runs, verbs, keep_models=keep_models)
        return list(of_stack(job, runs).values())
    config = job.config("disable_tqdm=true", f"cache_dir={runs / CACHE}")
    loaded = Loaded(config, config.dudi_config(folder))
    with (folder / "log.txt").open("a", encoding="utf-8") as log, _into(log):
        found = _count(job, loaded) if job.kind == "cost" else _train(job, loaded)
    if not keep_models:
        for part in ("checkpoints", "stages", "model"):
            shutil.rmtree(folder / part, ignore_errors=True)
    return found


@contextlib.contextmanager
def _into(log: Any) -> Iterator[None]:
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        quiet_libraries()
        yield


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
