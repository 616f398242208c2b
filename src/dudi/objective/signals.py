"""What a signal is: which sequences it reads, and its loss as a sum over the rows of their hidden states."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor

from dudi.objective.event_batch import EventBatch
from dudi.objective.event_loss import EventLoss
from dudi.objective.fused import Observer
from dudi.objective.heads import Distance, Head, weighted_divergence, weighted_top_divergence
from dudi.objective.losses import Weighting, spin, weigh_cross_entropy
from dudi.objective.methods import Kernel, OffPolicyLoss
from dudi.objective.top_tokens import TopTokens

Kind = Literal["gold", "plain", "verbalized"]
"""(x, y) the target; (x, y') the answer to the plain prompt; (p_z, x, y~) the answer to the verbalized prompt."""


@dataclasses.dataclass(slots=True)
class Rows:
    """The completion positions of all sequences of one kind in a micro-batch, one after the other.

    N is the number of completion tokens, S the number of sequences.
    """

    hidden: Tensor  # (N, H) states of the student at the positions that predict the labels
    labels: Tensor  # (N,) the completion's ids
    lengths: list[int]  # S completion lengths; they sum to N
    weights: Tensor  # (N,) share of each token in the signal's mean; 0 where it is not trained
    # (N, H_t) states of the teacher for the same labels, or None; across tokenizers (M, H_t), for the same bytes in its
    # own tokens; of a served teacher its `TopTokens` (N).
    teacher_hidden: Tensor | TopTokens | None = None
    reference: Tensor | None = None  # (S,) summed log-probabilities under the reference
    trust: Tensor | None = None  # (N,) share of the teacher in each token's loss (w of `teacher_weight`); None: 1
    # Wants to see both models' logits; told nothing where they are never made row by row. Across tokenizers it is shown
    # the cells of the shared events instead.
    observer: Observer | None = None
    # Filled by the signals, by their names: the loss of each token (N,), with `trust`, or of each pair (S,), unweighted
    # and without a gradient; not across tokenizers, where a loss belongs to bytes.
    values: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    events: EventBatch | None = None  # the completions in both models' tokens; None where one tokenizer is enough
    _log_probs: Tensor | None = None

    def log_probs(self, head: Head, kernel: Kernel) -> Tensor:
        """(N,) log-probabilities of the labels, computed once for all signals that ask."""
        if self._log_probs is None:
            self._log_probs = head.log_probs(self.hidden, self.labels, kernel)
        return self._log_probs

    def sequence_log_probs(self, head: Head, kernel: Kernel) -> Tensor:
        """(S,) summed log-probabilities; every completion token counts, whatever its weight."""
        return sum_by_sequence(self.log_probs(head, kernel), self.lengths)


def sum_by_sequence(values: Tensor, lengths: list[int]) -> Tensor:
    """(N,) values of S sequences, one after the other -> (S,) sums."""
    owner = torch.repeat_interleave(torch.tensor(lengths, device=values.device))
    return torch.zeros(len(lengths), dtype=values.dtype, device=values.device).index_add(0, owner, values)


@dataclasses.dataclass(frozen=True, slots=True)
class Heads:
    """The heads that a micro-batch is scored with, cut to the shared vocabulary where there is one."""

    student: Head  # inside its wrapped forward
    teacher: Head | None  # None without a teacher, and for a served one
    kernel: Kernel
    events: EventLoss | None = None  # the loss across tokenizers, or None where one is enough
    # What the loss multiplies each signal's sum with, where it is known beforehand.
    factors: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Signal(Protocol):
    """One term of Eq. 8."""

    name: str  # in the metrics and in `without`
    reads: frozenset[Kind]  # what the student is scored on
    teacher_reads: frozenset[Kind]  # what the teacher is scored on
    reference_reads: frozenset[Kind]  # what the reference is scored on

    def count(self, weights: Mapping[Kind, float], pairs: int) -> float:
        """A micro-batch's share in the signal's denominator, from each kind's summed token weights and its rows."""
        ...

    def loss(self, rows: Mapping[Kind, Rows], heads: Heads) -> Tensor:
        """The sum, before the division by the optimizer step's count: a scalar with a gradient to the student."""
        ...


class SequenceSignal:
    """SPIN on pairs (y, y') with summed log-probabilities (Eq. 2, its sign as in `losses.spin`)."""

    name = "sequence"
    reads: frozenset[Kind] = frozenset({"gold", "plain"})
    teacher_reads: frozenset[Kind] = frozenset()
    reference_reads: frozenset[Kind] = frozenset({"gold", "plain"})

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def count(self, weights: Mapping[Kind, float], pairs: int) -> float:
        """Pairs."""
        return float(pairs)

    def loss(self, rows: Mapping[Kind, Rows], heads: Heads) -> Tensor:
        """Sum over the pairs."""
        gold, plain = rows["gold"], rows["plain"]
        if gold.reference is None or plain.reference is None:
            raise RuntimeError("the sequence signal was asked for without a reference's pass")
        own, other = (side.sequence_log_probs(heads.student, heads.kernel) for side in (gold, plain))
        pairs = spin(own, other, gold.reference, plain.reference, self.beta)
        gold.values[self.name] = pairs.detach()
        return pairs.sum()


def _total(name: str, distance: Distance, rows: Rows, heads: Heads) -> Tensor:
    """Sum over aligned rows of their weight, the teacher's share in them, and the divergence of student and teacher."""
    weights = rows.weights if rows.trust is None else rows.weights * rows.trust
    student, hidden, theirs = heads.student, rows.hidden, rows.teacher_hidden
    if (
        isinstance(theirs, Tensor)
        and heads.teacher is not None
        and heads.events is not None
        and rows.events is not None
    ):
        batch, teacher = rows.events, heads.teacher
        return heads.events.weighted(batch, student, hidden, teacher, theirs, weights, distance, rows.observer)
    rows.values[name] = values = torch.zeros(len(rows.labels), device=hidden.device)
    watched = rows.observer, values, heads.factors.get(name)
    if isinstance(theirs, TopTokens):
        return weighted_top_divergence(student, hidden, theirs, weights, distance, *watched)
    if theirs is None or heads.teacher is None:
        raise RuntimeError("a divergence was asked for without a teacher's pass")
    return weighted_divergence(student, hidden, heads.teacher, theirs, weights, distance, heads.kernel, *watched)


class _TokenSignal:
    """A signal on tokens: those of the sequences that it reads are counted."""

    reads: frozenset[Kind]
    reference_reads: frozenset[Kind] = frozenset()

    def count(self, weights: Mapping[Kind, float], pairs: int) -> float:
        """Trained tokens."""
        return sum(weights.get(kind, 0.0) for kind in self.reads)


class OffPolicySignal(_TokenSignal):
    """The loss on the targets y: cross-entropy (Eq. 1), or KD with teacher and student both reading (x, y) (Eq. 5).

    Where a teacher is trusted with w only (`Rows.trust`), the token's loss is w D + (1 - w) CE.

    Args:
        loss: What is computed on the targets.
        distance: D.
        gold_loss: The cross-entropy of the share that the teacher is not trusted with.
    """

    name = "off_policy"
    reads: frozenset[Kind] = frozenset({"gold"})

    def __init__(self, loss: OffPolicyLoss, distance: Distance, gold_loss: Weighting = "dft") -> None:
        self.kind, self.distance, self.gold_loss = loss, distance, gold_loss
        self.teacher_reads: frozenset[Kind] = frozenset({"gold"}) if loss == "divergence" else frozenset()

    def loss(self, rows: Mapping[Kind, Rows], heads: Heads) -> Tensor:
        """Weighted sum over the tokens of y."""
        gold = rows["gold"]
        if self.kind != "divergence":
            return self._cross_entropy(gold, heads, "dft" if self.kind == "dft" else "sft", gold.weights)
        total = _total(self.name, self.distance, gold, heads)
        if gold.trust is None:
            return total
        divergences = gold.values.get(self.name)
        total = total + self._cross_entropy(gold, heads, self.gold_loss, gold.weights * (1 - gold.trust))
        tokens = gold.values.pop(self.name)
        if divergences is not None:
            gold.values[self.name] = torch.lerp(tokens, divergences, gold.trust)
        return total

    def _cross_entropy(self, gold: Rows, heads: Heads, weighting: Weighting, weights: Tensor) -> Tensor:
        tokens = weigh_cross_entropy(gold.log_probs(heads.student, heads.kernel), weighting)
        gold.values[self.name] = tokens.detach()
        return (tokens * weights).sum()


class OnPolicySignal(_TokenSignal):
    """KD on a rollout: the student reads (p_z, x, y~), the teacher (z, y~) (Eq. 7; Eqs. 3 and 6 are its cases)."""

    name = "on_policy"

    def __init__(self, distance: Distance, kind: Kind) -> None:
        self.distance, self.kind = distance, kind
        self.reads = self.teacher_reads = frozenset({kind})

    def loss(self, rows: Mapping[Kind, Rows], heads: Heads) -> Tensor:
        """Weighted sum over the tokens of y~."""
        written = rows[self.kind]
        total = _total(self.name, self.distance, written, heads)
        if written.trust is not None and self.name in written.values:
            written.values[self.name] = written.values[self.name] * written.trust
        return total
