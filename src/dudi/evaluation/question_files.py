"""What is asked: the built-in benchmark, or a file of questions and references with its bad rows counted by reason."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.data.cldr.benchmark import NAME, TASKS, questions
from dudi.data.cldr.speaker import LANGUAGES
from dudi.data.files import DATA_SUFFIXES, Located, read_records
from dudi.data.formats import CSV_SUFFIXES, Columns, open_format
from dudi.data.rejections import Rejections
from dudi.data.rows import Row, RowError, parse_row
from dudi.data.sources import RowIds, reject
from dudi.errors import ConfigError, DataError, did_you_mean
from dudi.evaluation.benchmark import Item, described, item_of
from dudi.languages.registry import load_languages

PROMPTS = ("prompt", "question")
REFERENCES = ("references", "reference", "completion", "answer")
MAX_LABEL = 100
"""Most characters of a `split` or a `task`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What is asked.

    Attributes:
        items: The questions, their ids unique.
        benchmark: What they are, for the record.
        candidates: The languages that an answer can be in.
        total: Rows read from a file, good and bad.
        rejections: The bad ones.
    """

    items: list[Item]
    benchmark: dict[str, Any]
    candidates: list[str]
    total: int = 0
    rejections: Rejections = dataclasses.field(default_factory=Rejections)


def built_in(
    languages: Sequence[str] | None,
    tasks: Sequence[str] | None,
    *,
    part: str = "test",
    per_split: int | None = None,
    trained: Sequence[str] | None = None,
) -> Asked:
    """Questions of `cldr-qa-1`.

    Args:
        languages: Those of the questions; None: all.
        tasks: As in docs/benchmark.md; None: all.
        part: `test` or `validation`.
        per_split: At most this many questions of each language and split.
        trained: The languages that the model was trained in, which decide the splits; None: all.

    Raises:
        ConfigError: an unknown language, task or part, or nothing left to ask.
    """
    chosen_part: Any = part  # `questions` refuses any other
    found = questions(
        languages or list(LANGUAGES),
        tasks or list(TASKS),
        part=chosen_part,
        per_split=per_split,
        trained=trained or list(LANGUAGES),
    )
    if not found:
        raise ConfigError(f"{NAME}: no question is left in the {part} part; name other tasks or languages")
    how = described(found, part=part, max_new_tokens=1)
    return Asked([item_of(question) for question in found], how, list(LANGUAGES))


def from_file(
    path: Path,
    languages: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    *,
    per_split: int | None = None,
    language: str | None = None,
) -> Asked:
    """The questions of a file, or some of them.

    Args:
        path: As in `read_questions`.
        languages: Only these; None: all.
        tasks: Only these; None: all.
        per_split: At most this many questions of each language and split, the first ones.
        language: The language of rows that do not name theirs.

    Raises:
        ConfigError: no such file, language or task.
        DataError: the file cannot be read, or holds no good question.
    """
    items, total, rejections = read_questions(path, language)
    if not items:
        why = ", ".join(f"{reason} {count:,}" for reason, count in rejections.counts.most_common(6))
        raise DataError(f"{path}: no good question in {total:,} rows{f': {why}' if why else ''} (docs/eval.md)")
    _must_occur(path, "language", languages, [item.row.language for item in items])
    _must_occur(path, "task", tasks, [item.task for item in items if item.task])
    kept = chosen(items, languages, tasks, per_split)
    if not kept:
        raise ConfigError(f"{path}: no question is of these languages and of these tasks; name fewer of both")
    how = {
        "name": path.stem,
        "questions": len(kept),
        "languages": list(dict.fromkeys(item.row.language for item in kept)),
        "tasks": list(dict.fromkeys(item.task for item in kept if item.task)),
        "fingerprint": fingerprint(kept),
    }
    return Asked(kept, how, sorted(load_languages()), total, rejections)


def chosen(
    items: Sequence[Item],
    languages: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    per_split: int | None = None,
) -> list[Item]:
    """The questions of some languages and tasks, at most `per_split` of each language and split."""
    taken: Counter[tuple[str, str]] = Counter()
    kept = []
    for item in items:
        if (languages and item.row.language not in languages) or (tasks and item.task not in tasks):
            continue
        taken[item.row.language, item.split] += 1
        if per_split is None or taken[item.row.language, item.split] <= per_split:
            kept.append(item)
    return kept


def _must_occur(path: Path, what: str, wanted: Sequence[str] | None, found: Sequence[str]) -> None:
    known = list(dict.fromkeys(found))
    for one in wanted or ():
        if one not in known:
            hint = did_you_mean(one, known)
            there = ", ".join(known[:20]) or "none"
            raise ConfigError(f"{path}: no question has the {what} '{one}'{hint}; there are {there}")


def read_questions(path: Path, language: str | None = None) -> tuple[list[Item], int, Rejections]:
    """Read a file of questions.

    A row has `prompt` (text or messages) or `question`, one or several references under one of the names in
    `REFERENCES`, and `language`; `id`, `split` and `task` where it wants.

    Args:
        path: A `.jsonl`, `.ndjson`, `.json`, `.parquet`, `.csv` or `.tsv` file.
        language: The language of rows that do not name theirs.

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
    total = 0
    for located in _records(path):
        total += 1
        try:
            item = parse_question(located, language)
            items.append(dataclasses.replace(item, row=ids.unique(item.row)))
        except RowError as error:
            reject(rejections, located, error)
    return items, total, rejections


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
    prompt, references = _prompt(record), _references(record)
    given = {"id": record.get("id"), "language": record.get("language"), "prompt": prompt}

    def row(reference: Any) -> Row:
        fallback = f"{Path(located.file).name}:{located.line}"
        return parse_row(given | {"completion": reference}, fallback_id=fallback, language=language)

    first, *others = (row(reference) for reference in references)
    further = dict.fromkeys(other.completion for other in others if other.completion != first.completion)
    return Item(first, tuple(further), task=_label(record, "task"), split=_label(record, "split"))


def fingerprint(items: Sequence[Item]) -> str:
    """SHA-256 over ids, languages, splits, tasks, prompts and references, in order."""
    digest = hashlib.sha256()
    for item in items:
        row = item.row
        content = [row.id, row.language, item.split, item.task, list(row.prompt), list(item.references)]
        digest.update(json.dumps(content, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _records(path: Path) -> Iterator[Located]:
    suffix = path.suffix.lower()
    if suffix in CSV_SUFFIXES:
        return open_format(path, "csv", _columns(path))[1]
    if suffix not in DATA_SUFFIXES:
        known = ", ".join((*DATA_SUFFIXES, *CSV_SUFFIXES))
        raise ConfigError(f"{path}: cannot read '{path.suffix}' files (known: {known}); write it as JSONL")
    return read_records(path)


def _columns(path: Path) -> Columns:
    """Which of the usual names the prompt and the reference have in a CSV file."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as handle:
        header = handle.readline()
    names = next(csv.reader([header], delimiter=max(",;\t", key=header.count)), [])
    prompt = next((name for name in PROMPTS if name in names), PROMPTS[0])
    return Columns(prompt=prompt, completion=next((name for name in REFERENCES if name in names), REFERENCES[1]))


def _prompt(record: Mapping[str, Any]) -> Any:
    return _only(record, PROMPTS, "prompt")[1]


def _references(record: Mapping[str, Any]) -> list[Any]:
    """The references, not yet checked one by one; a list of messages is one of them."""
    name, value = _only(record, REFERENCES, "reference")
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
