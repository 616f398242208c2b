"""The two ends of an optimizer step: what is collected and counted before any loss, and what is said of it then."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dudi.data.examples import Example
from dudi.distill.batch import MicroBatch
from dudi.distill.by_language import AGREEMENT, LOSSES, balance, language_shares, token_table
from dudi.distill.metrics import WATCHED_POSITIONS, watched_positions
from dudi.distill.served import account_metrics
from dudi.distill.state import Run
from dudi.distill.step import Step, language_table, rank_sums, step_record, weights_of_step
from dudi.distill.teachers import teacher_metrics, teacher_tokens
from dudi.distill.work import flops_of
from dudi.errors import DataError
from dudi.objective.signals import Kind, Signal
from dudi.rollouts import VLLMEngine

BALANCE_STEPS = 8
"""Steps after which the languages' balance is frozen."""


def begin_step(run: Run, micro_batches: Sequence[Sequence[Example]], epoch: int) -> Step:
    """Roll out for all micro-batches together, and count every signal's tokens or pairs, over all ranks.

    Args:
        run: Whose step it is.
        micro_batches: The rows of each micro-batch on this rank.
        epoch: The pass over the data.

    Raises:
        DataError: no token is left to train on.
    """
    number = run.step() + 1
    weights = weights_of_step(run.args, number)
    step = Step(number, {name: run.signals[name] for name in weights}, weights)
    with step.clock("rollout"):
        step.collected = run.collector.collect(micro_batches, step.signals, epoch)
    batches = step.collected.batches
    _weigh(run, batches)
    step.counts = count(run, step.signals, batches)
    if not any(step.counts.values()):
        ids = [example.row.id for examples in micro_batches for example in examples]
        raise DataError(f"step {number}: no token is left to train on; rows {', '.join(ids[:8])}")
    step.flops = flops_of(run, list(step.signals.values()), batches)
    _attach(run, step)
    return step


def _weigh(run: Run, batches: Sequence[MicroBatch]) -> None:
    """Say what each token counts, and how far its teacher is trusted."""
    languages = run.setup.languages
    shares: dict[tuple[Kind, str], float] = {}
    if run.args.loss_average == "language":
        own = token_table(batches, languages).to(run.args.device)
        shares = language_shares(run.accelerator.reduce(own, "sum"), languages)
    for batch in batches:
        batch.trust, batch.balance, batch.shares = run.trust, run.balance, shares


def count(run: Run, signals: Mapping[str, Signal], batches: Sequence[MicroBatch]) -> dict[str, float]:
    """Each signal's denominator, over all micro-batches and all ranks."""
    own = torch.zeros(len(signals), dtype=torch.float64)
    for batch in batches:
        weights = batch.summed_weights()
        own += torch.tensor([s.count(weights, batch.pairs) for s in signals.values()], dtype=torch.float64)
    total = run.accelerator.reduce(own.to(run.args.device), "sum").tolist()
    return dict(zip(signals, total, strict=True))


def _attach(run: Run, step: Step) -> None:
    """Give each micro-batch what was stored of the reference, and the positions to watch."""
    limit, kind = WATCHED_POSITIONS // run.args.world_size, run.args.on_policy_kind
    read = [batch.sequences.get(kind, []) for batch in step.collected.batches]
    total = sum(len(scored.completion) for scored in itertools.chain.from_iterable(read))
    watched = watched_positions(total, limit, run.args.seed, step.number)
    start = 0
    for batch, sequences in zip(step.collected.batches, read, strict=True):
        size = sum(len(scored.completion) for scored in sequences)
        if "on_policy" in step.signals:
            batch.watched = [place - start for place in watched if start <= place < start + size]
        start += size
        if "sequence" in step.signals and run.gold_reference:
            stored = [run.gold_reference[scored.example.row.id] for scored in batch.sequences["gold"]]
            batch.gold_reference = torch.tensor(stored)


def end_step(run: Run, step: Step) -> dict[str, Any]:
    """The metrics of a step over all ranks; the languages' balance is settled by what it found."""
    device, reduce = run.args.device, run.accelerator.reduce
    total = reduce(rank_sums(step, device), "sum")
    _settle_balance(run, step, total)
    record = step_record(step, total, run.args, run.setup.languages) | _rollout_gap(run)
    teachers = run.setup.teachers
    if teachers.several:
        names = list(teachers.members)
        own = teacher_tokens(step.collected.batches, step.signals, names).to(device)
        record["teachers"] = teacher_metrics(reduce(own, "sum").cpu(), names, step.signals)
    if teachers.served:
        accounts = torch.tensor([one.account.take() for one in teachers.served], dtype=torch.float64).sum(0)
        record |= account_metrics(reduce(accounts.to(device), "sum").tolist())
    return record


def _settle_balance(run: Run, step: Step, total: Tensor) -> None:
    """Find the languages' balance in the first steps, and leave it alone from then on."""
    if run.ratios is None or step.number > BALANCE_STEPS:
        return
    run.ratios += language_table(total, run.setup.languages)[:, LOSSES + 4 : LOSSES + AGREEMENT]
    if step.number == BALANCE_STEPS:
        run.balance = balance(run.ratios, run.setup.languages)


def _rollout_gap(run: Run) -> dict[str, float]:
    """How far vLLM's log-probabilities of a step's rollouts are from the trainer's, over all ranks."""
    engine = run.collector.engine
    if not isinstance(engine, VLLMEngine):
        return {}
    own, seconds = engine.take_gap()
    gaps = run.accelerator.gather(own.to(run.args.device).unsqueeze(0))
    total, tokens, largest = gaps[:, 0].sum().item(), gaps[:, 1].sum().item(), gaps[:, 2].max().item()
    if not tokens:
        return {}
    return {
        "rollout/log_prob_mismatch": total / tokens,
        "rollout/log_prob_mismatch_max": largest,
        "time/weight_sync": seconds,
    }
