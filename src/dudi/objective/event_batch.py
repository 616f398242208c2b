"""Aligned completions cut into tiles: which rows of logits, which tokens and which cells some places need."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dudi.data.chat import Tokens
from dudi.objective.shared_events import Alignment, Covers, Track


@dataclasses.dataclass(frozen=True, slots=True)
class TileRows:
    """What one side contributes to the P places of a tile: R rows of logits, and E covers that reach these places."""

    rows: Tensor  # (R,) their numbers; first those at whose border a place lies, in the order of the places
    labels: Tensor  # (R,) the ids that came
    order: Tensor  # (R,) positions in `rows`, in ascending order of the rows
    borders: Tensor  # (D,) places at a border of this side
    insides: Tensor  # (I,) places inside a token of this side
    starts: Tensor  # (P,) rows, in ascending order, before the token that begins at a place or passes over it
    ends: Tensor  # (S,) rows before the end of each chunk that is split
    cover_starts: Tensor  # (E,) rows, in ascending order, before each cover
    columns: Tensor  # (E,) position of its row in `rows`
    tokens: Tensor  # (E,) its id
    cells: Tensor  # (E,) its cell
    owners: Tensor  # (E,) the place that it reaches, or P plus the number of the split chunk whose end it reaches


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """P places with the rows that they need."""

    places: np.ndarray  # (P,) their numbers in the batch
    student: TileRows
    teacher: TileRows
    first_cell: Tensor  # (P,) the realised event, as in `Alignment`
    last_cell: Tensor
    split: Tensor  # (S,) places at which a chunk begins that is not one token on both sides
    merged: bool  # whether some realised event is several cells


class _SideTokens:
    """One side of all completions, one after the other, with its covers in the order of their borders."""

    def __init__(self, tracks: Sequence[Track], ids: Sequence[Tokens]) -> None:
        rows = np.cumsum([0, *(track.length for track in tracks)])
        borders = np.cumsum([0, *(len(track.rows) for track in tracks)])
        placed = list(zip(tracks, rows, borders, strict=False))
        border = np.concatenate([track.covers.border + np.int32(first) for track, _, first in placed])
        order = np.argsort(border, kind="stable")
        row = np.concatenate([track.covers.row + np.int32(first) for track, first, _ in placed])
        token = np.concatenate([track.covers.token for track in tracks])
        cell = np.concatenate([track.covers.cell for track in tracks])
        self.rows = np.concatenate([track.rows + first for track, first, _ in placed])
        self.inside = np.concatenate([track.inside for track in tracks])
        self.labels = np.concatenate([np.asarray(one, dtype=np.int64) for one in ids])
        self.covers = Covers(border[order], row[order], token[order], cell[order])
        self.first_cover = np.searchsorted(self.covers.border, np.arange(borders[-1] + 1))

    def covers_of(self, border: int) -> slice:
        """The covers of a border."""
        return slice(self.first_cover[border], self.first_cover[border + 1])

    def needed(self, border: int, end: int) -> np.ndarray:
        """Rows that a place needs: its own, its covers' and, where a chunk is split, all up to its end."""
        rows = [self.covers.row[self.covers_of(border)]]
        last = self.rows[border]
        if end >= 0:
            rows.append(self.covers.row[self.covers_of(end)])
            last = self.rows[end] - 1
        return np.arange(min([self.rows[border], *(part.min() for part in rows if len(part))]), last + 1)


class EventBatch:
    """The completions of a pass, aligned.

    Attributes:
        student_rows: (P,) the student's row at each place that is compared.
    """

    def __init__(
        self, alignments: Sequence[Alignment], student_ids: Sequence[Tokens], teacher_ids: Sequence[Tokens]
    ) -> None:
        self._student = _SideTokens([alignment.student for alignment in alignments], student_ids)
        self._teacher = _SideTokens([alignment.teacher for alignment in alignments], teacher_ids)
        before = np.cumsum([0, *(len(alignment.used) for alignment in alignments)])
        ends = [np.where(a.ends < 0, -1, a.ends + first) for a, first in zip(alignments, before, strict=False)]
        self._borders = np.flatnonzero(np.concatenate([a.used for a in alignments]))
        self._ends = np.concatenate(ends)[self._borders]
        self._first_cell = np.concatenate([a.first_cell for a in alignments])[self._borders]
        self._last_cell = np.concatenate([a.last_cell for a in alignments])[self._borders]
        self.student_rows = self._student.rows[self._borders]

    def __len__(self) -> int:
        return len(self._borders)

    def tiles(self, rows: int, device: torch.device | str) -> Iterator[Tile]:
        """The places in order, as many at a time as need no more than so many rows of either side (one at least)."""
        start = 0
        ours: set[int] = set()
        theirs: set[int] = set()
        for place, (border, end) in enumerate(zip(self._borders.tolist(), self._ends.tolist(), strict=True)):
            mine, other = self._student.needed(border, end).tolist(), self._teacher.needed(border, end).tolist()
            if place > start and max(len(ours.union(mine)), len(theirs.union(other))) > rows:
                yield self._tile(slice(start, place), ours, theirs, device)
                start, ours, theirs = place, set(), set()
            ours.update(mine)
            theirs.update(other)
        if start < len(self):
            yield self._tile(slice(start, len(self)), ours, theirs, device)

    def _tile(self, places: slice, ours: set[int], theirs: set[int], device: torch.device | str) -> Tile:
        borders, ends = self._borders[places], self._ends[places]
        split = np.flatnonzero(ends >= 0)
        student = _rows_of(self._student, borders, ends[split], ours, device)
        teacher = _rows_of(self._teacher, borders, ends[split], theirs, device)
        cells = self._first_cell[places], self._last_cell[places]
        merged = bool((cells[1] - cells[0] > 1).any())
        first, last, chunks = (torch.as_tensor(numbers, device=device) for numbers in (*cells, split))
        return Tile(np.arange(places.start, places.stop), student, teacher, first, last, chunks, merged)


def _rows_of(
    side: _SideTokens, borders: np.ndarray, ends: np.ndarray, needed: set[int], device: torch.device | str
) -> TileRows:
    inside = side.inside[borders]
    own = side.rows[borders]
    rows = np.concatenate([own[~inside], np.setdiff1d(np.array(sorted(needed)), own[~inside])])
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    parts = [side.covers_of(border) for border in [*borders, *ends]]
    lengths = [part.stop - part.start for part in parts]
    covers = np.concatenate([np.arange(part.start, part.stop) for part in parts])
    places = np.searchsorted(ascending, side.covers.row[covers])
    arrays = (
        rows,
        side.labels[rows],
        order,
        np.flatnonzero(~inside),
        np.flatnonzero(inside),
        np.searchsorted(ascending, own),
        np.searchsorted(ascending, side.rows[ends]),
        places,
        order[places],
        side.covers.token[covers],
        side.covers.cell[covers],
        np.repeat(np.arange(len(parts)), lengths),
    )
    return TileRows(*(torch.as_tensor(array, dtype=torch.int64, device=device) for array in arrays))
