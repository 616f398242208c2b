"""Rows of a stack: a sentence with the language it is in, and what a task asks about it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from dudi.errors import ConfigError, DataError, did_you_mean

ALIASES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "row"),
    "language": ("language", "lang"),
    "text": ("text", "passage", "premise"),
    "pair": ("pair", "question", "hypothesis"),
    "choices": ("choices",),
    "label": ("label", "answer"),
    "answer": ("answer",),
    "english": ("english", "en"),
    "split": ("split",),
    "item": ("item",),
}
"""Our columns, and the names that rows may have for them; of several in one row none is guessed."""
COLUMNS = {name: ours for ours, names in ALIASES.items() for name in names} | {ours: ours for ours in ALIASES}
"""What each name stands for that rows may have; `answer` for a column of its own."""
_ASKED: Mapping[str, tuple[str, ...]] = {
    "classification": ("pair", "label"),
    "choice": ("pair", "label", "choices"),
    "generation": ("pair", "answer"),
}
"""The columns that are read for a kind of task, beside those that every row has."""
LATER = frozenset({"answer", "split", "item"})
"""Columns that rows did not have at first."""
Names = Mapping[str, tuple[str, ...]]
Kind = Literal["classification", "choice", "generation"]


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """What is asked about a row.

    Attributes:
        kind: `classification` of a sentence or a pair, `choice` among answers that stand behind text and question, or
            `generation` of an answer that is written.
        labels: Names of the classes, in the order of their numbers; empty for choices.
        separator: What stands between the two texts of a pair where a tokenizer sets nothing there (GPT-2, Qwen); the
            authors had nothing.
        prompt: What an LLM that writes is asked, in its own tokens, behind the text.
    """

    kind: Kind
    labels: tuple[str, ...] = ()
    separator: str = "\n"
    prompt: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class StackRow:
    """One row.

    Attributes:
        text: The sentence, the premise, or the passage.
        language: Its language: `eng_Latn`, or another name that the table of `dudi.stacking.codes` knows.
        label: Number of the right class or choice; None where there is none.
        pair: The second sentence, the hypothesis, or the question about the passage.
        choices: The answers to choose from.
        english: What the text means in English, for measuring and for Stage 1 on bitext.
        id: Its name.
        answer: What is to be written about it; None where there is none.
        split: The part of the rows that it belongs to, which is scored apart too; None: they have no parts.
        item: What it has in common with others, such as the country that they are about; these are drawn together when
            items are resampled. None: its `id`, which it has in common with its translations.
        place: The file and line that it comes from, for messages; it is no part of what the row is.
    """

    text: str
    language: str
    label: int | None = None
    pair: str | None = None
    choices: tuple[str, ...] = ()
    english: str | None = None
    id: str = ""
    answer: str | None = None
    split: str | None = None
    item: str | None = None
    place: str = dataclasses.field(default="", compare=False)

    @property
    def name(self) -> str:
        """What messages call it: its place, else its id, else how its text begins."""
        return self.place or self.id or f"the row {_shown(self.text)}"

    @property
    def has_id(self) -> bool:
        """Whether it has an id of its own, and not its place in the stead of one."""
        return self.id not in ("", self.place)


class Problem(ValueError):
    """Why a record is no row."""


class NamedColumns:
    """The columns of rows, held against records as they pass.

    One that somebody named and that none of them has is a slip. Only what the task reads counts: a recipe may name
    columns for another stage. A second text that some records have and others do not is a slip, too.

    Args:
        columns: Ours to theirs; ours by any of the names that rows may have for it.
        task: What is asked; None where the text is all that is read.
        key: Where they were named, for messages.

    Attributes:
        names: Where each of our columns is looked for: under the name that is given, else under any of its own.

    Raises:
        ConfigError: a column of ours that does not exist, or that is named twice.
    """

    def __init__(self, columns: Mapping[str, str] | None, task: Task | None, key: str = "data.columns") -> None:
        named: dict[str, str] = {}
        for name, theirs in (columns or {}).items():
            ours = COLUMNS.get(name)
            if ours is None:
                raise ConfigError(f"{key}: '{name}' is not one of {', '.join(COLUMNS)}{did_you_mean(name, COLUMNS)}")
            if ours in named:
                raise ConfigError(f"{key}: '{name}' is another name of '{ours}', which is named, too: keep one")
            named[ours] = theirs
        read = columns_of(task)
        self.key = key
        self.names: Names = {**ALIASES, **{ours: (theirs,) for ours, theirs in named.items()}}
        self.missing = {ours: theirs for ours, theirs in named.items() if ours in read}
        self._there: dict[str, None] = {}
        self._pairs = "pair" in read
        self._first: tuple[str, str | None] | None = None

    def look(self, record: Any, place: str) -> None:
        """Note what a record has.

        Raises:
            Problem: it has no second text where the first record has one, or the other way round.
        """
        if not isinstance(record, Mapping):
            return
        if self.missing:
            self._there |= dict.fromkeys(map(str, record))
            self.missing = {ours: theirs for ours, theirs in self.missing.items() if theirs not in record}
        if self._pairs:
            pair = next((name for name in self.names["pair"] if name in record), None)
            if self._first is None:
                self._first = (place, pair)
            first, other = self._first
            if pair is None and other is not None:
                raise Problem(f"no '{other}', which {first} has; where there is none, write null")
            if pair is not None and other is None:
                raise Problem(f"has a '{pair}', which {first} has not; where there is none, write null")

    def check(self, source: str) -> None:
        """Say which column was in no record.

        Raises:
            ConfigError: there is one; the message names the nearest that there is.
        """
        for ours, theirs in self.missing.items():
            raise ConfigError(
                f"{self.key}: {source}: no row has a column '{theirs}', which was named for '{ours}'"
                f"{did_you_mean(theirs, self._there)}; rows have {', '.join(self._there)}"
            )

    def hint(self, problem: str) -> str:
        """What is meant, where a record is no row for want of a column that was named."""
        return next((did_you_mean(name, self._there) for name in self.missing.values() if f"'{name}'" in problem), "")


def rows_from_records(
    records: Iterable[Mapping[str, Any]],
    task: Task | None = None,
    *,
    language: str | None = None,
    columns: Mapping[str, str] | None = None,
    source: str = "rows",
    max_rows: int | None = None,
) -> list[StackRow]:
    """Check records.

    Args:
        records: Mappings with the keys of `COLUMNS`.
        task: What is asked; None where the text is all that is read.
        language: Of rows that do not name theirs.
        columns: Ours to theirs, where they are called otherwise than in `ALIASES`: {"text": "sentence1"}.
        source: How messages name the records.
        max_rows: Read at most this many.

    Raises:
        ConfigError: a column of ours that does not exist, or one of theirs that no record has.
        DataError: naming the record and what is wrong with it.
    """
    named = NamedColumns(columns, task, "columns")
    rows: list[StackRow] = []
    for number, record in enumerate(records, start=1):
        if max_rows is not None and len(rows) >= max_rows:
            break
        try:
            named.look(record, f"{source}:{number}")
            rows.append(parse(record, task, named.names, language, f"{source}:{number}"))
        except Problem as error:
            raise DataError(f"{source}:{number}: {error}{named.hint(str(error))}") from None
    if not rows:
        raise DataError(f"{source}: no row")
    named.check(source)
    return rows


def columns_of(task: Task | None) -> tuple[str, ...]:
    """Our columns that are read for a task; None: where the text is all that is read."""
    return ("id", "language", "text", "english", *(() if task is None else (*_ASKED[task.kind], "split", "item")))


def parse(
    record: Mapping[str, Any],
    task: Task | None,
    names: Names,
    language: str | None,
    place: str,
) -> StackRow:
    """One record as a row.

    Raises:
        Problem: what is wrong with it.
    """
    if not isinstance(record, Mapping):
        raise Problem("is no mapping of names to values")
    asked, called = columns_of(task), {}
    values: dict[str, Any] = dict.fromkeys(names)
    for name in asked:
        called[name], values[name] = _value(record, names[name])
    code = values["language"] or language
    if not isinstance(code, str) or not code:
        raise Problem(f"no language: name the source language in '{called['language']}', or set data.language")
    if task is not None and task.kind != "choice":
        numbered = isinstance(values["label"], int) or isinstance(values["answer"], int)
        if numbered and _value(record, names["choices"])[1] is not None:
            raise Problem(
                f"has '{names['choices'][0]}', and a number may be that of a choice: set task.kind=choice, or give the "
                "class by its name"
            )
    choices = _choices(values["choices"], called["choices"]) if "choices" in asked else ()
    english = values["english"]
    return StackRow(
        text=_text(values["text"], called["text"]),
        language=code,
        label=None if task is None or values["label"] is None else _label(values["label"], task, choices),
        answer=None if task is None or values["answer"] is None else _answer(values["answer"], task),
        pair=None if values["pair"] is None else _text(values["pair"], called["pair"]),
        choices=choices,
        english=_text(english, called["english"]) if english is not None else None,
        id=str(values["id"] if values["id"] is not None else place),
        split=None if values["split"] is None else str(values["split"]),
        item=None if values["item"] is None else str(values["item"]),
        place=place,
    )


def _value(record: Mapping[str, Any], names: Sequence[str]) -> tuple[str, Any]:
    """What the record calls a column, and what it has there."""
    found = [name for name in names if record.get(name) is not None]
    if len(found) > 1:
        raise Problem(f"has both '{found[0]}' and '{found[1]}': name the one to read in data.columns")
    return (found[0], record[found[0]]) if found else (names[0], None)


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Problem(f"'{column}' has to be text that is not empty, got {_shown(value)}")
    return value


def _choices(value: Any, column: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise Problem(f"'{column}' has to be a list of at least two answers, got {_shown(value)}")
    return tuple(_text(choice, column) for choice in value)


def _label(value: Any, task: Task, choices: Sequence[str]) -> int:
    count = len(choices) if task.kind == "choice" else len(task.labels)
    if isinstance(value, str) and value in task.labels:
        return task.labels.index(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count:
        return value
    if isinstance(value, str) and task.labels:
        raise Problem(f"label '{value}' is not one of {', '.join(task.labels)}{did_you_mean(value, task.labels)}")
    raise Problem(f"label {_shown(value)} is not a number from 0 to {count - 1}")


def _answer(value: Any, task: Task) -> str:
    """An answer's text; a number stands for the name of its class where classes have names."""
    if isinstance(value, int) and task.labels:
        return task.labels[_label(value, task, ())]
    return _text(value, "answer")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def check_taught(rows: Sequence[StackRow], task: Task, classes: int | None = None) -> None:
    """Refuse rows that cannot be learned from.

    Args:
        rows: The rows.
        task: What is asked.
        classes: How many a head tells apart; None: as many as the task names. Choices bring their number along.

    Raises:
        DataError: a row has no label or no answer, or a label that stands for no class or choice; naming the first one.
    """
    for row in rows:
        if task.kind == "generation":
            if row.answer is None:
                raise DataError(f"{row.name}: no answer")
            continue
        if row.label is None:
            raise DataError(f"{row.name}: no label")
        named = len(task.labels) if classes is None else classes
        count = len(row.choices) if task.kind == "choice" else named
        if row.label not in range(count):
            raise DataError(f"{row.name}: label {row.label!r} is not a number from 0 to {count - 1}")


def fingerprint(rows: Sequence[StackRow]) -> str:
    """SHA-256 over rows in memory, in order; a row without any of `LATER` counts as before there were any."""
    digest = hashlib.sha256()
    for row in rows:
        values = dataclasses.asdict(row)
        del values["place"]
        values = {name: value for name, value in values.items() if value is not None or name not in LATER}
        digest.update(json.dumps(values, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
