"""`dudi stack generate`: a stack writes answers, its prompt in the LLM's tokens, the texts in the encoder's."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dudi.command import say
from dudi.data.locate import asked_split
from dudi.data.sources import by_language
from dudi.environment import quiet_libraries
from dudi.errors import ConfigError, plain
from dudi.files import write_json_lines
from dudi.program.stack_eval import device_of, pairs_of
from dudi.stacking import stored, systems
from dudi.stacking.generating import MTLLMForCausalLM, check_writes, with_lm_head
from dudi.stacking.labelled import LENGTH
from dudi.stacking.modeling import MTLLMModel, MTLLMPreTrainedModel, on_device
from dudi.stacking.reading import first_of_each, read_rows
from dudi.stacking.rows import StackRow, Task
from dudi.stacking.writing import write


def run(given: argparse.Namespace) -> int:
    """Write as the words say; print what was written, or keep it in a file."""
    quiet_libraries()
    if (given.text is None) == (given.rows is None):
        raise ConfigError("dudi stack generate: give ROWS, or --text and --language")
    if given.text is not None and (not given.text.strip() or given.language is None):
        raise ConfigError("--text: give a text, and its language with --language, as --language ind_Latn")
    if given.text is not None and (given.split is not None or given.column or given.max_rows is not None):
        raise ConfigError("--text: is one text; --split, --column and --max-rows are of ROWS")
    model, source, llm_source = stored.open_model(given.model, codes=pairs_of(given.code, "--code"))
    writer = writer_of(given.model, model)
    if llm_source is None:
        raise ConfigError(f"{given.model}: holds no tokenizer of its LLM; name a run of dudi stack")
    if writer is not model:
        say(f"note: {given.model} was not tuned to write (stage '{writer.config.stage}'); see task.kind: generation")
    rows = rows_of(given, systems.task_of(writer.config))
    prompt = writer.config.prompt if given.prompt is None else given.prompt
    length = given.max_length or model.config.max_row_length or LENGTH
    shortened = Counter[str]()
    found = write(
        on_device(writer, device_of(given.device)), source, llm_source.tokenizer, rows, prompt,
        batch_size=given.batch_size, max_length=length, max_new_tokens=given.max_new_tokens, shortened=shortened,
    )  # fmt: skip
    lines = [line_of(row, prompt, written) for row, written in zip(rows, found, strict=True)]
    if given.output is None:
        for line in lines:
            shown = plain(line["written"], keep="\n")
            say(shown if given.text is not None else f"{line['language']}  {line['id']}  {shown}")
    else:
        write_json_lines(given.output, lines)
    cut = [f"note: rows longer than {length} tokens were shortened: {by_language(shortened)}"] if shortened else []
    for note in [*told(lines), *cut, *(f"note: {code} is read as {how}" for code, how in source.stand_ins.items())]:
        say(note)
    if given.output is not None:
        say(f"written  {given.output}")
    return 0


def rows_of(given: argparse.Namespace, task: Task) -> list[StackRow]:
    """The row that `--text` is, or those of a file."""
    if given.text is not None:
        return [StackRow(given.text, given.language, id="text")]
    rows = read_rows(
        given.rows, task, split=asked_split(given.rows, given.split), language=given.language,
        columns=pairs_of(given.column, "--column"), key="--column",
    )  # fmt: skip
    return first_of_each(rows, given.max_rows)


def writer_of(name: str, model: MTLLMPreTrainedModel) -> MTLLMForCausalLM:
    """The model as one that writes: with its LLM's head, where it has none."""
    if isinstance(model, MTLLMForCausalLM):
        return model
    if not isinstance(model, MTLLMModel):
        raise ConfigError(
            f"{name}: answers with a {model.config.task} and does not write; name a run of dudi stack align, or of "
            "finetune with task.kind=generation"
        )
    try:
        check_writes(model.config)
        return with_lm_head(model)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def line_of(row: StackRow, prompt: str, written: str) -> dict[str, Any]:
    """What is kept of a row; `right` where it has an answer: whether it was written, blanks at the ends aside."""
    line = {"id": row.id, "language": row.language, "text": row.text, "prompt": prompt, "written": written}
    if row.pair is not None:
        line["pair"] = row.pair
    return line if row.answer is None else line | {"answer": row.answer, "right": written == row.answer.strip()}


def told(lines: Sequence[dict[str, Any]]) -> list[str]:
    """How many answers were written word for word, by language; nothing where no row has one."""
    asked = Counter(line["language"] for line in lines if "right" in line)
    right = Counter(line["language"] for line in lines if line.get("right"))
    counts = ", ".join(f"{code} {right[code]} of {count}" for code, count in asked.items())
    return [f"word for word: {counts}"] if counts else []
