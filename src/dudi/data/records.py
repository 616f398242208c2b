"""Records, one at a time with the place of each: of files, of saved datasets and of datasets on the hub."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dudi.data.locate import DATA_SUFFIXES, find_files, hub_name, is_saved_dataset, saved_splits
from dudi.errors import ConfigError, DataError, EnvironmentFault, did_you_mean

MAX_LINE_BYTES = 64 << 20
"""Longest line of a JSONL file, and with it the most that one line can claim of the memory."""
MAX_ARRAY_BYTES = 2 << 30
"""Largest JSON file that is one array: it has to be read whole."""
BATCH_ROWS = 256
BUFFER_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Located:
    """A record with its place, or what kept it from being read.

    Attributes:
        file: File or dataset, as it is shown.
        line: Line of a text file, or number of the row in a table, counted from 1.
        value: The record; undefined where `problem` is set.
        problem: (reason, detail) of a record that could not be decoded.
        excerpt: Raw text of such a record.
    """

    file: str
    line: int
    value: Any = None
    problem: tuple[str, str] | None = None
    excerpt: str = ""


def records_of(source: str, split: str, *, streaming: bool = False) -> Iterator[Located]:
    """The records of a source that is no built-in one; `source` and `split` as of `dudi.data.sources.load_rows`.

    With `streaming` no more of a dataset on the hub is fetched than is read of it; files are read so anyhow.

    Raises:
        ConfigError: the source does not exist or is of no known kind.
        DataError: a file as a whole cannot be read.
        EnvironmentFault: the hub cannot be reached.
    """
    if not source.strip():
        raise ConfigError("the data source is empty: name a file, a folder, `cldr` or a dataset on the hub")
    path = Path(os.path.expanduser(source))
    if is_saved_dataset(path):
        return _saved_dataset(path, split)
    if not path.exists() and (hub := hub_name(source)):
        return _hub_dataset(*hub, split, streaming)
    return itertools.chain.from_iterable(map(read_records, find_files(source, split).files))


def read_records(path: Path) -> Iterator[Located]:
    """The records of one file, streamed (a `.json` file that is one array is read whole); blank lines are no records.

    Raises:
        ConfigError: its suffix is none of `.jsonl`, `.ndjson`, `.json` and `.parquet`.
        DataError: the file as a whole cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in DATA_SUFFIXES:
        advice = "`dudi prepare convert` reads CSV" if suffix in (".csv", ".tsv") else "write it as JSONL or Parquet"
        raise ConfigError(f"{path}: cannot read '{path.suffix}' files (known: {', '.join(DATA_SUFFIXES)}); {advice}")
    try:
        read = _parquet if suffix == ".parquet" else _json_lines
        if suffix == ".json":
            with path.open("rb") as handle:
                start = handle.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
            read = _json_array if start.startswith(b"[") else _json_lines
        yield from read(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


# --- JSON


def _json_lines(path: Path) -> Iterator[Located]:
    with path.open("rb") as handle:
        for number, raw in enumerate(_lines(handle), start=1):
            if raw is None:
                problem = ("line_too_long", f"a line of more than {MAX_LINE_BYTES:,} bytes")
                yield Located(str(path), number, problem=problem)
                continue
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if line.strip():
                yield _decoded(line, str(path), number)


def _lines(handle: BinaryIO) -> Iterator[bytes | None]:
    """Lines of at most `MAX_LINE_BYTES`; None stands for a longer one."""
    while line := handle.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while (rest := handle.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
            pass
        yield None


def _decoded(line: bytes, name: str, number: int) -> Located:
    """One line of JSON as a record, or as the reason why it is none."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = line[:400].decode("utf-8", "backslashreplace")
        return Located(name, number, problem=("invalid_utf8", f"byte {error.start} is not UTF-8"), excerpt=shown)
    try:
        return Located(name, number, json.loads(text, object_pairs_hook=_unrepeated))
    except RepeatedKey as error:
        problem = ("repeated_key", f"has the key {str(error)[:40]!r} twice in one object")
    except json.JSONDecodeError as error:
        problem = ("broken_json", f"{error.msg} at character {error.pos}")
    except RecursionError:
        problem = ("broken_json", "nested too deeply")
    except ValueError:  # an integer of thousands of digits
        problem = ("broken_json", "holds a number that is too long")
    return Located(name, number, problem=problem, excerpt=text.strip()[:400])


class RepeatedKey(Exception):
    """An object names a key twice: JSON readers take either, so that nobody knows what is trained."""


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedKey(next(name for name in names if names.count(name) > 1))
    return found


def _json_array(path: Path) -> Iterator[Located]:
    if path.stat().st_size > MAX_ARRAY_BYTES:
        raise DataError(f"{path}: one JSON array of more than 2 GiB; write it as JSONL, one object a line")
    try:
        values = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_unrepeated)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: broken JSON: {error.msg}") from error
    except RepeatedKey as error:
        raise DataError(f"{path}: an object has the key {str(error)[:40]!r} twice; keep one of them") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: broken JSON: nested too deeply, or a number that is too long") from error
    for number, value in enumerate(values, start=1):
        yield Located(str(path), number, value)


# --- Parquet and Arrow


def _parquet(path: Path) -> Iterator[Located]:
    import pyarrow as pa

    with open_parquet(path) as file:
        try:
            yield from table_records(file.iter_batches(batch_size=BATCH_ROWS), str(path))
        except pa.ArrowException as error:
            raise damaged(path, error) from error


def open_parquet(path: Path) -> Any:
    """A `pyarrow.parquet.ParquetFile` that reads column chunks through a small buffer: memory stays flat.

    Raises:
        DataError: the file is no readable Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> DataError:
    """The error of a Parquet file that cannot be read."""
    return DataError(f"{path}: not a readable Parquet file ({first_line(error)[:120]}); fetch or write it again")


def first_line(error: Exception) -> str:
    """What a library says is wrong, without its explanations."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def table_records(batches: Iterable[Any], name: str) -> Iterator[Located]:
    """The rows of Arrow batches or tables as located mappings; text that is not UTF-8 rejects its row alone."""
    number = 0
    for batch in batches:
        try:
            rows = [Located(name, number + i, row) for i, row in enumerate(batch.to_pylist(), start=1)]
        except UnicodeDecodeError:
            rows = [_one_row(batch, i, name, number + i + 1) for i in range(batch.num_rows)]
        number += len(rows)
        yield from rows


def _one_row(batch: Any, index: int, name: str, number: int) -> Located:
    try:
        return Located(name, number, batch.slice(index, 1).to_pylist()[0])
    except UnicodeDecodeError as error:
        return Located(name, number, problem=("invalid_utf8", f"byte {error.start} of a text is not UTF-8"))


# --- datasets, saved and on the hub


def dataset_records(dataset: Any, name: str) -> Iterator[Located]:
    """The rows of a `datasets.Dataset`, or of one that streams, one after the other."""
    # As Arrow tables: images and audio stay undecoded, and text that is not UTF-8 costs one row and not the run.
    return table_records(dataset.with_format("arrow").iter(batch_size=1_000), name)


def _saved_dataset(path: Path, split: str) -> Iterator[Located]:
    import pyarrow as pa
    from datasets import Dataset

    try:
        folder = _split_folder(path, split)
        files = json.loads((folder / "state.json").read_text(encoding="utf-8"))["_data_files"]
        for name in [_inside(file["filename"]) for file in files] or ["(no file is listed)"]:
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{name} is missing")
        saved = Dataset.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as a saved dataset: {first_line(error)}") from error
    return dataset_records(saved, str(path))


def _split_folder(path: Path, split: str) -> Path:
    """The folder of a split of a saved `DatasetDict`; the folder itself where one dataset was saved."""
    splits = saved_splits(path)
    if not splits:
        return path
    if split not in splits:
        raise ConfigError(f"{path}: no split '{split}'{did_you_mean(split, splits)}; it has {', '.join(splits)}")
    return path / _inside(split)


def _inside(name: str) -> str:
    """The name of a file or folder that lies directly in another; anything else would read what it should not."""
    if Path(name).name != name:
        raise ValueError(f"it names {name!r}, which is outside of its folder")
    return name


def _hub_dataset(name: str, config: str | None, split: str, streaming: bool) -> Iterator[Located]:
    if not streaming:
        return dataset_records(open_dataset(name, config, split), name)
    try:
        return _streamed(open_dataset(name, config, split, streaming=True), name)
    except (ConfigError, EnvironmentFault):
        # Without a network there may be a copy from before; if there is none, this says what is wrong.
        return dataset_records(open_dataset(name, config, split), name)


def _streamed(dataset: Any, name: str) -> Iterator[Located]:
    try:
        yield from dataset_records(dataset, name)
    except OSError as error:
        raise EnvironmentFault(f"{name}: the hub gave no more ({first_line(error)}); check the network") from error


def open_dataset(name: str, config: str | None, split: str, **options: Any) -> Any:
    """A split of a dataset on the hub; `options` are more words of `datasets.load_dataset`, which opens it.

    Raises:
        ConfigError: no such dataset, config or split.
        EnvironmentFault: the hub cannot be reached.
    """
    import datasets

    try:
        return datasets.load_dataset(name, config, split=split, **options)
    except (OSError, datasets.exceptions.DatasetsError) as error:
        from dudi.models.hub_errors import explain_hub_error

        if (found := explain_hub_error(name, "dataset", error)) is not None:
            raise found from error
        nothing, why = f"{name}: no such file or folder here", first_line(error)
        if isinstance(error, datasets.exceptions.FileNotFoundDatasetsError):
            raise ConfigError(
                f"{nothing}, and no data on the hub that is open to you ({why}); check the spelling, or run "
                "`hf auth login` if it is private"
            ) from error
        raise EnvironmentFault(f"{nothing}, and the hub cannot give it ({why}); check the network") from error
    except (ValueError, RuntimeError) as error:
        what = f"config {config!r} and split '{split}'"
        raise ConfigError(f"{name}: cannot be loaded with {what}: {first_line(error)}") from error
