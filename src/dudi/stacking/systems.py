"""Systems on one set of rows: each with the runs of its seeds, every answer kept, in the format of all evaluations."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from dudi.comparison.bootstrap import Lead, lead
from dudi.comparison.items import answers_by_run
from dudi.config.yaml_tree import read_yaml
from dudi.errors import ConfigError
from dudi.evaluation.metrics import OVERALL
from dudi.evaluation.records import ANSWERS, FILE, Evaluation, keep_evaluations, read_evaluations
from dudi.models.load import locate
from dudi.stacking import stored
from dudi.stacking.codes import find_language
from dudi.stacking.configuration import MTLLMConfig
from dudi.stacking.evaluation import Evaluation as Answers
from dudi.stacking.evaluation import evaluate, judged
from dudi.stacking.generating import MTLLMForCausalLM
from dudi.stacking.modeling import MTLLMModel, MTLLMPreTrainedModel, on_device
from dudi.stacking.rows import StackRow, Task, fingerprint
from dudi.stacking.tokens import Source
from dudi.training.runlog import read_jsonl
from dudi.training.values import fit

LENGTH = 256
"""Tokens of a row that are read where the model does not say what it was trained with."""
ACCURACY, MACRO_F1 = "accuracy", "macro_f1"


@dataclasses.dataclass(frozen=True, slots=True)
class System:
    """What is compared: a way to answer, learned once or with several seeds.

    Attributes:
        name: What tables call it.
        runs: The folders of its runs.
    """

    name: str
    runs: tuple[str, ...]


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


def open_tuned(name: str, device: torch.device, codes: Mapping[str, str]) -> tuple[MTLLMPreTrainedModel, Source, Task]:
    """A model with a head, the source that it reads from, and its task.

    Raises:
        ConfigError: there is no such model, or it has no head.
    """
    model, source, _ = stored.open_model(name, codes=codes)
    if isinstance(model, MTLLMModel):
        stage = model.config.stage
        raise ConfigError(f"{name}: is at the stage '{stage}' and has no head; tune it on a task first")
    if isinstance(model, MTLLMForCausalLM):
        raise ConfigError(f"{name}: writes its answers; ask it with dudi stack generate")
    return on_device(model, device), source, task_of(model.config)


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
    recipe = (folder.parent if folder.name == stored.MODEL else folder) / "resolved.yaml"
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


def answers_of(
    model: MTLLMPreTrainedModel,
    source: Source,
    rows: Sequence[StackRow],
    read: Sequence[StackRow],
    *,
    batch_size: int,
    max_length: int,
) -> Answers:
    """The answers to rows that are read as they are, or in translation; judged in the rows' own languages."""
    found = evaluate(model, source, read, batch_size=batch_size, max_length=max_length)
    if all(one is two for one, two in zip(rows, read, strict=True)):
        return found
    return dataclasses.replace(found, per_language=judged(rows, found.predictions, 0.0).per_language)


# ---- scores


def scores_of(per_language: Mapping[str, Mapping[str, float]], source_language: str) -> dict[str, Any]:
    """Scores in the form of all evaluations.

    `overall` is the mean over the languages without the one that was learned in: transfer is what is measured. Where
    that is the only one it is its score.

    Args:
        per_language: `n`, `accuracy` and `macro_f1` of each language.
        source_language: What was learned in.
    """
    by_language = {
        code: {ACCURACY: found[ACCURACY], MACRO_F1: found[MACRO_F1], "questions": int(found["n"])}
        for code, found in per_language.items()
    }
    others = transferred(by_language, source_language)
    overall: dict[str, Any] = {
        metric: statistics.fmean(by_language[code][metric] for code in others) for metric in (ACCURACY, MACRO_F1)
    }
    overall["questions"] = sum(by_language[code]["questions"] for code in others)
    return {OVERALL: overall, "by_language": by_language}


