"""Aligned completions cut into tiles: which rows of logits, which tokens and which cells some chunks need."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dudi.objective.shared_events import Alignment, Covers


@dataclasses.dataclass(frozen=True, slots=True)
class TileRows:
    """What one side contributes to P chunks: R rows of logits, those of the chunks' first borders first.

    Attributes:
        rows: (R,) their numbers.
        labels: (R,) the ids that came.
        order: (R,) places of the rows in ascending order.
        starts: (P,) rows, in ascending order, before each chunk.
        ends: (P,) rows before the next chunk.
        covers: (E,) rows, in ascending order, before each cover.
        columns: (E,) place of its row.
        tokens: (E,) its id.
        cells: (E,) its cell.
        owners: (E,) chunk whose first border it passes, or P plus that of the chunk whose last border it passes.
    """

    rows: Tensor
    labels: Tensor
    order: Tensor
    starts: Tensor
    ends: Tensor
    covers: Tensor
    columns: Tensor
    tokens: Tensor
    cells: Tensor
    owners: Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """Some chunks with the rows that they need.

    Attributes:
        chunks: Their numbers in the batch.
        student: The student's rows.
        teacher: The teacher's.
        first_cell: (P,) realised event, as in `Alignment`.
        last_cell: (P,) likewise.
        split: Chunks that are not one token on both sides.
        merged: Chunks whose realised event is several cells.
    """

    chunks: np.ndarray
    student: TileRows
    teacher: TileRows
    first_cell: Tensor
    last_cell: Tensor
    split: Tensor
    merged: Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class _SideOfBatch:
    """One side of a batch: borders (rows before each, of all completions), covers by border, labels."""

    borders: np.ndarray
    labels: np.ndarray
    covers: Covers
    cover_starts: np.ndarray

    @classmethod
    def of(cls, borders: Sequence[np.ndarray], covers: Sequence[Covers], ids: Sequence[Sequence[int]]) -> _SideOfBatch:
        """Number the rows and borders of completions one after the other."""
        rows = np.cumsum([0, *map(len, ids)])
        places = np.cumsum([0, *map(len, borders)])
        joined = Covers(
            np.concatenate([c.border + place for c, place in zip(covers, places, strict=False)]),
            np.concatenate([c.row + row for c, row in zip(covers, rows, strict=False)]),
            np.concatenate([c.token for c in covers]),
            np.concatenate([c.cell for c in covers]),
        )
        order = np.argsort(joined.border, kind="stable")
        joined = Covers(joined.border[order], joined.row[order], joined.token[order], joined.cell[order])
        return cls(
            np.concatenate([border + row for border, row in zip(borders, rows, strict=False)]),
            np.concatenate([np.asarray(one, dtype=np.int64) for one in ids]),
            joined,
            np.searchsorted(joined.border, np.arange(places[-1] + 1)),
        )

    def covers_of(self, borders: np.ndarray) -> list[np.ndarray]:
        """Numbers of the covers of some borders."""
        return [np.arange(self.cover_starts[border], self.cover_starts[border + 1]) for border in borders]

    def spans(self, first_borders: np.ndarray, split: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last row that each chunk needs: its covers' too, and all of a chunk that is split."""
        starts, ends = self.borders[first_borders].copy(), self.borders[first_borders].copy()
        for place, border in enumerate(first_borders):
            needed = range(border, border + 1 + bool(split[place]))
            covering = [self.covers.row[self.cover_starts[b] : self.cover_starts[b + 1]] for b in needed]
            starts[place] = min([starts[place], *(int(rows.min()) for rows in covering if len(rows))])
            ends[place] = self.borders[border + 1] - 1 if split[place] else ends[place]
        return starts, ends


