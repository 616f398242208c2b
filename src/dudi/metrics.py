"""What is measured beside the loss: agreement of student and teacher, and the health of rollouts."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dudi.langid import detect
from dudi.signals.base import Heads, Rows

WATCHED_POSITIONS = 1024
"""Most on-policy positions of an optimizer step at which overlap and entropies are measured."""


def top_k_overlap(student_logits: Tensor, teacher_logits: Tensor, k: int) -> Tensor:
    """Share of the teacher's k likeliest tokens that are among the student's (Figure 5; Li et al. 2026).

    Args:
        student_logits: (..., V).
        teacher_logits: (..., V'); where the sizes differ by padding, the shared first ids are compared.
        k: How many tokens.

    Returns:
        (...) of |top-k(student) ∩ top-k(teacher)| / k, fp32.

    Raises:
        ValueError: k is not between 1 and the vocabulary's size.
    """
    shared = min(student_logits.shape[-1], teacher_logits.shape[-1])
    if not 1 <= k <= shared:
        raise ValueError(f"k must be between 1 and the vocabulary's {shared}, got {k}")
    student = student_logits[..., :shared].topk(k, dim=-1).indices
    teacher = teacher_logits[..., :shared].topk(k, dim=-1).indices
    common = (student.unsqueeze(-1) == teacher.unsqueeze(-2)).any(-1)
    return common.float().mean(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the next-token distribution: (..., V) -> (...) in nats."""
    log_probs = F.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)
    return -(log_probs.exp() * log_probs).sum(-1)


def watched_positions(total: int, limit: int, seed: int, step: int) -> list[int]:
    """At most `limit` of `total` positions, in order; the same for the same seed and step."""
    if total <= limit:
        return list(range(total))
    return sorted(random.Random(f"{seed}-{step}").sample(range(total), limit))


@torch.no_grad()
def agreement(rows: Rows, heads: Heads, places: Sequence[int], k: int) -> Tensor:
    """Sums over some positions: overlap, student's entropy, teacher's entropy, number of positions -> (4,)."""
    device = rows.hidden.device
    if not places or rows.teacher_hidden is None or heads.teacher is None:
        return torch.zeros(4, device=device)
    index = torch.tensor(places, device=device)
    student = heads.student.logits(rows.hidden[index])
    teacher = heads.teacher.logits(rows.teacher_hidden[index])
    overlap = top_k_overlap(student, teacher, min(k, student.shape[-1]))
    count = torch.tensor(float(len(places)), device=device)
    return torch.stack([overlap.sum(), entropy(student).sum().float(), entropy(teacher).sum().float(), count])


@dataclasses.dataclass(slots=True)
class RolloutHealth:
    """Counts over the rollouts of an optimizer step, both kinds together.

    Attributes:
        rollouts: How many.
        tokens: Their tokens.
        ended: How many stopped by themselves.
        detected: How many are long enough for their language to be told.
        wrong: How many of those are in another language than asked for.
    """

    rollouts: int = 0
    tokens: int = 0
    ended: int = 0
    detected: int = 0
    wrong: int = 0

    def add(self, tokens: int, ended: bool, text: str, wanted: str, candidates: Sequence[str]) -> str:
        """Count one rollout; returns its detected language (`und` when the text is too short to tell)."""
        found = detect(text, candidates)
        self.rollouts += 1
        self.tokens += tokens
        self.ended += ended
        if found != "und":
            self.detected += 1
            self.wrong += found != wanted
        return found

    def as_list(self) -> list[float]:
        """The counts, to be summed over ranks."""
        return [float(getattr(self, field.name)) for field in dataclasses.fields(self)]


def health_metrics(counts: Sequence[float]) -> dict[str, float]:
    """The `rollout/*` metrics of summed counts; empty without rollouts."""
    rollouts, tokens, ended, detected, wrong = counts
    if not rollouts:
        return {}
    metrics = {"rollout/mean_length": tokens / rollouts, "rollout/eos_rate": ended / rollouts}
    if detected:
        metrics["rollout/wrong_language_rate"] = wrong / detected
    return metrics
