"""The divergence of two models with different tokenizers, over their shared events.

At every place where a side has a border, and the models' cells after the same bytes are known:

    D  =  D(P_T, P_S)                      P: the distribution over the cells of `shared_events`
    D  =  min over R of D(P_T + R, P_S)    inside a token of the teacher's: P_T is what its longer tokens tell, and R
                                           whatever else the teacher may hold. Inside the student's, the other way round

and where a chunk between two common borders is not one token on both sides, one more D on two events: the bytes go on
as the whole chunk does, or they do not, given the first event. Every D is one of the three divergences, is at least 0,
and is 0 where both models agree on the bytes. Cells are summed at temperature 1 and only then tempered, because
(sum p)^(1/T) is not sum p^(1/T).

Logits are laid out (V, N) here, tokens first: sums over a cell's tokens then run along memory.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dudi.objective import fused
from dudi.objective.event_batch import EventBatch, Tile, TileRows
from dudi.objective.heads import Distance, Head
from dudi.objective.losses import at_least_fp32, log_prob_divergence
from dudi.objective.shared_events import ENDS_HERE, SharedEvents

EMPTY = -87.0
"""Log-probability of a cell without a token (OTHER, on a side that has no such token)."""
NOTHING = -1e4
"""That of a cell that has been merged into another: exactly 0 as a probability."""
LEAST = 1e-6
"""Least probability that bytes go on otherwise than a chunk does: below it is rounding."""
UNKNOWN = 1e-3
"""Least share of what may follow that is left unknown inside a token: its longer tokens are not all of the paths."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cells:
    """Which tokens of one side make up each cell, as tensors."""

    count: int  # number of cells
    of_token: Tensor  # (V,) the cell of each token
    single: Tensor  # cells of one token
    single_tokens: Tensor  # their tokens
    multiple: Tensor  # cells of several tokens
    members: Tensor  # the tokens of these, cell by cell
    lengths: Tensor  # how many each has

    @classmethod
    def of(cls, of_token: np.ndarray, count: int, device: torch.device | str = "cpu") -> Cells:
        """Sort tokens by cell."""
        order = np.argsort(of_token, kind="stable")
        sizes = np.bincount(of_token, minlength=count)
        first = np.cumsum(sizes) - sizes
        single, multiple = np.flatnonzero(sizes == 1), np.flatnonzero(sizes > 1)
        members = order[sizes[of_token[order]] > 1]
        parts = (of_token, single, order[first[single]], multiple, members, sizes[multiple])
        return cls(count, *(torch.as_tensor(part, dtype=torch.int64, device=device) for part in parts))


class _CellLogProbs(torch.autograd.Function):
    """Log-probabilities of tokens (V, N) -> of cells (C, N)."""

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, cells: Cells) -> Tensor:
        out = log_probs.new_full((cells.count, log_probs.shape[1]), EMPTY)
        out[cells.single] = log_probs[cells.single_tokens]
        if len(cells.multiple):
            shares = log_probs[cells.members].exp_()
            sums = torch.segment_reduce(shares, "sum", lengths=cells.lengths, axis=0)
            out[cells.multiple] = sums.clamp_min_(math.exp(EMPTY)).log_()
        ctx.save_for_backward(log_probs, out)
        ctx.cells = cells
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        log_probs, out = ctx.saved_tensors
        share = (log_probs - out[ctx.cells.of_token]).exp_()
        return share.mul_(upstream[ctx.cells.of_token]), None


class _InnerEvents(NamedTuple):
    """What is known of some events inside a token: U of them, at I places."""

    cells: Tensor  # (U,)
    places: Tensor  # (U,) of each event among the I
    log_probs: Tensor  # (U,) in fp64; at each place they sum to less than 1


class _SideView(NamedTuple):
    """One side's view of P places."""

    cells: Tensor  # (C, P) log-probabilities of the events, at places inside a token 0
    part: _InnerEvents  # what is known at these
    chunks: Tensor  # (S,) log-probability of each split chunk's bytes, in fp64


