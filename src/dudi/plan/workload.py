"""What one optimizer step of a config asks of a device: which sequences, how long, read by whom; its FLOPs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Literal

from dudi.distill.arguments import DudiConfig, build_signals
from dudi.models.shape import Shape, decode_flops, forward_flops, sequence_flops
from dudi.objective.signals import Kind, Signal
from dudi.plan.costs import FP32

Phase = Literal["rollout", "teacher", "reference", "student"]
PHASES: tuple[Phase, ...] = ("rollout", "teacher", "reference", "student")

VERBALIZER_TOKENS = 96
"""Tokens that a verbalizer's own wording adds to a prompt: an upper estimate over the eight templates."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a row. Measured lengths give better hours; the config's limits give an upper estimate.

    Attributes:
        prompt: The plain prompt x.
        completion: The ground truth y.
        rollout: What the student writes.
        wording: What the verbalizer adds around x, and around x and y.
    """

    prompt: int
    completion: int
    rollout: int
    wording: int = VERBALIZER_TOKENS


@dataclasses.dataclass(frozen=True, slots=True)
class StepKind:
    """One way a step can go: `mixing: sample` draws which token signal runs."""

    probability: float
    student: frozenset[Kind]
    teacher: frozenset[Kind]
    reference: frozenset[Kind]


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """Everything that decides the memory and the work of one device.

    Attributes:
        outcomes: What a step can be; probabilities sum to 1.
        verbalized: Whether the prompts of y~ carry a verbalizer's wording.
        pivot: Whether z shows the example in another language too.
        keeps_states: Whether the teacher's states on the targets are read from the disk (`teacher_cache`).
        served: Whether teachers are elsewhere: nothing of them runs here.
        rows: Rows of a micro-batch.
        accumulation: Micro-batches of an optimizer step.
        rollout_batch: Most rollouts decoded together.
        checkpointing: Whether activations are computed again in the backward pass.
        kernel: `auto`, `dense`, `chunked` or `fused` head.
        jsd: Whether the divergence is JSD, which holds more copies of the logits.
        element: Bytes of a number in the passes: 2 or 4.
        trainable: Parameters with gradients: all of the student's, or the adapter's.
        adapter: Whether those are an adapter's.
        frozen_element: Bytes of a number of the student's weights under an adapter.
        teacher_bytes: Bytes of the teacher's weights (a moving average's included).
        other_bytes: Of each further teacher's.
        offloads: Whether teachers lie in the computer's memory, and come to the device one by one.
        reference_bytes: Of the reference's.
        processes: Devices that share the work, each with a whole copy.
        cpu: Whether the device is the computer itself.
        widened_teacher: Whether the teacher is held in 16 bits and computed with in fp32.
        tile: Logits that the fused head makes at a time.
        block: Logits that it works on at a time.
    """

    student: Shape
    teacher: Shape | None
    other_teachers: tuple[Shape, ...]
    outcomes: tuple[StepKind, ...]
    lengths: Lengths
    verbalized: bool
    pivot: bool
    keeps_states: bool
    served: bool
    rows: int
    accumulation: int
    rollout_batch: int
    checkpointing: bool
    kernel: str
    jsd: bool
    element: int
    trainable: int
    adapter: bool
    frozen_element: int
    teacher_bytes: int
    other_bytes: tuple[int, ...]
    offloads: bool
    reference_bytes: int
    processes: int
    cpu: bool
    widened_teacher: bool
    tile: int
    block: int

    @property
    def readers(self) -> tuple[Shape, ...]:
        """Whoever here reads what divergences are from: the teachers, or the student where its average is read."""
        return () if self.served else (self.teacher or self.student, *self.other_teachers)

    @property
    def mixed(self) -> bool:
        """Whether fp32 weights are computed with in 16 bits."""
        return self.element < FP32

    @property
    def rollouts(self) -> int:
        """Most rollouts of an optimizer step."""
        return self.rows * self.accumulation * max(len(outcome.student - {"gold"}) for outcome in self.outcomes)


def outcomes_of(args: DudiConfig) -> tuple[StepKind, ...]:
    """What an optimizer step of this config can be."""
    signals = build_signals(args)
    if args.mixing != "sample" or not {"off_policy", "on_policy"} <= signals.keys():
        return (_outcome(1.0, signals.values()),)
    probability = float(args.lmbda or 0)
    off_policy = [signal for name, signal in signals.items() if name != "on_policy"]
    on_policy = [signal for name, signal in signals.items() if name != "off_policy"]
    return _outcome(1.0 - probability, off_policy), _outcome(probability, on_policy)


def _outcome(probability: float, signals: Iterable[Signal]) -> StepKind:
    student: set[Kind] = set()
    teacher: set[Kind] = set()
    reference: set[Kind] = set()
    for signal in signals:
        student.update(signal.reads)
        teacher.update(signal.teacher_reads)
        reference.update(signal.reference_reads)
    return StepKind(probability, frozenset(student), frozenset(teacher), frozenset(reference))


def prompt_length(work: Workload, kind: Kind, reader: Phase) -> int:
    """The prompt before a completion of this kind, as its reader sees it; the teacher's z holds y as well."""
    lengths = work.lengths
    if kind != "verbalized" or not work.verbalized:
        return lengths.prompt
    shown = lengths.completion + work.pivot * (lengths.prompt + lengths.completion) if reader == "teacher" else 0
    return lengths.prompt + lengths.wording + shown


