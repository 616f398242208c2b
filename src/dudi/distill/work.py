"""What a step multiplies in each of its phases, counted from the sequences that it has."""

from __future__ import annotations

from collections.abc import Sequence

from dudi.distill.batch import MicroBatch
from dudi.distill.state import Run
from dudi.models.adapters import innermost, is_adapted
from dudi.models.shape import decode_flops, forward_flops, sequence_flops, shape_of_model
from dudi.objective.signals import Signal

PHASES = ("rollout", "teacher", "reference", "student")
"""Of an optimizer step."""


def flops_of(run: Run, signals: Sequence[Signal], batches: Sequence[MicroBatch]) -> dict[str, float]:
    """FLOPs of one optimizer step on this rank, by phase (`step.PHASES`).

    Padding, noise, element-wise passes and the optimizer are not among them: what is here no implementation can leave
    out. A backward pass does the forward's work twice, for the inputs and for the weights; that of an adapter's
    base once.
    """
    student = shape_of_model(innermost(run.model()))
    judged = {kind for signal in signals for kind in signal.teacher_reads}
    compared = {kind for signal in signals for kind in signal.reference_reads}
    own = run.setup.teachers  # by the names that sequences give them; without one the student's average
    teachers = {} if own.members or run.teacher is None else {"": student}
    for name, model in own.local.items():
        teachers[name if own.several else ""] = shape_of_model(innermost(model))
    backward = (1 if is_adapted(run.model()) else 2) + bool(run.args.gradient_checkpointing)
    flops = dict.fromkeys(PHASES, 0.0)
    everything = ((batch, kind, one) for batch in batches for kind, own in batch.sequences.items() for one in own)
    for batch, kind, scored in everything:
        read = sequence_flops(student, len(scored.prompt), len(scored.completion))
        flops["student"] += (1 + backward) * read
        if kind != "gold" and run.collector.pool is None:
            flops["rollout"] += decode_flops(student, len(scored.prompt), len(scored.completion))
        known = kind == "gold" and batch.gold_reference is not None
        if kind in compared and run.reference is not None and not known:
            flops["reference"] += read
        if kind in judged and (teacher := teachers.get(scored.teacher)) is not None:
            tokens = len(scored.read_by_teacher)
            if kind == "gold" and run.kept_states is not None:  # of states that are kept, the head's products alone
                flops["teacher"] += forward_flops(teacher, 0, 0, tokens)
            else:
                flops["teacher"] += sequence_flops(teacher, len(scored.teacher_prompt), tokens)
    return flops
