"""From tables to jobs: what several rows share runs once, and what a job waits for comes before it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from dudi.distill.keys import METHOD_KEYS, METHOD_STAGE_KEYS, method_default
from dudi.distill.recipe import RunConfig, load_run_config, training_keys
from dudi.files import sha256_of
from dudi.models.load import locate
from dudi.study.grid import Row, Study

RESULT = "result.json"
Kind = Literal["reference", "cold_start", "method", "cost"]


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One thing to do.

    Attributes:
        kind: `reference` asks a model as it is; `cold_start` and `method` train and ask; `cost` counts FLOPs.
        key: Hash of all that the result depends on but the seed.
        seed: The run's seed.
        recipe: The recipe's file.
        words: `key=value` over the recipe.
        needs: Jobs (by `id`) that come before.
        model: For `reference`: `student` or `teacher` of the recipe.
    """

    kind: Kind
    key: str
    seed: int
    recipe: str
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    model: Literal["student", "teacher"] = "student"

    @property
    def id(self) -> str:
        """Its name, and that of its folder."""
        return f"{self.kind}-{self.key}/seed-{self.seed}"


def jobs_of(study: Study, row: Row, seed: int) -> list[Job]:
    """What gives one row its score at one seed, in order; the last one holds the score."""
    recipe, words = str(study.recipe_path), row.words
    start, key = _identities(recipe, words)
    jobs = []
    if start is not None:
        jobs.append(Job("cold_start", start, seed, recipe, words))
    if row.score == "student":
        jobs.append(Job("method", key, seed, recipe, words, tuple(job.id for job in jobs)))
    return jobs


def every_job(studies: Iterable[Study], seeds: int | None = None) -> list[Job]:
    """All jobs of some studies, each once, in the order in which they should run.

    Args:
        studies: The tables, the most important first.
        seeds: At most this many of each; what the study says when None.
    """
    jobs: dict[str, Job] = {}
    for study in studies:
        for job in _in_order(study, study.seeds if seeds is None else min(seeds, study.seeds)):
            jobs.setdefault(job.id, job)
    return list(jobs.values())


def _in_order(study: Study, seeds: int) -> Iterator[Job]:
    """The jobs of one study: seed by seed, so that a study that is stopped has something of every row."""
    for row in study.rows:
        yield reference_job(study, row, "student")
        yield reference_job(study, row, "teacher")
    for seed in range(seeds):
        for row in study.rows:
            yield from jobs_of(study, row, seed)
    if study.cost:
        yield from (cost_job(study, row) for row in study.rows)


def cost_job(study: Study, row: Row) -> Job:
    """The job that counts a row's FLOPs, after a run of it."""
    return cost_of(jobs_of(study, row, 0)[-1])


def cost_of(job: Job) -> Job:
    """The job that counts the FLOPs of another."""
    return dataclasses.replace(job, kind="cost", key=f"{job.kind}-{job.key}", needs=(job.id,))


def reference_job(study: Study, row: Row, model: Literal["student", "teacher"]) -> Job:
    """The job that asks the row's student before any training, or its teacher."""
    recipe, words = str(study.recipe_path), row.words
    config = _config(recipe, words)
    section = config.student if model == "student" else config.teacher
    asked = None if config.benchmark is None else config.benchmark.model_dump(exclude_defaults=True)
    key = _hash([_with_weights(section.model_dump(exclude_defaults=True)), asked, config.settings["languages"]])
    return Job("reference", key, 0, recipe, words, model=model)


@functools.cache
def _config(recipe: str, words: tuple[str, ...]) -> RunConfig:
    config = load_run_config(recipe, words)
    config.refuse_untold_code(told=None)  # the words are a file's, too
    return config


@functools.cache
def _identities(recipe: str, words: tuple[str, ...]) -> tuple[str | None, str]:
    """Keys of the cold start (None without one) and of the method."""
    config = _config(recipe, words)
    tree = config.model_dump(exclude={"training", "dtype"}, exclude_defaults=True)
    tree |= {"student": _with_weights(tree["student"]), "teacher": _with_weights(tree.get("teacher", {}))}
    own = _own_settings(config)
    start = None
    if config.settings["cold_start"] != "none":
        start = _hash(_cold_start_part(config, tree, own))
    return start, _hash([config.method, tree, own, config.dtype])


def _own_settings(config: RunConfig) -> dict[str, Any]:
    """What differs from the method's defaults: a key that a later version adds leaves finished runs what they are."""
    own = {}
    for key in training_keys().values():
        default = method_default(config.method, key.name) if key.name in METHOD_KEYS else key.default
        value = config.dropped.get(key.name, config.value(key))  # ids of finished runs name what a base gave in vain
        if key.name != "seed" and key.rule.resume != "free" and value != default:
            own[key.name] = value
    return own


def _cold_start_part(config: RunConfig, tree: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """What a cold start depends on: neither the method nor what only a method reads (as `stages.cold_start_key`)."""
    settings = config.settings
    written = settings["cold_start"] == "teacher_sft"
    unread = METHOD_STAGE_KEYS | METHOD_KEYS | {"method", "without"}
    unread |= set() if settings["cold_start_epochs"] is None else {"num_train_epochs"}
    read = {"temperature", "max_new_tokens"} if written else set()
    parts = ["student", "data", "lora", "benchmark", *(["teacher"] if written else [])]
    return {
        "kind": settings["cold_start"],
        "dtype": config.dtype,
        "tree": {part: tree.get(part) for part in parts},
        "own": {name: value for name, value in own.items() if name not in unread - read}
        | {"learning_rate": settings["cold_start_learning_rate"] or settings["learning_rate"]},
    }


def _with_weights(section: dict[str, Any]) -> dict[str, Any]:
    """A model's section with the hash of its weights, where they lie on this disk: a model made anew is another."""
    name = section.get("model")
    return section | {"weights": None if name is None else _weights(str(name))}


@functools.cache
def _weights(name: str) -> str | None:
    folder = Path(locate(name))
    if not folder.is_dir():
        return None
    return "\n".join(sha256_of(file) for file in sorted(folder.glob("*.safetensors")))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def finished(job: Job, runs: Path) -> bool:
    """Whether its result is there."""
    return (runs / job.id / RESULT).is_file()


def missing(jobs: Sequence[Job], runs: Path, known: Collection[str]) -> list[Job]:
    """The jobs that are still to run, in order.

    Args:
        jobs: Those that are asked for, each behind what it needs.
        runs: Where results lie.
        known: Ids of jobs whose results are kept elsewhere. Their weights are not, so that a known job runs again when
            one that is missing starts from it.
    """
    open_jobs = [job for job in jobs if not finished(job, runs)]
    needed = {need for job in open_jobs if job.id not in known for need in job.needs}
    return [job for job in open_jobs if job.id not in known or job.id in needed]


def method_of(job: Job) -> str:
    """The method that a job trains."""
    return _config(job.recipe, job.words).method