def _judge(logits: Tensor, side: TileRows, tile: Tile, cells: Cells) -> _SideView:
    """Logits (V, R) -> log-probabilities of what follows the same bytes."""
    count, split = len(tile.places), len(tile.split)
    logits = at_least_fp32(logits)
    log_probs = logits - logits.logsumexp(0, keepdim=True)  # it sums pairwise where a CPU's `log_softmax` does not
    events = _CellLogProbs.apply(log_probs[:, : len(side.borders)], cells)
    realised = log_probs.gather(0, side.labels.unsqueeze(0)).squeeze(0)[side.order].double()
    path = torch.cat([realised.new_zeros(1), realised.cumsum(0)])
    chunks = path[side.ends] - path[side.starts[tile.split]]
    part = _InnerEvents(side.insides[:0], side.insides[:0], realised[:0])
    if len(side.owners):
        at = torch.cat([side.starts, side.ends])
        beside = path[side.cover_starts] - path[at][side.owners] + log_probs[side.tokens, side.columns].double()
        on_path = torch.zeros(count + split, dtype=torch.float64, device=logits.device)
        on_path[side.insides] = -math.inf
        total = _logsumexp_by(beside, side.owners, on_path)
        chunks = chunks + total[count:] - total[:count][tile.split]
        events = _add_covers(events, beside - total[side.owners], total, side, count)
        part = _known_part(beside - total[side.owners], side, tile, cells.count)
    return _SideView(_merge(events, side, tile) if tile.merged else events, part, chunks)


def _logsumexp_by(values: Tensor, owners: Tensor, beside: Tensor) -> Tensor:
    """Log of a sum by owner: values (E,) of owners (E,), each beside a value (P,)."""
    top = beside.scatter_reduce(0, owners, values, "amax").detach()
    summed = (beside - top).exp().index_add(0, owners, (values - top[owners]).exp())
    return top + summed.log()


