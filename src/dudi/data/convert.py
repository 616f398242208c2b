"""`dudi prepare convert`: alpaca, sharegpt and CSV files into checked rows of `messages`."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.data.formats import FORMATS, Columns, open_format
from dudi.data.records import Located
from dudi.data.rejections import Rejections
from dudi.data.rows import Row, RowError, refuse_zawgyi
from dudi.data.sources import RowIds, by_language, check, reject
from dudi.data.writers import row_writer
from dudi.errors import ConfigError, DataError
from dudi.languages.registry import check_codes, load_languages

UNDETERMINED = "und"


@dataclasses.dataclass(frozen=True, slots=True)
class ConvertReport:
    """What `convert` did.

    Attributes:
        rejected: `NAME.rejected.jsonl` beside `NAME.jsonl`, or None when no row was rejected.
        total: Records read.
        languages: Rows written, by language.
        notes: What a person should know of how the file was read.
    """

    output: Path
    rejected: Path | None
    format: str
    total: int
    languages: dict[str, int]
    rejections: Rejections
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(self.languages.values())

    def __str__(self) -> str:
        counts = by_language(self.languages)
        lines = [f"{self.output}: {self.rows:,} of {self.total:,} rows, read as {self.format} ({counts})"]
        lines += [f"note: {note}" for note in self.notes]
        if self.rejected is not None:
            lines += [f"{len(self.rejections):,} rejected, each in {self.rejected}:", *self.rejections.summary()]
        return "\n".join(lines)


def convert(
    input: Path,
    output: Path,
    *,
    format: str = "auto",
    language: str | None = None,
    detect_language: bool = False,
    languages: Sequence[str] | None = None,
    columns: Columns | None = None,
    quoted: bool | None = None,
    max_rejected_share: float = 0.05,
) -> ConvertReport:
    """Convert a file of another format to rows with `id`, `language` and `messages`.

    Args:
        input: JSON (an array), JSONL, Parquet, CSV or TSV.
        output: The `.jsonl` or `.parquet` file to write; `NAME.rejected.jsonl` goes beside it.
        format: `alpaca`, `sharegpt`, `csv`, `rows` (dudi's own, to add languages or to check), or `auto`.
        language: The language of records that do not name theirs.
        detect_language: Find out the language of records that do not name theirs, from their text.
        languages: The codes that rows may have; None allows every known one.
        columns: The names of columns, where they are not the usual ones.
        quoted: Whether the cells of a CSV file are quoted; None finds out.
        max_rejected_share: Nothing is written over `output` when more records than this share are bad.

    Returns:
        Counts by language and reason, and the paths.

    Raises:
        ConfigError: the input does not exist, or the options are wrong.
        DataError: the file cannot be read, holds no good row, or too many bad ones.
        EnvironmentFault: the output cannot be written.
    """
    if language is not None and detect_language:
        raise ConfigError("language and detect_language: give one of them")
    if input.is_dir():
        raise ConfigError(f"{input}: is a folder; name a file in it (`dudi train` reads folders of rows as they are)")
    if not input.is_file():
        raise ConfigError(f"{input}: no such file")
    if output.exists() and output.samefile(input):
        raise ConfigError(f"{output}: input and output are the same file; name another output")
    every = list(load_languages())
    known = every if languages is None else list(languages)
    check_codes(known, every, "languages")
    check_codes([] if language is None else [language], known, "language")
    columns = columns or Columns()
    kind, records, note = open_format(input, format, columns, quoted)
    read = _Converter(FORMATS[kind], columns, language, detect_language, known)
    rejections, ids = Rejections(), RowIds()
    total = 0
    written: Counter[str] = Counter()
    other_form: Counter[str] = Counter()
    with row_writer(output) as write:
        for located in records:
            total += 1
            try:
                row = ids.unique(read(located))
            except RowError as error:
                reject(rejections, located, error)
                continue
            if not row.is_nfc:
                row = row.in_nfc()
                other_form[row.language] += 1
            written[row.language] += 1
            write({"id": row.id, "language": row.language, "messages": row.messages})
        rejected = rejections.settle(output.with_suffix(".rejected.jsonl"))
        rejections.check_share(total, max_rejected_share)
        if not written:
            raise DataError(f"{input}: no good row in it ({total:,} read)")
    notes = [note] if note else []
    if other_form:
        notes.append(f"{other_form.total():,} rows were not in Unicode's NFC, and are now ({by_language(other_form)})")
    return ConvertReport(output, rejected, kind, total, dict(written), rejections, tuple(notes))


@dataclasses.dataclass
class _Converter:
    """From a located record of another format to a row with a language."""

    reshape: Callable[[Mapping[str, Any], Columns], dict[str, Any]]
    columns: Columns
    language: str | None
    detect_language: bool
    languages: Sequence[str]

    def __call__(self, located: Located) -> Row:
        if located.problem is not None:
            raise RowError(*located.problem)
        record = located.value
        if not isinstance(record, Mapping):
            raise RowError("not_an_object", "a record must be an object with keys")
        shaped = self.reshape(record, self.columns)
        shaped |= {"id": record.get(self.columns.id), "language": record.get(self.columns.language)}
        reshaped = dataclasses.replace(located, value=shaped)
        if not self.detect_language or shaped["language"] not in (None, ""):
            return check(reshaped, self.languages, self.language, "language")
        row = check(reshaped, None, UNDETERMINED, "language")
        row = dataclasses.replace(row, language=self._detected(row))
        refuse_zawgyi(row)
        return row

    def _detected(self, row: Row) -> str:
        """The language of a row's answer, or of question and answer where the answer is too short to tell."""
        from dudi.languages.detect import detect

        code = detect(row.completion, self.languages)
        if code == UNDETERMINED:
            code = detect(f"{row.prompt[-1]['content']}\n{row.completion}", self.languages)
        if code == UNDETERMINED:
            raise RowError("language_not_detected", "too little text to tell its language")
        if code not in self.languages:
            raise RowError("unknown_language", f"its text seems to be {code!r}, not one of {', '.join(self.languages)}")
        return code
