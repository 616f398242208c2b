"""The rows of a recipe, from files or the hub; one that cannot be used ends the run with its place."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from dudi.data.locate import held_out, note_of, own_split
from dudi.data.records import Located, records_of
from dudi.errors import DataError
from dudi.stacking.codes import find_language
from dudi.stacking.recipe import StackConfig, StackDataSection
from dudi.stacking.rows import RowReader, StackRow, Task, check_taught
from dudi.stacking.store import write_texts
from dudi.stacking.task_sets import SOURCE_LANGUAGE

LOOKED_AT = 1000
"""Texts that are read at most where nothing is trained: there may be millions."""


def read_rows(source: str, task: Task | None = None, **options: Any) -> list[StackRow]:
    """Read the rows of a source; options and errors as of `iterate_rows`, and a DataError where there is no row."""
    rows = list(iterate_rows(source, task, **options))
    if not rows:
        raise DataError(f"{source}: no row")
    return rows


def iterate_rows(
    source: str,
    task: Task | None = None,
    *,
    split: str = "train",
    language: str | None = None,
    columns: Mapping[str, str] | None = None,
    key: str = "data.columns",
    left_out: Counter[str] | None = None,
    max_rows: int | None = None,
) -> Iterator[StackRow]:
    """The rows of a source, one after the other.

    Args:
        source: A JSONL or Parquet file, a folder, a glob, or a hub name.
        task: What is asked; None where the text is all that is read: then rows without one, which a corpus of lines
            has, are left out.
        split: On the hub, and in a folder whose files are named by split.
        language: Of rows that do not name theirs.
        columns: Our columns to the rows' own.
        key: Where these were named, for messages.
        left_out: Counts what is left out.
        max_rows: Read at most this many; of a dataset on the hub no more is fetched than they take.

    Raises:
        ConfigError: no such source, a column of ours that does not exist, or one of theirs that no row has.
        DataError: a record is no row; with file and line.
    """
    reader = RowReader(columns, task, language, key)
    records = _placed(records_of(source, split, streaming=max_rows is not None))
    blank = None if task is not None else Counter[str]() if left_out is None else left_out
    row = None
    for row in itertools.islice(reader.rows(records, blank), max_rows):
        yield row
    if row is not None:
        reader.check(source)


def _placed(records: Iterable[Located]) -> Iterator[tuple[str, Any]]:
    for located in records:
        place = f"{located.file}:{located.line}"
        if located.problem is not None:
            raise DataError(f"{place}: {', '.join(located.problem)}")
        yield place, located.value


def first_of_each(rows: Iterable[StackRow], most: int | None) -> list[StackRow]:
    """The first rows of each language, in the order of all; None: all rows.

    Files that hold one language after the other would give but the first of them.
    """
    counts = Counter[str]()
    kept = []
    for row in rows:
        counts[row.language] += 1
        if most is None or counts[row.language] <= most:
            kept.append(row)
    return kept


def training_rows(config: StackConfig, task: Task) -> tuple[list[StackRow], list[StackRow]]:
    """The labelled rows to train on, and those for evaluation during training.

    Stage 2 learns the teacher's vectors, so its rows to train on may lack their labels.
    """
    data = config.data
    shared: dict[str, Any] = {"language": data.language, "columns": data.columns}
    rows = read_rows(str(data.train), task, split=data.split, max_rows=data.max_rows, **shared)
    if config.stage != "distill":
        check_taught(rows, task)
    evaluated = held_out(str(data.train), data.eval, data.eval_split)
    if evaluated is None:
        return rows, []
    source, split = evaluated
    held = read_rows(source, task, split=split, **shared)
    check_taught(held, task)
    return rows, held


def notes_of(config: StackConfig) -> list[str]:
    """What a stage does not read of the folders that it names, by the names of their files."""
    data = config.data
    named: list[tuple[str | None, str]] = [(data.train, data.split)]
    if config.stage == "align":
        named += [(data.parallel, _parallel_split(data)), (data.bitext, data.bitext_split)]
    elif config.stage != "adapt":
        evaluated = held_out(str(data.train), data.eval, data.eval_split)
        named += [] if evaluated is None else [evaluated]
    notes = []
    for source, split in named:
        if source is not None and (note := note_of(source, split)):
            notes.append(f"note: {note}")
    return notes


def store_texts(config: StackConfig, folder: Path) -> dict[str, int]:
    """Write the texts to train on to a folder, for `TextRows`; returns how many rows were left out, by reason."""
    data, left_out = config.data, Counter[str]()
    found = iterate_rows(
        str(data.train), split=data.split, language=data.language, columns=data.columns,
        left_out=left_out, max_rows=data.max_rows,
    )  # fmt: skip
    write_texts(folder, found, str(data.train))
    return dict(left_out)


def first_texts(config: StackConfig) -> tuple[list[StackRow], str]:
    """The first texts to train on, read as in training, and how many there are, for whoever is told."""
    data = config.data
    limit = LOOKED_AT if data.max_rows is None else min(LOOKED_AT, data.max_rows)
    texts = read_rows(str(data.train), split=data.split, language=data.language, columns=data.columns, max_rows=limit)
    return texts, f"{len(texts):,}" + (" and more" if len(texts) == LOOKED_AT else "")


def rows_with_english(config: StackConfig, name: Literal["parallel", "bitext"]) -> list[StackRow]:
    """The texts with English that Stage 1 is measured on (`data.parallel`), or learns from first (`data.bitext`).

    A row names its English in `english`, or another row of the same id is it: what parallel sets look like that have a
    row a language. Other stages read none.
    """
    data, key = config.data, f"data.{name}_columns"
    source = getattr(data, name)
    if config.stage != "align" or source is None:
        return []
    split = _parallel_split(data) if name == "parallel" else data.bitext_split
    language, columns = getattr(data, f"{name}_language"), getattr(data, f"{name}_columns")
    return with_english(read_rows(source, split=split, language=language, columns=columns, key=key), source, key)


def _parallel_split(data: StackDataSection) -> str:
    """What is measured on is no row to train on: a folder's own name wins over the default."""
    own = own_split(str(data.parallel)) if data.parallel_split == "train" else None
    return own or data.parallel_split


def with_english(rows: list[StackRow], source: str, key: str = "data.parallel_columns") -> list[StackRow]:
    """Rows with their English: their own, else the text of the English row of the same id; a DataError without either.

    Messages name the `source`, and the `key` that says what the column is called.
    """
    languages = dict.fromkeys(row.language for row in rows)
    meanings = {code: find_language(code) for code in languages}
    codes = {code for code, meant in meanings.items() if meant is not None and meant.code == SOURCE_LANGUAGE}
    english = {row.id: row.text for row in rows if row.english is None and row.language in codes}
    found = []
    for row in rows:
        meant = row.english if row.english is not None else english.get(row.id)
        if meant is None:
            raise DataError(
                f"{source}: {row.id} ({row.language}): has no 'english', and no English row has its id; "
                f"name the column with {key}={{english: ...}}"
            )
        found.append(dataclasses.replace(row, english=meant))
    return found
