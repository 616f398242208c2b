"""Losses on a head that compute value and gradient in one sweep over tiles of rows; the logits never exist as a whole.

A tile's logits are made once for each head. While they are in the cache they become the divergence and its gradient,
block by block and in place; two products carry the gradient on to hidden states and weights. Autograd on dense logits
reads and writes some forty tables of (N, V) for a Jensen-Shannon divergence; the chunked kernel makes the logits two or
three times. The price: the rows' weights in the loss must be known in the forward pass (`row_weights`).

A gradient of the weights is a table as large as the head. Where the loss's factor is known as well (`Gathered`), it is
added to the weights' own `.grad` at once, and no table stands beside that one.

N is the number of rows, V the vocabulary, H a hidden size. Softmax and sums run in fp32 at least.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dudi.objective.top_tokens import TopTokens

Side = tuple[Tensor, Tensor, Tensor | None]
"""A model in a loss: hidden states (N, H), its head (V, H), bias (V,) or None."""

Observer = Callable[[slice | Tensor, Tensor, Tensor | TopTokens], None]
"""Is shown rows, the student's log-probabilities (R, V) of these at temperature 1, and the teacher's or what is known
of it, before they are overwritten."""

Precision = tuple[torch.dtype, torch.dtype]
"""Of a product's factors, and of its result."""
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
Sweep = Callable[[Sequence[bool]], tuple[Tensor, Gradients]]
"""Told which of a student's tensors need a gradient: a scalar, and its gradients."""

CPU_TILE, DEVICE_TILE = 2**23, 2**27
"""Numbers in a tile of logits: 32 MiB on a CPU, 512 MiB on a device (fp32)."""
FEWEST_ROWS = 64
"""Rows of a tile at least, where there are so many: each tile reads the heads and adds to their gradient as a whole."""
CPU_BLOCK = 2**18
"""Numbers that the element-wise passes work on at a time on a CPU, so that they stay in its cache."""
CPU_WIDENED = 2**21
"""Numbers of a head in another precision that are widened at a time on a CPU: the whole head would be a second one."""
HELD_LOGITS = 2**25
"""Below so many (128 MiB in fp32) log-probabilities of labels keep their logits for the backward pass; more are made
again there, which costs a quarter of their products."""


@dataclasses.dataclass(frozen=True, slots=True)
class Gathered:
    """Where the gradient of a head's weights goes without a table of its own."""

    total: Tensor  # (V, H) the weights' `.grad`
    factor: float | None = None  # what the loss multiplies the result with; None: it is taken from the backward pass

    def check(self, upstream: Tensor) -> None:
        """Hold the factor that was promised against what backward brings.

        Raises:
            RuntimeError: it is another one, and the gradient that was added is wrong.
        """
        found = float(upstream)
        if self.factor is not None and abs(found - self.factor) > 1e-5 * abs(self.factor):
            raise RuntimeError(f"the loss was multiplied by {found}, and {self.factor} was promised")


@dataclasses.dataclass(frozen=True, slots=True)
class Divergence:
    """Which divergence, as in `losses.token_divergence`, and what multiplies each model's logits."""

    kind: str
    beta: float = 0.5
    temperature: float = 1.0
    student_scale: float = 1.0
    teacher_scale: float = 1.0


def weighted_divergence(
    what: Divergence,
    student: Side,
    teacher: Side,
    row_weights: Tensor,
    observer: Observer | None = None,
    values: Tensor | None = None,
    gathered: Gathered | None = None,
) -> Tensor:
    """The sum over rows of weight (N,) times divergence: a scalar in nats, fp32 at least.

    Only the student's tensors get a gradient, the weights' own through `gathered` at once, where it is given. The
    teacher's head has as many rows. The observer is shown the log-probabilities of all rows in passing, a few rows at a
    time; `values` (N,) is filled with each row's divergence, without a gradient.
    """
    precision = precision_of(student[0])

    def sweep(needs: Sequence[bool]) -> tuple[Tensor, Gradients]:
        ours = TiledHead(precision, *student, what.student_scale)
        theirs = TiledHead(precision, *teacher, what.teacher_scale)
        gradient = Gradient(ours, needs, gathered)
        factor = row_weights.to(ours.result)
        our_room, their_room = ours.table(ours.rows), theirs.table(ours.rows)
        work = _Blocks(what, our_room, any(needs), observer)
        total = factor.new_zeros(())
        for rows in slices(len(factor), ours.rows):
            logits, others = ours.logits(rows, our_room), theirs.logits(rows, their_room)
            found = work.divergence(logits, others, rows.start)
            total += (found * factor[rows]).sum()
            if values is not None:
                values[rows] = found
            if any(needs):
                gradient.add(rows, logits, factor[rows] * (what.student_scale / what.temperature))
        return total, (gradient.hidden, gradient.weight, gradient.bias)

    return swept(student, sweep, gathered)


