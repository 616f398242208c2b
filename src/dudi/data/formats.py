"""The formats that `dudi prepare convert` reads: alpaca, sharegpt, CSV, and dudi's own rows."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from dudi.data.files import Located, read_records
from dudi.data.rows import RowError
from dudi.errors import ConfigError, DataError, did_you_mean

CSV_SUFFIXES = (".csv", ".tsv")
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
    "function_call": "tool",
    "observation": "tool",
    "tool": "tool",
}
_ESCAPED_BYTE = re.compile(r"[\udc80-\udcff]")  # what errors="surrogateescape" leaves of bytes that are not UTF-8


@dataclasses.dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a CSV file, and the column of the language in any format."""

    prompt: str = "prompt"
    completion: str = "completion"
    messages: str = "messages"
    id: str = "id"
    language: str = "language"


def open_format(path: Path, format: str, columns: Columns) -> tuple[str, Iterator[Located]]:
    """The format of a file (found out for `auto`) and its records."""
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f"format: '{format}' is not one of auto, {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    is_csv = path.suffix.lower() in CSV_SUFFIXES
    if is_csv != (format == "csv") and format != "auto":
        raise ConfigError(f"{path}: is {'a' if is_csv else 'no'} CSV file, but the format is '{format}'")
    if is_csv:
        return "csv", _csv_records(path, columns)
    records = read_records(path)
    if format != "auto":
        return format, records
    looked_at = list(itertools.islice(records, 100))
    return _guess(path, looked_at), itertools.chain(looked_at, records)


def _guess(path: Path, records: Sequence[Located]) -> str:
    signs = (("conversations", "sharegpt"), ("instruction", "alpaca"), ("messages", "rows"), ("prompt", "rows"))
    for located in records:
        for key, format in signs:
            if isinstance(located.value, Mapping) and key in located.value:
                return format
    raise DataError(
        f"{path}: cannot tell its format: none of the {len(records)} records at its start has "
        "`conversations` (sharegpt), `instruction` (alpaca), `messages` or `prompt`"
    )


def _alpaca(record: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    for key in ("instruction", "output"):
        if key not in record:
            raise RowError("missing_key", f"no `{key}`")
    question, extra = record["instruction"], record.get("input")
    if extra is not None and not isinstance(extra, str):
        raise RowError("wrong_type", "`input` must be text")
    if isinstance(question, str) and extra and extra.strip():
        question = f"{question}\n\n{extra}" if question.strip() else extra
    turns = _system(record)
    history = record.get("history") or []
    pairs = history if _is_list(history) else [history]
    for pair in pairs:
        if not _is_list(pair) or len(pair) != 2:
            raise RowError("wrong_type", "`history` must be a list of pairs: question and answer")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    turns += [{"role": "user", "content": question}, {"role": "assistant", "content": record["output"]}]
    return {"messages": turns}


def _sharegpt(record: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    conversations = record.get("conversations")
    if not _is_list(conversations):
        raise RowError("wrong_type" if "conversations" in record else "missing_key", "`conversations` must be a list")
    return {"messages": _system(record) + [_sharegpt_turn(turn) for turn in conversations]}


def _sharegpt_turn(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise RowError("wrong_type", "a turn must be an object with `from` and `value`")
    role = turn.get("from", turn.get("role"))
    content = turn.get("value", turn.get("content"))
    return {"role": SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else role, "content": content}


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _system(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    system = record.get("system")
    return [{"role": "system", "content": system}] if system not in (None, "") else []


def _csv_row(record: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    written = record.get(columns.messages)
    if not written:
        return {"prompt": record.get(columns.prompt), "completion": record.get(columns.completion)}
    try:
        return {"messages": json.loads(written)}
    except (ValueError, RecursionError) as error:
        raise RowError("broken_json", f"the column `{columns.messages}` holds no JSON") from error


def _own_row(record: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    return {key: record[key] for key in ("messages", "prompt", "completion") if key in record}


FORMATS: dict[str, Callable[[Mapping[str, Any], Columns], dict[str, Any]]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "csv": _csv_row,
    "rows": _own_row,
}


def _csv_records(path: Path, columns: Columns) -> Iterator[Located]:
    """The records of a CSV file; `line` is the record's last line, as editors count."""
    try:
        yield from _csv_fields(path, columns)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _csv_fields(path: Path, columns: Columns) -> Iterator[Located]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
        header = handle.readline()
        handle.seek(0)
        delimiter = max(",;\t", key=header.count)  # the comma where there is a tie
        reader = csv.reader(handle, delimiter=delimiter)
        names = _header(path, reader, columns)
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Located(str(path), reader.line_num, problem=("broken_csv", str(error)))
                continue
            if fields:
                yield _csv_record(path, reader.line_num, names, fields)


def _header(path: Path, reader: Iterator[list[str]], columns: Columns) -> list[str]:
    try:
        names = next(reader)
    except StopIteration:
        raise DataError(f"{path}: the file is empty") from None
    except csv.Error as error:
        raise DataError(f"{path}, line 1: not a CSV header: {error}") from error
    if columns.messages in names:
        return names
    for name in (columns.prompt, columns.completion):
        if name not in names:
            raise ConfigError(f"{path}: no column '{name}'{did_you_mean(name, names)}; it has {', '.join(names)[:200]}")
    return names


def _csv_record(path: Path, line: int, names: list[str], fields: list[str]) -> Located:
    text = ",".join(fields)[:400]
    if any(_ESCAPED_BYTE.search(field) for field in fields):
        return Located(str(path), line, problem=("invalid_utf8", "a field is not UTF-8"), excerpt=text)
    if len(fields) != len(names):
        problem = ("wrong_column_count", f"{len(fields)} fields for {len(names)} columns")
        return Located(str(path), line, problem=problem, excerpt=text)
    return Located(str(path), line, dict(zip(names, fields, strict=True)))
