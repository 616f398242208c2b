"""CSV files, read so that no quotation mark can swallow rows.

A cell that begins with a quotation mark and is no quoted cell makes a CSV reader take everything up to the next mark as
that cell, lines and all. So a file is looked through once before it is read, and is refused where nobody can tell what
its rows are.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from dudi.data.records import MAX_LINE_BYTES, Located
from dudi.errors import DataError

CSV_SUFFIXES = (".csv", ".tsv")
_ESCAPED_BYTE = re.compile(r"[\udc80-\udcff]")  # what errors="surrogateescape" leaves of bytes that are not UTF-8
_ADVICE = 'double the marks inside of a quoted cell (""), or say --quotes no where the file quotes no cells'


@dataclasses.dataclass(frozen=True, slots=True)
class CsvFile:
    """A CSV file whose records can be told apart.

    Attributes:
        delimiter: Comma, semicolon or tab, whichever the header has most of.
        quoted: Whether a quotation mark at the start of a cell quotes it, and is no part of its text.
        names: The columns.
    """

    path: Path
    delimiter: str
    quoted: bool
    names: tuple[str, ...]

    def records(self) -> Iterator[Located]:
        """The records, each a mapping of the columns to text; `line` is a record's last line, as editors count.

        Raises:
            DataError: the file cannot be read to its end.
        """
        with _opened(self.path) as handle:
            reader = _reader(handle, self.delimiter, self.quoted)
            try:
                next(reader)
                for fields in filter(None, reader):
                    name, line, problem = str(self.path), reader.line_num, None
                    if any(_ESCAPED_BYTE.search(field) for field in fields):
                        problem = ("invalid_utf8", "a field is not UTF-8")
                    elif len(fields) != len(self.names):
                        problem = ("wrong_column_count", f"{len(fields)} fields for {len(self.names)} columns")
                    if problem is not None:
                        yield Located(name, line, problem=problem, excerpt=",".join(fields)[:400])
                    else:
                        yield Located(name, line, dict(zip(self.names, fields, strict=True)))
            except (csv.Error, OSError) as error:
                raise DataError(f"{self.path}, line {reader.line_num}: cannot be read as CSV: {error}") from error


def open_csv(path: Path, quoted: bool | None = None) -> CsvFile:
    """Find out how a file is written; also whether its cells are quoted, where `quoted` is None.

    Raises:
        DataError: the file is empty or cannot be read, or where its rows end cannot be told.
    """
    try:
        with _opened(path) as handle:
            header = handle.readline()
        if not header.strip():
            raise DataError(f"{path}: the file is empty, or its first line is")
        delimiter = max(",;\t", key=header.count)  # the comma where there is a tie
        if quoted is None:
            quoted = _is_quoted(path, delimiter, width=header.count(delimiter) + 1)
        with _opened(path) as handle:
            names = next(_reader(handle, delimiter, quoted))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except csv.Error as error:
        raise DataError(f"{path}, line 1: not a CSV header: {error}") from error
    return CsvFile(path, delimiter, quoted, tuple(names))


def _is_quoted(path: Path, delimiter: str, width: int) -> bool:
    """Whether the cells of a file are quoted as RFC 4180 has it, from a look at all of it.

    Where that reading breaks off and each line by itself is a row, they are not. Where it holds, but only by joining
    lines each of which would be a row, it is as likely that a mark was never closed.
    """
    joined: tuple[int, int] | None = None
    told_apart = False
    with _opened(path) as handle:
        lines = _CountedLines(handle, delimiter, width)
        reader = _reader(lines, delimiter, quoted=True)
        start = 1
        try:
            for _ in reader:
                if reader.line_num > start:
                    told_apart |= not lines.each_is_a_row
                    joined = joined or ((start, reader.line_num) if lines.each_is_a_row else None)
                start, lines.each_is_a_row = reader.line_num + 1, True
        except csv.Error as error:
            for _ in lines:
                pass
            if lines.all_are_rows:
                return False
            raise DataError(
                f"{path}, line {start}: a cell begins with a quotation mark and does not end as a quoted cell does "
                f"({error}), so that where its row ends cannot be told; {_ADVICE}"
            ) from error
    if joined and not told_apart:
        raise DataError(
            f"{path}: its lines {joined[0]} to {joined[1]} are one row if a quotation mark quotes a cell, and a row "
            f"each if it is text; say --quotes yes or --quotes no"
        )
    return True


@dataclasses.dataclass
class _CountedLines:
    """The lines of a file on their way to the reader, counted as if no cell were quoted."""

    handle: TextIO
    delimiter: str
    width: int
    all_are_rows: bool = True
    each_is_a_row: bool = True

    def __iter__(self) -> Iterator[str]:
        for line in self.handle:
            if line.strip() and line.count(self.delimiter) + 1 != self.width:
                self.all_are_rows = self.each_is_a_row = False
            yield line


def _opened(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _reader(lines: Iterator[str] | TextIO | _CountedLines, delimiter: str, quoted: bool) -> Any:
    # The module's own limit of 131,072 characters a field ends a record in the middle of a cell.
    csv.field_size_limit(MAX_LINE_BYTES)
    return csv.reader(lines, delimiter=delimiter, strict=True, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
