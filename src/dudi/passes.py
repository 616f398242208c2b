"""The passes over one micro-batch: teacher, reference, then the student inside its wrapped forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from dudi.heads import Head, head_of
from dudi.metrics import Watch, agreement
from dudi.scoring import MicroBatch, inside, signal_sums, student_rows, teacher_states
from dudi.signals import Heads, Kind, Signal
from dudi.steps import Step

if TYPE_CHECKING:
    from dudi.trainer import DudiTrainer


def score(
    trainer: DudiTrainer, model: nn.Module, batch: MicroBatch, signals: Mapping[str, Signal], step: Step
) -> dict[str, Any]:
    """Score one micro-batch.

    Args:
        trainer: Whose teacher and reference are read.
        model: The student, wrapped.
        batch: The sequences.
        signals: Those that run.
        step: Whose clock runs.

    Returns:
        `sums`: each signal's summed loss, a scalar with a gradient to the student; `agreement`: (4,) sums over the
        watched positions (`metrics.agreement`); `teacher_states`: what the teacher gave, by kind.
    """
    args, vocabulary = trainer.args, trainer.setup.vocabulary
    states, teacher_head = _teacher_pass(trainer, batch, signals, step)
    reference = _reference_pass(trainer, batch, signals, step)

    def work(student: PreTrainedModel) -> dict[str, Any]:
        head = head_of(student).shared_with(vocabulary)
        heads = Heads(head, teacher_head, args.loss_kernel)
        rows = student_rows(student, batch, states, reference)
        watch = Watch(batch.watched, args.overlap_k, head.weight.device)
        if batch.watched:
            rows[args.on_policy_kind].observer = watch.observe
        sums = signal_sums(signals, rows, heads)
        measured = agreement(rows[args.on_policy_kind], heads, watch) if batch.watched else watch.sums
        return {"sums": sums, "agreement": measured}

    return {**inside(model, work), "teacher_states": states}


def _teacher_pass(
    trainer: DudiTrainer, batch: MicroBatch, signals: Mapping[str, Signal], step: Step
) -> tuple[dict[Kind, Tensor], Head | None]:
    kinds = sorted({kind for signal in signals.values() for kind in signal.teacher_reads})
    if not kinds or trainer.teacher is None:
        return {}, None
    with step.clock("teacher"), trainer.teacher.opened() as module, trainer.accelerator.autocast():
        return teacher_states(module, batch, kinds, trainer.setup.vocabulary)


def _reference_pass(
    trainer: DudiTrainer, batch: MicroBatch, signals: Mapping[str, Signal], step: Step
) -> dict[Kind, Tensor]:
    if not any(signal.reference_reads for signal in signals.values()) or trainer.reference is None:
        return {}
    if batch.gold_reference is None:
        raise RuntimeError("the reference's log-probabilities of the ground truth are missing")
    pairs = [(scored.prompt, scored.completion) for scored in batch.sequences["plain"]]
    with step.clock("reference"):
        return {"gold": batch.gold_reference, "plain": trainer.reference_log_probs(pairs)}
