"""`dudi stack eval`: a tuned model, rows in many languages, a table."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from dudi.data.locate import note_of
from dudi.environment import quiet_libraries
from dudi.errors import ConfigError, DataError, did_you_mean
from dudi.files import write_json
from dudi.models.load import load_tokenizer, locate
from dudi.program.train import say
from dudi.stacking import stored
from dudi.stacking.configuration import MTLLMConfig
from dudi.stacking.evaluation import Evaluation, evaluate, judged
from dudi.stacking.modeling import MTLLMModel, MTLLMPreTrainedModel, on_device
from dudi.stacking.reading import read_rows
from dudi.stacking.rows import StackRow, Task
from dudi.stacking.tokens import Source
from dudi.stacking.translation import translate_rows

RESULT = "stack-eval.json"


def run(given: argparse.Namespace) -> int:
    """Evaluate as the words say; print a table and write `stack-eval.json`.

    Raises:
        ConfigError: the model has no head, an option or a language code is unknown.
        DataError: a row cannot be used, or none has a label.
    """
    quiet_libraries()
    model, source, _ = stored.open_model(given.model)
    if isinstance(model, MTLLMModel):
        stage = model.config.stage
        raise ConfigError(f"{given.model}: is at the stage '{stage}' and has no head; tune it on a task first")
    on_device(model, _device(given.device))
    rows = _rows(given, task_of(model.config))
    seconds = 0.0
    if given.translate is None:
        result = evaluate(model, source, rows, batch_size=given.batch_size, max_length=given.max_length)
    else:
        result, seconds = _translate_test(given, model, source, rows)
    record = record_of(given, model.config, result, seconds)
    folder = given.output if given.output is not None else _beside(given.model)
    write_json(folder / RESULT, record)
    say(table(record))
    say(str(folder / RESULT))
    return 0


def task_of(config: MTLLMConfig) -> Task:
    """The task that a model was tuned on."""
    if config.task == "choice":
        return Task("choice", separator=config.separator)
    labels = {int(number): str(label) for number, label in (config.id2label or {}).items()}
    return Task("classification", tuple(labels[number] for number in sorted(labels)), config.separator)


def _rows(given: argparse.Namespace, task: Task) -> list[StackRow]:
    columns = pairs_of(given.column, "--column")
    rows = read_rows(
        given.rows, task, split=given.split, language=given.language, columns=columns, max_rows=given.max_rows
    )
    if note := note_of(given.rows, given.split):
        say(f"note: {note}")
    if given.languages:
        there = list(dict.fromkeys(row.language for row in rows))
        for code in given.languages:
            if code not in there:
                raise ConfigError(f"--languages: no row is in '{code}'{did_you_mean(code, there)}")
        rows = [row for row in rows if row.language in given.languages]
    if all(row.label is None for row in rows):
        raise DataError(f"{given.rows}: no row has a label")
    return rows


def _translate_test(
    given: argparse.Namespace, model: MTLLMPreTrainedModel, source: Source, rows: list[StackRow]
) -> tuple[Evaluation, float]:
    """The answers to rows that were put into English first, and the seconds that took for each."""
    mt_source = Source(load_tokenizer(given.translate), pairs_of(given.code, "--code"))
    english, seconds = translate_rows(
        on_device(open_translator(given.translate), model.device),
        mt_source,
        rows,
        given.target,
        num_beams=given.beams,
        batch_size=given.batch_size,
        max_length=given.max_length,
        max_new_tokens=given.max_new_tokens,
    )
    read = [dataclasses.replace(row, language=given.target) for row in english]
    result = evaluate(model, source, read, batch_size=given.batch_size, max_length=given.max_length)
    return judged(rows, result.predictions, result.seconds_per_row), seconds


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


def record_of(given: argparse.Namespace, config: MTLLMConfig, result: Evaluation, seconds: float) -> dict[str, Any]:
    """What `stack-eval.json` holds."""
    return {
        "model": given.model,
        "stage": config.stage,
        "parts": config.parts,
        "rows": given.rows,
        "translate": given.translate,
        "accuracy": result.accuracy,
        "macro_f1": result.macro_f1,
        "per_language": result.per_language,
        "seconds_per_row": {"reading": result.seconds_per_row, "translating": seconds},
    }


def table(record: dict[str, Any]) -> str:
    """A line a language, and all of them."""
    lines = [f"{'language':<12}{'rows':>7}{'accuracy':>10}{'macro F1':>10}"]
    for code, found in record["per_language"].items():
        lines.append(f"{code:<12}{found['n']:>7.0f}{100 * found['accuracy']:>10.1f}{100 * found['macro_f1']:>10.1f}")
    total = sum(found["n"] for found in record["per_language"].values())
    lines.append(f"{'all':<12}{total:>7.0f}{100 * record['accuracy']:>10.1f}{100 * record['macro_f1']:>10.1f}")
    spent = record["seconds_per_row"]
    more = f", of translating {1000 * spent['translating']:.1f} ms" if record["translate"] else ""
    return "\n".join([*lines, f"a row: {1000 * spent['reading']:.1f} ms of reading{more}"])


def _beside(model: str) -> Path:
    """The run that a model is of; else the model's folder."""
    folder = stored.model_folder(model)
    return folder.parent if folder.name == stored.MODEL else folder


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pairs_of(words: list[str], option: str) -> dict[str, str]:
    """`text=premise` as a mapping.

    Raises:
        ConfigError: a word of another form.
    """
    pairs = [word.partition("=") for word in words]
    for ours, equals, theirs in pairs:
        if not (ours and equals and theirs):
            raise ConfigError(f"{option} {ours}{equals}{theirs}: write OURS=THEIRS, as {option} text=premise")
    return {ours: theirs for ours, _, theirs in pairs}