class EventBatch:
    """The completions of a pass, aligned.

    Args:
        alignments: One for each completion.
        student_ids: The student's completions.
        teacher_ids: The teacher's.

    Attributes:
        chunks: Number of chunks that are compared.
    """

    def __init__(
        self,
        alignments: Sequence[Alignment],
        student_ids: Sequence[Sequence[int]],
        teacher_ids: Sequence[Sequence[int]],
    ) -> None:
        self._student = _SideOfBatch.of(
            [a.student_borders for a in alignments], [a.student_covers for a in alignments], student_ids
        )
        self._teacher = _SideOfBatch.of(
            [a.teacher_borders for a in alignments], [a.teacher_covers for a in alignments], teacher_ids
        )
        before = np.cumsum([0, *(len(a.student_borders) for a in alignments)])
        numbers = [np.flatnonzero(a.used) + place for a, place in zip(alignments, before, strict=False)]
        self._borders = np.concatenate(numbers)
        self._first_cell = np.concatenate([a.first_cell[a.used] for a in alignments])
        self._last_cell = np.concatenate([a.last_cell[a.used] for a in alignments])
        sides = (self._student.borders, self._teacher.borders)
        lengths = [borders[self._borders + 1] - borders[self._borders] for borders in sides]
        self._split = np.maximum(*lengths) > 1
        self._lengths = lengths[0]

    @property
    def chunks(self) -> int:
        """Number of chunks that are compared."""
        return len(self._borders)

    def chunk_weights(self, row_weights: Tensor) -> Tensor:
        """(N,) weights of the student's rows -> (P,) each chunk's mean."""
        device, dtype = row_weights.device, row_weights.dtype
        summed = torch.cat([row_weights.new_zeros(1, dtype=torch.float64), row_weights.double().cumsum(0)])
        starts = torch.as_tensor(self._student.borders[self._borders], device=device)
        lengths = torch.as_tensor(self._lengths, device=device)
        return ((summed[starts + lengths] - summed[starts]) / lengths).to(dtype)

    def tiles(self, rows: int, device: torch.device) -> Iterator[Tile]:
        """Chunks in order, as many at a time as need about so many rows of either side."""
        student = self._student.spans(self._borders, self._split)
        teacher = self._teacher.spans(self._borders, self._split)
        start = 0
        while start < self.chunks:
            stop = start + 1
            ours, theirs = self._needed(student, start, stop), self._needed(teacher, start, stop)
            while stop < self.chunks:
                more = [np.union1d(known, _range(side, stop)) for known, side in ((ours, student), (theirs, teacher))]
                if max(map(len, more)) > rows:
                    break
                ours, theirs = more
                stop += 1
            chunks = np.arange(start, stop)
            yield self._tile(chunks, ours, theirs, device)
            start = stop

    def _needed(self, side: tuple[np.ndarray, np.ndarray], start: int, stop: int) -> np.ndarray:
        return np.unique(np.concatenate([_range(side, chunk) for chunk in range(start, stop)]))

    def _tile(self, chunks: np.ndarray, ours: np.ndarray, theirs: np.ndarray, device: torch.device) -> Tile:
        borders, split = self._borders[chunks], self._split[chunks]
        width = self._last_cell[chunks] - self._first_cell[chunks]
        tensors = (self._first_cell[chunks], self._last_cell[chunks], np.flatnonzero(split), np.flatnonzero(width > 1))
        return Tile(
            chunks,
            _rows_of(self._student, borders, split, ours, device),
            _rows_of(self._teacher, borders, split, theirs, device),
            *(torch.as_tensor(part, device=device) for part in tensors),
        )


def _range(side: tuple[np.ndarray, np.ndarray], chunk: int) -> np.ndarray:
    return np.arange(side[0][chunk], side[1][chunk] + 1)


def _rows_of(
    side: _SideOfBatch, borders: np.ndarray, split: np.ndarray, needed: np.ndarray, device: torch.device
) -> TileRows:
    firsts = side.borders[borders]
    others = np.setdiff1d(needed, firsts)
    rows = np.concatenate([firsts, others])
    order = np.argsort(rows, kind="stable")
    covers = side.covers_of(borders) + side.covers_of(borders[split] + 1)
    owners = np.concatenate([np.arange(len(borders)), len(borders) + np.flatnonzero(split)])
    owners = np.repeat(owners, [len(part) for part in covers])
    chosen = np.concatenate(covers).astype(np.int64)
    ascending = rows[order]
    places = np.searchsorted(ascending, side.covers.row[chosen])
    parts = (
        rows,
        side.labels[rows],
        order,
        np.searchsorted(ascending, firsts),
        np.searchsorted(ascending, side.borders[borders + 1]),
        places,
        order[places],
        side.covers.token[chosen],
        side.covers.cell[chosen],
        owners,
    )
    return TileRows(*(torch.as_tensor(part, dtype=torch.int64, device=device) for part in parts))