def label_log_probs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    scale: float = 1.0,
    gathered: Gathered | None = None,
) -> Tensor:
    """(N,) log-probabilities of labels.

    With a gradient few logits are held and many are made once more in the backward pass, without one a tile is held.
    """
    values: Tensor = _LabelLogProbs.apply(hidden, weight, bias, labels, scale, torch.is_grad_enabled(), gathered)
    return values


def precision_of(hidden: Tensor) -> Precision:
    """The dtypes in which products with some states are made."""
    kind = hidden.device.type
    factors = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    if factors == torch.float64:
        return factors, factors
    return (factors if kind == "cuda" else torch.float32), torch.float32


def multiply(rows: Tensor, matrix: Tensor, out: Tensor) -> Tensor:
    """Out = rows @ matrix, kept in fp32 where the factors have 16 bits."""
    if rows.dtype == out.dtype:
        return torch.mm(rows, matrix, out=out)
    return torch.mm(rows, matrix, out_dtype=out.dtype, out=out)


def add_product(total: Tensor, rows: Tensor, matrix: Tensor) -> None:
    """Total += rows @ matrix, likewise."""
    if rows.dtype == total.dtype:
        total.addmm_(rows, matrix)
    else:
        torch.addmm(total, rows, matrix, out_dtype=total.dtype, out=total)


def slices(total: int, size: int) -> Iterator[slice]:
    """Neighbours, so many at a time."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def _block_rows(device: torch.device, vocabulary: int, tile: int) -> int:
    return max(1, CPU_BLOCK // vocabulary) if device.type == "cpu" else tile


class TiledHead:
    """One head during a call: states (N, H), weights (V, H), bias (V,), and the scale on the logits.

    Its products are made in their own precision, whatever that of the weights.
    """

    def __init__(
        self, precision: Precision, hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float = 1.0
    ) -> None:
        self.factors, self.result = precision
        self.hidden = hidden.to(self.factors)
        self.weight = weight if hidden.device.type == "cpu" else weight.to(self.factors)
        self.bias = None if bias is None else bias.to(self.result)
        self.scale = scale
        total, tile = hidden.shape[0], CPU_TILE if hidden.device.type == "cpu" else DEVICE_TILE
        tiles = max(1, -(-total // max(FEWEST_ROWS, tile // weight.shape[0])))
        self.rows = max(1, -(-total // tiles))  # of each of the fewest tiles, all about as large

    def table(self, rows: int) -> Tensor:
        """Room for the logits of some rows."""
        return torch.empty((rows, self.weight.shape[0]), dtype=self.result, device=self.hidden.device)

    def logits(self, rows: slice, room: Tensor) -> Tensor:
        """(R, V), written into the first rows of some room."""
        out = room[: rows.stop - rows.start]
        for part, weight in self._parts():
            multiply(self.hidden[rows], weight.t(), out[:, part])
        if self.bias is not None:
            out.add_(self.bias)
        return out if self.scale == 1.0 else out.mul_(self.scale)

    def carry_back(self, logits: Tensor, out: Tensor) -> None:
        """(R, V) gradients of logits -> (R, H) of the hidden states, up to the scale."""
        for part, weight in self._parts():
            if part.start == 0:
                multiply(logits[:, part], weight, out)
            else:
                add_product(out, logits[:, part], weight)

    def _parts(self) -> Iterator[tuple[slice, Tensor]]:
        """The weights in the precision of the products, whole or piece by piece, with the ids that they belong to."""
        if self.weight.dtype == self.factors:
            yield slice(0, self.weight.shape[0]), self.weight
            return
        size = max(1, CPU_WIDENED // self.weight.shape[1])
        room = torch.empty((size, self.weight.shape[1]), dtype=self.factors, device=self.weight.device)
        for part in slices(self.weight.shape[0], size):
            narrow = self.weight[part]
            yield slice(part.start, part.start + len(narrow)), room[: len(narrow)].copy_(narrow)


class Gradient:
    """The gradient of a student's states, weights and bias, as far as they need one, gathered tile by tile."""

    def __init__(self, head: TiledHead, needs: Sequence[bool], gathered: Gathered | None = None) -> None:
        wants_hidden, wants_weight, wants_bias = needs
        kind: dict[str, Any] = {"dtype": head.result, "device": head.hidden.device}
        self.head, self.gathered = head, gathered if wants_weight else None
        wants_weight = wants_weight and gathered is None
        self.hidden = torch.empty(head.hidden.shape, **kind) if wants_hidden else None
        self.weight = torch.zeros(head.weight.shape, **kind) if wants_weight else None
        self.bias = torch.zeros(len(head.weight), **kind) if wants_bias else None

    def add(self, rows: slice, logits: Tensor, factor: Tensor) -> None:
        """Take in the gradient of some logits (R, V), whose rows still have to be multiplied by their factors (R,)."""
        head, small = self.head, logits.to(self.head.factors)
        if self.hidden is not None:
            head.carry_back(small, self.hidden[rows])
            self.hidden[rows] *= factor.unsqueeze(1)
        weighed = head.hidden[rows] * factor.unsqueeze(1).to(head.factors)
        if self.weight is not None:
            add_product(self.weight, small.t(), weighed)
        elif self.gathered is not None:
            if self.gathered.factor is not None:
                weighed = weighed.mul_(self.gathered.factor)
            add_product(self.gathered.total, small.t(), weighed)
        if self.bias is not None:
            self.bias += factor @ logits