def _by_pair(numbers: Tensor, owners: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sum probabilities of one cell and owner: cells (U,), owners (U,), log-probabilities (U,)."""
    keys, pair = torch.unique(owners * count + numbers, return_inverse=True)
    summed = values.new_zeros(len(keys)).index_add(0, pair, values.exp())
    return keys % count, keys // count, summed.clamp_min(math.exp(EMPTY)).log()


def _add_covers(events: Tensor, values: Tensor, total: Tensor, side: TileRows, count: int) -> Tensor:
    """Add what longer tokens promise to what the model says at its own borders; both are shares of one total."""
    column = torch.full((len(total),), -1, dtype=torch.int64, device=events.device)
    column[side.borders] = torch.arange(len(side.borders), device=events.device)
    owners = column[side.owners]
    chosen = owners >= 0
    events = events - total[:count][side.borders].to(events.dtype)
    if not chosen.any():
        return events
    cells, columns, added = _by_pair(side.cells[chosen], owners[chosen], values[chosen], len(events))
    place = (cells, columns)
    return events.index_put(place, torch.logaddexp(events[place], added.to(events.dtype)))


def _known_part(values: Tensor, side: TileRows, tile: Tile, count: int) -> _InnerEvents:
    """What longer tokens tell inside a token. Some mass is always left unknown: `UNKNOWN` at least."""
    number = torch.full((len(tile.places) + len(tile.split),), -1, dtype=torch.int64, device=values.device)
    number[side.insides] = torch.arange(len(side.insides), device=values.device)
    chosen = (number[side.owners] >= 0) & (side.cells != ENDS_HERE)
    owners, cells = side.owners[chosen], side.cells[chosen]
    first, last = tile.first_cell[owners], tile.last_cell[owners]
    cells = torch.where((cells >= first) & (cells < last), first, cells)
    cells, places, log_probs = _by_pair(cells, number[owners], values[chosen], count)
    known = values.new_zeros(len(side.insides)).index_add(0, places, log_probs.exp())
    scale = (math.log1p(-UNKNOWN) - known.clamp_min(math.exp(EMPTY)).log()).clamp_max(0.0)
    return _InnerEvents(cells, places, log_probs + scale[places])


def _merge(events: Tensor, side: TileRows, tile: Tile) -> Tensor:
    """Count the realised event's cells as one, where it is several."""
    first, last = tile.first_cell[side.borders], tile.last_cell[side.borders]
    merged = torch.nonzero(last - first > 1).squeeze(1)
    number = torch.arange(events.shape[0], device=events.device).unsqueeze(1)
    chosen = events[:, merged]
    inside = (number >= first[merged]) & (number < last[merged])
    whole = chosen.masked_fill(~inside, -math.inf).logsumexp(0, keepdim=True)
    chosen = chosen.masked_fill(inside, NOTHING).scatter(0, first[merged].unsqueeze(0), whole)
    return events.index_copy(1, merged, chosen)


def _complete(part: _InnerEvents, other: Tensor) -> Tensor:
    """The distribution that holds a known part and is nearest to another one.

    Of all distributions that are nowhere below the part, max(part, share * other) has the least divergence of any of
    the three kinds, with the share that makes it sum to 1: where the other is nowhere below the part either, it is the
    other itself. Log-probabilities (C, I) -> (C, I).
    """
    place = (part.cells, part.places)
    theirs = other[place].double()
    share = torch.ones(other.shape[1], dtype=torch.float64, device=other.device)
    above = torch.zeros_like(part.cells, dtype=torch.bool)
    while True:
        more = above | (part.log_probs.detach() > theirs.detach() + share.detach().log()[part.places])
        if torch.equal(more, above):
            break
        above = more
        left = []
        for values in (part.log_probs, theirs):
            mass = torch.zeros_like(share).index_add(0, part.places[above], values[above].exp())
            left.append((1 - mass).clamp_min(UNKNOWN / 2))
        share = (left[0] / left[1]).clamp_max(1.0)
    completed = other + share.log().to(other.dtype)
    place = (part.cells[above], part.places[above])
    return completed.index_put(place, part.log_probs[above].to(other.dtype))


def _divergence(student: Tensor, teacher: Tensor, distance: Distance, unwritable: int | None = None) -> Tensor:
    """Of log-probabilities (C, P), tempered -> (P,).

    Forward KL would charge the teacher's mass on an event that the student has no token for at -log 0. There it is that
    of all other events, P_T(not e) D(P_T | not e, P_S): by the chain rule the whole of it but for that charge, which no
    student can lower. `unwritable` is the last event's number, where the student has no token for it.
    """
    if unwritable is not None:
        unheld = student[unwritable] < EMPTY / 2  # a longer token may have promised it all the same
    if distance.temperature != 1.0:
        student = torch.log_softmax(student / distance.temperature, 0)
        teacher = torch.log_softmax(teacher / distance.temperature, 0)
    if unwritable is None or distance.kind != "forward_kl":
        return log_prob_divergence(student, teacher, distance.kind, distance.beta, dim=0)
    how = distance.kind, distance.beta, 0
    others = log_prob_divergence(student[:unwritable], teacher[:unwritable], *how)
    last = log_prob_divergence(student[unwritable:], teacher[unwritable:], *how)
    rest = (1 - teacher[unwritable].exp()).clamp_min(0.0)
    return others + torch.where(unheld, torch.special.entr(rest), last)


def _two_events(judged: _SideView, tile: Tile, side: TileRows) -> Tensor:
    """(2, S) log-probabilities that the bytes go on as the chunk does, and that they do not, given its first event."""
    columns = torch.searchsorted(side.borders, tile.split)
    event = judged.cells[tile.first_cell[tile.split], columns]
    goes_on = (judged.chunks - event.double()).clamp_max(-LEAST)
    return torch.stack([goes_on, torch.log(-torch.expm1(goes_on))]).to(event.dtype)


def _place_divergence(
    student: _SideView, teacher: _SideView, tile: Tile, distance: Distance, unwritable: int | None
) -> Tensor:
    """(P,) in nats."""
    if not len(tile.student.owners) + len(tile.teacher.owners) + len(tile.split):
        return _divergence(student.cells, teacher.cells, distance, unwritable)
    values = student.cells.new_zeros(len(tile.places))
    ours, theirs = tile.student, tile.teacher
    both, columns = _common_borders(tile)
    shared = _divergence(student.cells[:, columns[0]], teacher.cells[:, columns[1]], distance, unwritable)
    values = values.index_put((both,), shared)
    if len(theirs.insides):
        other = student.cells[:, torch.searchsorted(ours.borders, theirs.insides)]
        completed = _complete(teacher.part, other.detach())
        values = values.index_put((theirs.insides,), _divergence(other, completed, distance, unwritable))
    if len(ours.insides):
        other = teacher.cells[:, torch.searchsorted(theirs.borders, ours.insides)]
        completed = _complete(student.part, other)
        values = values.index_put((ours.insides,), _divergence(completed, other, distance, unwritable))
    if len(tile.split):
        chunks = _two_events(student, tile, ours), _two_events(teacher, tile, theirs)
        values = values.index_add(0, tile.split, _divergence(*chunks, distance))
    return values


def _common_borders(tile: Tile) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Places that are borders of both sides, and each side's columns for them."""
    ours, theirs = tile.student.borders, tile.teacher.borders
    both = ours[torch.isin(ours, theirs)]
    return both, (torch.searchsorted(ours, both), torch.searchsorted(theirs, both))


class EventLoss:
    """The divergence over two tokenizers' shared events.

    Attributes:
        student: The student's tokens by cell; `teacher` the teacher's.
        unwritable: The number of OTHER, where the teacher alone has tokens in it; else None.
    """

    def __init__(self, events: SharedEvents, device: torch.device | str = "cpu") -> None:
        other = len(events.cells)
        ours, theirs = ((cells == other).any() for cells in (events.student_cells, events.teacher_cells))
        count = other + bool(ours or theirs)
        self.events = events
        self.unwritable = other if theirs and not ours else None
        self.student = Cells.of(events.student_cells, count, device)
        self.teacher = Cells.of(events.teacher_cells, count, device)

    def judge(
        self,
        tile: Tile,
        student_logits: Tensor,
        teacher_logits: Tensor,
        distance: Distance,
        observer: fused.Observer | None = None,
    ) -> Tensor:
        """Logits (V, R), (V', R') of a tile's rows -> (P,) in nats, with a gradient to both."""
        student = _judge(student_logits, tile.student, tile, self.student)
        teacher = _judge(teacher_logits, tile.teacher, tile, self.teacher)
        if observer is not None:
            _, columns = _common_borders(tile)
            rows = tile.student.rows[columns[0]]
            observer(rows, student.cells.detach()[:, columns[0]].t(), teacher.cells.detach()[:, columns[1]].t())
        return _place_divergence(student, teacher, tile, distance, self.unwritable)

    def weighted(
        self,
        batch: EventBatch,
        student: Head,
        student_hidden: Tensor,
        teacher: Head,
        teacher_hidden: Tensor,
        row_weights: Tensor,
        distance: Distance,
        observer: fused.Observer | None = None,
    ) -> Tensor:
        """The sum over places of weight times divergence, tile by tile, with a gradient to the student's tensors only.

        States (N, H_s) and (M, H_t), weights (N,) of the student's tokens -> a scalar in nats, fp32 at least; a place
        counts with the weight of the token that it belongs to. The observer is shown (n,) rows of the student at which
        both sides have a border, and both sides' log-probabilities (n, C) of the cells.
        """
        device = student_hidden.device

        def sweep(needs: Sequence[bool]) -> tuple[Tensor, fused.Gradients]:
            ours, theirs = _Side(student, student_hidden), _Side(teacher, teacher_hidden)
            gradient = _Gradients(ours, needs)
            place_weights = row_weights[torch.as_tensor(batch.student_rows, device=device)].to(ours.result)
            total = place_weights.new_zeros(())
            most = fused.CPU_TILE if device.type == "cpu" else fused.DEVICE_TILE
            for tile in batch.tiles(max(1, most // max(len(student), len(teacher))), device):
                weights = place_weights[torch.as_tensor(tile.places, device=device)]
                raw = ours.product(tile.student.rows)
                teachers = teacher.finished(theirs.product(tile.teacher.rows))
                with torch.set_grad_enabled(any(needs)):
                    students = student.finished(raw.requires_grad_(any(needs)))
                    value = (self.judge(tile, students, teachers, distance, observer) * weights).sum()
                total += value.detach()
                if any(needs):
                    gradient.add(tile.student.rows, torch.autograd.grad(value, raw)[0])
            return total, (gradient.hidden, gradient.weight, gradient.bias)

        return fused.swept((student_hidden, student.weight, student.bias), sweep)


class _Side:
    """One model's head and states in the precision of the products."""

    def __init__(self, head: Head, hidden: Tensor) -> None:
        self.factors, self.result = fused.precision_of(hidden)
        self.hidden, self.weight = hidden.detach().to(self.factors), head.weight.detach().to(self.factors)
        self.bias = None if head.bias is None else head.bias.detach().to(self.result)

    def product(self, rows: Tensor) -> Tensor:
        """(V, R) of weights and states; scale and soft cap come after it."""
        out = torch.empty((len(self.weight), len(rows)), dtype=self.result, device=self.hidden.device)
        fused.multiply(self.weight, self.hidden[rows].t(), out)
        return out if self.bias is None else out.add_(self.bias.unsqueeze(1))


class _Gradients:
    """The gradients of a student's states and head, gathered tile by tile."""

    def __init__(self, side: _Side, needs: Sequence[bool]) -> None:
        self.side = side
        tensors = []
        for shape, needed in zip((side.hidden.shape, side.weight.shape, side.weight.shape[:1]), needs, strict=True):
            tensors.append(torch.zeros(shape, dtype=side.result, device=side.hidden.device) if needed else None)
        self.hidden, self.weight, self.bias = tensors

    def add(self, rows: Tensor, logits: Tensor) -> None:
        """Take in the gradient (V, R) of the logits of some rows."""
        small = logits.to(self.side.factors)
        if self.hidden is not None:
            room = torch.empty((len(rows), self.hidden.shape[1]), dtype=self.side.result, device=logits.device)
            self.hidden[rows] += fused.multiply(small.t(), self.side.weight, room)
        if self.weight is not None:
            fused.add_product(self.weight, small, self.side.hidden[rows])
        if self.bias is not None:
            self.bias += logits.sum(1)
