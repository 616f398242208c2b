"""Sampling that keeps a mix: quotas by largest remainder, and a choice that depends on ids and seed alone."""

from __future__ import annotations

import dataclasses
import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

Cell = tuple[str, ...]
Name = TypeVar("Name", str, Cell)


@dataclasses.dataclass(frozen=True, slots=True)
class LanguageSample:
    """The sample of one language.

    Attributes:
        places: (file, line) of the chosen rows, in the random order.
        before: Good rows by cell, cells in the order of their names.
        after: Chosen rows by cell.
        duplicates: Rows that came again, by file.
    """

    places: list[tuple[int, int]]
    before: Counter[Cell]
    after: Counter[Cell]
    duplicates: Counter[int]


class Candidates:
    """The good rows: for each its rank, its cell and where it lies, 24 bytes altogether.

    Ranks identify rows: they are hashes of id and content, so a second row of the same rank is a duplicate.
    """

    def __init__(self) -> None:
        self._cells: dict[Cell, int] = {}
        self._columns: dict[str, list[array[int]]] = defaultdict(lambda: [array(kind) for kind in "qiiq"])

    def add(self, language: str, rank: int, cell: Cell, file: int, line: int) -> None:
        """Note one row; `rank` is a signed 64-bit number."""
        values = (rank, self._cells.setdefault(cell, len(self._cells)), file, line)
        for column, value in zip(self._columns[language], values, strict=True):
            column.append(value)

    def choose(self, language: str, total: int) -> LanguageSample:
        """A sample that keeps the mix of cells: quotas by largest remainder, the smallest ranks within a cell."""
        columns = [np.frombuffer(column, dtype=column.typecode) for column in self._columns[language]]
        ranks, cells, files, lines = columns
        order = np.argsort(ranks, kind="stable")  # of equal ranks the earliest stays in front
        first = np.diff(ranks[order], prepend=ranks[order][:1] - 1) != 0
        duplicates = Counter(files[order[~first]].tolist())
        order = order[first]
        numbers, names = cells[order], sorted(self._cells.items())
        counts = np.bincount(numbers, minlength=len(names))
        before = Counter({name: int(counts[number]) for name, number in names if counts[number]})
        quotas = largest_remainder(before, total)
        within = np.argsort(numbers, kind="stable")  # by cell, and by rank in each
        place = np.arange(len(order)) - np.searchsorted(numbers[within], numbers[within])
        quota = np.zeros(len(names), dtype=np.int64)
        quota[[self._cells[name] for name in quotas]] = list(quotas.values())
        chosen = order[np.sort(within[place < quota[numbers[within]]])]
        return LanguageSample(
            list(zip(files[chosen].tolist(), lines[chosen].tolist(), strict=True)), before, Counter(quotas), duplicates
        )


def largest_remainder(counts: Mapping[Name, int], total: int) -> dict[Name, int]:
    """How many to take of each cell so that the shares of `counts` stay as nearly as whole numbers can.

    Every cell gets the whole part of its proportional share; what is left goes, one each, to the cells with the largest
    remainders. Ties go to the larger cell, then to the one whose name sorts lower. The arithmetic is in whole numbers,
    so that the result is the same everywhere.

    Returns:
        A quota for each cell, never above its count, in the order of `counts`; they sum to `min(total, sum of counts)`.

    Raises:
        ValueError: a count or `total` is negative.
    """
    if total < 0 or any(count < 0 for count in counts.values()):
        raise ValueError("counts and total must be at least 0")
    available = sum(counts.values())
    if total >= available:
        return dict(counts)
    quotas: dict[Name, int] = {}
    remainders: dict[Name, int] = {}
    for cell, count in counts.items():
        quotas[cell], remainders[cell] = divmod(count * total, available)
    order = sorted(counts, key=lambda cell: (-remainders[cell], -counts[cell], str(cell)))
    for cell in order[: total - sum(quotas.values())]:
        quotas[cell] += 1
    return quotas


def hash_rank(seed: int, *parts: str | bytes) -> int:
    """A place in a random order that depends on nothing but the seed and what is ranked: an id, or id and content.

    Returns:
        A signed 64-bit number; the smallest are taken.
    """
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)  # the length keeps ("a", "bc") apart from ("ab", "c")
    return int.from_bytes(digest.digest(), "big", signed=True)


def total_variation(before: Mapping[Name, int], after: Mapping[Name, int]) -> float:
    """Half the summed difference of two mixes' shares: 0 when they are the same, 1 when they share nothing."""
    all_before, all_after = sum(before.values()), sum(after.values())
    if not all_before or not all_after:
        return 0.0 if all_before == all_after else 1.0
    cells = before.keys() | after.keys()
    return sum(abs(before.get(c, 0) / all_before - after.get(c, 0) / all_after) for c in cells) / 2
