"""Systems on one set of rows: each with the runs of its seeds, every answer kept, in the format of all evaluations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from dudi.config.yaml_tree import read_yaml
from dudi.errors import ConfigError
from dudi.evaluation.evaluate import Subject, evaluate
from dudi.evaluation.records import ANSWERS, FILE, STUDENT, Evaluation, joined, keep_evaluations, read_evaluations
from dudi.models.load import locate
from dudi.stacking import stored
from dudi.stacking.building import read_config
from dudi.stacking.configuration import MTLLMConfig
from dudi.stacking.generating import MTLLMForCausalLM
from dudi.stacking.labelled import LabelledRows
from dudi.stacking.modeling import MTLLMModel, MTLLMPreTrainedModel, on_device
from dudi.stacking.rows import Task
from dudi.stacking.tasks import labels_of
from dudi.stacking.tokens import Source
from dudi.training.runlog import read_jsonl
from dudi.training.values import fit

RECIPE = "resolved.yaml"


@dataclasses.dataclass(frozen=True, slots=True)
class System:
    """What is compared: a way to answer, learned once or with several seeds, each a run with a folder."""

    name: str
    runs: tuple[str, ...]

    def by_seed(self) -> dict[int, str]:
        """Its runs by the seeds that they were trained with; a ConfigError where two have one."""
        found: dict[int, str] = {}
        for run in self.runs:
            seed = seed_of(run)
            if seed in found:
                raise ConfigError(f"{self.name}: {run} has seed {seed} like another of its runs; name one of them")
            found[seed] = run
        return found

    def task(self) -> Task:
        """What its runs were tuned on, from their configs alone; a ConfigError where that is not one task."""
        first, *others = self.runs
        task = _tuned_on(first)
        for other in others:
            if _tuned_on(other) != task:
                tuned = f"{first} and {other} were tuned on different tasks"
                raise ConfigError(f"{self.name}: {tuned}, and are no seeds of one")
        return task


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """A system's scores as `evaluation.json` holds them, and its answers over all seeds, lines of `answers.jsonl`."""

    evaluation: Evaluation
    answers: list[dict[str, Any]]


# ---- asking


def ask(
    system: System, asked: LabelledRows, device: torch.device, codes: Mapping[str, str], about: Mapping[str, Any]
) -> Measured:
    """A system's scores over the seeds of its runs, each of which is loaded when its turn comes, and all its answers.

    Language codes are as of `stored.open_model`; `about` is what is known of the system before.
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
    if config.task == "generation":
        return Task("generation", labels_of(config), config.separator, config.prompt)
    return Task("classification", labels_of(config, unnamed=True), config.separator)


def open_translator(name: str) -> PreTrainedModel:
    """A whole MT model."""
    try:
        model: PreTrainedModel = AutoModelForSeq2SeqLM.from_pretrained(locate(name))
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:160]
        raise ConfigError(f"--translate: {name} is no translation model that can be read ({reason})") from error
    return model.eval()


def seed_of(run: str) -> int:
    """The seed that a run was trained with; 0 where its folder does not say. A ConfigError where it is no number."""
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
    """Put each seed's scores and answers into the folder of its run, as a student's are; returns these folders."""
    folders = {seed: Path(run) for seed, run in system.by_seed().items()}
    whole = measured.evaluation
    shared = {key: value for key, value in whole.about.items() if key not in ("runs", "subject", "seconds")}
    spent = dict(zip(folders, whole.about["seconds_per_row"], strict=True))
    for run in whole.runs:
        folder, about = folders[run.seed], shared | {"seconds_per_row": [spent[run.seed]]}
        own = Evaluation(folder.resolve().name, str(folder), whole.benchmark, (run,), about, STUDENT)
        lines = [line | {"subject": STUDENT} for line in measured.answers if line["seed"] == run.seed]
        keep_evaluations([own], lines, folder)
    return list(folders.values())
