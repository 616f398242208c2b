"""The token signals: on the ground truth, and on what the student wrote."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from dudi.arguments import OffPolicyLoss
from dudi.heads import Distance, weighted_divergence
from dudi.losses import Weighting, weigh_cross_entropy
from dudi.signals.base import Heads, Kind, Rows


def _total(distance: Distance, rows: Rows, heads: Heads) -> Tensor:
    """Weighted sum of the divergence of student and teacher over aligned rows."""
    if rows.teacher_hidden is None or heads.teacher is None:
        raise RuntimeError("a divergence was asked for without a teacher's pass")
    return weighted_divergence(
        heads.student,
        rows.hidden,
        heads.teacher,
        rows.teacher_hidden,
        rows.weights,
        distance,
        heads.kernel,
        rows.observer,
    )


class OffPolicySignal:
    """The loss on the targets y: cross-entropy (Eq. 1), or KD with teacher and student both reading (x, y) (Eq. 5)."""

    name = "off_policy"
    reads: frozenset[Kind] = frozenset({"gold"})
    reference_reads: frozenset[Kind] = frozenset()

    def __init__(self, loss: OffPolicyLoss, distance: Distance) -> None:
        self.kind, self.distance = loss, distance
        self.teacher_reads: frozenset[Kind] = frozenset({"gold"}) if loss == "divergence" else frozenset()

    def count(self, weights: Mapping[Kind, float], pairs: int) -> float:
        """Trained tokens of the targets."""
        return weights.get("gold", 0.0)

    def loss(self, rows: Mapping[Kind, Rows], heads: Heads) -> Tensor:
        """Weighted sum over the tokens of y."""
        gold = rows["gold"]
        if self.kind == "divergence":
            return _total(self.distance, gold, heads)
        weighting: Weighting = "dft" if self.kind == "dft" else "sft"
        return (weigh_cross_entropy(gold.log_probs(heads.student, heads.kernel), weighting) * gold.weights).sum()


class OnPolicySignal:
    """KD on a rollout: the student reads (p_z, x, y~), the teacher (z, y~) (Eq. 7; Eqs. 3 and 6 are its cases)."""

    name = "on_policy"
    reference_reads: frozenset[Kind] = frozenset()

    def __init__(self, distance: Distance, kind: Kind) -> None:
        self.distance, self.kind = distance, kind
        self.reads: frozenset[Kind] = frozenset({kind})
        self.teacher_reads: frozenset[Kind] = frozenset({kind})

    def count(self, weights: Mapping[Kind, float], pairs: int) -> float:
        """Trained tokens of the rollouts."""
        return weights.get(self.kind, 0.0)

    def loss(self, rows: Mapping[Kind, Rows], heads: Heads) -> Tensor:
        """Weighted sum over the tokens of y~."""
        return _total(self.distance, rows[self.kind], heads)
