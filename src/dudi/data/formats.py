"""The formats that `dudi prepare convert` reads: alpaca, sharegpt, CSV, and dudi's own rows."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from dudi.data.csv_files import CSV_SUFFIXES, open_csv
from dudi.data.records import Located, read_records
from dudi.data.rows import RowError
from dudi.errors import ConfigError, DataError, did_you_mean

SHAREGPT_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model", "assistant"), "assistant"),
    "system": "system",
    **dict.fromkeys(("function_call", "observation", "tool"), "tool"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a CSV file, and the column of the language in any format."""

    prompt: str = "prompt"
    completion: str = "completion"
    messages: str = "messages"
    id: str = "id"
    language: str = "language"


def open_format(
    path: Path, format: str, columns: Columns, quoted: bool | None = None
) -> tuple[str, Iterator[Located], str]:
    """Find out a file's format, where it is `auto` and not one of `FORMATS`; `quoted` as in `open_csv`.

    Returns:
        The format, its records, and what a person should know of how they are read.

    Raises:
        ConfigError: the file is not in this format, or lacks a column.
        DataError: it cannot be read, or its format cannot be told.
    """
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f"format: '{format}' is not one of auto, {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    is_csv = path.suffix.lower() in CSV_SUFFIXES
    if is_csv != (format == "csv") and format != "auto":
        raise ConfigError(f"{path}: is {'a' if is_csv else 'no'} CSV file, but the format is '{format}'")
    if quoted is not None and not is_csv:
        raise ConfigError(f"{path}: is no CSV file, whose cells could be quoted")
    if is_csv:
        file = open_csv(path, quoted)
        needed = () if columns.messages in file.names else (columns.prompt, columns.completion)
        for name in needed:
            if name not in file.names:
                there = ", ".join(file.names)[:200]
                raise ConfigError(f"{path}: no column '{name}'{did_you_mean(name, file.names)}; it has {there}")
        plain = quoted is None and not file.quoted
        note = "its cells are not quoted: a quotation mark at the start of one is text" if plain else ""
        return "csv", file.records(), note
    records = read_records(path)
    if format != "auto":
        return format, records, ""
    looked_at = list(itertools.islice(records, 100))
    return _guess(path, looked_at), itertools.chain(looked_at, records), ""


def _guess(path: Path, records: Sequence[Located]) -> str:
    signs = (("conversations", "sharegpt"), ("instruction", "alpaca"), ("messages", "rows"), ("prompt", "rows"))
    for located in records:
        for key, format in signs:
            if isinstance(located.value, Mapping) and key in located.value:
                return format
    raise DataError(
        f"{path}: cannot tell its format: is it whole, and UTF-8? None of the {len(records)} records at its start has "
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
    turns = _system(record)
    for turn in conversations:
        if not isinstance(turn, Mapping):
            raise RowError("wrong_type", "a turn must be an object with `from` and `value`")
        role = turn.get("from", turn.get("role"))
        role = SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else role
        turns.append({"role": role, "content": turn.get("value", turn.get("content"))})
    return {"messages": turns}


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


FORMATS: dict[str, Callable[[Mapping[str, Any], Columns], dict[str, Any]]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "csv": _csv_row,
    "rows": lambda record, _: {key: record[key] for key in ("messages", "prompt", "completion") if key in record},
}
