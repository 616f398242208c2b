"""From tables to jobs: what several rows share runs once."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from dudi.distill.keys import METHOD_KEYS, method_default
from dudi.distill.recipe import RunConfig, load_run_config
from dudi.errors import ConfigError
from dudi.evaluation.records import evaluations_in
from dudi.files import sha256_of_json
from dudi.study.grid import Study, StudyRow
from dudi.study.identity import files_of, own_settings, weights
from dudi.study.stacks import StackJob, stack_job

FLOPS = "flops"
"""What a job of kind `cost` finds out, in the place of a subject."""
CACHE = "cache"


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One run of a row, or the count of its FLOPs."""

    kind: Literal["run", "cost"]  # `run` trains and asks; `cost` counts
    key: str  # hash of all that the run depends on but the seed
    seed: int
    recipe: str  # the recipe's file
    words: tuple[str, ...]  # `key=value` over the recipe
    # Who is asked: `student`, `cold_start` (alone, no second stage runs), `base`, `teacher`; or `FLOPS`.
    subjects: tuple[str, ...]

    @property
    def id(self) -> str:
        """Its name, and that of its folder, which is a run's folder."""
        return f"{self.kind}-{self.key}/seed-{self.seed}"

    def config(self, *more: str) -> RunConfig:
        """The row's recipe at the job's seed."""
        return _config(self.recipe, (*self.words, f"seed={self.seed}", *more))

    @property
    def like(self) -> str:
        """What jobs that take about as long have in common: the method."""
        return self.config().method

    def commands(self, runs: Path) -> list[str]:
        """The same as a line for a shell, which trains both stages and asks everybody in the run; FLOPs have none."""
        if self.kind == "cost":
            return []
        words = [*self.words, f"seed={self.seed}", f"cache_dir={runs / CACHE}", "--output", str(runs / self.id)]
        return [shlex.join(["dudi", "train", self.recipe, *words])]


AnyJob = Job | StackJob


def job_of(study: Study, row: StudyRow, seed: int) -> AnyJob:
    """What gives a row its score at one seed."""
    if study.asked is not None:
        return stack_job(study, row, seed)
    return _train_job(study, row, seed)


def _train_job(study: Study, row: StudyRow, seed: int) -> Job:
    recipe, words = str(study.recipe_path), row.words
    return Job("run", key_of(recipe, words), seed, recipe, words, (row.score,))


def cost_job(study: Study, row: StudyRow) -> Job:
    """What counts a row's FLOPs."""
    return dataclasses.replace(_train_job(study, row, 0), kind="cost", subjects=(FLOPS,))


def every_job(studies: Iterable[Study], seeds: int | None = None) -> list[AnyJob]:
    """All jobs of some studies, the most important first, each once, in the order in which they should run.

    Of each study at most so many seeds; None: all of them.
    """
    jobs: dict[str, AnyJob] = {}
    for study in studies:
        for job in _in_order(study, study.seeds if seeds is None else min(seeds, study.seeds)):
            known = jobs.get(job.id, job)
            jobs[job.id] = dataclasses.replace(known, subjects=tuple(dict.fromkeys((*known.subjects, *job.subjects))))
    return list(jobs.values())


def _in_order(study: Study, seeds: int) -> Iterator[AnyJob]:
    """The jobs of one study: seed by seed, so that a study that is stopped has something of every row."""
    for seed in range(seeds):
        for row in study.rows:
            job = job_of(study, row, seed)
            # What the first row's student knew before, and its teacher knows, is shown once.
            if isinstance(job, Job) and seed == 0 and row is study.rows[0]:
                teacher = job.config().main_teacher
                taught = () if teacher.model is None or teacher.server is not None else ("teacher",)
                job = dataclasses.replace(job, subjects=(*job.subjects, "base", *taught))
            yield job
    if study.cost:
        yield from (cost_job(study, row) for row in study.rows)


def check_teachers(study: Study) -> None:
    """Refuse rows of students whose method needs a teacher that nobody names, before the first of them runs.

    Raises:
        ConfigError: with the study's file and the row.
    """
    for row in study.rows:
        config = _train_job(study, row, 0).config()
        # Whatever the precision: it is that of the computer on which the row will run.
        args = config.model_copy(update={"dtype": "float32"}).dudi_config("plan")
        try:
            args.require_teacher(bool(config.named_teachers))
        except ConfigError as error:
            raise ConfigError(f"{row.place()}: row '{row.name}': {error}") from error


@functools.cache
def _config(recipe: str, words: tuple[str, ...]) -> RunConfig:
    config = load_run_config(recipe, words)
    config.refuse_untold_code(told=None)  # the words are a file's, too
    return config


@functools.cache
def key_of(recipe: str, words: tuple[str, ...]) -> str:
    """Hash of what a run trains and asks: a key that says its default, or one that a later version adds, changes none.

    Models count with the hash of their weights, rows and questions with that of their files, where they lie on this
    disk: a model made anew is another, and so are rows that were changed since.
    """
    config = _config(recipe, words)
    tree = config.model_dump(exclude={"training", "dtype"}, exclude_defaults=True)
    for part in ("student", "teacher"):
        name = tree.get(part, {}).get("model")
        tree[part] = {**tree.get(part, {}), "weights": None if name is None else weights(str(name))}
    asked = [] if config.benchmark is None else config.benchmark.name
    sources = (config.data.train, config.data.eval, *([asked] if isinstance(asked, str) else asked))
    if own := {source: sums for source in sources if source and (sums := files_of(source))}:
        tree["files"] = own
    for section in tree.get("teachers", {}).values():
        section["weights"] = weights(str(section["model"]))
    values = config.settings | config.dropped  # ids of finished runs name what a base gave in vain
    defaults = {name: method_default(config.method, name) for name in METHOD_KEYS}
    return sha256_of_json([config.method, tree, own_settings(config, values, defaults), config.dtype])[:16]


def missing(jobs: Sequence[AnyJob], runs: Path, known: Collection[tuple[str, str]] = ()) -> list[AnyJob]:
    """The jobs that are still to run, in order, each with those whom it still has to ask.

    `known` are (id, subject) of results that are kept elsewhere than in the folder of the runs.
    """
    left: list[AnyJob] = []
    for job in jobs:
        there = {one.subject or one.name for one in evaluations_in(runs / job.id)}
        subjects = tuple(one for one in job.subjects if one not in there and (job.id, one) not in known)
        left += [dataclasses.replace(job, subjects=subjects)] if subjects else []
    return left
