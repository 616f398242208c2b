"""The divergence of two models with different tokenizers, over their shared events.

For a chunk between two common borders, with the events of `shared_events`:

    D  =  D(P_T, P_S)  +  D(p_T, p_S)

P is a model's distribution over the cells after the chunk's first border, and p, where the chunk is not one token on
both sides, that of two events: the bytes go on as the whole chunk does or they do not, given the first event. With what
the next chunk adds it is the chain rule, so that at most one thing is never judged twice. Each D is one of the three
divergences; cells are summed at temperature 1 and only then tempered, because (sum p)^(1/T) is not sum p^(1/T).

Logits are laid out (V, N) here, tokens first: sums over a cell's tokens then run along memory.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dudi.objective import fused
from dudi.objective.event_batch import EventBatch, Tile, TileRows
from dudi.objective.heads import Distance, Head
from dudi.objective.shared_events import SharedEvents

EMPTY = -87.0
"""Log-probability of a cell without a token (OTHER, on a side that has no such token)."""
NOTHING = -1e4
"""That of a cell that has been merged into another: exactly 0 as a probability."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cells:
    """Which tokens of one side make up each cell, as tensors.

    Attributes:
        of_token: (V,) the cell of each token.
        single: Cells of one token.
        single_tokens: Their tokens.
        multiple: Cells of several tokens.
        members: The tokens of these, cell by cell.
        lengths: How many each has.
        count: Number of cells.
    """

    of_token: Tensor
    single: Tensor
    single_tokens: Tensor
    multiple: Tensor
    members: Tensor
    lengths: Tensor
    count: int

    @classmethod
    def of(cls, of_token: np.ndarray, count: int, device: torch.device | str = "cpu") -> Cells:
        """Sort tokens by cell."""
        order = np.argsort(of_token, kind="stable")
        sizes = np.bincount(of_token, minlength=count)
        first = np.cumsum(sizes) - sizes
        several = np.flatnonzero(sizes > 1)

        def tensor(numbers: np.ndarray) -> Tensor:
            return torch.as_tensor(numbers, dtype=torch.int64, device=device)

        return cls(
            of_token=tensor(of_token),
            single=tensor(np.flatnonzero(sizes == 1)),
            single_tokens=tensor(order[first[sizes == 1]]),
            multiple=tensor(several),
            members=tensor(order[sizes[of_token[order]] > 1]),
            lengths=tensor(sizes[several]),
            count=count,
        )


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


