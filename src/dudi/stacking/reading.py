"""The rows of a recipe, from files or the hub; one that cannot be used ends the run with its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dudi.data.files import Located
from dudi.data.locate import records_of
from dudi.errors import ConfigError, DataError, did_you_mean
from dudi.stacking.recipe import StackConfig
from dudi.stacking.rows import COLUMNS, Names, Problem, StackRow, Task, column_names, parse


def read_rows(
    source: str,
    task: Task | None = None,
    *,
    split: str = "train",
    language: str | None = None,
    columns: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    need_english: bool = False,
) -> list[StackRow]:
    """Read the rows of a source.

    Args:
        source: A JSONL or Parquet file, a folder, or a hub name.
        task: What is asked; None where the text is all that is read.
        split: On the hub.
        language: Of rows that do not name theirs.
        columns: Our columns to the rows' own.
        max_rows: Read at most this many.
        need_english: Whether each row has to have `english`.

    Raises:
        ConfigError: no such source, or a column of ours that does not exist.
        DataError: a record is no row; with file and line.
    """
    for name in columns or {}:
        if name not in COLUMNS:
            raise ConfigError(f"data.columns: '{name}' is not one of {', '.join(COLUMNS)}{did_you_mean(name, COLUMNS)}")
    names = column_names(columns)
    rows = []
    for located in _some(records_of(source, split), max_rows):
        place = f"{located.file}:{located.line}"
        if located.problem is not None:
            raise DataError(f"{place}: {': '.join(located.problem)}")
        if task is None and _blank(located.value, names):
            continue  # corpora of lines have empty ones
        try:
            rows.append(parse(located.value, task, names, language, place, need_english))
        except Problem as error:
            raise DataError(f"{place}: {error}") from None
    if not rows:
        raise DataError(f"{source}: no row")
    return rows


def _blank(record: Any, names: Names) -> bool:
    texts = [record.get(name) for name in names["text"]] if isinstance(record, Mapping) else []
    given = [text for text in texts if text is not None]
    return len(given) == 1 and isinstance(given[0], str) and not given[0].strip()


def _some(records: Iterator[Located], most: int | None) -> Iterator[Located]:
    for number, record in enumerate(records):
        if most is not None and number >= most:
            return
        yield record


def training_rows(config: StackConfig, task: Task | None) -> tuple[list[StackRow], list[StackRow]]:
    """The rows to train on, and those for evaluation during training."""
    data = config.data
    shared: dict[str, Any] = {"language": data.language, "columns": data.columns, "max_rows": data.max_rows}
    rows = read_rows(str(data.train), task, split=data.split, **shared)
    if data.eval is None and data.eval_split is None:
        return rows, []
    return rows, read_rows(data.eval or str(data.train), task, split=data.eval_split or "train", **shared)


def parallel_rows(config: StackConfig) -> list[StackRow]:
    """The texts with English that Stage 1 is measured on."""
    data = config.data
    if data.parallel is None:
        return []
    return read_rows(data.parallel, split=data.parallel_split, need_english=True)