def completion_length(work: Workload, kind: Kind) -> int:
    """The completion of a sequence of this kind."""
    return work.lengths.completion if kind == "gold" else work.lengths.rollout


def step_flops(work: Workload) -> dict[Phase, float]:
    """FLOPs of one optimizer step on one device, by phase; with `mixing: sample` the expectation."""
    total: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
    # A backward pass does the forward's work twice: for the inputs and for the weights, which an adapter's base skips.
    passes = (2 if work.adapter else 3) + (1 if work.checkpointing else 0)
    for outcome in work.outcomes:
        times = outcome.probability * work.rows * work.accumulation
        prompts = (prompt_length(work, kind, "rollout") for kind in outcome.student if kind != "gold")
        total["rollout"] += times * sum(decode_flops(work.student, prompt, work.lengths.rollout) for prompt in prompts)
        read = [0.0]
        for teacher in work.readers:
            read.append(sum(_teacher_flops(work, teacher, kind) for kind in outcome.teacher))
        total["teacher"] += times * max(read)
        judged = outcome.reference - {"gold"}
        total["reference"] += times * sum(row_flops(work, work.student, kind, "reference") for kind in judged)
        forward = sum(row_flops(work, work.student, kind, "student") for kind in outcome.student)
        total["student"] += times * passes * forward
    return total


def row_flops(work: Workload, shape: Shape, kind: Kind, reader: Phase) -> float:
    """A pass over one row, prompt and completion."""
    return sequence_flops(shape, prompt_length(work, kind, reader), completion_length(work, kind))


def _teacher_flops(work: Workload, teacher: Shape, kind: Kind) -> float:
    """A teacher's pass over a row; of a target whose states are kept, its head alone."""
    if kind == "gold" and work.keeps_states:
        return forward_flops(teacher, 0, 0, completion_length(work, kind))
    return row_flops(work, teacher, kind, "teacher")


def target_states_flops(work: Workload) -> float:
    """The teacher's pass over one row's (x, y), without its head."""
    length = prompt_length(work, "gold", "teacher") + completion_length(work, "gold")
    return max((forward_flops(shape, length, length * length, 0) for shape in work.readers), default=0.0)


def decode_steps(work: Workload) -> float:
    """Tokens that are decoded one after the other in an optimizer step on one device (an expectation)."""
    steps = 0.0
    for outcome in work.outcomes:
        rollouts = work.rows * work.accumulation * len(outcome.student - {"gold"})
        steps += outcome.probability * math.ceil(rollouts / work.rollout_batch) * work.lengths.rollout
    return steps