def swept(student: Side, sweep: Sweep, gathered: Gathered | None = None) -> Tensor:
    """A scalar loss whose value and gradient to the student's tensors one sweep makes, without autocast and autograd.

    `gathered` is where the sweep puts the gradient of the weights, if it does not return it.
    """
    total: Tensor = _Swept.apply(*student, sweep, gathered, torch.is_grad_enabled())
    return total


class _Swept(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        sweep: Sweep,
        gathered: Gathered | None,
        grad: bool,
    ) -> Tensor:
        needs = [grad and needed for needed in ctx.needs_input_grad[:3]]
        with torch.autocast(hidden.device.type, enabled=False):
            total, gradients = sweep(needs)
        ctx.save_for_backward(*gradients)
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        ctx.gathered = gathered if needs[1] else None
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gathered is not None:
            ctx.gathered.check(upstream)
        scaled = (None if saved is None else saved.mul_(upstream) for saved in ctx.saved_tensors)
        grads = [None if g is None else g.to(dtype) for g, dtype in zip(scaled, ctx.dtypes, strict=True)]
        return (*grads, None, None, None)


class _Blocks:
    """The element-wise part: logits of both models become divergences, and the student's its gradient."""

    def __init__(self, what: Divergence, tile: Tensor, needs_gradient: bool, observer: Observer | None) -> None:
        self.what, self.needs_gradient, self.observer = what, needs_gradient, observer
        self.rows = _block_rows(tile.device, tile.shape[1], tile.shape[0])
        self.scratch = torch.empty((4, self.rows, tile.shape[1]), dtype=tile.dtype, device=tile.device)

    def divergence(self, student: Tensor, teacher: Tensor, first: int) -> Tensor:
        """Logits (R, V) twice -> (R,); the observer calls the first of these rows `first`.

        Afterwards `student` holds the gradient, up to the factor of scale and temperature.
        """
        step = {"forward_kl": self._forward_kl, "reverse_kl": self._reverse_kl, "jsd": self._jsd}[self.what.kind]
        parts = []
        for rows in slices(student.shape[0], self.rows):
            ours, theirs = student[rows], teacher[rows]
            shown = slice(first + rows.start, first + rows.stop)
            p, q, mixture, products = self.scratch[:, : rows.stop - rows.start]
            if self.what.temperature != 1.0:
                if self.observer is not None:
                    self.observer(shown, ours.log_softmax(-1), theirs.log_softmax(-1))
                ours.div_(self.what.temperature)
                theirs.div_(self.what.temperature)
            _log_softmax(ours, p)
            _log_softmax(theirs, q)
            if self.observer is not None and self.what.temperature == 1.0:
                self.observer(shown, ours, theirs)
            parts.append(step(ours, theirs, p, q, mixture, products))
        return torch.cat(parts) if parts else student.new_zeros(0)

    def _reverse_kl(self, log_p: Tensor, log_q: Tensor, p: Tensor, _q: Tensor, _: Tensor, products: Tensor) -> Tensor:
        gap = log_p.sub_(log_q)
        value = _dot(p, gap, products)
        if self.needs_gradient:
            gap.sub_(value.unsqueeze(1)).mul_(p)  # p (log p - log q - KL)
        return value

    def _forward_kl(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor, _: Tensor, products: Tensor) -> Tensor:
        value = _dot(q, log_q.sub_(log_p), products)
        if self.needs_gradient:
            torch.sub(p, q, out=log_p)
        return value

    def _jsd(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor, mixture: Tensor, products: Tensor) -> Tensor:
        beta = self.what.beta
        tiny = torch.finfo(mixture.dtype).tiny  # where both are 0 their shares are 0, and log 0 would make them NaN
        log_m = torch.lerp(p, q, beta, out=mixture).clamp_min_(tiny).log_()
        of_student = _dot(p, log_p.sub_(log_m), products)
        value = beta * _dot(q, log_q.sub_(log_m), products) + (1 - beta) * of_student
        if self.needs_gradient:
            log_p.sub_(of_student.unsqueeze(1)).mul_(p).mul_(1 - beta)  # (1 - beta) p (log p - log m - KL(p || m))
        return value


