"""Records of a labelled data set, from the hub or from files, as rows whose fields stay apart."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from dudi.data.csv_files import CSV_SUFFIXES, open_csv
from dudi.data.locate import DATA_SUFFIXES
from dudi.data.records import Located, dataset_records, open_dataset, read_records
from dudi.data.rows import RowError
from dudi.errors import ConfigError, did_you_mean, first_of
from dudi.stacking.codes import LanguageCodes, find_language, languages_of
from dudi.stacking.task_sets import Hub, TaskSet

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "valid", "validation", "val"), "dev"),
    "test": "test",
}
LANGUAGE_COLUMNS = ("lang", "language", "dialect")
_APART = re.compile(r"[./\\-]")


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A record, and what is known of it from where it lies.

    Attributes:
        located: The record with its place.
        split: `train`, `dev` or `test`; None where nothing says it.
        language: None where nothing says it.
        problem: (reason, detail) where its columns say what is no split or no language.
    """

    located: Located
    split: str | None
    language: LanguageCodes | None
    problem: tuple[str, str] | None = None


def hub_rows(hub: Hub, code: str, language: LanguageCodes, split: str, revision: str | None) -> Iterator[Found]:
    """The rows of one language, which the set calls `code`, and of one of our splits on the hub.

    A `revision` wins over the one that is known to work.
    """
    config = None if hub.config is None else hub.config.format(code=code)
    options = {key: value.format(code=code) for key, value in hub.options.items()}
    if revision is not None:
        options["revision"] = revision
    dataset = open_dataset(hub.name, config, hub.splits[split], **options)
    names = {column: feature.names for column, feature in dataset.features.items() if hasattr(feature, "names")}
    for located in dataset_records(dataset, f"{hub.name}{f':{config}' if config else ''}/{hub.splits[split]}"):
        if isinstance(located.value, Mapping):
            # A class is stored as its number; what the number means is known here alone.
            spoken = dict(located.value)
            for column, own in names.items():
                number = spoken.get(column)
                spoken[column] = own[number] if isinstance(number, int) and 0 <= number < len(own) else number
            located = dataclasses.replace(located, value=spoken)
        yield Found(located, split, language)


def file_rows(of: TaskSet, place: Path) -> Iterator[Found]:
    """The rows of a file, or of all data files below a folder.

    Language and split of a row are what its columns say, else what the names of its file and folders say:
    `data/annotated/eng_Latn/test.tsv`, `xnli.dev.az.csv`, `javanese/valid.csv`. The names do not speak for a row whose
    columns say what nobody knows: that is its `problem`.
    """
    suffixes = (*DATA_SUFFIXES, *CSV_SUFFIXES)
    if not place.exists():
        raise ConfigError(f"{place}: no such file or folder")
    files = [place] if place.is_file() else []
    for file in sorted(place.rglob("*")) if not files else ():
        hidden = any(part.startswith(".") for part in file.relative_to(place).parts)
        if file.suffix.lower() in suffixes and file.is_file() and not hidden and file.name != "rejected.jsonl":
            files.append(file)
    if not files:
        raise ConfigError(f"{place}: no data files in it (looked for {', '.join(suffixes)})")
    known = languages_of(of.name)
    for file in files:
        named = file.relative_to(place.parent if place.is_file() else place).as_posix()
        split, language = split_in(named), language_in(named, of, known)
        for located in open_csv(file).records() if file.suffix.lower() in CSV_SUFFIXES else read_records(file):
            value = located.value if isinstance(located.value, Mapping) else {}
            try:
                yield Found(located, _split_of(value) or split, _language_of(value, of, known) or language)
            except RowError as error:
                yield Found(located, None, None, (error.reason, error.detail))


def split_in(name: str) -> str | None:
    """The split that a file's name or a column says, by any of its words: `xnli.dev.az.csv`, `sample_test`."""
    words = [word for part in reversed(_APART.split(name.lower())) for word in part.split("_")]
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def language_in(name: str, of: TaskSet, known: Mapping[str, LanguageCodes]) -> LanguageCodes | None:
    """The language that the name of a file says, from its last folder up, in the set's own codes or names."""
    for word in reversed(_APART.split(name)):
        code = of.folders.get(word.lower(), word)
        if code in known:
            return known[code]
    for word in reversed(_APART.split(name)):
        # Words of two letters mean languages too often: `de`, `no`, `is`.
        if len(word) > 2 and (found := find_language(word)) is not None and word not in SPLITS:
            return found
    return None


def _split_of(record: Mapping[str, Any]) -> str | None:
    """The split that a record's column says; None where it has none."""
    value = record.get("split")
    if value in (None, ""):
        return None
    found = split_in(str(value))
    if found is None:
        raise RowError("unknown_split", f"'split' is {value!r}, none of {_either(str(value), SPLITS)}")
    return found


def _language_of(record: Mapping[str, Any], of: TaskSet, known: Mapping[str, LanguageCodes]) -> LanguageCodes | None:
    """The language that a record's columns say; None where they say none."""
    column = next((name for name in LANGUAGE_COLUMNS if record.get(name) not in (None, "")), None)
    if column is None:
        return None
    value = str(record[column])
    found = known.get(of.folders.get(value.lower(), value)) or find_language(value)
    if found is None:
        raise RowError(
            "unknown_language",
            f"'{column}' is {value!r}, no code of one language that is known; {of.name} has {_either(value, known)}",
        )
    return found


def _either(word: str, words: Collection[str]) -> str:
    """What a word may be, and which of these it most likely is."""
    return f"{first_of(list(words), 20)}{did_you_mean(word, words)}"


def row_of(of: TaskSet, record: Any) -> dict[str, Any]:
    """A record as a row: the task's fields under their own names, and the label; a RowError where it is none."""
    if not isinstance(record, Mapping):
        raise RowError("not_an_object", "is no mapping of names to values")
    row: dict[str, Any] = {field: _text(record, columns) for field, columns in of.fields.items()}
    if of.choices:
        given = record.get("choices")
        if isinstance(given, list):
            row["choices"] = [_text({"choices": one}, ("choices",)) for one in given]
        else:
            row["choices"] = [_text(record, columns) for columns in of.choices]
    row["label"] = _label(of, record, len(row.get("choices", ())))
    return row


def _text(record: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    column = next((name for name in columns if record.get(name) is not None), None)
    if column is None:
        raise RowError("missing_field", f"no '{columns[0]}'")
    value = record[column]
    if not isinstance(value, str) or not value.strip():
        raise RowError("empty_field", f"'{column}' is empty or no text")
    return value


def _label(of: TaskSet, record: Mapping[str, Any], choices: int) -> str | int:
    column = next((name for name in of.label if record.get(name) is not None), None)
    if column is None:
        raise RowError("missing_label", f"no '{next(iter(of.label))}'")
    value, first = record[column], of.label[column]
    if value in of.labels:
        return str(value)
    try:
        number = int(value) - first
    except (TypeError, ValueError):
        among = ", ".join(of.labels) or "the choices"
        raise RowError("unknown_label", f"'{column}' is {value!r}, none of {among}") from None
    if not 0 <= number < (choices if of.choices else len(of.labels)):
        raise RowError("label_out_of_range", f"'{column}' is {value!r}, which is out of range")
    return number if of.choices else of.labels[number]


def id_of(of: TaskSet, record: Mapping[str, Any], fallback: int) -> str:
    """What names a record in every language; `fallback`, its number in language and split, where nothing does."""
    given = [str(record[column]) for column in of.ids if record.get(column) not in (None, "")]
    return "-".join(given) or str(fallback)
