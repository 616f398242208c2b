"""The documents of a task: from a local Parquet file of many languages, from the files that it names, or the hub.

A local file of many languages has the columns `lang`, `split` and `row` beside the set's own; the same `row` is the
same item in every language. `metadata.data` of a task says how its rows become documents with the hub's columns:

    metadata:
      language: th
      data:
        file: ntrex128.parquet        # in the folder that --data names
        lang: th                      # rows of this language
        splits: {validation: dev}     # the set's name of a split, and the file's
        columns: {text: tha_Thai}     # the file's name of a column, and the set's: several names spread a list
        parallel: {en: eng_Latn}      # the same row in another language, as a further column
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.data.locate import find_files
from dudi.data.records import BATCH_ROWS, Located, damaged, read_records, records_of
from dudi.data.task_files import TaskFile
from dudi.errors import ConfigError, DataError, did_you_mean

FILES = ("json", "parquet")
"""The values of `dataset_path` that stand for files in `dataset_kwargs.data_files`."""


@dataclasses.dataclass(frozen=True, slots=True)
class LocalData:
    """`metadata.data` of a task: which rows of a local file are read, and what the hub calls their columns."""

    file: str
    lang: str
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    columns: Mapping[str, str | Sequence[str]] = dataclasses.field(default_factory=dict)
    parallel: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def places(self, split: str, folder: Path) -> tuple[Path, Path, str]:
        """The file of many languages, that of this language and split alone, and what the first calls the split."""
        file = folder / self.file
        own = file.with_name(f"{file.stem}.{self.lang}.{split}{file.suffix}")
        return file, own, self.splits.get(split, split)


def local_data(task: TaskFile) -> LocalData | None:
    """What a task says of a local file; None where it says nothing.

    Raises:
        ConfigError: it names no file or no language, or a key that there is not.
    """
    metadata = task.config.get("metadata")
    table = metadata.get("data") if isinstance(metadata, Mapping) else None
    if not isinstance(table, Mapping):
        return None
    known = [field.name for field in dataclasses.fields(LocalData)]
    for key in table:
        if key not in known:
            raise ConfigError(f"{task.path}: metadata.data: unknown key '{key}'{did_you_mean(str(key), known)}")
    if not table.get("file") or not table.get("lang"):
        raise ConfigError(f"{task.path}: metadata.data must name a `file` and a `lang`")
    return LocalData(**table)


def documents(task: TaskFile, split: str, folder: Path | None = None) -> Iterator[Located]:
    """The documents of one split, streamed; `split` is the set's own name of it, as `TaskFile.split` gives.

    The files of `metadata.data` are in `folder`; without one those that the task names itself, or the hub, are read.

    Raises:
        ConfigError: the file, its language or its split is not there.
        DataError: a file as a whole cannot be read.
        EnvironmentFault: the hub cannot be reached.
    """
    data = local_data(task)
    if folder is not None and data is not None:
        return local_documents(task, data, split, folder)
    path, name = task.config.get("dataset_path"), task.config.get("dataset_name")
    if not isinstance(path, str):
        raise ConfigError(f"{task.path}: has no dataset_path")
    if path in FILES:
        return _named_files(task, split)
    return records_of(f"{path}:{name}" if name else path, split)


def _named_files(task: TaskFile, split: str) -> Iterator[Located]:
    kwargs = task.config.get("dataset_kwargs")
    files = kwargs.get("data_files") if isinstance(kwargs, Mapping) else None
    if isinstance(files, Mapping):
        files = files.get(split)
    elif split != "train":  # as `datasets` has it: files without a split are the split train
        files = None
    if not files:
        raise ConfigError(f"{task.path}: dataset_kwargs.data_files names no file of the split '{split}'")
    hint = f"; --data DIR reads {data.file} of that folder" if (data := local_data(task)) else ""
    for word in files if isinstance(files, list) else [files]:
        try:
            found = find_files(str(word), split)
        except ConfigError as error:
            raise ConfigError(f"{task.path}: {error}{hint}") from error
        for path in found.files:
            yield from read_records(path)


def local_documents(task: TaskFile, data: LocalData, split: str, folder: Path) -> Iterator[Located]:
    """The documents of one split of a local file.

    Beside a file of many languages the folder may hold a file of one language and split with the hub's own columns,
    named as in `sib200.th.train.parquet`: it is taken first.

    Raises:
        ConfigError: neither is there, or it has no rows of this language and split.
        DataError: it cannot be read.
    """
    file, own, local = data.places(split, folder)
    if own.is_file():
        yield from read_records(own)
        return
    if not file.is_file():
        siblings = [path.name for path in folder.glob("*.parquet")] if folder.is_dir() else []
        raise ConfigError(f"{file}: no such file{did_you_mean(file.name, siblings)} ({task.name} reads it)")
    others: dict[str, dict[Any, str]] = {}  # small beside what a model takes, and held
    for lang, column in data.parallel.items():
        others[column] = {one.value["row"]: one.value["text"] for one in _rows(file, lang, local)}
    empty = True
    for located in _rows(file, data.lang, local):
        row = located.value
        pairs = {column: texts.get(row["row"]) for column, texts in others.items()}
        if any(text is None for text in pairs.values()):
            continue
        empty = False
        yield dataclasses.replace(located, value=_renamed(row, data) | pairs)
    if empty:
        raise ConfigError(f"{file}: no rows in '{data.lang}' of the split '{local}' ({task.name})")


def has_split(data: LocalData, split: str, folder: Path) -> bool:
    """Whether a local file has rows of a task's language and split."""
    file, own, local = data.places(split, folder)
    return own.is_file() or (file.is_file() and next(_rows(file, data.lang, local), None) is not None)


def _rows(file: Path, lang: str, split: str) -> Iterator[Located]:
    """The rows of one language and split, numbered as they stand among these."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    try:
        table = ds.dataset(file, format="parquet")
        there = table.schema.names
        if missing := sorted({"lang", "split", "row"} - set(there)):
            raise DataError(f"{file}: has no column {', '.join(missing)}; it has {', '.join(there)}")
        wanted = (pc.field("lang") == lang) & (pc.field("split") == split)
        batches = table.scanner(filter=wanted, batch_size=BATCH_ROWS, use_threads=False).to_batches()
        rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
        for number, row in enumerate(rows, start=1):
            yield Located(str(file), number, row)
    except (pa.ArrowException, OSError) as error:
        raise damaged(file, error) from error


def _renamed(row: Mapping[str, Any], data: LocalData) -> dict[str, Any]:
    """A row with the hub's columns beside those that have no other name there."""
    document = {name: value for name, value in row.items() if name not in data.columns}
    for name, wanted in data.columns.items():
        if name not in row:  # the file has the hub's columns already
            continue
        if isinstance(wanted, str):
            document[wanted] = row[name]
        else:
            document |= dict(zip(wanted, row[name] or (), strict=False))
    return document
