"""Rows of a stack: a sentence with the language it is in, and what a task asks about it."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
COLUMNS = {name: ours for ours, names in ALIASES.items() for name in names} | dict(zip(ALIASES, ALIASES, strict=True))
"""What each name stands for that rows may have; `answer` for a column of its own."""
_ASKED: Mapping[str, tuple[str, ...]] = {
    "classification": ("pair", "label"),
    "choice": ("pair", "label", "choices"),
    "generation": ("pair", "answer"),
}
"""The columns that are read for a kind of task, beside those that every row has."""
_COMMON = ("id", "language", "text", "english")
LATER = frozenset({"answer", "split", "item"})
"""Columns that rows did not have at first."""
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
    def texts(self) -> list[str]:
        """All that is read of it: its text, the second of a pair, its choices."""
        return [text for text in (self.text, self.pair, *self.choices) if text is not None]

    @property
    def has_id(self) -> bool:
        """Whether it has an id of its own, and not its place in the stead of one."""
        return self.id not in ("", self.place)


class _Problem(ValueError):
    """Why a record is no row."""


class RowReader:
    """Makes rows of records, and holds the columns that somebody named against the records as they pass.

    One that somebody named and that none of them has is a slip. Only what the task reads counts: a recipe may name
    columns for another stage. A second text that some records have and others do not is a slip, too.

    Args:
        columns: Ours to theirs; ours by any of the names that rows may have for it.
        task: What is asked; None where the text is all that is read.
        language: Of rows that do not name theirs.
        key: Where the columns were named, for messages.

    Raises:
        ConfigError: a column of ours that does not exist, or that is named twice.
    """

    def __init__(
        self, columns: Mapping[str, str] | None, task: Task | None, language: str | None, key: str = "data.columns"
    ) -> None:
        named: dict[str, str] = {}
        for name, theirs in (columns or {}).items():
            ours = COLUMNS.get(name)
            if ours is None:
                raise ConfigError(f"{key}: '{name}' is not one of {', '.join(COLUMNS)}{did_you_mean(name, COLUMNS)}")
            if ours in named:
                raise ConfigError(f"{key}: '{name}' is another name of '{ours}', which is named, too: keep one")
            named[ours] = theirs
        self._key, self._task, self._language = key, task, language
        self._read = _COMMON if task is None else (*_COMMON, *_ASKED[task.kind], "split", "item")
        self._names = {**ALIASES, **{ours: (theirs,) for ours, theirs in named.items()}}
        self._missing = {ours: theirs for ours, theirs in named.items() if ours in self._read}
        self._there: dict[str, None] = {}
        self._first: tuple[str, str | None] | None = None

    def rows(self, records: Iterable[tuple[str, Any]], left_out: Counter[str] | None = None) -> Iterator[StackRow]:
        """The rows of records, each of which comes with its place; a DataError names the place of one that is no row.

        Those without text are passed over where `left_out` counts them.
        """
        for place, record in records:
            try:
                if isinstance(record, Mapping):
                    self._look(record, place)
                    if left_out is not None and self._is_blank(record):
                        left_out["blank"] += 1
                        continue
                row = self._parsed(record, place)
            except _Problem as error:
                named = (theirs for theirs in self._missing.values() if f"'{theirs}'" in str(error))
                hint = next((did_you_mean(theirs, self._there) for theirs in named), "")
                raise DataError(f"{place}: {error}{hint}") from None
            yield row

    def check(self, source: str) -> None:
        """Refuse a column that was named and that no record has: a ConfigError says the nearest that there is."""
        for ours, theirs in self._missing.items():
            raise ConfigError(
                f"{self._key}: {source}: no row has a column '{theirs}', which was named for '{ours}'"
                f"{did_you_mean(theirs, self._there)}; rows have {', '.join(self._there)}"
            )

    def _look(self, record: Mapping[str, Any], place: str) -> None:
        """Note which columns a record has; it has a second text where the first record has one, and only there."""
        if self._missing:
            self._there |= dict.fromkeys(map(str, record))
            self._missing = {ours: theirs for ours, theirs in self._missing.items() if theirs not in record}
        if "pair" in self._read:
            pair = next((name for name in self._names["pair"] if name in record), None)
            if self._first is None:
                self._first = (place, pair)
            first, other = self._first
            if pair is None and other is not None:
                raise _Problem(f"no '{other}', which {first} has; where there is none, write null")
            if pair is not None and other is None:
                raise _Problem(f"has a '{pair}', which {first} has not; where there is none, write null")

    def _is_blank(self, record: Mapping[str, Any]) -> bool:
        texts = [record.get(name) for name in self._names["text"]]
        given = [text for text in texts if text is not None]
        return len(given) == 1 and isinstance(given[0], str) and not given[0].strip()

    def _parsed(self, record: Any, place: str) -> StackRow:
        if not isinstance(record, Mapping):
            raise _Problem("is no mapping of names to values")
        task, names = self._task, self._names
        called: dict[str, str] = {}
        values: dict[str, Any] = dict.fromkeys(names)
        for name in self._read:
            called[name], values[name] = _value(record, names[name])
        code = values["language"] or self._language
        if not isinstance(code, str) or not code:
            raise _Problem(f"no language: name the source language in '{called['language']}', or set data.language")
        if task is not None and task.kind != "choice":
            numbered = isinstance(values["label"], int) or isinstance(values["answer"], int)
            if numbered and _value(record, names["choices"])[1] is not None:
                raise _Problem(
                    f"has '{names['choices'][0]}', and a number may be that of a choice: set task.kind=choice, or give "
                    "the class by its name"
                )
        choices = _choices(values["choices"], called["choices"]) if "choices" in called else ()
        pair, english, split, item = (values[name] for name in ("pair", "english", "split", "item"))
        return StackRow(
            text=_text(values["text"], called["text"]),
            language=code,
            label=None if task is None or values["label"] is None else _label(values["label"], task, choices),
            answer=None if task is None or values["answer"] is None else _answer(values["answer"], task),
            pair=None if pair is None else _text(pair, called["pair"]),
            choices=choices,
            english=None if english is None else _text(english, called["english"]),
            id=str(values["id"] if values["id"] is not None else place),
            split=None if split is None else str(split),
            item=None if item is None else str(item),
            place=place,
        )


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
    reader = RowReader(columns, task, language, "columns")
    numbered = ((f"{source}:{number}", record) for number, record in enumerate(records, start=1))
    rows = list(itertools.islice(reader.rows(numbered), max_rows))
    if not rows:
        raise DataError(f"{source}: no row")
    reader.check(source)
    return rows


def _value(record: Mapping[str, Any], names: Sequence[str]) -> tuple[str, Any]:
    """What the record calls a column, and what it has there."""
    found = [name for name in names if record.get(name) is not None]
    if len(found) > 1:
        raise _Problem(f"has both '{found[0]}' and '{found[1]}': name the one to read in data.columns")
    return (found[0], record[found[0]]) if found else (names[0], None)


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Problem(f"'{column}' has to be text that is not empty, got {_shown(value)}")
    return value


def _choices(value: Any, column: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise _Problem(f"'{column}' has to be a list of at least two answers, got {_shown(value)}")
    return tuple(_text(choice, column) for choice in value)


def _label(value: Any, task: Task, choices: Sequence[str]) -> int:
    count = len(choices) if task.kind == "choice" else len(task.labels)
    if isinstance(value, str) and value in task.labels:
        return task.labels.index(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count:
        return value
    if isinstance(value, str) and task.labels:
        raise _Problem(f"label '{value}' is not one of {', '.join(task.labels)}{did_you_mean(value, task.labels)}")
    raise _Problem(f"label {_shown(value)} is not a number from 0 to {count - 1}")


def _answer(value: Any, task: Task) -> str:
    """An answer's text; a number stands for the name of its class where classes have names."""
    if isinstance(value, int) and task.labels:
        return task.labels[_label(value, task, ())]
    return _text(value, "answer")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def check_taught(rows: Sequence[StackRow], task: Task, classes: int | None = None) -> None:
    """Refuse rows that cannot be learned from: without label or answer, or whose label is no class and no choice.

    There are as many classes as the task names, or as a head tells apart; choices bring their number along.
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
