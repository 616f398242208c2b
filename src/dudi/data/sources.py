"""From the name of a source to checked rows: files, folders, the hub, the built-in CLDR rows, or records in memory."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.data.built_in import SOURCES
from dudi.data.locate import note_of
from dudi.data.records import Located, records_of
from dudi.data.rejections import Rejections
from dudi.data.rows import Row, RowError, parse_row
from dudi.errors import ConfigError, did_you_mean


@dataclasses.dataclass(frozen=True, slots=True)
class RowSet:
    """The rows of a source.

    Attributes:
        rows: The good rows, in the source's order, their ids unique.
        total: Records read, good and bad, without those that were left out.
        fingerprint: SHA-256 over the rows' canonical JSON, in order.
        rejections: The bad ones.
        left_out: Good rows in languages that were not asked for, by language.
        notes: What a person should know of what was not read.
    """

    rows: list[Row]
    total: int
    fingerprint: str
    rejections: Rejections
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load_rows(
    source: str,
    *,
    split: str = "train",
    languages: Collection[str],
    language: str | None = None,
    language_column: str = "language",
    rejections: Rejections | None = None,
    max_rows: int | None = None,
    rows_per_language: int | None = None,
    tasks: Sequence[str] | None = None,
    seed: int = 0,
    only: Collection[str] | None = None,
) -> RowSet:
    """Read and check the rows of a source.

    Args:
        source: A `.jsonl`, `.json` or `.parquet` file, a folder or glob of them, a folder made by
            `datasets.save_to_disk`, a name in `dudi.data.built_in.SOURCES`, or a dataset on the hub as `org/name` or
            `org/name:config`.
        split: Which split of a hub dataset, of a saved `DatasetDict` or of a folder whose files are named by split.
        languages: The codes that rows may have.
        language: The language of rows whose column is missing or null.
        language_column: The column that holds the code.
        rejections: Where to count bad rows; a new one when None.
        max_rows: Stop after so many good rows; None reads all.
        rows_per_language: For the built-in sources: how many rows to make; None makes the source's own number.
        tasks: For built-in sources that have tasks: which ones; None takes all.
        seed: For built-in sources that draw their rows.
        only: Leave rows in other languages out, and count them; None takes all of `languages`.

    Returns:
        The rows. Too many bad ones are the caller's to judge, with `rejections.check_share(total, share)`.

    Raises:
        ConfigError: the source does not exist or is of no known kind, or `language` is not one of `languages`.
        DataError: a file as a whole cannot be read.
        EnvironmentFault: the hub cannot be reached.
    """
    if source in SOURCES:
        if split != "train":
            raise ConfigError(f"{source}: comes with training rows alone, and has no split '{split}'; take it out")
        made = SOURCES[source].rows(list(languages), tasks, rows_per_language, seed)[:max_rows]
        return RowSet(made, len(made), fingerprint(made), rejections if rejections is not None else Rejections())
    found = rows_from_records(
        records_of(source, split),
        languages=languages,
        language=language,
        language_column=language_column,
        rejections=rejections,
        max_rows=max_rows,
        only=only,
    )
    notes = [note] if (note := note_of(source, split)) else []
    if found.left_out:
        notes.append(note_of_others(source, only or (), found.left_out))
    if other_form := Counter(row.language for row in found.rows if not row.is_nfc):
        notes.append(
            f"{source}: {other_form.total():,} rows are not in Unicode's NFC, in which the same words may be other "
            f"tokens ({by_language(other_form)}); `dudi prepare convert` writes NFC"
        )
    return dataclasses.replace(found, notes=tuple(notes))


def note_of_others(source: str, only: Iterable[str], left_out: Mapping[str, int]) -> str:
    """What is said of rows in other languages than those that are wanted."""
    return f"{source}: rows in other languages than {', '.join(only)} are left out: {by_language(left_out)}"


def by_language(counts: Mapping[str, int]) -> str:
    """`id 2, vi 1,024`."""
    return ", ".join(f"{code} {count:,}" for code, count in sorted(counts.items()))


def rows_from_records(
    records: Iterable[Mapping[str, Any] | Located],
    *,
    languages: Collection[str],
    language: str | None = None,
    language_column: str = "language",
    rejections: Rejections | None = None,
    max_rows: int | None = None,
    name: str = "dataset",
    only: Collection[str] | None = None,
) -> RowSet:
    """Check records that are in memory (a `datasets.Dataset`, or a list of mappings), or that come with their places.

    `name` is how rejections name records without a place, and the beginning of the ids of rows that have none. The
    other arguments are those of `load_rows`.

    Raises:
        ConfigError: `language` is not one of `languages`.
    """
    if language is not None and language not in languages:
        raise ConfigError(
            f"language: '{language}' is not one of {', '.join(languages)}{did_you_mean(language, languages)}"
        )
    rejections = rejections if rejections is not None else Rejections()
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    ids = RowIds()
    total = 0
    for number, record in enumerate(records, start=1):
        if max_rows is not None and len(rows) >= max_rows:
            break
        total += 1
        located = record if isinstance(record, Located) else Located(name, number, record)
        try:
            row = check(located, languages, language, language_column)
            if only is not None and row.language not in only:
                left_out[row.language] += 1
                continue
            rows.append(ids.unique(row))
        except RowError as error:
            reject(rejections, located, error)
    return RowSet(rows, total - left_out.total(), fingerprint(rows), rejections, dict(left_out))


def check(located: Located, languages: Collection[str] | None, language: str | None, language_column: str) -> Row:
    """The row of one located record.

    Raises:
        RowError: it cannot be used, or could not be decoded.
    """
    if located.problem is not None:
        raise RowError(*located.problem)
    row = parse_row(
        located.value,
        fallback_id=f"{Path(located.file).name}:{located.line}",
        language=language,
        language_column=language_column,
        known_languages=languages,
    )
    return dataclasses.replace(row, file=located.file, line=located.line)


def reject(rejections: Rejections, located: Located, error: RowError) -> None:
    """Count a record that `check` refused, with its place and its beginning."""
    value = located.value
    row_id = value.get("id") if isinstance(value, Mapping) else None
    shown = isinstance(row_id, str) and len(row_id) <= 512 and row_id.isprintable()
    rejections.add(
        error.reason,
        where=located.file,
        line=located.line,
        row_id=row_id if shown else None,
        detail=error.detail,
        excerpt=located.excerpt or excerpt_of(value),
    )


def excerpt_of(value: Any) -> str:
    """The beginning of a record for people, whatever it holds."""
    try:
        return json.dumps(value, ensure_ascii=False, default=lambda other: type(other).__name__, skipkeys=True)[:800]
    except (ValueError, RecursionError):  # circular, too deep, or a number of thousands of digits
        return type(value).__name__


class RowIds:
    """Keeps the ids of a dataset unique."""

    def __init__(self) -> None:
        self._contents: dict[str, set[bytes]] = {}
        self._taken: set[str] = set()

    def unique(self, row: Row) -> Row:
        """`row`, under an id that no earlier one has: `a`, then `a#2`, `a#3`, ...

        Raises:
            RowError: `duplicate`: an earlier row has the same id and the same content.
        """
        content = content_digest(row)
        seen = self._contents.setdefault(row.id, set())
        if content in seen:
            raise RowError("duplicate", f"an earlier row has the id {row.id[:60]!r} and the same content")
        seen.add(content)
        name = row.id
        numbers = itertools.count(2)
        while name in self._taken:
            name = f"{row.id}#{next(numbers)}"
        self._taken.add(name)
        return row if name == row.id else dataclasses.replace(row, id=name)


def content_digest(row: Row) -> bytes:
    """16 bytes that stand for a row's language and text, whatever its id."""
    return hashlib.blake2b(_canonical(dataclasses.replace(row, id="")), digest_size=16).digest()


def fingerprint(rows: Iterable[Row]) -> str:
    """SHA-256 over the canonical JSON of rows, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_canonical(row) + b"\n")
    return digest.hexdigest()


def _canonical(row: Row) -> bytes:
    content = {"id": row.id, "language": row.language, "prompt": row.prompt, "completion": row.completion}
    return json.dumps(content, ensure_ascii=False, sort_keys=True).encode("utf-8")