def by_split(rows: Sequence[StackRow], predictions: Sequence[int], source_language: str) -> dict[str, Any]:
    """`by_split` of the scores: of each part of the rows the mean over languages, as `overall`; empty without parts.

    Args:
        rows: Labelled rows.
        predictions: The answers to them.
        source_language: What was learned in.
    """
    found = {}
    for split in dict.fromkeys(row.split for row in rows if row.split is not None):
        own = [(row, answer) for row, answer in zip(rows, predictions, strict=True) if row.split == split]
        chosen, answers = [row for row, _ in own], [answer for _, answer in own]
        found[split] = scores_of(judged(chosen, answers, 0.0).per_language, source_language)[OVERALL]
    return {"by_split": found} if found else {}


def transferred(codes: Iterable[str], source_language: str) -> list[str]:
    """The languages that count overall: all but the one that was learned in; that one where it is the only one."""
    every = list(dict.fromkeys(codes))
    return [code for code in every if not same_language(code, source_language)] or every


def same_language(one: str, other: str) -> bool:
    """Whether two codes mean one language in one script."""
    first, second = find_language(one), find_language(other)
    return one == other or (first is not None and first == second)


def lines_of(
    benchmark: str,
    system: str,
    seed: int,
    task: Task,
    rows: Sequence[StackRow],
    read: Sequence[StackRow],
    predictions: Sequence[int],
    source_language: str,
) -> list[dict[str, Any]]:
    """A line of `answers.jsonl` for each labelled row: what was right, what was answered, and what was read instead.

    Args:
        benchmark: What the rows are called.
        system: What the system is called.
        seed: Of its run.
        task: What was asked.
        rows: The rows, each with a label.
        read: The same rows as the system read them: in translation, or the very same.
        predictions: Its answers.
        source_language: What was learned in; its rows do not count overall.
    """
    others = transferred([row.language for row in rows], source_language)
    lines = []
    for row, seen, answer in zip(rows, read, predictions, strict=True):
        right = row.label == answer
        line: dict[str, Any] = {
            "benchmark": benchmark,
            "subject": system,
            "seed": seed,
            "id": f"{row.language}/{row.id}",
            "item": row.id if row.item is None else row.item,
            "language": row.language,
            "task": task.kind,
            "label": None if row.label is None else _named(task, row.label),
            "answer": _named(task, answer),
            "right": right,
            "scores": {ACCURACY: float(right)},
        }
        if row.split is not None:
            line["split"] = row.split
        if row.language not in others:
            line["overall"] = False
        if seen is not row:
            line["read"] = [text for text in (seen.text, seen.pair, *seen.choices) if text is not None]
        lines.append(line)
    return lines


def _named(task: Task, number: int) -> str | int:
    return task.labels[number] if task.labels else number


def described(name: str, rows: Sequence[StackRow], task: Task, split: str, source_language: str) -> dict[str, Any]:
    """What was asked: two evaluations compare where this is the same."""
    return {
        "name": name,
        "split": split,
        "task": task.kind,
        "questions": len(rows),
        "languages": list(dict.fromkeys(row.language for row in rows)),
        "source_language": source_language,
        "fingerprint": fingerprint(rows),
    }


def versions() -> dict[str, str]:
    """Of the packages that decide what a model answers."""
    return {name: importlib.metadata.version(name) for name in ("dudi", "torch", "transformers")}


# ---- files


def keep(output: Path, measured: Measured) -> None:
    """Put a system's scores and answers into a folder, beside what it holds of others."""
    keep_evaluations([measured.evaluation], measured.answers, output)


def read_measured(output: Path, benchmark: Mapping[str, Any]) -> list[Measured]:
    """The systems whose answers to these very rows lie in a folder."""
    kept = [one for one in read_evaluations(output / FILE) if one.benchmark == benchmark]
    lines = [line for line in read_jsonl(output / ANSWERS) if line.get("benchmark") == benchmark["name"]]
    return [Measured(one, [line for line in lines if line.get("subject") == one.name]) for one in kept]


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
