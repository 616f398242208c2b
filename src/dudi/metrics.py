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

LONGEST_LOOP = 8
"""Most tokens of a loop that counts as repetition."""
SHORTEST_REPETITION = 16
"""Fewest tokens at the end of a rollout that have to be one loop."""
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


def ends_in_a_loop(ids: Sequence[int]) -> bool:
    """Whether a rollout's end is a few tokens over and over: 4 rounds and 16 tokens at least.

    Args:
        ids: (T,) the rollout without its end of turn.
    """
    for period in range(1, LONGEST_LOOP + 1):
        length = max(SHORTEST_REPETITION, 4 * period)
        tail = ids[-length:]
        if len(tail) == length and all(tail[i] == tail[i - period] for i in range(period, length)):
            return True
    return False


@dataclasses.dataclass(slots=True)
class RolloutHealth:
    """Counts over the rollouts of an optimizer step, both kinds together.

    Attributes:
        rollouts: How many.
        tokens: Their tokens.
        ended: How many stopped by themselves.
        detected: How many are long enough for their language to be told.
        wrong: How many of those are in another language than asked for.
        empty: How many have no text: they stopped at once, or wrote spaces.
        looping: How many end in a few tokens over and over.
    """

    rollouts: int = 0
    tokens: int = 0
    ended: int = 0
    detected: int = 0
    wrong: int = 0
    empty: int = 0
    looping: int = 0

    def add(self, ids: Sequence[int], ended: bool, text: str, wanted: str, candidates: Sequence[str]) -> str:
        """Count one rollout; returns its detected language (`und` when the text is too short to tell)."""
        found = detect(text, candidates)
        self.rollouts += 1
        self.tokens += len(ids)
        self.ended += ended
        self.empty += not text.strip()
        self.looping += ends_in_a_loop(ids[: len(ids) - ended])
        if found != "und":
            self.detected += 1
            self.wrong += found != wanted
        return found

    def as_list(self) -> list[float]:
        """The counts, to be summed over ranks."""
        return [float(getattr(self, field.name)) for field in dataclasses.fields(self)]


def health_metrics(counts: Sequence[float]) -> dict[str, float]:
    """The `rollout/*` metrics of summed counts; empty without rollouts."""
    rollouts, tokens, ended, detected, wrong, empty, looping = counts
    if not rollouts:
        return {}
    metrics = {
        "rollout/mean_length": tokens / rollouts,
        "rollout/eos_rate": ended / rollouts,
        "rollout/empty_rate": empty / rollouts,
        "rollout/repetition_rate": looping / rollouts,
    }
    if detected:
        metrics["rollout/wrong_language_rate"] = wrong / detected
    return metrics
