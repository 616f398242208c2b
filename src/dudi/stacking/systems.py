"""Systems on one set of rows: each with the runs of its seeds, every answer kept, in the format of all evaluations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from dudi.comparison.bootstrap import Lead, lead
from dudi.comparison.items import answers_by_run
from dudi.config.yaml_tree import read_yaml
from dudi.errors import ConfigError
from dudi.evaluation.evaluate import Subject, evaluate
from dudi.evaluation.metrics import ACCURACY
from dudi.evaluation.records import (
    ANSWERS,
    FILE,
    STUDENT,
    Evaluation,
    joined,
    keep_evaluations,
    read_evaluations,
)
from dudi.models.load import locate
from dudi.stacking import stored
from dudi.stacking.building import read_config
from dudi.stacking.configuration import MTLLMConfig
from dudi.stacking.generating import MTLLMForCausalLM
from dudi.stacking.labelled import LabelledRows
from dudi.stacking.modeling import MTLLMModel, MTLLMPreTrainedModel, on_device
from dudi.stacking.rows import Task
from dudi.stacking.scores import seconds_per_row
from dudi.stacking.tokens import Source
from dudi.training.runlog import read_jsonl
from dudi.training.values import fit

RECIPE = "resolved.yaml"


@dataclasses.dataclass(frozen=True, slots=True)
class System:
    """What is compared: a way to answer, learned once or with several seeds.

    Attributes:
        name: What tables call it.
        runs: The folders of its runs.
    """

    name: str
    runs: tuple[str, ...]

    def by_seed(self) -> dict[int, str]:
        """Its runs by the seeds that they were trained with.

        Raises:
            ConfigError: two have one seed, or a recipe cannot be read.
        """
        found: dict[int, str] = {}
        for run in self.runs:
            seed = seed_of(run)
            if seed in found:
                raise ConfigError(f"{self.name}: {run} has seed {seed} like another of its runs; name one of them")
            found[seed] = run
        return found

    def task(self) -> Task:
        """What its runs were tuned on, from their configs alone.

        Raises:
            ConfigError: there is no such model, it has no head or writes its answers, or two runs have two tasks.
        """
        tasks = {run: _tuned_on(run) for run in self.runs}
        first, *others = tasks
        for other in others:
            if tasks[other] != tasks[first]:
                raise ConfigError(
                    f"{self.name}: {first} and {other} were tuned on different tasks, and are no seeds of one"
                )
        return tasks[first]


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """A system's scores, and its answers by seed.

    Attributes:
        evaluation: As `evaluation.json` holds it.
        answers: Lines of `answers.jsonl`.
    """

    evaluation: Evaluation
    answers: list[dict[str, Any]]


# ---- asking


def ask(
    system: System, asked: LabelledRows, device: torch.device, codes: Mapping[str, str], about: Mapping[str, Any]
) -> Measured:
    """A system's scores over the seeds of its runs, and all its answers.

    Args:
        system: Whom; each run is loaded when its turn comes.
        asked: What.
        device: Where.
        codes: The tokenizer's code for each code in the rows, over those that a model was trained with.
        about: What is known of the system before.

    Raises:
        ConfigError: as in `stored.open_model`.
        DataError: a language code is unknown.
    """
    found: list[Evaluation] = []
    lines: list[dict[str, Any]] = []
    for seed, run in system.by_seed().items():

        def opened(run: str = run) -> tuple[MTLLMPreTrainedModel, Source]:
            model, source, _ = stored.open_model(run, codes=codes)
            return on_device(model, device), source

        (one,), answers = evaluate([Subject(system.name, run, opened)], [asked], [seed])
        found.append(one)
        lines += answers
    own: dict[str, Any] = {"seconds_per_row": [one.about["seconds_per_row"] for one in found]}
    own["seconds"] = round(sum(one.about["seconds"] for one in found), 1)
    whole = joined(found)
    return Measured(dataclasses.replace(whole, about={**about, **whole.about, **own}), lines)


def _tuned_on(run: str) -> Task:
    kind, config = read_config(stored.model_folder(run))
    if kind is MTLLMModel:
        raise ConfigError(f"{run}: is at the stage '{config.stage}' and has no head; tune it on a task first")
    if kind is MTLLMForCausalLM:
        raise ConfigError(f"{run}: writes its answers; ask it with dudi stack generate")
    return task_of(config)


def task_of(config: MTLLMConfig) -> Task:
    """The task that a model was tuned on."""
    if config.task == "choice":
        return Task("choice", separator=config.separator)
    labels = {int(number): str(label) for number, label in (config.id2label or {}).items()}
    names = tuple(labels[number] for number in sorted(labels))
    if config.task == "generation":
        unnamed = all(name.startswith("LABEL_") for name in names)  # transformers' own, where a task names none
        return Task("generation", () if unnamed else names, config.separator, config.prompt)
    return Task("classification", names, config.separator)


def open_translator(name: str) -> PreTrainedModel:
    """A whole MT model.

    Raises:
        ConfigError: there is none.
    """
    try:
        model: PreTrainedModel = AutoModelForSeq2SeqLM.from_pretrained(locate(name))
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:160]
        raise ConfigError(f"--translate: {name} is no translation model that can be read ({reason})") from error
    return model.eval()


def seed_of(run: str) -> int:
    """The seed that a run was trained with; 0 where its folder does not say.

    Raises:
        ConfigError: its recipe cannot be read, or the seed is no whole number; with file and line.
    """
    folder = stored.model_folder(run)
    recipe = (folder.parent if folder.name == stored.MODEL else folder) / RECIPE
    if not recipe.is_file():
        return 0
    values = read_yaml(recipe).value
    seed = values.get("seed") if isinstance(values, dict) else None
    if seed is None:
        return 0
    try:
        return int(fit(seed.plain(), int, "seed"))
    except ConfigError as error:
        raise ConfigError(f"{recipe}:{seed.line}: {error}") from error


def read_measured(output: Path, benchmark: Mapping[str, Any]) -> list[Measured]:
    """The systems whose answers to these very rows lie in a folder."""
    kept = [one for one in read_evaluations(output / FILE) if one.benchmark == benchmark]
    lines = [line for line in read_jsonl(output / ANSWERS) if line.get("benchmark") == benchmark["name"]]
    by_subject: dict[str, list[dict[str, Any]]] = {one.name: [] for one in kept}
    for line in lines:
        by_subject.setdefault(str(line.get("subject")), []).append(line)
    return [Measured(one, by_subject[one.name]) for one in kept]


def keep_in_runs(system: System, measured: Measured) -> list[Path]:
    """Put each seed's scores and answers into the folder of its run, as a student's are; returns these folders.

    Raises:
        EnvironmentFault: a file cannot be written.
    """
    folders = {seed: Path(run) for seed, run in system.by_seed().items()}
    whole = measured.evaluation
    shared = {key: value for key, value in whole.about.items() if key not in ("runs", "subject", "seconds")}
    spent = dict(zip(folders, seconds_per_row(whole), strict=True))
    for run in whole.runs:
        folder, about = folders[run.seed], shared | {"seconds_per_row": [spent[run.seed]]}
        own = Evaluation(folder.resolve().name, str(folder), whole.benchmark, (run,), about, STUDENT)
        lines = [line | {"subject": STUDENT} for line in measured.answers if line["seed"] == run.seed]
        keep_evaluations([own], lines, folder)
    return list(folders.values())


# ---- leads


def leads(measured: Sequence[Measured], best: str) -> dict[str, Lead]:
    """How far one system is ahead of each other, in accuracy, without the language that was learned in.

    Args:
        measured: All systems on the same rows.
        best: The one whose leads are asked for.

    Returns:
        By system, without `best`; the intervals hold together at 95 %.
    """
    sides = {one.evaluation.name: list(answers_by_run(one.answers, ACCURACY).values()) for one in measured}
    others = [name for name in sides if name != best]
    return {name: lead(sides[best], sides[name], comparisons=len(others)) for name in others}
