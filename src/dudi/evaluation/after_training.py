"""The benchmark at the end of a run: the student, and beside it what it started from and its teacher."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from dudi.data.chat import ChatFormat, borrow_template, chat_format, template_kwargs
from dudi.data.cldr.benchmark import NAME, TASKS, Question, check_tasks, questions
from dudi.errors import ConfigError
from dudi.evaluation.bar import progress_bar
from dudi.evaluation.benchmark import Answered, ask, described
from dudi.evaluation.summary import summarise
from dudi.models.load import load_model, load_tokenizer, move
from dudi.training import checkpoints

if TYPE_CHECKING:
    from dudi.distill.arguments import DudiConfig
    from dudi.distill.recipe import RunConfig

RESULT, ANSWERS = "benchmark.json", "answers.jsonl"


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """One of those who answer.

    Attributes:
        name: `base`, `cold_start`, `student` or `teacher`.
        load: Brings its model and its chat format.
    """

    name: str
    load: Callable[[], tuple[PreTrainedModel, ChatFormat]]


def evaluate_run(config: RunConfig, args: DudiConfig, folder: Path) -> dict[str, Any]:
    """Ask everybody in a finished run, and write `benchmark.json` and `answers.jsonl` into its folder.

    Args:
        config: The recipe; its section `benchmark` says what is asked.
        args: Its training arguments.
        folder: The run's folder, with the final model in it.

    Returns:
        What `benchmark.json` holds: how it was asked, and the scores by subject.
    """
    section = config.benchmark
    if section is None:
        return {}
    asked = asked_questions(config, args.languages)
    subjects = list(_subjects(config, args, folder))
    answered: list[Answered] = []
    with progress_bar(len(asked) * len(subjects)) as bar:
        task = bar.add_task("", total=len(asked) * len(subjects))
        for subject in subjects:
            words = f"asking: {subject.name.replace('_', ' ')}"
            bar.update(task, description=words)
            if bar.disable:
                sys.stderr.write(f"{words}, {len(asked)} questions\n")
            model, chat = subject.load()
            answered += ask(
                subject.name,
                model,
                chat,
                asked,
                max_new_tokens=section.max_new_tokens,
                batch_size=section.batch_size,
                done=lambda count: bar.advance(task, count),
            )
    result = {
        "benchmark": described(asked, part=section.part, max_new_tokens=section.max_new_tokens),
        "method": config.method,
        "scores": summarise(answered),
    }
    lines = (json.dumps(dataclasses.asdict(one), ensure_ascii=False) for one in answered)
    (folder / ANSWERS).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    checkpoints.write_json(folder / RESULT, result)
    return result


def asked_questions(config: RunConfig, languages: list[str]) -> list[Question]:
    """The questions that a recipe asks for, in the run's languages; none when it has no section `benchmark`.

    Raises:
        ConfigError: unknown tasks or languages, or rows that are not all of the benchmark's: `seen` and `transfer`
            would say what is not so.
    """
    section, data = config.benchmark, config.data
    if section is None:
        return []
    if data.train != NAME or data.max_rows is not None:
        raise ConfigError(
            f"benchmark: its splits say what was trained from {NAME}, and data.train is {data.train}"
            f"{'' if data.max_rows is None else ' with max_rows'}; set benchmark=null"
        )
    trained = list(TASKS) if data.tasks is None else data.tasks
    tasks = section.tasks or trained
    check_tasks(tasks)
    if other := [task for task in tasks if task not in (*trained, "names")]:  # names: the base student has read them
        raise ConfigError(f"benchmark.tasks: {', '.join(other)} would be asked and not trained; add to data.tasks")
    return questions(languages, tasks, part=section.part, per_split=section.per_split)


def _subjects(config: RunConfig, args: DudiConfig, folder: Path) -> Iterator[Subject]:
    from dudi.distill.loading import model_of, tokenizer_of
    from dudi.training.arguments import training_dtype

    cold_start = folder / "stages" / "cold_start" / "model"
    kwargs = template_kwargs(args.chat_template_kwargs, "student")

    def ours(model: PreTrainedModel) -> tuple[PreTrainedModel, ChatFormat]:
        move(model, args.device)
        return model, chat_format(load_tokenizer(str(folder / "model")), kwargs, config.student.model)

    def from_folder(place: Path) -> Callable[[], tuple[PreTrainedModel, ChatFormat]]:
        return lambda: ours(load_model(str(place), dtype=torch.float32))

    def teacher() -> tuple[PreTrainedModel, ChatFormat]:
        tokenizer = tokenizer_of(config.teacher, "teacher")
        borrow_template(tokenizer, load_tokenizer(str(folder / "model")))
        model = model_of(config.teacher, training_dtype(args))
        move(model, args.device)
        own = template_kwargs(args.chat_template_kwargs, "teacher")
        return model, chat_format(tokenizer, own, str(config.teacher.model))

    yield Subject("base", lambda: ours(model_of(config.student, "float32")))
    if (cold_start / "config.json").is_file():  # with LoRA it is an adapter, and part of what follows
        yield Subject("cold_start", from_folder(cold_start))
    yield Subject("student", from_folder(folder / "model"))
    if config.teacher.model is not None:
        yield Subject("teacher", teacher)