def _log_softmax(logits: Tensor) -> Tensor:
    """Over tokens (V, N), in fp32 at least; `logsumexp` sums pairwise where a CPU's `log_softmax` does not."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits - logits.logsumexp(0, keepdim=True)


@dataclasses.dataclass(frozen=True, slots=True)
class _Judged:
    """One side's view of P chunks.

    Attributes:
        cells: (C, P) log-probabilities of the events.
        chunk: (P,) log-probability of the whole chunk's bytes, before a division by that of the realised event.
    """

    cells: Tensor
    chunk: Tensor


def _judge(logits: Tensor, side: TileRows, cells: Cells) -> _Judged:
    """Logits (V, R) -> log-probabilities of what follows the first borders' bytes."""
    points = len(side.starts)
    log_probs = _log_softmax(logits)
    events = _CellLogProbs.apply(log_probs[:, :points], cells)
    realised = log_probs.gather(0, side.labels.unsqueeze(0)).squeeze(0)[side.order].double()
    path = torch.cat([realised.new_zeros(1), realised.cumsum(0)])
    chunk = path[side.ends] - path[side.starts]
    if not len(side.owners):
        return _Judged(events, chunk)
    at = torch.cat([side.starts, side.ends])[side.owners]
    weights = path[side.covers] - path[at] + log_probs[side.tokens, side.columns].double()
    # What longer tokens promise beside the path that came, which has a share of 1.
    total = torch.ones(2 * points, dtype=torch.float64, device=logits.device)
    total = total.index_add(0, side.owners, weights.exp()).log()
    before, after = total[:points], total[points:]
    first = side.owners < points
    owners, numbers = side.owners[first], side.cells[first]
    keys, pair = torch.unique(owners * cells.count + numbers, return_inverse=True)
    added = keys.new_zeros(len(keys), dtype=torch.float64)
    added = added.index_add(0, pair, (weights[first] - before[owners]).exp()).clamp_min(math.exp(EMPTY)).log()
    place = (keys % cells.count, keys // cells.count)
    events = events - before.to(events.dtype)
    events = events.index_put(place, torch.logaddexp(events[place], added.to(events.dtype)))
    return _Judged(events, chunk + after - before)


def _divergence(student: Tensor, teacher: Tensor, distance: Distance) -> Tensor:
    """Of log-probabilities (C, P), tempered -> (P,)."""
    if distance.temperature != 1.0:
        student = torch.log_softmax(student / distance.temperature, 0)
        teacher = torch.log_softmax(teacher / distance.temperature, 0)
    if distance.kind == "forward_kl":
        return _kl(teacher, student)
    if distance.kind == "reverse_kl":
        return _kl(student, teacher)
    beta = distance.beta
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(0)


def _merge(cells: Tensor, tile: Tile) -> tuple[Tensor, Tensor]:
    """Count the realised event's cells as one, in the chunks where it is several.

    Returns:
        (C, M) of the merged chunks; (P,) log-probability of each chunk's realised event.
    """
    event = cells.gather(0, tile.first_cell.unsqueeze(0)).squeeze(0)
    number = torch.arange(cells.shape[0], device=cells.device).unsqueeze(1)
    chosen = cells[:, tile.merged]
    first = tile.first_cell[tile.merged]
    inside = (number >= first) & (number < tile.last_cell[tile.merged])
    whole = chosen.masked_fill(~inside, -math.inf).logsumexp(0)
    chosen = chosen.masked_fill(inside, NOTHING).scatter(0, first.unsqueeze(0), whole.unsqueeze(0))
    return chosen, event.index_put((tile.merged,), whole)


def _two_events(judged: _Judged, event: Tensor, split: Tensor) -> Tensor:
    """(2, S) log-probabilities that the bytes go on as the chunk does, and that they do not, given its first event."""
    least = 1e-12 if event.dtype == torch.float64 else 1e-6
    goes_on = (judged.chunk[split] - event[split].double()).clamp_max(-least)
    return torch.stack([goes_on, torch.log(-torch.expm1(goes_on))]).to(event.dtype)


def _chunk_divergence(student: _Judged, teacher: _Judged, tile: Tile, distance: Distance) -> Tensor:
    """(P,) in nats."""
    values = _divergence(student.cells, teacher.cells, distance)
    if not len(tile.split):
        return values
    ours, theirs = _merge(student.cells, tile), _merge(teacher.cells, tile)
    if len(tile.merged):
        values = values.index_put((tile.merged,), _divergence(ours[0], theirs[0], distance))
    chunks = [_two_events(judged, event[1], tile.split) for judged, event in ((student, ours), (teacher, theirs))]
    return values.index_add(0, tile.split, _divergence(chunks[0], chunks[1], distance))


class EventLoss:
    """The divergence over two tokenizers' shared events.

    Args:
        events: Of the two tokenizers.
        distance: Which divergence.
        device: Where the models' heads are.
    """

    def __init__(self, events: SharedEvents, distance: Distance, device: torch.device | str = "cpu") -> None:
        other = len(events.cells)
        count = other + bool((events.student_cells == other).any() or (events.teacher_cells == other).any())
        self.distance = distance
        self.student = Cells.of(events.student_cells, count, device)
        self.teacher = Cells.of(events.teacher_cells, count, device)

    def from_logits(self, batch: EventBatch, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Every chunk's divergence, all logits held at once: (N, V), (M, V') -> (P,) in nats.

        The gradient goes to both; detach the teacher's.
        """
        parts = [
            self.judge(tile, student_logits[tile.student.rows].t(), teacher_logits[tile.teacher.rows].t())
            for tile in batch.tiles(2**62, student_logits.device)
        ]
        return torch.cat(parts) if parts else student_logits.new_zeros(0)

    def judge(self, tile: Tile, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Logits (V, R), (V', R') of a tile's rows -> (P,)."""
        student = _judge(student_logits, tile.student, self.student)
        teacher = _judge(teacher_logits, tile.teacher, self.teacher)
        return _chunk_divergence(student, teacher, tile, self.distance)

    def weighted(
        self,
        batch: EventBatch,
        student: Head,
        student_hidden: Tensor,
        teacher: Head,
        teacher_hidden: Tensor,
        row_weights: Tensor,
    ) -> Tensor:
        """The sum over chunks of weight times divergence, tile by tile, with a gradient to the student's tensors only.

        Args:
            batch: The completions.
            student: The student's head.
            student_hidden: (N, H_s).
            teacher: The teacher's head.
            teacher_hidden: (M, H_t).
            row_weights: (N,) weights of the student's tokens; a chunk counts with the mean of its own.

        Returns:
            A scalar in nats, fp32 at least.
        """
        total: Tensor = _WeightedEvents.apply(
            student_hidden,
            student.weight,
            student.bias,
            teacher_hidden,
            row_weights,
            (self, batch, student, teacher),
            torch.is_grad_enabled(),
        )
        return total


class _WeightedEvents(torch.autograd.Function):
    """Value and gradient in one sweep over tiles, as in `fused`: autograd sees a tile's logits, never all of them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teacher_hidden: Tensor,
        row_weights: Tensor,
        parts: tuple[EventLoss, EventBatch, Head, Head],
        grad: bool,
    ) -> Tensor:
        loss, batch, student, teacher = parts
        needs = [grad and needed for needed in ctx.needs_input_grad[:3]]
        with torch.autocast(hidden.device.type, enabled=False), torch.no_grad():
            ours, theirs = _Side(student, hidden), _Side(teacher, teacher_hidden)
            gradient = _Gradients(ours, needs)
            chunk_weights = batch.chunk_weights(row_weights)
            total = torch.zeros((), dtype=ours.result, device=hidden.device)
            for tile in batch.tiles(_tile_rows(hidden.device, max(len(student), len(teacher))), hidden.device):
                weights = chunk_weights[torch.as_tensor(tile.chunks, device=hidden.device)].to(ours.result)
                raw = ours.product(tile.student.rows)
                teachers = teacher.finished(theirs.product(tile.teacher.rows))
                with torch.set_grad_enabled(any(needs)):
                    value = (
                        loss.judge(tile, student.finished(raw.requires_grad_(any(needs))), teachers) * weights
                    ).sum()
                total += value.detach()
                if any(needs):
                    gradient.add(tile.student.rows, torch.autograd.grad(value, raw)[0])
        ctx.save_for_backward(gradient.hidden, gradient.weight, gradient.bias)
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (None if saved is None else saved * upstream for saved in ctx.saved_tensors)
        grads = [None if g is None else g.to(dtype) for g, dtype in zip(scaled, ctx.dtypes, strict=True)]
        return (*grads, *(None,) * 4)


def _tile_rows(device: torch.device, vocabulary: int) -> int:
    return max(1, (fused.CPU_TILE if device.type == "cpu" else fused.DEVICE_TILE) // vocabulary)


class _Side:
    """One model's head and states in the precision of the products."""

    def __init__(self, head: Head, hidden: Tensor) -> None:
        self.factors, self.result = fused.precision_of(hidden)
        self.hidden, self.weight = hidden.detach().to(self.factors), head.weight.detach().to(self.factors)
        self.bias = head.bias

    def product(self, rows: Tensor) -> Tensor:
        """(V, R) of weights and states; scale and soft cap come after it."""
        out = torch.empty((len(self.weight), len(rows)), dtype=self.result, device=self.hidden.device)
        fused.multiply(self.weight, self.hidden[rows].t(), out)
        return out if self.bias is None else out.add_(self.bias.detach().to(self.result).unsqueeze(1))


class _Gradients:
    """The gradients of a student's states and head, gathered tile by tile."""

    def __init__(self, side: _Side, needs: list[bool]) -> None:
        self.side = side
        shapes = (side.hidden.shape, side.weight.shape, side.weight.shape[:1])
        tensors = [
            torch.zeros(tuple(shape), dtype=side.result, device=side.hidden.device) if needed else None
            for shape, needed in zip(shapes, needs, strict=True)
        ]
        self.hidden, self.weight, self.bias = tensors

    def add(self, rows: Tensor, logits: Tensor) -> None:
        """Take in the gradient (V, R) of the logits of some rows."""
        small = logits.to(self.side.factors)
        if self.hidden is not None:
            room = torch.empty((len(rows), self.hidden.shape[1]), dtype=self.side.result, device=logits.device)
            fused.multiply(small.t(), self.side.weight, room)
            self.hidden[rows] += room
        if self.weight is not None:
            fused.add_product(self.weight, small, self.side.hidden[rows])
        if self.bias is not None:
            self.bias += logits.sum(1)
