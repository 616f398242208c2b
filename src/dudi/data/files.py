"""Files of records, read one at a time with the place of each; files written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dudi.errors import ConfigError, DataError

JSON_LINES = (".jsonl", ".ndjson")
DATA_SUFFIXES = (*JSON_LINES, ".json", ".parquet")
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


def read_records(path: Path, shown: str | None = None) -> Iterator[Located]:
    """The records of one file, streamed (a `.json` file that is one array is read whole).

    Args:
        path: A `.jsonl`, `.ndjson`, `.json` or `.parquet` file.
        shown: How to name it in places; the path itself when None.

    Yields:
        One `Located` a record; blank lines are no records.

    Raises:
        ConfigError: the suffix is none of these.
        DataError: the file as a whole cannot be read.
    """
    name = shown if shown is not None else str(path)
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
        yield from read(path, name)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _json_lines(path: Path, name: str) -> Iterator[Located]:
    with path.open("rb") as handle:
        for number, raw in enumerate(_lines(handle), start=1):
            if raw is None:
                yield Located(name, number, problem=("line_too_long", f"a line of more than {MAX_LINE_BYTES:,} bytes"))
                continue
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if line.strip():
                yield decode_line(line, name, number)


def _lines(handle: BinaryIO) -> Iterator[bytes | None]:
    """Lines of at most `MAX_LINE_BYTES`; None stands for a longer one."""
    while line := handle.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while (rest := handle.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
            pass
        yield None


def decode_line(line: bytes, name: str, number: int) -> Located:
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


def _json_array(path: Path, name: str) -> Iterator[Located]:
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
        yield Located(name, number, value)


def _parquet(path: Path, name: str) -> Iterator[Located]:
    import pyarrow as pa

    with open_parquet(path) as file:
        try:
            yield from table_records(file.iter_batches(batch_size=BATCH_ROWS), name)
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
    return DataError(
        f"{path}: not a readable Parquet file ({str(error).splitlines()[0][:120]}); fetch or write it again"
    )


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
