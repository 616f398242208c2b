"""What is measured beside the loss: agreement of student and teacher, and the health of rollouts."""

from __future__ import annotations

import bisect
import dataclasses
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from dudi.languages.detect import detect
from dudi.objective.fused import Observer
from dudi.objective.shared_events import SharedEvents
from dudi.objective.signals import Heads, Rows
from dudi.objective.top_tokens import TopTokens

LONGEST_LOOP = 8
"""Most tokens of a loop that counts as repetition."""
SHORTEST_REPETITION = 16
"""Fewest tokens at the end of a rollout that have to be one loop."""
WATCHED_POSITIONS = 1024
"""Most on-policy positions of an optimizer step at which overlap and entropies are measured."""

MADE_AT_ONCE = 64
"""Positions whose logits are made together where no loss has made them."""
BLOCK = 64
"""Neighbouring ids of which the largest logit is found first, where the largest of all are wanted."""


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
    return _shared_ids(_top_ids(student_logits[..., :shared], k), _top_ids(teacher_logits[..., :shared], k))


def _shared_ids(student: Tensor, teacher: Tensor) -> Tensor:
    """(..., k) ids of each side -> (...) the share of those that are among the other's."""
    common = (student.unsqueeze(-1) == teacher.unsqueeze(-2)).any(-1)
    return common.float().mean(-1)


def _top_ids(logits: Tensor, k: int) -> Tensor:
    """Ids of the k largest logits: (..., V) -> (..., k).

    They lie in the k blocks of neighbours with the largest maxima. `topk` over 150k ids takes a CPU some milliseconds a
    row, the maxima of blocks a hundredth of it.
    """
    blocks, rest = divmod(logits.shape[-1], BLOCK)
    if blocks <= k:
        return logits.topk(k, dim=-1).indices
    whole = logits[..., : blocks * BLOCK].unflatten(-1, (blocks, BLOCK))
    chosen = whole.amax(-1).topk(k, dim=-1).indices  # (..., k)
    ids = (chosen.unsqueeze(-1) * BLOCK + torch.arange(BLOCK, device=logits.device)).flatten(-2)
    if rest:
        tail = torch.arange(blocks * BLOCK, logits.shape[-1], device=logits.device)
        ids = torch.cat([ids, tail.expand(*ids.shape[:-1], rest)], dim=-1)
    best = logits.gather(-1, ids).topk(k, dim=-1).indices
    return ids.gather(-1, best)


def watched_positions(total: int, limit: int, seed: int, step: int) -> list[int]:
    """At most `limit` of `total` positions, in order; the same for the same seed and step."""
    if total <= limit:
        return list(range(total))
    return sorted(random.Random(f"{seed}-{step}").sample(range(total), limit))


class Watch:
    """Overlap and entropies at some positions, summed from log-probabilities that somebody else has made.

    Args:
        places: Row numbers, in order.
        labels: (N,) the ids of all rows.
        owner: (N,) the language of each row, as its place among the languages.
        languages: How many languages there are.
        k: Of the overlap.

    Attributes:
        sums: (L, 7) in each language: overlap, student's entropy, teacher's entropy, number of positions, and the sums
            of log p_T - log p_S of the labels, of its square, and of its number. The entropy of a teacher of which the
            likeliest tokens alone are known is NaN.
    """

    def __init__(self, places: Sequence[int], labels: Tensor, owner: Tensor, languages: int, k: int) -> None:
        self.places, self.labels, self.owner, self.k = places, labels, owner.to(labels.device), k
        self.sums = torch.zeros(languages, 7, dtype=torch.float64, device=labels.device)
        self.room = self.sums.new_empty(0, dtype=torch.float32)  # of what is observed, made once

    @torch.no_grad()
    def observe(self, rows: slice | Tensor, student: Tensor, teacher: Tensor | TopTokens) -> None:
        """Look at the log-probabilities (R, V) of rows `rows.start` to `rows.stop`, or of the rows (R,)."""
        if isinstance(rows, Tensor):
            watched = torch.isin(rows, torch.tensor(self.places, device=rows.device)).nonzero().squeeze(1)
            self._add(student[watched], teacher[watched], rows[watched], labelled=False)
            return
        first, last = bisect.bisect_left(self.places, rows.start), bisect.bisect_left(self.places, rows.stop)
        if last - first < rows.stop - rows.start:
            places = torch.tensor(self.places[first:last], device=student.device, dtype=torch.int64)
            self._add(student[places - rows.start], teacher[places - rows.start], places)
        else:  # all of them: nothing is copied
            self._add(student, teacher, torch.arange(rows.start, rows.stop, device=student.device))

    def _add(self, student: Tensor, teacher: Tensor | TopTokens, places: Tensor, labelled: bool = True) -> None:
        """Log-probabilities (R, V) of both models at R places; those of cells have no label among the ids."""
        if not len(places):
            return
        k, label = min(self.k, student.shape[-1]), self.labels[places].unsqueeze(1)
        if isinstance(teacher, TopTokens):
            overlap = _shared_ids(_top_ids(student, k), teacher.likeliest(k))
            theirs, place, their_entropy = teacher.log_probs, torch.zeros_like(label), overlap.new_full((), torch.nan)
        else:
            overlap = top_k_overlap(student, teacher, k)
            theirs, place, their_entropy = teacher, label, self._entropy(teacher)
        ones, ratio = torch.ones_like(overlap), torch.zeros_like(overlap)
        if labelled:
            ratio = (theirs.gather(1, place) - student.gather(1, label)).squeeze(1)
        entropies = [self._entropy(student), their_entropy.expand_as(overlap)]
        found = torch.stack([overlap, *entropies, ones, ratio, ratio.square(), ones * labelled], dim=1)
        self.sums.index_add_(0, self.owner[places], found.double())

    def _entropy(self, log_probs: Tensor) -> Tensor:
        """(R, V) -> (R,), in a table that is kept: to a CPU a new one costs more than what is computed in it."""
        if self.room.shape[1:] != log_probs.shape[1:] or len(self.room) < len(log_probs):
            self.room = torch.empty_like(log_probs)
        return -torch.exp(log_probs, out=self.room[: len(log_probs)]).mul_(log_probs).sum(-1)


