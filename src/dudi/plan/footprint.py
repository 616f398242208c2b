"""Bytes on one device at the peak of an optimizer step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import torch

from dudi.objective.forward import similar_lengths
from dudi.objective.fused import FEWEST_ROWS, HELD_LOGITS
from dudi.objective.heads import DENSE_LOGITS
from dudi.objective.losses import VOCABULARY_TILE
from dudi.objective.signals import Kind
from dudi.plan import costs
from dudi.plan.costs import FP32
from dudi.plan.workload import Phase, StepKind, Workload, completion_length, prompt_length

CONTEXT = 2**30
LIBRARIES = 900_000_000
"""Python, torch and transformers, and what the allocator keeps for itself: 0.8 to 1.0 GB in measured runs."""
TOKEN_TILE = 4096
"""Rows that the chunked head works on at a time (TRL's kernels)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device.

    Beside what is `held` throughout there is one of the `phases` at a time.

    Attributes:
        student: Weights that are trained, in fp32, an adapter included.
        teacher: Weights of the teacher, or of the moving average.
        reference: Weights of the reference policy.
        gradients: In fp32; under several processes also DDP's buckets.
        optimizer: AdamW's two fp32 states.
        kv_cache: Of the rollouts decoded together.
        sampling: Logits and noise of the rollouts, and their prompts' pass.
        scoring: The widest moment of a pass without gradients.
        activations: Of the student's pass; in mixed precision also the 16-bit copies of its weights.
        head: Logits, or the chunked kernel's tiles, and the gradient of the head.
        merging: The layers that an adapter lies on, once more; what it does not touch is not copied.
        reserve: The device's context and what the allocator cannot use; on a CPU Python and its libraries.
        later: The part of the gradients that is not there yet while something else is at its peak: all of them where
            each micro-batch is a step of its own. A backward pass frees activations as it makes them.
    """

    student: int
    teacher: int
    reference: int
    gradients: int
    optimizer: int
    kv_cache: int
    sampling: int
    scoring: int
    activations: int
    head: int
    merging: int
    reserve: int
    later: int

    @property
    def held(self) -> int:
        """What is there from the first step to the last."""
        return self.student + self.teacher + self.reference + self.gradients + self.optimizer + self.reserve

    @property
    def total(self) -> int:
        return self.held + max(0, max(self.phases.values()) - self.later)

    @property
    def phases(self) -> dict[str, int]:
        """Bytes of what is there one after the other; of the student's pass at the start of its backward."""
        return {
            "rollouts": self.kv_cache + self.sampling,
            "scoring": self.scoring,
            "student": self.activations + self.head,
            "merging": self.merging,
        }


def memory(work: Workload) -> Memory:
    """Bytes on one device at the peak of an optimizer step."""
    student, trainable = work.student, work.trainable
    gradients = FP32 * trainable * (2 if work.processes > 1 else 1)
    together = min(work.rollout_batch, work.rollouts)  # rollouts that are decoded at a time
    kinds = {kind for outcome in work.outcomes for kind in outcome.student - {"gold"}}
    prompt = max((prompt_length(work, kind, "rollout") for kind in kinds), default=0)
    activations = max(_activations(work, outcome) for outcome in work.outcomes)
    tables = 5 * FP32 * together * student.vocabulary  # logits, scaled logits, noise and its bits
    return Memory(
        student=work.frozen_element * student.parameters + (FP32 * trainable if work.adapter else 0),
        teacher=0 if work.offloads else work.teacher_bytes + sum(work.other_bytes),
        reference=work.reference_bytes,
        gradients=gradients,
        optimizer=2 * FP32 * trainable,
        kv_cache=costs.cache_bytes(student, together * (prompt + work.lengths.rollout), work.element),
        sampling=max(tables, costs.inference_bytes(student, together * prompt, work.element)),
        scoring=_scoring(work),
        activations=activations,
        head=max(_head(work, outcome) for outcome in work.outcomes),
        merging=work.frozen_element * student.linear if work.adapter else 0,
        reserve=LIBRARIES if work.cpu else CONTEXT,
        later=gradients if work.accumulation == 1 and work.processes == 1 else 0,
    )


def _padded(work: Workload, kinds: Iterable[Kind], reader: Phase) -> int:
    """Positions of one micro-batch's pass, grouped by length as the pass groups them, the padding included."""
    lengths = work.rows * [prompt_length(work, kind, reader) + completion_length(work, kind) for kind in kinds]
    groups = similar_lengths(lengths, torch.device("cpu" if work.cpu else "cuda"))
    return sum(len(group) * lengths[group[0]] for group in groups)


def _scoring(work: Workload) -> int:
    passes = [0]
    weights = (work.teacher_bytes, *work.other_bytes) if work.offloads else (0,) * len(work.readers)
    for outcome in work.outcomes:
        read = _padded(work, outcome.teacher, "teacher")  # of kept states, once before training
        readers = zip(work.readers, weights, strict=True) if outcome.teacher else ()
        passes += [costs.inference_bytes(teacher, read, work.element) + own for teacher, own in readers]
        read = _padded(work, outcome.reference, "reference")
        passes.append(costs.inference_bytes(work.student, read, work.element))
    return max(passes)


def _activations(work: Workload, outcome: StepKind) -> int:
    tokens = _padded(work, outcome.student, "student")
    held = costs.activation_bytes(work.student, tokens, mixed=work.mixed, checkpointing=work.checkpointing)
    copied = work.mixed and work.frozen_element == FP32
    return held + (work.element * work.student.linear if copied else 0)


def _head(work: Workload, outcome: StepKind) -> int:
    """The head's widest moment in one micro-batch.

    Held dense, a divergence keeps 8 tables of (rows, vocabulary) in fp32 at the peak of its backward pass (JSD 12) and
    a log-probability 4, as measured in tests/plan/test_plan.py; chunked, one or two tiles. Both add its gradient.
    """
    if work.kernel == "fused" or (work.cpu and work.kernel == "auto"):
        return _fused_head(work, outcome)
    vocabulary = work.student.vocabulary
    rows = [work.rows * completion_length(work, kind) for kind in outcome.student]
    copies = (12 if work.jsd else 8) if outcome.teacher else 4
    # Tables of at most so many logits are held dense.
    most = {"dense": math.inf, "auto": DENSE_LOGITS}.get(work.kernel, 0)
    dense = [n for n in rows if n * vocabulary <= most]
    chunked = [n for n in rows if n * vocabulary > most]
    tile = min(max(chunked, default=0), TOKEN_TILE) * min(VOCABULARY_TILE, vocabulary)
    tiles = 2 * tile if outcome.teacher else tile
    gradient = 0 if work.adapter else FP32 * vocabulary * work.student.hidden
    return FP32 * (copies * sum(dense) * vocabulary + tiles) + gradient


def _fused_head(work: Workload, outcome: StepKind) -> int:
    """As `_head`: in one process the gradient is where it stays, from the first divergence's forward pass on.

    Among several each divergence keeps one of its own until its backward pass. Log-probabilities keep their logits if
    these are few. While a divergence is computed two tiles of logits are there, and four blocks of them beside these.
    """
    vocabulary, hidden = work.student.vocabulary, work.student.hidden
    judged = [work.rows * completion_length(work, kind) for kind in outcome.teacher]
    scored_kinds = outcome.reference or outcome.student - outcome.teacher
    scored = [work.rows * completion_length(work, kind) for kind in scored_kinds]
    widest = max([*judged, *scored], default=0) * vocabulary
    tiles = 2 * min(widest, max(work.tile, FEWEST_ROWS * vocabulary)) + 4 * min(widest, work.block)
    widened = work.teacher.vocabulary * work.teacher.hidden if work.widened_teacher and work.teacher and judged else 0
    held = sum(rows * vocabulary for rows in scored if rows * vocabulary < HELD_LOGITS)
    tables = len(judged) + min(1, len(scored)) if work.processes > 1 else int(work.accumulation == 1)
    gradients = 0 if work.adapter else tables * vocabulary * hidden
    return FP32 * (tiles + held + gradients + widened)