def _dot(one: Tensor, other: Tensor, room: Tensor) -> Tensor:
    """(R, V) twice -> (R,): what `vecdot` gives, without a table of products that is made anew each time."""
    return torch.mul(one, other, out=room).sum(-1)


def _log_softmax(logits: Tensor, p: Tensor) -> None:
    """Turn logits (R, V) into log-probabilities in place, and write the probabilities beside them."""
    top = logits.amax(-1, keepdim=True)
    torch.sub(logits, top, out=p).exp_()
    total = p.sum(-1, keepdim=True)
    p.div_(total)
    logits.sub_(top.add_(total.log_()))


class _LabelLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        scale: float,
        grad: bool,
        gathered: Gathered | None,
    ) -> Tensor:
        needs = [grad and needed for needed in ctx.needs_input_grad[:3]]
        count, vocabulary = hidden.shape[0], weight.shape[0]
        precision, held = precision_of(hidden), any(needs) and count * vocabulary < HELD_LOGITS
        with torch.autocast(hidden.device.type, enabled=False):
            head = TiledHead(precision, hidden, weight, bias, scale)
            table = head.table(count if held else head.rows)
            values = torch.empty(count, dtype=head.result, device=hidden.device)
            for rows in slices(count, head.rows):
                log_probs = _log_probs(head, rows, table[rows] if held else table)
                values[rows] = log_probs.gather(1, labels[rows].unsqueeze(1)).squeeze(1)
        ctx.save_for_backward(hidden, weight, bias, labels, table if held else None)
        ctx.scale, ctx.needs, ctx.precision, ctx.gathered = scale, needs, precision, gathered
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, labels, table = ctx.saved_tensors
        with torch.autocast(hidden.device.type, enabled=False):
            head = TiledHead(ctx.precision, hidden, weight, bias, ctx.scale)
            gradient = Gradient(head, ctx.needs, ctx.gathered)
            factor = upstream.to(head.result) * ctx.scale
            room = head.table(head.rows) if table is None else None
            for rows in slices(hidden.shape[0], head.rows):
                logits = table[rows] if room is None else _log_probs(head, rows, room)
                logits.exp_().neg_()  # of log p(label): its indicator minus p
                logits[torch.arange(logits.shape[0], device=logits.device), labels[rows]] += 1.0
                gradient.add(rows, logits, factor[rows])
        dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        found = (gradient.hidden, gradient.weight, gradient.bias)
        grads = [None if g is None else g.to(dtype) for g, dtype in zip(found, dtypes, strict=True)]
        return (*grads, *(None,) * 4)


def _log_probs(head: TiledHead, rows: slice, room: Tensor) -> Tensor:
    """(R, V) log-probabilities of all labels, written into the first rows of some room."""
    logits = head.logits(rows, room)
    scratch = head.table(_block_rows(logits.device, logits.shape[1], head.rows))
    for part in slices(logits.shape[0], scratch.shape[0]):
        _log_softmax(logits[part], scratch[: part.stop - part.start])
    return logits
