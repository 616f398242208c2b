"""The least that a step can take on this machine: counted FLOPs and bytes over measured rates, phase by phase.

Counted is what no implementation can leave out: real tokens (no padding), the causal half of attention, heads on
completion tokens only, weights and KV cache read once per decoded token of the whole batch, AdamW's reads and writes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from dudi.models.shape import Shape

Sequences = Mapping[str, Sequence[tuple[int, int, int]]]
"""By kind, (student's prompt, completion, teacher's prompt) of each sequence, in tokens."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Work of one phase that either computes or moves bytes."""

    phase: str
    flops: float
    bytes: float

    def seconds(self, flop_rate: float, byte_rate: float) -> float:
        """The larger of the two times."""
        return max(self.flops / flop_rate, self.bytes / byte_rate)


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """Which kinds of sequences are read by whom."""

    student: tuple[str, ...]
    teacher: tuple[str, ...]
    reference: tuple[str, ...] = ()


METHODS = {
    "gkd": Method(("verbalized",), ("verbalized",)),
    "sdft": Method(("verbalized",), ("verbalized",)),
    "dudi": Method(("gold", "plain", "verbalized"), ("gold", "verbalized"), ("gold", "plain")),
}


def forward_flops(shape: Shape, prompt: int, completion: int) -> float:
    """One causal pass over prompt and completion; the head on the completion only."""
    length = prompt + completion
    attention = 4.0 * shape.query * shape.layers * length * (length + 1) / 2
    return 2.0 * shape.linear * length + attention + 2.0 * shape.hidden * shape.vocabulary * completion


def parts(
    method: str,
    sequences: Sequences,
    student: Shape,
    teacher: Shape | None,
    element: int,
    micro_batches: int,
    *,
    teacher_element: int | None = None,
    adapter: int | None = None,
) -> list[Part]:
    """The work of an optimizer step.

    Args:
        method: `gkd`, `sdft` or `dudi`.
        sequences: Of the whole step.
        student: Its shape.
        teacher: Its shape; None where the student's moving average is the teacher.
        element: Bytes of a number in the passes.
        micro_batches: How often the weights are read by the training passes.
        teacher_element: Bytes of a number in the teacher's passes; None: `element`.
        adapter: Parameters of the adapters that alone are trained; None where all weights are. Frozen weights have no
            gradient, which is one product of three; what writes and judges can do so with merged adapters.
    """
    which, judge = METHODS[method], teacher or student
    weights = element * (student.linear + student.hidden * student.vocabulary)
    done = [*_rollout(which, sequences, student, element, weights)]
    judged = [(z, c) for kind in which.teacher for _, c, z in sequences[kind]]
    read = (teacher_element or element) * (judge.linear + judge.hidden * judge.vocabulary) * micro_batches
    done.append(Part("teacher", sum(forward_flops(judge, p, c) for p, c in judged), read))
    compared = [(p, c) for kind in which.reference for p, c, _ in sequences[kind]]
    if compared:
        flops = sum(forward_flops(student, p, c) for p, c in compared)
        done.append(Part("reference", flops, weights * micro_batches))
    learnt = [(p, c) for kind in which.student for p, c, _ in sequences[kind]]
    products, own, trained = (3, 0, student.parameters) if adapter is None else (2, adapter, adapter)
    flops = sum(products * forward_flops(student, p, c) + 3 * 2.0 * own * (p + c) for p, c in learnt)
    done.append(Part("student", flops, products * weights * micro_batches))
    done.append(Part("optimizer", 12.0 * trained, 28.0 * trained))
    if teacher is None:
        done.append(Part("optimizer", 3.0 * trained, 12.0 * trained))
    return done


def _rollout(
    which: Method, sequences: Sequences, student: Shape, element: int, weights: float
) -> tuple[Part, Part] | tuple[()]:
    """Prompts, then one token after the other for all rows at once."""
    rows = [(p, c) for kind in which.student if kind != "gold" for p, c, _ in sequences[kind]]
    if not rows:
        return ()
    prefill = sum(forward_flops(student, p, 1) for p, _ in rows)
    whole = sum(forward_flops(student, p, c) for p, c in rows)
    steps = max(c for _, c in rows)
    cached = sum(p * c + c * (c + 1) / 2 for p, c in rows)
    cache = 2.0 * student.layers * student.key_value * element * cached
    return Part("rollout", prefill, weights), Part("rollout", whole - prefill, steps * weights + cache)


def floor_seconds(
    done: Sequence[Part], flop_rate: float, byte_rate: float, teacher_rate: float | None = None
) -> dict[str, float]:
    """Seconds by phase.

    Args:
        done: The work.
        flop_rate: FLOPs a second.
        byte_rate: Bytes a second.
        teacher_rate: FLOPs a second of the teacher's passes; None: `flop_rate`.
    """
    total: dict[str, float] = {}
    for part in done:
        rate = teacher_rate or flop_rate if part.phase == "teacher" else flop_rate
        total[part.phase] = total.get(part.phase, 0.0) + part.seconds(rate, byte_rate)
    return total


def total_flops(done: Sequence[Part]) -> float:
    """FLOPs of all phases."""
    return sum(part.flops for part in done)
