"""Texts on the disk: millions of rows that are read one by one, from a file that all processes of a machine map."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dudi.errors import DataError
from dudi.files import atomic_file, write_text
from dudi.stacking.rows import StackRow

FILE, ABOUT = "rows.arrow", "rows.json"
_BATCH = 4096
_SCHEMA = pa.schema([("id", pa.large_string()), ("language", pa.large_string()), ("text", pa.large_string())])


class TextRows(Sequence[StackRow]):
    """Rows of text alone, in the order in which they were written; memory stays flat however many there are.

    Args:
        folder: Where `write_texts` put them.

    Attributes:
        digest: SHA-256 over all of them.
        counts: Rows of each language.
    """

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        self.digest: str = about["digest"]
        self.counts: dict[str, int] = about["counts"]
        self._first: dict[str, int] = about["first"]
        self._count = sum(self.counts.values())
        self._reader = pa.ipc.open_file(pa.memory_map(str(folder / FILE)))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> StackRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[StackRow]: ...
    def __getitem__(self, index: int | slice) -> StackRow | list[StackRow]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        batch, place = divmod(index % self._count, _BATCH)
        name, language, text = (column[place].as_py() for column in self._reader.get_batch(batch).columns)
        return StackRow(text=text, language=language, id=name)

    def first_of_each(self) -> list[StackRow]:
        """The first row of each language."""
        return [self[place] for place in self._first.values()]

    def lengths(self) -> list[int]:
        """Bytes of each text."""
        parts = []
        for number in range(self._reader.num_record_batches):
            text = self._reader.get_batch(number).column("text").cast(pa.large_binary())
            parts.append(pc.binary_length(text).to_numpy(zero_copy_only=False))
        return list(np.concatenate(parts))


def write_texts(folder: Path, rows: Iterable[StackRow], source: str) -> dict[str, int]:
    """Write text, language and id of rows for `TextRows`, as they come, in the place of what was there.

    Returns:
        Rows of each language.

    Raises:
        DataError: there is none; it names the source.
        EnvironmentFault: the disk refuses.
    """
    digest, counts, first = hashlib.sha256(), dict[str, int](), dict[str, int]()
    total, left = 0, iter(rows)
    with atomic_file(folder / FILE) as partial, pa.OSFile(str(partial), "wb") as sink:
        with pa.ipc.new_file(sink, _SCHEMA) as out:
            while batch := list(itertools.islice(left, _BATCH)):
                for row in batch:
                    for value in (row.id, row.language, row.text):
                        digest.update(value.encode("utf-8", "surrogatepass") + b"\0")
                    first.setdefault(row.language, total)
                    counts[row.language] = counts.get(row.language, 0) + 1
                    total += 1
                ids = [row.id for row in batch]
                languages = [row.language for row in batch]
                texts = [row.text for row in batch]
                out.write_batch(pa.record_batch([ids, languages, texts], schema=_SCHEMA))
        if not total:
            raise DataError(f"{source}: no row")
    write_text(folder / ABOUT, json.dumps({"digest": digest.hexdigest(), "counts": counts, "first": first}))
    return counts
