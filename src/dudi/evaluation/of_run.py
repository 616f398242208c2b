"""A finished run is asked: the student, and beside it what it started from and its teacher."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from dudi.data.chat import ChatFormat
from dudi.data.rejections import Rejections
from dudi.distill.loading import Loaded
from dudi.distill.run import read_evaluation
from dudi.distill.stages.cold_start import COLD_START
from dudi.errors import ConfigError
from dudi.evaluation.benchmarks import check_options, choose
from dudi.evaluation.entry import Asked, Wanted
from dudi.evaluation.evaluate import Subject, evaluate
from dudi.evaluation.records import STUDENT, Evaluation, keep_evaluations
from dudi.evaluation.source import trained_of
from dudi.models.load import load_model, move

if TYPE_CHECKING:
    from dudi.distill.arguments import DudiConfig
    from dudi.distill.recipe import RunConfig

TEACHER = "teacher"
REJECTED = "rejected-questions.jsonl"


def evaluate_run(loaded: Loaded, subjects: Collection[str] | None = None) -> list[Evaluation]:
    """Ask a run's models, and keep `evaluation.json` and `answers.jsonl` in its folder.

    Args:
        loaded: The recipe, whose section `benchmark` says what is asked, and what it names; the folder of its arguments
            holds what was trained.
        subjects: Whom, by their roles, as far as the run has them (`base`, `cold_start`, `student`, `teacher`); None:
            everybody, of several teachers each (`teacher_my+ta`).

    Returns:
        An evaluation for each subject and benchmark; none when the recipe has no section `benchmark`.
    """
    config, args = loaded.config, loaded.args
    asked = asked_of(config, args)
    if not asked:
        return []
    for one in asked:
        one.settle(args.folder / REJECTED, config.data.max_rejected_share)
    chosen = [subject for subject in subjects_of(loaded) if subjects is None or subject.role in subjects]
    found, answers = evaluate(chosen, asked, [args.seed])
    if found:
        keep_evaluations(found, answers, args.folder)
    return found


def asked_of(config: RunConfig, args: DudiConfig) -> list[Asked]:
    """What a recipe asks for, in the run's languages; nothing when it has no section `benchmark`.

    Raises:
        ConfigError: an unknown benchmark, task or language, or rows that do not go with what is asked.
        DataError: a file without a good question.
    """
    section = config.benchmark
    if section is None:
        return []
    names = [section.name] if isinstance(section.name, str) else section.name
    if section.tasks and len(names) > 1:
        raise ConfigError(f"benchmark.tasks: of which of {', '.join(names)}? Name one benchmark, or no task")
    trained, options = trained_of(config, args.languages), section.options or {}
    check_options(names, options)
    same = ("languages", "tasks", "part", "per_split", "max_new_tokens", "batch_size")
    given = {key: getattr(section, key) for key in same}
    wanted = Wanted(trained=trained, in_run=True, options=options, **given)
    return [choose(name, wanted) for name in names]


def probe_notes(config: RunConfig, args: DudiConfig, asked: Sequence[Asked]) -> list[str]:
    """A line for each benchmark that a probe would see before it is reported: its questions are rows of `data.eval`.

    Raises:
        DataError: the rows cannot be read.
    """
    rows = read_evaluation(config, args, Rejections()) if args.teacher_weight == "auto" and asked else None
    if rows is None:
        return []
    prompts = Counter(row.prompt[-1]["content"].strip() for row in rows.rows)
    notes = []
    for one in asked:
        shared = sum(prompts[prompt] for prompt in set(map(str.strip, one.prompts())))
        if shared and one.benchmark.get("part") != "validation":
            name = one.benchmark["name"]
            what = f"{shared:,} of {len(rows.rows):,} rows are questions of {name}, which the run reports"
            notes.append(f"data.eval: {what}: a probe that asks them chooses by the test; name other rows")
    return notes


def subjects_of(loaded: Loaded) -> Iterator[Subject[ChatFormat]]:
    """Everybody whom a run has: the base, the cold start where it is a whole model, the student, the teachers."""
    config, folder, about = loaded.config, loaded.args.folder, {"method": loaded.config.method}
    cold_start, final = folder / "stages" / COLD_START / "model", folder / "model"

    def ours(kept: Path | None = None) -> tuple[PreTrainedModel, ChatFormat]:
        model = loaded.read_student() if kept is None else load_model(str(kept), dtype=torch.float32)
        move(model, loaded.args.device)
        return model, loaded.student_format

    yield Subject("base", config.student.model, ours, "base", about)
    if (cold_start / "config.json").is_file():  # with LoRA it is an adapter, and part of what follows
        yield Subject("cold start", str(cold_start), functools.partial(ours, cold_start), COLD_START, about)
    if final.is_dir():
        yield Subject(config.method, str(final), functools.partial(ours, final), STUDENT, about)
    for place, (name, section) in enumerate(config.named_teachers.items()):
        if section.model is not None and section.server is None:  # one that is served is not here to be asked
            own, role = (f" {name}", f"_{name}") if place else ("", "")  # no colon: `dudi compare RUN:SUBJECT`
            load = functools.partial(_teacher, loaded, name)
            yield Subject(f"{TEACHER}{own}", section.model, load, f"{TEACHER}{role}", about)


def _teacher(loaded: Loaded, name: str) -> tuple[PreTrainedModel, ChatFormat]:
    """A teacher and its chat format, by its name among them."""
    local = {key: model for key, model in loaded.teachers.items() if isinstance(model, PreTrainedModel)}
    if loaded.args.teacher_offload == "cpu":  # there may be room for one of them
        for other in local.values():
            move(other, "cpu")
    move(local[name], loaded.args.device)
    return local[name], loaded.teacher_formats[name]
