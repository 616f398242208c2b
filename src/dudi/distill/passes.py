"""The passes over one micro-batch: teacher, reference, then the student inside its wrapped forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dudi.distill.batch import MicroBatch, Scored
from dudi.distill.by_language import loss_table, owners
from dudi.distill.metrics import Masses, Watch, agreement
from dudi.distill.state import Run
from dudi.distill.step import Step
from dudi.objective.event_batch import EventBatch
from dudi.objective.forward import completion_states, inside
from dudi.objective.heads import Head, head_of
from dudi.objective.signals import Heads, Kind, Rows, Signal


def losses_of(
    run: Run, model: nn.Module, batch: MicroBatch, signals: Mapping[str, Signal], step: Step
) -> dict[str, Any]:
    """Score one micro-batch.

    Args:
        run: Whose teacher and reference are read.
        model: The student, wrapped.
        batch: The sequences.
        signals: Those that run.
        step: Whose clock runs.

    Returns:
        `sums`: each signal's summed loss, a scalar with a gradient to the student; `losses`: (L, LOSSES) the same in
        each language (`by_language.loss_table`); `agreement`: (L, 7) sums over the watched positions
        (`metrics.agreement`); `masses`: (5,) sums over the borders that two tokenizers both have; `teacher_states`:
        what the teacher gave, by kind.
    """
    args, vocabulary, languages, events = run.args, run.setup.vocabulary, run.setup.languages, run.setup.events
    states, teacher_head = _teacher_pass(run, batch, signals, step)
    reference = _reference_pass(run, batch, signals, step)

    def work(student: PreTrainedModel) -> dict[str, Any]:
        head = head_of(student).shared_with(vocabulary)
        heads = Heads(head, teacher_head, args.loss_kernel, events)
        rows = student_rows(student, batch, states, reference)
        watch = None
        if batch.watched:
            watched = rows[args.on_policy_kind]
            owner = owners(batch, args.on_policy_kind, languages)
            watch = Watch(batch.watched, watched.labels, owner, len(languages), args.overlap_k)
            watched.observer = watch.observe
        masses = Masses(0 if events is None else events.events.end, head.weight.device)
        for own in rows.values():
            if own.events is not None:
                own.observer = masses.observing(own.observer)
        sums = signal_sums(signals, rows, heads)
        measured = torch.zeros(len(languages), 7, dtype=torch.float64)
        if watch is not None:
            measured = agreement(rows[args.on_policy_kind], heads, watch).cpu()
        losses = loss_table(batch, rows, languages)
        return {"sums": sums, "losses": losses, "agreement": measured, "masses": masses.sums}

    return {**inside(model, work), "teacher_states": states}


def _teacher_pass(
    run: Run, batch: MicroBatch, signals: Mapping[str, Signal], step: Step
) -> tuple[dict[Kind, Tensor], Head | None]:
    kinds = sorted({kind for signal in signals.values() for kind in signal.teacher_reads})
    if not kinds or run.teacher is None:
        return {}, None
    with step.clock("teacher"), run.teacher.opened() as module, run.accelerator.autocast():
        return teacher_states(module, batch, kinds, run.setup.vocabulary if run.setup.events is None else None)


def _reference_pass(run: Run, batch: MicroBatch, signals: Mapping[str, Signal], step: Step) -> dict[Kind, Tensor]:
    if not any(signal.reference_reads for signal in signals.values()) or run.reference is None:
        return {}
    if batch.gold_reference is None:
        raise RuntimeError("the reference's log-probabilities of the ground truth are missing")
    pairs = [(scored.prompt, scored.completion) for scored in batch.sequences["plain"]]
    with step.clock("reference"):
        return {"gold": batch.gold_reference, "plain": run.reference_log_probs(pairs)}


def labels_of(sequences: Sequence[Scored], device: torch.device) -> Tensor:
    """(N,) completion ids, one sequence after the other."""
    parts = [torch.as_tensor(scored.completion, dtype=torch.int64) for scored in sequences]
    return torch.cat(parts).to(device)


@torch.no_grad()
def teacher_states(
    module: nn.Module, batch: MicroBatch, kinds: Sequence[Kind], vocabulary: int | None
) -> tuple[dict[Kind, Tensor], Head]:
    """The teacher's states for the completions of some kinds, in one pass, and its head.

    Returns:
        By kind (N, H_t), aligned with the student's rows, or (M, H_t) for the teacher's own tokens; the head, cut to
        the vocabulary where there is a common one.
    """
    chosen = [scored for kind in kinds for scored in batch.sequences[kind]]

    def work(model: PreTrainedModel) -> tuple[Tensor, Head]:
        states = completion_states(model, [(s.teacher_prompt, s.read_by_teacher) for s in chosen])
        head = head_of(model)
        return states, head if vocabulary is None else head.shared_with(vocabulary)

    states, head = inside(module, work)
    sizes = [sum(len(s.read_by_teacher) for s in batch.sequences[kind]) for kind in kinds]
    return dict(zip(kinds, states.split(sizes), strict=True)), head


def student_rows(
    model: PreTrainedModel,
    batch: MicroBatch,
    teacher: Mapping[Kind, Tensor],
    reference: Mapping[Kind, Tensor],
) -> dict[Kind, Rows]:
    """The student's one pass over all sequences of a micro-batch, cut into kinds.

    Args:
        model: The innermost student, inside its wrapped forward.
        batch: The sequences.
        teacher: By kind, (N, H_t) states of the teacher.
        reference: By kind, (S,) summed log-probabilities of the reference.
    """
    everything = [scored for kind in batch.sequences for scored in batch.sequences[kind]]
    hidden = completion_states(model, [(s.prompt, s.completion) for s in everything])
    labels = labels_of(everything, hidden.device)
    rows: dict[Kind, Rows] = {}
    start = 0
    for kind, sequences in batch.sequences.items():
        lengths = [len(scored.completion) for scored in sequences]
        part = slice(start, start + sum(lengths))
        start = part.stop
        trust = batch.trusted(kind)
        rows[kind] = Rows(
            hidden[part],
            labels[part],
            lengths,
            batch.weights(kind).to(hidden.device),
            None if kind not in teacher else teacher[kind].to(hidden.device),
            None if kind not in reference else reference[kind].to(hidden.device),
            None if trust is None else trust.to(hidden.device),
            events=_events_of(sequences) if kind in teacher else None,
        )
    return rows


def _events_of(sequences: Sequence[Scored]) -> EventBatch | None:
    """The completions in both models' tokens, where these differ."""
    alignments = [scored.alignment for scored in sequences if scored.alignment is not None]
    if not alignments:
        return None
    return EventBatch(alignments, [s.completion for s in sequences], [s.read_by_teacher for s in sequences])


def signal_sums(signals: Mapping[str, Signal], rows: Mapping[Kind, Rows], heads: Heads) -> dict[str, Tensor]:
    """Each signal's sum over the micro-batch: scalars with a gradient to the student."""
    return {name: signal.loss(rows, heads) for name, signal in signals.items()}
