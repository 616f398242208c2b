"""The passes over one micro-batch: teacher, reference, then the student inside its wrapped forward."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dudi.distill.batch import BatchPart, Judged, MicroBatch, Scored, parts_of
from dudi.distill.by_language import loss_table, owners
from dudi.distill.metrics import Watch, adding_masses, agreement
from dudi.distill.state import Run
from dudi.distill.step import Step
from dudi.models.frozen import FrozenModel, Policy
from dudi.objective.event_batch import EventBatch
from dudi.objective.forward import completion_states, inside, joined_ids
from dudi.objective.heads import Head, gathering, head_of
from dudi.objective.signals import Heads, Kind, Rows, Signal
from dudi.objective.top_tokens import TopTokens
from dudi.training.ranks import together


def losses_of(
    run: Run, model: nn.Module, batch: MicroBatch, signals: Mapping[str, Signal], step: Step
) -> dict[str, Any]:
    """Score one micro-batch with the wrapped student, and the teacher and reference of the run.

    Returns:
        `sums`: each signal's summed loss, a scalar with a gradient to the student; `losses`: (L, LOSSES) the same in
        each language (`by_language.loss_table`); `agreement`: (L, 7) sums over the watched positions
        (`metrics.agreement`); `masses`: (5,) sums over the borders that two tokenizers both have; `teacher_states`:
        what teachers that are computed here gave, by kind.
    """
    args, teachers = run.args, run.setup.teachers
    if not batch.judged:
        judge_all(run, [batch], signals, step)
    judged, batch.judged = batch.judged, {}
    reference = _reference_pass(run, batch, signals, step)
    parts = [BatchPart(batch, signals, "" if "" in judged else None)]
    if teachers.several:
        parts = parts_of(batch, signals, args.on_policy_kind)

    def work(student: PreTrainedModel) -> dict[str, Any]:
        own = head_of(student).shared_with(run.setup.vocabulary)
        found: dict[str, Any] = {}
        with gathering(student, own, args.loss_kernel) if step.factors else contextlib.nullcontext(own) as head:
            rows = student_rows(student, batch, reference)
            for part in parts:
                read, heads = rows, Heads(head, None, args.loss_kernel, None, step.factors)
                if part.teacher is not None:
                    given, teacher = judged[part.teacher], teachers.named(part.teacher)
                    read = _rows_of(part, rows, given.states)
                    events = None if teacher is None else teacher.events
                    heads = dataclasses.replace(heads, teacher=_beside(given.head, head), events=events)
                one = _score(run, part.batch, read, part.signals, heads)
                found = one if not found else _added(found, one)
        return found

    given = {f"{name}/{kind}": found for name, own in judged.items() for kind, found in own.states.items()}
    states = {name: found for name, found in given.items() if isinstance(found, Tensor)}
    return {**inside(model, work), "teacher_states": states}


def _score(
    run: Run, batch: MicroBatch, rows: Mapping[Kind, Rows], signals: Mapping[str, Signal], heads: Heads
) -> dict[str, Any]:
    """`losses_of` of some sequences with one teacher's head, inside the student's forward."""
    args, languages = run.args, run.setup.languages
    watch = None
    if batch.watched:
        watched = rows[args.on_policy_kind]
        owner = owners(batch, args.on_policy_kind, languages)
        watch = Watch(batch.watched, watched.labels, owner, len(languages), args.overlap_k)
        watched.observer = watch.observe
    masses = torch.zeros(5, device=heads.student.weight.device)
    for own in rows.values():
        if own.events is not None and heads.events is not None:
            own.observer = adding_masses(masses, heads.events.events, own.observer)
    sums = {name: signal.loss(rows, heads) for name, signal in signals.items()}  # with a gradient to the student
    measured = torch.zeros(len(languages), 7, dtype=torch.float64)
    if watch is not None:
        measured = agreement(rows[args.on_policy_kind], heads, watch).cpu()
    losses = loss_table(batch, rows, languages)
    return {"sums": sums, "losses": losses, "agreement": measured, "masses": masses.cpu()}


def _added(found: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    """Two results of `_score`, of different sequences or signals of one micro-batch, as one."""
    sums = dict(found["sums"])
    for name, value in one["sums"].items():
        sums[name] = sums[name] + value if name in sums else value
    return {"sums": sums} | {name: found[name] + one[name] for name in ("losses", "agreement", "masses")}


def _beside(head: Head | None, other: Head) -> Head | None:
    """A head on the device of another one: that of a teacher that lies elsewhere is copied for the time being."""
    device = other.weight.device
    if head is None or head.weight.device == device:
        return head
    bias = None if head.bias is None else head.bias.to(device)
    return dataclasses.replace(head, weight=head.weight.to(device), bias=bias)


def _rows_of(
    part: BatchPart, everything: Mapping[Kind, Rows], states: Mapping[Kind, Tensor] | Mapping[Kind, TopTokens]
) -> dict[Kind, Rows]:
    """The student's rows of one teacher's sequences, with what the teacher gave for them."""
    rows: dict[Kind, Rows] = {}
    for kind, places in (part.places or {}).items():
        index = places.to(everything[kind].hidden.device)
        rows[kind] = _rows(part.batch, kind, everything[kind].hidden[index], everything[kind].labels[index])
    if part.places is None:  # all of them
        rows |= everything
    for kind, found in states.items():
        own, sequences = rows[kind], part.batch.sequences[kind]
        own.teacher_hidden = found.to(own.hidden.device)
        alignments = [scored.alignment for scored in sequences if scored.alignment is not None]
        if alignments:
            written = [scored.completion for scored in sequences]
            own.events = EventBatch(alignments, written, [scored.read_by_teacher for scored in sequences])
    return rows


def _rows(batch: MicroBatch, kind: Kind, hidden: Tensor, labels: Tensor) -> Rows:
    weights, trust = batch.weights(kind).to(hidden.device), batch.trusted(kind)
    if trust is not None:
        trust = trust.to(hidden.device)
    return Rows(hidden, labels, batch.lengths(kind), weights, trust=trust)


def judge_all(run: Run, batches: Sequence[MicroBatch], signals: Mapping[str, Signal], step: Step) -> None:
    """Let the teachers read micro-batches, each teacher opened once, and leave what they give in `MicroBatch.judged`.

    Without a choice of teachers, the only one (or the student's average) has the empty name.
    """
    kinds = sorted({kind for signal in signals.values() for kind in signal.teacher_reads})
    policies: Mapping[str, Policy] = run.policies
    if not run.setup.teachers.several:
        policies = {} if run.teacher is None else {"": run.teacher}
    # The student's average is read in the place of a teacher that is alone, once there is one.
    served = run.setup.teachers.served if run.setup.teachers.several or run.teacher is None else {}
    if kinds and served:
        # A rank without sequences waits for the others, and hears of what went wrong.
        with step.clock("teacher"):
            together(lambda: _ask(run, batches, kinds))
    for name, policy in policies.items() if kinds else ():
        own = [(batch, sequences) for batch in batches if (sequences := _read_by(name, batch, kinds))]
        if not own:
            continue
        kept = [_kept(run, sequences) for _, sequences in own]
        teacher = run.setup.teachers.named(name)
        vocabulary = run.setup.vocabulary if teacher is None or teacher.events is None else None
        unread = any(sequences.keys() - found.keys() for (_, sequences), found in zip(own, kept, strict=True))
        if unread or not isinstance(policy, FrozenModel):
            opened = policy.opened()
        else:  # of one that reads nothing the head alone is wanted: it need not come to the device
            opened = contextlib.nullcontext(policy.module)
        with step.clock("teacher"), opened as module:
            for (batch, sequences), found in zip(own, kept, strict=True):
                rest = {kind: sequences[kind] for kind in sequences if kind not in found}
                with run.accelerator.autocast():
                    states, head = teacher_states(module, rest, vocabulary)
                batch.judged[name] = Judged(found | states, head)


def _ask(run: Run, batches: Sequence[MicroBatch], kinds: Sequence[Kind]) -> None:
    """Let servers read their teachers' sequences, each those of all micro-batches at once."""
    for name, teacher in run.setup.teachers.served.items():
        own = [(batch, kind, found) for batch in batches for kind, found in _read_by(name, batch, kinds).items()]
        pairs = [(scored.teacher_prompt, scored.completion) for _, _, found in own for scored in found]
        named = iter(teacher.read(pairs, run.args.teacher_top_k, run.setup.vocabulary))
        given: dict[int, dict[Kind, TopTokens]] = {}
        for batch, kind, found in own:
            given.setdefault(id(batch), {})[kind] = TopTokens.joined(list(itertools.islice(named, len(found))))
        for batch in batches:
            if id(batch) in given:
                batch.judged[name] = Judged(given[id(batch)], None)


def _kept(run: Run, sequences: Mapping[Kind, Sequence[Scored]]) -> dict[Kind, Tensor]:
    """The states of targets that are kept on the disk."""
    if run.kept_states is None or "gold" not in sequences:
        return {}
    found = [states for scored in sequences["gold"] if (states := run.kept_states(scored)) is not None]
    return {"gold": torch.cat(found)} if len(found) == len(sequences["gold"]) else {}


def _read_by(name: str, batch: MicroBatch, kinds: Sequence[Kind]) -> dict[Kind, list[Scored]]:
    """A teacher's sequences of a micro-batch, by kind; those of one alone have no teacher's name."""
    found: dict[Kind, list[Scored]] = {}
    for kind in kinds:
        if own := [scored for scored in batch.sequences[kind] if scored.teacher == name]:
            found[kind] = own
    return found


def _reference_pass(run: Run, batch: MicroBatch, signals: Mapping[str, Signal], step: Step) -> dict[Kind, Tensor]:
    if not any(signal.reference_reads for signal in signals.values()) or run.reference is None:
        return {}
    stored = batch.gold_reference
    kinds: list[Kind] = ["gold", "plain"] if stored is None else ["plain"]
    read = [scored for kind in kinds for scored in batch.sequences[kind]]
    with step.clock("reference"):
        values = run.reference_log_probs([(scored.prompt, scored.completion) for scored in read])
    gold, plain = values.tensor_split([len(read) - len(batch.sequences["plain"])])
    return {"gold": gold if stored is None else stored, "plain": plain}


@torch.no_grad()
def teacher_states(
    module: nn.Module, sequences: Mapping[Kind, Sequence[Scored]], vocabulary: int | None
) -> tuple[dict[Kind, Tensor], Head]:
    """The teacher's states for completions of some kinds, in one pass, and its head.

    Returns:
        By kind (N, H_t), aligned with the student's rows, or (M, H_t) for the teacher's own tokens; the head, cut to
        the vocabulary where there is a common one.
    """
    chosen = [scored for own in sequences.values() for scored in own]

    def work(model: PreTrainedModel) -> tuple[Tensor, Head]:
        pairs = [(s.teacher_prompt, s.read_by_teacher) for s in chosen]
        head = head_of(model)
        states = completion_states(model, pairs) if pairs else torch.empty(0)
        return states, head if vocabulary is None else head.shared_with(vocabulary)

    states, head = inside(module, work)
    by_kind: dict[Kind, Tensor] = {}
    for kind, own in sequences.items():
        read = sum(len(scored.read_by_teacher) for scored in own)
        by_kind[kind], states = states[:read], states[read:]
    return by_kind, head


def student_rows(model: PreTrainedModel, batch: MicroBatch, reference: Mapping[Kind, Tensor]) -> dict[Kind, Rows]:
    """The student's one pass, inside its wrapped forward, over all sequences of a micro-batch, cut into kinds.

    Of the reference, by kind, there are the (S,) summed log-probabilities.
    """
    everything = list(itertools.chain.from_iterable(batch.sequences.values()))
    hidden = completion_states(model, [(s.prompt, s.completion) for s in everything])
    labels = joined_ids([scored.completion for scored in everything], hidden.device)
    rows: dict[Kind, Rows] = {}
    start = 0
    for kind in batch.sequences:
        part = slice(start, start + sum(batch.lengths(kind)))
        start = part.stop
        rows[kind] = _rows(batch, kind, hidden[part], labels[part])
        if kind in reference:
            rows[kind].reference = reference[kind].to(hidden.device)
    return rows
