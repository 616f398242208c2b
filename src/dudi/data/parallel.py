"""`dudi prepare parallel`: translation instructions from parallel text, worded in the language of the prompt."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.data.files import Located, read_records
from dudi.data.formats import CSV_SUFFIXES
from dudi.data.prepared import Draft, Group, Prepared, Quotas, find_benchmark, prepare
from dudi.errors import ConfigError, DataError
from dudi.files import sha256_of
from dudi.languages.registry import Language, check_codes, load_languages
from dudi.languages.translation import translation_prompt

ALL = "all"
LOOKED_AT = 20
"""Rows from which the form of a file is found out."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A text and its translation.

    Attributes:
        key: What tells it from the other pairs of the file.
        source: In the language that was named with `--from`.
        target: In the other one.
        language: The other one's code.
    """

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
    or the text in `source` stands beside it, in a column with that code), or a column for each language.

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
        not_in: Tasks whose test questions must share no n-gram with either side.
        folder: Where local Parquet files of these tasks are.
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
    benchmark = find_benchmark(not_in, [source, *reader.languages()], folder)

    def drafts() -> Iterator[Located]:
        for located in reader.pairs():
            yield from _drafts(located, file, source, both, known)

    about = {
        "parallel": {"from": source, "to": reader.languages(), "both_directions": both, "balanced": balance},
        "split": split,
        "licence": licence or "not stated: look at the texts' own page",
        "inputs": [{"file": file.name, "sha256": sha256_of(file)}],
        "per_language": per_language,
    }
    quotas = _balanced(source, per_language) if balance else _each(per_language)
    return prepare(drafts, output, about, quotas=quotas, benchmark=benchmark, seed=seed)


def _drafts(located: Located, file: Path, source: str, both: bool, known: Mapping[str, Language]) -> Iterator[Located]:
    """One pair as one or two rows."""
    if located.problem is not None:
        yield located
        return
    pair: Pair = located.value
    texts = (pair.source.strip(), pair.target.strip())
    if not all(texts) or texts[0].casefold() == texts[1].casefold():
        problem = ("not_translated", "the two texts are the same, or one is empty")
        yield Located(located.file, located.line, None, problem, f"{texts[0]} | {texts[1]}")
        return
    directions = [(source, pair.language, *texts), (pair.language, source, *texts[::-1])]
    for spoken, wanted, text, translation in directions if both else directions[:1]:
        record = {
            "id": f"{file.stem}/{pair.key}/{spoken}-{wanted}",
            "language": wanted,
            "prompt": translation_prompt(text, spoken, wanted, known),
            "completion": translation,
        }
        yield Located(located.file, located.line, Draft(record, (wanted, spoken), texts))


def _each(per_pair: int | None) -> Quotas:
    return lambda counts: {group: min(own, per_pair or own) for group, own in counts.items()}


def _balanced(source: str, per_language: int | None) -> Quotas:
    """As many rows in each language as in the one with the fewest; into `source` evenly from all others."""

    def quotas(counts: Mapping[Group, int]) -> Mapping[Group, int]:
        out = {group: own for group, own in counts.items() if group[0] != source}
        back = {group: own for group, own in counts.items() if group[0] == source}
        size = per_language or min(out.values(), default=0) or max(back.values(), default=0)
        return {group: min(own, size) for group, own in out.items()} | _spread(back, size)

    return quotas


def _spread(counts: Mapping[Group, int], total: int) -> dict[Group, int]:
    """So many in all, as evenly as the groups have them: the small ones give all, the others share the rest."""
    given: dict[Group, int] = {}
    for place, group in enumerate(sorted(counts, key=lambda one: (counts[one], one))):
        given[group] = min(counts[group], (total - sum(given.values())) // (len(counts) - place))
    return given


class _Reader:
    """The pairs of a file, whichever form it has."""

    def __init__(
        self, file: Path, source: str, targets: Sequence[str] | None, split: str | None, known: Mapping[str, Language]
    ) -> None:
        self.file, self.source, self.split, self.known = file, source, split, known
        self._targets = None if targets is None else [code for code in targets if code != source]
        first = list(itertools.islice((one.value for one in self._records() if one.problem is None), LOOKED_AT))
        if not first:
            raise DataError(f"{file}: has no rows{f' of the split {split}' if split else ''}")
        self._columns: list[str] = []
        self._form = self._form_of(first)

    def languages(self) -> list[str]:
        """The codes of the other side, those of the file where none were named."""
        if self._targets is None:
            self._targets = list(dict.fromkeys(self._found()))
        if not self._targets:
            raise ConfigError(f"{self.file}: has no language beside '{self.source}'")
        return self._targets

    def pairs(self) -> Iterator[Located]:
        """Located `Pair`s, and records that could not be read."""
        wanted = set(self.languages())
        for located in self._form():
            pair = located.value
            if located.problem is not None or pair.language in wanted:
                yield located

    def _found(self) -> Iterator[str]:
        for located in self._form():
            if located.problem is None and located.value.language in self.known:
                yield located.value.language

    def _form_of(self, first: Sequence[Mapping[str, Any]]) -> Callable[[], Iterator[Located]]:
        columns = list(first[0])
        if "lang" not in columns or "text" not in columns:
            self._columns = [name for name in columns if name in self.known and name != self.source]
            # `id` is Indonesian, and what people call a row's key: a key is one word.
            if "id" in self._columns and not any(" " in str(record["id"]).strip() for record in first):
                self._columns.remove("id")
            if self.source in columns and self._columns:
                return self._wide
            raise ConfigError(
                f"{self.file}: its columns are {', '.join(map(str, columns))}; expected lang, row and text, or lang, "
                f"text and {self.source}, or a column for each language ({self.source}, ...) (docs/data.md)"
            )
        return self._long

    def _records(self) -> Iterator[Located]:
        records = _delimited(self.file) if self.file.suffix.lower() in CSV_SUFFIXES else read_records(self.file)
        for located in records:
            record = located.value
            if located.problem is None and not isinstance(record, Mapping):
                yield Located(located.file, located.line, problem=("not_an_object", "a record is an object with keys"))
            elif located.problem is not None or self.split is None or record.get("split") == self.split:
                yield located

    def _long(self) -> Iterator[Located]:
        """Each text its own row: the source's stands beside it, or in a row of its own, and those are held."""
        held = {}
        for located in self._records():
            record = located.value
            if located.problem is None and record.get("lang") == self.source:
                held[str(record.get("split")), str(record.get("row"))] = record["text"]
        for located in self._records():
            if located.problem is not None:
                yield located
                continue
            record = located.value
            source = record.get(self.source) or held.get((str(record.get("split")), str(record.get("row"))))
            if source and record["lang"] != self.source:
                yield _pair(located, str(record.get("row", located.line)), source, record["text"], str(record["lang"]))

    def _wide(self) -> Iterator[Located]:
        """A column for each language."""
        for located in self._records():
            record = located.value
            if located.problem is not None:
                yield located
                continue
            key = record.get("row") or (None if "id" in self._columns else record.get("id")) or located.line
            for name in self._columns:
                if record.get(name) and record.get(self.source):
                    yield _pair(located, str(key), record[self.source], record[name], name)


def _pair(located: Located, key: str, source: Any, target: Any, language: str) -> Located:
    if isinstance(source, str) and isinstance(target, str):
        return dataclasses.replace(located, value=Pair(key, source, target, language))
    return Located(located.file, located.line, problem=("wrong_type", "a text of the pair is no text"))


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
