"""A teacher of which a position's likeliest tokens are known, and no more: divergences over them and what they leave.

The events of a position are the label, the teacher's k likeliest tokens, and all other tokens together (the tail). Both
models' probabilities of them sum to 1 as they are: nothing is cut off, nothing is renormalised. Seen through events two
distributions are never further apart than they are (data processing), and equally far where every token is an event.

R is the number of rows, V the vocabulary, E = 1 + k the tokens that are named at a position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from dudi.objective.losses import log_prob_divergence
from dudi.objective.methods import Divergence

VOID = -100.0
"""Log-probability, on both sides, of an event that a position does not have: it adds e^-100 times a difference of 0."""


@dataclasses.dataclass(frozen=True, slots=True)
class TopTokens:
    """What is known of a teacher's distributions.

    Attributes:
        ids: (R, E) the label, then the likeliest tokens. Where one of these is the label, or unknown to the student,
            the place names the label once more and is void.
        log_probs: (R, E + 1) of these in nats, the tail's last; -inf where void.
    """

    ids: Tensor
    log_probs: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice | Tensor) -> TopTokens:
        return TopTokens(self.ids[rows], self.log_probs[rows])

    def to(self, device: torch.device) -> TopTokens:
        """The same on another device."""
        return TopTokens(self.ids.to(device), self.log_probs.to(device))

    @classmethod
    def joined(cls, parts: Sequence[TopTokens]) -> TopTokens:
        """The rows of several, one after the other."""
        ids = torch.cat([one.ids for one in parts])
        return cls(ids, torch.cat([one.log_probs for one in parts]))

    def likeliest(self, k: int) -> Tensor:
        """(R, k) ids of the teacher's k likeliest tokens; k is at most that of the events."""
        return self.ids.gather(1, self.log_probs[:, :-1].topk(k, dim=1).indices)


def student_events(logits: Tensor, top: TopTokens) -> Tensor:
    """(R, V) logits -> (R, E + 1) log-probabilities of the events, -inf where the teacher's are.

    The tail is summed from its own tokens: as the difference of the others to 1 it would be rounding, once it is small.
    """
    total = logits.logsumexp(-1, keepdim=True)
    parts = [logits.gather(-1, top.ids) - total]
    if bool(top.log_probs[:, -1].isneginf().all()):  # every token is named, and a sum over none has no gradient
        parts.append(torch.full_like(total, -torch.inf))
    else:
        parts.append(logits.scatter(-1, top.ids, -torch.inf).logsumexp(-1, keepdim=True) - total)
    return torch.cat(parts, dim=-1).masked_fill(top.log_probs.isneginf(), -torch.inf)


def top_divergence(logits: Tensor, top: TopTokens, kind: Divergence = "reverse_kl", beta: float = 0.5) -> Tensor:
    """Divergence between the student's and the teacher's distributions over the events, as `losses.token_divergence`.

    Logits (R, V), in fp32 at least -> (R,) in nats, with a gradient to the logits. Temperature is 1: at another the
    tail would need each of its tokens.
    """
    student, teacher = student_events(logits, top), top.log_probs.to(logits.dtype)
    void = teacher.isneginf()
    return log_prob_divergence(student.masked_fill(void, VOID), teacher.masked_fill(void, VOID), kind, beta)