def adding_masses(sums: Tensor, events: SharedEvents, then: Observer | None) -> Observer:
    """Add what two models with different tokenizers hold of the end of the turn, and outside of their common events.

    The sums (5,) are probabilities of the end (student, teacher) and of OTHER (student, teacher), which is behind the
    events, and the number of positions. `then` is shown the same.
    """

    def observe(rows: slice | Tensor, student: Tensor, teacher: Tensor | TopTokens) -> None:
        if isinstance(teacher, TopTokens):
            raise RuntimeError("across tokenizers a teacher's whole distribution is needed")
        parts = [side[:, events.end].exp().sum() for side in (student, teacher)]
        parts += [side[:, len(events.cells) :].exp().sum() for side in (student, teacher)]
        sums.add_(torch.stack([*parts, parts[0].new_tensor(float(len(student)))]).float())
        if then is not None:
            then(rows, student, teacher)

    return observe


def event_metrics(sums: Sequence[float]) -> dict[str, float]:
    """The `events/*` metrics of summed counts (`event_counts`) and masses; empty where one tokenizer is enough."""
    used, total, agreeing, compared, *masses, positions = sums
    if not total:
        return {}
    names = ("end_student", "end_teacher", "other_student", "other_teacher")
    return {
        "events/bytes_used": used / total,
        "events/same_event": agreeing / max(compared, 1.0),
        **{f"events/{name}": mass / max(positions, 1.0) for name, mass in zip(names, masses, strict=True)},
    }


@torch.no_grad()
def agreement(rows: Rows, heads: Heads, watch: Watch) -> Tensor:
    """The sums of a watch -> (L, 7); where no loss has shown it any logits, they are made for its positions alone.

    Across tokenizers the loss has shown it the cells of the common borders among its positions, and no others exist.
    """
    if (
        not watch.places
        or watch.sums[:, 3].sum() > 0
        or rows.events is not None
        or not isinstance(rows.teacher_hidden, Tensor)
        or heads.teacher is None
    ):
        return watch.sums
    index = torch.tensor(watch.places, device=rows.hidden.device)
    alone = Watch(range(len(index)), watch.labels[index], watch.owner[index], len(watch.sums), watch.k)
    for start in range(0, len(index), MADE_AT_ONCE):
        part = index[start : start + MADE_AT_ONCE]
        student, teacher = heads.student.logits(rows.hidden[part]), heads.teacher.logits(rows.teacher_hidden[part])
        alone.observe(slice(start, start + len(part)), student.log_softmax(-1), teacher.log_softmax(-1))
    return alone.sums


def ends_in_a_loop(ids: Sequence[int]) -> bool:
    """Whether a rollout, without its end of turn, ends in a few tokens over and over: 4 rounds and 16 tokens."""
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
        """Count one rollout; returns its detected language (`und` when the text is too short to tell).

        One that was asked for in a language which nobody could detect counts as neither right nor wrong.
        """
        found = detect(text, candidates)
        self.rollouts += 1
        self.tokens += len(ids)
        self.ended += ended
        self.empty += not text.strip()
        self.looping += ends_in_a_loop(ids[: len(ids) - ended])
        if found != "und" and wanted in candidates:
            self.detected += 1
            self.wrong += found != wanted
        return found


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
