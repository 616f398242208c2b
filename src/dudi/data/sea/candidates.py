"""The candidates of a sample, kept on disk: where each lies, its cell and its place in the random order."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dudi.data.sea.sampling import largest_remainder
from dudi.errors import EnvironmentFault

CACHE_KIB = 16 * 1024
"""Memory that the table may take, whatever its size."""

Cell = tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Chosen:
    """A chosen row: its rank in the random order, and where it lies."""

    rank: int
    file: int
    line: int


class Candidates:
    """A table of candidates in a temporary SQLite file.

    Ranks identify rows: they are hashes of id and content, so a second row of the same rank is a duplicate.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._cells: dict[Cell, int] = {}
        for statement in (
            f"PRAGMA cache_size = -{CACHE_KIB}",
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE candidates (language TEXT, rank INTEGER, cell INTEGER, file INTEGER, line INTEGER, "
            "PRIMARY KEY (language, rank)) WITHOUT ROWID",
            "BEGIN",  # one transaction: a commit for each row would be a write for each row
        ):
            self._db.execute(statement)

    def add(self, language: str, rank: int, cell: Cell, file: int, line: int) -> bool:
        """Note one candidate; False when one of the same rank is there."""
        number = self._cells.setdefault(cell, len(self._cells))
        done = self._db.execute(
            "INSERT OR IGNORE INTO candidates VALUES (?, ?, ?, ?, ?)", (language, rank, number, file, line)
        )
        return done.rowcount == 1

    def counts(self, language: str) -> Counter[Cell]:
        """How many candidates of a language each cell has; cells in the order of their names."""
        query = "SELECT cell, COUNT(*) FROM candidates WHERE language = ? GROUP BY cell"
        found = dict(self._db.execute(query, (language,)))
        return Counter({cell: found[number] for cell, number in sorted(self._cells.items()) if number in found})

    def choose(self, language: str, total: int) -> tuple[list[Chosen], Counter[Cell]]:
        """A sample that keeps the mix of cells: quotas by largest remainder, the smallest ranks within a cell.

        Args:
            language: Whose candidates.
            total: How many to take; where there are fewer, all are taken.

        Returns:
            The chosen rows by rank, and how many were taken of each cell.
        """
        left = {self._cells[cell]: quota for cell, quota in largest_remainder(self.counts(language), total).items()}
        names = {number: cell for cell, number in self._cells.items()}
        missing = sum(left.values())
        chosen: list[Chosen] = []
        taken: Counter[Cell] = Counter()
        query = "SELECT rank, cell, file, line FROM candidates WHERE language = ? ORDER BY rank"
        with contextlib.closing(self._db.execute(query, (language,))) as cursor:
            while len(chosen) < missing:
                rank, cell, file, line = next(cursor)
                if left[cell]:
                    left[cell] -= 1
                    taken[names[cell]] += 1
                    chosen.append(Chosen(rank, file, line))
        return chosen, taken


@contextlib.contextmanager
def open_candidates(folder: Path) -> Iterator[Candidates]:
    """An empty table in a temporary file of `folder`, deleted at the end.

    Raises:
        EnvironmentFault: the disk is full or the folder cannot be written.
    """
    import tempfile

    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".dudi-") as place:
            connection = sqlite3.connect(Path(place) / "candidates.sqlite", isolation_level=None)
            with contextlib.closing(connection):
                yield Candidates(connection)
    except (sqlite3.Error, OSError) as error:
        raise EnvironmentFault(f"cannot keep the candidates in {folder}: {error}; check the disk") from error
