"""Files of questions and references, their bad rows counted by reason (docs/eval.md)."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.data.formats import CSV_SUFFIXES, Columns, open_format
from dudi.data.locate import DATA_SUFFIXES
from dudi.data.records import Located, read_records
from dudi.data.rejections import Rejections
from dudi.data.rows import Row, RowError, parse_row
from dudi.data.sources import RowIds, reject
from dudi.errors import ConfigError, DataError, did_you_mean
from dudi.evaluation.entry import Wanted
from dudi.evaluation.generate import Decoding
from dudi.evaluation.questions import ChosenQuestions, Item
from dudi.languages.registry import load_languages

PROMPTS = ("prompt", "question")
REFERENCES = ("references", "reference", "completion", "answer")
MAX_LABEL = 100
"""Most characters of a `split` or a `task`."""
MAX_NEW_TOKENS = 256


def choose(name: str, wanted: Wanted) -> ChosenQuestions:
    """The questions of a file, or some of them.

    Raises:
        ConfigError: no such file, language or task.
        DataError: the file cannot be read, or holds no good question.
    """
    path = Path(name)
    if wanted.part is not None:
        raise ConfigError(f"--part is for benchmarks that have parts; choose from {path} with --tasks and --languages")
    items, total, rejections = read_questions(path, wanted.language)
    if not items:
        why = ", ".join(f"{reason} {count:,}" for reason, count in rejections.counts.most_common(6))
        raise DataError(f"{path}: no good question in {total:,} rows{f': {why}' if why else ''} (docs/eval.md)")
    _must_occur(path, "language", wanted.languages, [item.row.language for item in items])
    _must_occur(path, "task", wanted.tasks, [item.task for item in items if item.task])
    kept = chosen(items, wanted)
    if not kept:
        raise ConfigError(f"{path}: no question is of these languages and of these tasks; name fewer of both")
    languages = dict.fromkeys(item.row.language for item in kept)
    how = {
        "name": path.stem,
        "questions": len(kept),
        "languages": list(languages),
        "tasks": list(dict.fromkeys(item.task for item in kept if item.task)),
        "fingerprint": fingerprint(kept),
    }
    decoding, candidates = Decoding.of(wanted, MAX_NEW_TOKENS), sorted(load_languages())
    return ChosenQuestions(kept, decoding, how, candidates, wanted.batch_size, total, rejections)


def chosen(items: Sequence[Item], wanted: Wanted) -> list[Item]:
    """The questions of the languages and tasks that are wanted, at most `per_split` of each language and split."""
    languages, tasks, most = wanted.languages, wanted.tasks, wanted.per_split
    taken: Counter[tuple[str, str]] = Counter()
    kept = []
    for item in items:
        if (languages and item.row.language not in languages) or (tasks and item.task not in tasks):
            continue
        taken[item.row.language, item.split] += 1
        if most is None or taken[item.row.language, item.split] <= most:
            kept.append(item)
    return kept


def _must_occur(path: Path, what: str, wanted: Sequence[str] | None, found: Sequence[str]) -> None:
    known = list(dict.fromkeys(found))
    for one in (one for one in wanted or () if one not in known):
        there = ", ".join(known[:20]) or "none"
        raise ConfigError(f"{path}: no question has the {what} '{one}'{did_you_mean(one, known)}; there are {there}")


def read_questions(path: Path, language: str | None = None) -> tuple[list[Item], int, Rejections]:
    """Read a file of questions.

    A row has `prompt` (text or messages) or `question`, one or several references under one of the names in
    `REFERENCES`, and `language`, else it is in the one given here; `id`, `split` and `task` where it wants.

    Returns:
        The good questions in the file's order, their ids unique; the number of rows; the bad ones. Too many of these
        are the caller's to judge, with `rejections.check_share(total, share)`.

    Raises:
        ConfigError: no such file, or of no known kind.
        DataError: the file as a whole cannot be read.
    """
    if not path.is_file():
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such file of questions{did_you_mean(path.name, siblings)}")
    rejections, ids = Rejections(), RowIds()
    items: list[Item] = []
    for located in _records(path):
        try:
            item = parse_question(located, language)
            items.append(dataclasses.replace(item, row=ids.unique(item.row)))
        except RowError as error:
            reject(rejections, located, error)
    return items, len(items) + len(rejections), rejections


def parse_question(located: Located, language: str | None = None) -> Item:
    """The question of one located record.

    Raises:
        RowError: it cannot be used, or could not be decoded.
    """
    if located.problem is not None:
        raise RowError(*located.problem)
    record = located.value
    if not isinstance(record, Mapping):
        raise RowError("not_an_object", f"a row is an object with keys, got {type(record).__name__}")
    given = {"id": record.get("id"), "language": record.get("language"), "prompt": _only(record, PROMPTS, "prompt")[1]}
    fallback = f"{Path(located.file).name}:{located.line}"
    rows: list[Row] = []
    for reference in _references(located, record):
        rows.append(parse_row(given | {"completion": reference}, fallback_id=fallback, language=language))
    _, *further = dict.fromkeys(row.completion for row in rows)
    return Item(rows[0], tuple(further), task=_label(record, "task"), split=_label(record, "split"))


def fingerprint(items: Sequence[Item]) -> str:
    """SHA-256 over ids, languages, splits, tasks, prompts and references, in order."""
    digest = hashlib.sha256()
    for item in items:
        row = item.row
        content = [row.id, row.language, item.split, item.task, row.prompt, item.references]
        digest.update(json.dumps(content, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _records(path: Path) -> Iterator[Located]:
    suffix = path.suffix.lower()
    if suffix in DATA_SUFFIXES:
        return read_records(path)
    if suffix not in CSV_SUFFIXES:
        known = ", ".join((*DATA_SUFFIXES, *CSV_SUFFIXES))
        raise ConfigError(f"{path}: cannot read '{path.suffix}' files (known: {known}); write it as JSONL")
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as handle:
        header = handle.readline()
    names = next(csv.reader([header], delimiter=max(",;\t", key=header.count)), [])
    prompt = next((name for name in PROMPTS if name in names), PROMPTS[0])
    reference = next((name for name in REFERENCES if name in names), REFERENCES[1])
    return open_format(path, "csv", Columns(prompt=prompt, completion=reference))[1]


def _references(located: Located, record: Mapping[str, Any]) -> list[Any]:
    """The references, not yet checked one by one; a list of messages is one of them."""
    name, value = _only(record, REFERENCES, "reference")
    if isinstance(value, str) and name == "references" and Path(located.file).suffix.lower() in CSV_SUFFIXES:
        value = _of_cell(value)
    if isinstance(value, str) or not isinstance(value, Sequence):
        if name == "references":
            raise RowError("wrong_type", "`references` must be a list of texts")
        _must_be_text(value, name)
        return [value]
    if not value:
        raise RowError("empty_completion", f"`{name}` is an empty list")
    if isinstance(value[0], Mapping):
        return [value]
    for one in value:
        _must_be_text(one, name)
    return list(value)


def _of_cell(text: str) -> list[Any]:
    """A cell of a CSV file holds one reference, or several as a JSON list."""
    if text.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):  # a text that begins with a bracket
            return list(json.loads(text))
    return [text]


def _must_be_text(value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise RowError("wrong_type", f"`{name}` must be text, got {type(value).__name__}")


def _only(record: Mapping[str, Any], names: Sequence[str], wanted: str) -> tuple[str, Any]:
    """The one of some keys that a record has, and its value."""
    found = [name for name in names if record.get(name) is not None]
    if len(found) > 1:
        raise RowError("two_formats", f"has both `{found[0]}` and `{found[1]}`: keep one")
    if found:
        return found[0], record[found[0]]
    if any(name in record for name in names):
        raise RowError("null", f"the {wanted} is null")
    raise RowError("missing_key", f"no {wanted}: none of {', '.join(names)}")


def _label(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key, "")
    if value is None:
        return ""
    _must_be_text(value, key)
    if len(value) > MAX_LABEL or not value.isprintable():
        raise RowError("bad_label", f"`{key}` must be one line of at most {MAX_LABEL} characters")
    return value.strip()
