"""The sequence signal: the ground truth against the student's own answer (SPIN)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from dudi.losses import spin
from dudi.signals.base import Heads, Kind, Rows


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
        return spin(
            gold.sequence_log_probs(heads.student, heads.kernel),
            plain.sequence_log_probs(heads.student, heads.kernel),
            gold.reference,
            plain.reference,
            self.beta,
        ).sum()
