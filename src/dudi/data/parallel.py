"""`dudi prepare parallel`: translation instructions from parallel text, worded in the language of the prompt."""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dudi.data.formats import CSV_SUFFIXES
from dudi.data.overlap import find_benchmark
from dudi.data.prepared import Draft, Group, Prepared, at_most, prepare
from dudi.data.records import Located, read_records
from dudi.data.sources import by_language, excerpt_of
from dudi.errors import ConfigError, DataError
from dudi.files import sha256_of
from dudi.languages.flores import CODES
from dudi.languages.registry import Language, check_codes, load_languages
from dudi.languages.translation import translation_prompt

ALL = "all"
LOOKED_AT = 20
"""Rows from which the form of a file is found out."""


class Pair(NamedTuple):
    """A text in the language that was named with `--from`, and its translation; `key` tells it from other pairs."""

    key: str
    source: str
    target: str
    language: str


def prepare_parallel(
    file: Path,
    output: Path,
    *,
    source: str = "en",
    targets: Sequence[str] | None = None,
    split: str | None = None,
    both: bool = True,
    balance: bool = True,
    per_language: int | None = None,
    not_in: Sequence[str] = (),
    folder: Path | None = None,
    seed: int = 0,
    licence: str | None = None,
) -> Prepared:
    """Write translation rows.

    The file has a row for each text with `lang`, `row` and `text` (the same `row` is the same text in every language;
    or the text in `source` stands beside it, in a column with that code), or a column for each language; a language is
    named by its code or as in FLORES-200 (`tha_Thai`), and the columns may stand in one, `translation`.

    Args:
        file: `.parquet`, `.jsonl`, `.json`, `.csv` or `.tsv`.
        output: The `.jsonl` or `.parquet` file.
        source: Code of the language on one side.
        targets: Codes of the languages on the other side; None takes all that the file has.
        split: Only rows whose column `split` says so.
        both: Whether translations back into `source` are written too.
        balance: Whether every language that is written in has as many rows as the one with the fewest; those into
            `source` are drawn evenly from all others.
        per_language: With `balance`, at most so many rows in each language, and all of one that has fewer; without
            it, at most so many of each pair of languages.
        not_in: Tasks whose test questions must share no n-gram with either side; their local files are in `folder`.
        folder: As in `prepare_task`.
        seed: Of the draw.
        licence: For the card: what the texts' own page says.

    Raises:
        ConfigError: no such file or language, or columns of another form.
        DataError: no good row, or too many bad ones.
        EnvironmentFault: the output cannot be written.
    """
    known = load_languages()
    check_codes([source, *(targets or ())], known, "languages")
    if not file.is_file():
        raise ConfigError(f"{file}: no such file")
    reader = _Reader(file, source, targets, split, known)
    benchmark = find_benchmark(not_in, [source, *reader.languages], folder)
    there = [code for code in reader.languages if code not in reader.missing]
    about = {
        "parallel": {"from": source, "to": there, "both_directions": both, "balanced": balance},
        "split": split,
        "licence": licence or "not stated: look at the texts' own page",
        "inputs": [{"file": file.name, "sha256": sha256_of(file)}],
        "per_language": per_language,
        "one_side_alone": reader.alone,  # counted by the passes, which come before the card
    }
    quotas = functools.partial(_balanced, source, per_language) if balance else functools.partial(at_most, per_language)
    drafts = functools.partial(_drafts, reader, both)
    return prepare(drafts, output, about, quotas=quotas, benchmark=benchmark, seed=seed, notes=reader.notes)


def _drafts(reader: _Reader, both: bool) -> Iterator[Located]:
    """Each pair as one or two rows."""
    for located in reader.pairs():
        if located.problem is not None:
            yield located
            continue
        pair: Pair = located.value
        texts = (pair.source.strip(), pair.target.strip())
        if not all(texts) or texts[0].casefold() == texts[1].casefold():
            problem = ("not_translated", "the two texts are the same, or one is empty")
            yield Located(located.file, located.line, None, problem, f"{texts[0]} | {texts[1]}")
            continue
        directions = [(reader.source, pair.language, *texts), (pair.language, reader.source, *texts[::-1])]
        for spoken, wanted, text, translation in directions if both else directions[:1]:
            record = {
                "id": f"{reader.file.stem}/{pair.key}/{spoken}-{wanted}",
                "language": wanted,
                "prompt": translation_prompt(text, spoken, wanted, reader.known),
                "completion": translation,
            }
            yield dataclasses.replace(located, value=Draft(record, (wanted, spoken), texts))


