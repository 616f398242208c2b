"""Rows out: JSONL or Parquet, streamed to a temporary file that takes the old one's place at the end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError
from dudi.files import atomic_file

OUTPUT_SUFFIXES = (".jsonl", ".parquet")
ROWS_A_GROUP = 1_000

Write = Callable[[dict[str, Any]], None]


def card_beside(rows: Path) -> Path:
    """Where the card of a file of rows stands: `NAME.card.json` beside `NAME.parquet`."""
    return rows.with_suffix(".card.json")


def row_schema(extra: tuple[str, ...] = ()) -> Any:
    """The Arrow schema of written rows: `id`, `language`, `messages`, and columns of text named by `extra`."""
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    columns = [("id", pa.string()), ("language", pa.string()), ("messages", pa.list_(message))]
    return pa.schema(columns + [(name, pa.string()) for name in extra])


@contextlib.contextmanager
def row_writer(path: Path, extra: tuple[str, ...] = ()) -> Iterator[Write]:
    """A function that appends one row to `path`; the file appears when the block ends well.

    `extra` are columns of text beside `id`, `language` and `messages`.

    Raises:
        ConfigError: the suffix is neither `.jsonl` nor `.parquet`.
        EnvironmentFault: the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in OUTPUT_SUFFIXES:
        raise ConfigError(f"{path}: rows are written as {' or '.join(OUTPUT_SUFFIXES)}, not '{suffix}'")
    with atomic_file(path) as temporary:
        if suffix == ".parquet":
            with _parquet_writer(temporary, extra) as write:
                yield write
        else:
            with temporary.open("w", encoding="utf-8", newline="\n") as out:
                yield lambda row: print(json.dumps(row, ensure_ascii=False), file=out)


@contextlib.contextmanager
def _parquet_writer(path: Path, extra: tuple[str, ...]) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = row_schema(extra)
    waiting: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as out:

        def flush() -> None:
            out.write_table(pa.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

        def write(row: dict[str, Any]) -> None:
            waiting.append(row)
            if len(waiting) >= ROWS_A_GROUP:
                flush()

        yield write
        if waiting:
            flush()