def _balanced(source: str, per_language: int | None, counts: Mapping[Group, int]) -> dict[Group, int]:
    """As many rows in each language as in the one with the fewest; into `source` evenly from all others."""
    out = {group: own for group, own in counts.items() if group[0] != source}
    back = {group: own for group, own in counts.items() if group[0] == source}
    size = per_language or min(out.values(), default=0) or max(back.values(), default=0)
    return at_most(size, out) | _spread(back, size)


def _spread(counts: Mapping[Group, int], total: int) -> dict[Group, int]:
    """So many in all, as evenly as the groups have them: the small ones give all, the others share the rest."""
    given: dict[Group, int] = {}
    for place, group in enumerate(sorted(counts, key=lambda one: (counts[one], one))):
        given[group] = min(counts[group], (total - sum(given.values())) // (len(counts) - place))
    return given


class _Reader:
    """The pairs of a file, whichever form it has.

    Attributes:
        languages: The codes of the other side; those that the file has no text in are `missing`.
        alone: Of the last pass, by language: texts whose other side the file does not have.
    """

    def __init__(
        self, file: Path, source: str, targets: Sequence[str] | None, split: str | None, known: Mapping[str, Language]
    ) -> None:
        self.file, self.source, self.split, self.known = file, source, split, known
        first = list(itertools.islice(self._sound(), LOOKED_AT))
        if not first:
            raise DataError(f"{file}: has no rows{f' of the split {split}' if split else ''}")
        # CSV keeps fields beyond the header under None.
        names = list(dict.fromkeys(str(name) for record in first for name in record if name is not None))
        self._columns = self._columns_of(names, first)
        self._is_long = "lang" in names and "text" in names
        if self._is_long:
            self._columns = {code: name for code, name in self._columns.items() if code == source}
        elif source not in self._columns or len(self._columns) < 2:
            raise ConfigError(
                f"{file}: its columns are {', '.join(names)}; expected lang, row and text, or lang, text and "
                f"{source}, or a column for each language ({source}, ...) (docs/data.md)"
            )
        self._there = Counter(self._texts())
        self.languages = self._chosen(targets)
        self.missing = [code for code in self.languages if code not in self._there]
        self._all = targets is None
        self.alone: Counter[str] = Counter()

    def pairs(self) -> Iterator[Located]:
        """Located `Pair`s in the languages that are wanted, and records that could not be read."""
        self.alone.clear()
        held = {}  # of the long form: the source's texts that stand in rows of their own
        for record in self._sound() if self._is_long else ():
            if _lacking(record) is None and self._code_of(record["lang"]) == self.source:
                held[_key(record)] = record["text"]
        for located in self._records():
            if located.problem is not None:
                yield located
            elif self._is_long:
                yield from self._long(located, held)
            else:
                yield from self._wide(located)

    def notes(self) -> list[str]:
        """What a person should know of what was not paired, after a pass."""
        notes, name = [], self.file.name
        if self.missing:
            notes.append(f"{name}: has no text in {', '.join(self.missing)}; there is {', '.join(self._there)}")
        unknown = {code: own for code, own in self._there.items() if code not in self.known}
        if self._all and unknown:
            notes.append(f"{name}: texts in languages that are not known are left out: {by_language(unknown)}")
        if self.alone:
            notes.append(
                f"{name}: texts without one in {self.source} beside them, or the other way round, are left out: "
                f"{by_language(self.alone)}"
            )
        return notes

    def _chosen(self, targets: Sequence[str] | None) -> list[str]:
        """The codes of the other side, those of the file where none were named."""
        there = ", ".join(self._there) or "none"
        if self.source not in self._there:
            raise ConfigError(f"{self.file}: has no text in '{self.source}'; there is {there}")
        named = [code for code in self._there if code in self.known] if targets is None else dict.fromkeys(targets)
        chosen = [code for code in named if code != self.source]
        if not chosen:
            raise ConfigError(f"{self.file}: has no language beside '{self.source}'")
        if not set(chosen) & set(self._there):
            raise ConfigError(f"{self.file}: has no text in {', '.join(chosen)}; there is {there}")
        return chosen

    def _texts(self) -> Iterator[str]:
        """The language of every text; of one that is not known, as the file says it."""
        for record in self._sound():
            yield from (code for code, column in self._columns.items() if record.get(column))
            if self._is_long and isinstance(record.get("lang"), str):
                yield self._code_of(record["lang"]) or record["lang"]

    def _columns_of(self, names: Sequence[str], first: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """The column of each language, of those that are named by one."""
        found: dict[str, str] = {}
        for name in names:
            # `id` is Indonesian, and what people call a row's key: a key is one word.
            key = name == "id" and not any(" " in str(record.get("id", "")).strip() for record in first)
            code = self._code_of(name)
            if code is not None and not (key and self.source != code):
                found.setdefault(code, name)
        return found

    def _records(self) -> Iterator[Located]:
        records = _delimited(self.file) if self.file.suffix.lower() in CSV_SUFFIXES else read_records(self.file)
        for located in records:
            record = located.value
            if located.problem is not None:
                yield located
            elif not isinstance(record, Mapping):
                yield Located(located.file, located.line, problem=("not_an_object", "a record is an object with keys"))
            elif self.split is None or record.get("split") == self.split:
                yield dataclasses.replace(located, value=_unfolded(record))

    def _sound(self) -> Iterator[Mapping[str, Any]]:
        return (located.value for located in self._records() if located.problem is None)

    def _long(self, located: Located, held: Mapping[tuple[str, str], Any]) -> Iterator[Located]:
        """Each text its own row: the source's stands beside it, or in a row of its own."""
        record = located.value
        if (problem := _lacking(record)) is not None:
            yield Located(located.file, located.line, None, problem, excerpt_of(record))
            return
        language = self._code_of(record["lang"]) or record["lang"]
        source = record.get(self._columns.get(self.source, "")) or held.get(_key(record))
        if language == self.source:
            return
        if source:
            yield from self._pair(located, record.get("row", located.line), source, record["text"], language)
        elif language in self.languages:
            self.alone[language] += 1

    def _wide(self, located: Located) -> Iterator[Located]:
        """A column for each language."""
        record = located.value
        key = record.get("row") or (None if "id" in self._columns.values() else record.get("id")) or located.line
        texts = {code: record.get(column) for code, column in self._columns.items()}
        source = texts.pop(self.source)
        for language, text in texts.items():
            if text and source:
                yield from self._pair(located, key, source, text, language)
            elif (text or source) and language in self.languages:
                self.alone[language] += 1

    def _pair(self, located: Located, key: Any, source: Any, target: Any, language: str) -> Iterator[Located]:
        """The pair of two texts, if its language is wanted."""
        if not (isinstance(source, str) and isinstance(target, str)):
            yield Located(located.file, located.line, problem=("wrong_type", "a text of the pair is no text"))
        elif language in self.languages:
            yield dataclasses.replace(located, value=Pair(str(key), source, target, language))

    def _code_of(self, name: str) -> str | None:
        """The language that a column or a `lang` names: `th`, `tha_Thai`, `sentence_tha_Thai` (FLORES on the hub)."""
        return name if name in self.known else CODES.get(name.removeprefix("sentence_"))


def _unfolded(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record whose texts are in `translation: {en: ..., th: ...}` (WMT, OPUS) with a column for each language."""
    texts = record.get("translation")
    if not isinstance(texts, Mapping):
        return record
    row = record.get("row", record.get("id"))  # an `id` beside the texts is the row's; one among them is Indonesian
    return {**({} if row is None else {"row": row}), **texts}


def _lacking(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """What keeps a record from being a text in a language."""
    for name in ("lang", "text"):
        if name not in record:
            return "missing_key", f"has no `{name}`"
        if record[name] is None:
            return "null", f"`{name}` is null"
    return None if isinstance(record["lang"], str) else ("wrong_type", "`lang` is no text")


def _key(record: Mapping[str, Any]) -> tuple[str, str]:
    """What texts that say the same have in common."""
    return str(record.get("split")), str(record.get("row"))


def _delimited(file: Path) -> Iterator[Located]:
    """The rows of a CSV or TSV file with a header."""
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else 0)
            for row in reader:
                yield Located(str(file), reader.line_num, row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read: {error}; save it as UTF-8 with a header") from error
