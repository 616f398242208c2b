"""One optimizer step: what is collected and counted before any loss, its account, and what is said of it then."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from dudi.data.examples import Example
from dudi.distill.arguments import DudiConfig
from dudi.distill.batch import MicroBatch, event_counts
from dudi.distill.by_language import (
    AGREEMENT,
    LOSSES,
    SPOKEN,
    WIDTH,
    agreement_metrics,
    balance,
    language_metrics,
    language_shares,
    token_table,
)
from dudi.distill.collect import Collected
from dudi.distill.metrics import WATCHED_POSITIONS, event_metrics, health_metrics, watched_positions
from dudi.distill.state import Run
from dudi.distill.work import PHASES, flops_of
from dudi.environment import peak_memory
from dudi.errors import DataError, first_of
from dudi.objective.signals import Kind, Signal
from dudi.rollouts import VLLMEngine

BALANCE_STEPS = 8
"""Steps after which the languages' balance is frozen."""


@dataclasses.dataclass(slots=True)
class Step:
    """One optimizer step, over all its micro-batches.

    Attributes:
        number: The optimizer step, counted from 1.
        weights: Those of its signals in Eq. 8.
        collected: The sequences of this rank.
        counts: Each signal's denominator, over all micro-batches and ranks.
        promised: Whether the loss is Eq. 8 and nothing else, so that `factors` may be relied on before it is there.
        sums: Each signal's summed loss so far, on this rank.
        languages: (L, WIDTH) what happened in each language so far, on this rank (`by_language`).
        masses: Sums of both models' ends and of what is outside their common events.
        scored: Completion tokens that the student was scored on, on this rank.
        flops: What each phase multiplies on this rank (`work.flops_of`).
        bad_numbers: What was not finite on this rank, and the ids of the rows that it came from.
    """

    number: int
    signals: dict[str, Signal]
    weights: dict[str, float]
    collected: Collected = dataclasses.field(default_factory=Collected)
    counts: dict[str, float] = dataclasses.field(default_factory=dict)
    promised: bool = False
    sums: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    languages: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(1, WIDTH, dtype=torch.float64))
    masses: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(5))
    scored: int = 0
    flops: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    seconds: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    bad_numbers: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    started: float = dataclasses.field(default_factory=time.perf_counter)

    @property
    def factors(self) -> dict[str, float]:
        """What the loss multiplies each signal's sum with; empty where that is not known beforehand."""
        if not self.promised:
            return {}
        return {name: self.weights[name] / max(count, 1.0) for name, count in self.counts.items()}

    @contextlib.contextmanager
    def clock(self, phase: str) -> Iterator[None]:
        """Add the wall time of what runs inside to a phase, its device's queue too; profilers see `dudi/<phase>`."""
        begin = time.perf_counter()
        try:
            with record_function(f"dudi/{phase}"):
                yield
        finally:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds[phase] += time.perf_counter() - begin

    def add(self, sums: Mapping[str, Tensor], losses: Tensor, agreement: Tensor, masses: Tensor) -> None:
        """Take in one micro-batch: each signal's sum, the tables of its languages, what two tokenizers share."""
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value.detach())) + value.detach()
        unspoken = torch.zeros(len(losses), SPOKEN, dtype=torch.float64)
        self.languages = self.languages + torch.cat([losses, agreement, unspoken], dim=1)
        self.masses = self.masses + masses

    def note_bad_loss(self, batch: MicroBatch, teacher_states: Mapping[str, Tensor]) -> None:
        """Remember the rows of a micro-batch whose loss is not finite: the teacher's fault, if what it gave is not."""
        finite = all(bool(torch.isfinite(states).all()) for states in teacher_states.values())
        what = "the loss" if finite else "the teacher's output"
        self.bad_numbers[what] = self.bad_numbers.get(what, []) + row_ids([batch])


def weights_of_step(args: DudiConfig, step: int) -> dict[str, float]:
    """The weights of Eq. 8 in one optimizer step.

    With `mixing: sample` one coin a step, a function of the seed and the step alone and so the same on every rank,
    chooses the on-policy signal with probability lambda, else the off-policy one, with weight 1 (as TRL runs GKD).
    """
    weights = args.signals
    if args.mixing != "sample" or not {"off_policy", "on_policy"} <= weights.keys():
        return weights
    digest = hashlib.sha256(f"mixing {args.seed} {step}".encode()).digest()
    on_policy = int.from_bytes(digest[:8], "little") < args.lmbda * 2**64
    weights.pop("off_policy" if on_policy else "on_policy")
    return {name: weight if name == "sequence" else 1.0 for name, weight in weights.items()}


def begin_step(run: Run, micro_batches: Sequence[Sequence[Example]], epoch: int) -> Step:
    """Roll out for this rank's micro-batches together, and count every signal's tokens or pairs, over all ranks.

    Raises:
        DataError: no token is left to train on.
    """
    number = run.step() + 1
    weights = weights_of_step(run.args, number)
    step = Step(number, {name: run.signals[name] for name in weights}, weights)
    with step.clock("rollout"):
        step.collected = run.collector.collect(micro_batches, step.signals, epoch)
    batches = step.collected.batches
    shares: dict[tuple[Kind, str], float] = {}
    if run.args.loss_average == "language":
        table = token_table(batches, run.setup.languages).to(run.args.device)
        shares = language_shares(run.accelerator.reduce(table, "sum"), run.setup.languages)
    own = torch.zeros(len(weights), dtype=torch.float64)
    for batch in batches:
        batch.trust, batch.balance, batch.shares = run.trust, run.balance, shares
        summed = batch.summed_weights()
        counts = [signal.count(summed, batch.pairs) for signal in step.signals.values()]
        own += torch.tensor(counts, dtype=torch.float64)
    total = run.accelerator.reduce(own.to(run.args.device), "sum").tolist()
    step.counts = dict(zip(step.signals, total, strict=True))
    if not any(total):
        ids = [example.row.id for examples in micro_batches for example in examples]
        raise DataError(f"step {number}: no token is left to train on; rows {first_of(ids, 8)}")
    step.flops = flops_of(run, list(step.signals.values()), batches)
    _attach(run, step)
    return step


def _attach(run: Run, step: Step) -> None:
    """Give each micro-batch what was stored of the reference, and the positions to watch."""
    limit, kind = WATCHED_POSITIONS // run.args.world_size, run.args.on_policy_kind
    batches = step.collected.batches
    sizes = [sum(batch.lengths(kind)) if kind in batch.sequences else 0 for batch in batches]
    watched = watched_positions(sum(sizes), limit, run.args.seed, step.number)
    start = 0
    for batch, size in zip(batches, sizes, strict=True):
        if "on_policy" in step.signals:
            batch.watched = [place - start for place in watched if start <= place < start + size]
        start += size
        if "sequence" in step.signals and run.gold_reference:
            stored = [run.gold_reference[scored.example.row.id] for scored in batch.sequences["gold"]]
            batch.gold_reference = torch.tensor(stored)


def row_ids(batches: Sequence[MicroBatch]) -> list[str]:
    """Ids of the rows of micro-batches."""
    return [s.example.row.id for batch in batches for s in next(iter(batch.sequences.values()))]


def _own_sums(step: Step, device: torch.device) -> list[Tensor]:
    """This rank's, in fp64: each signal's loss, the rollouts' health and the tokens, FLOPs, events, the languages."""
    table = step.languages.clone()
    table[:, -SPOKEN:] = torch.tensor(step.collected.spoken, dtype=torch.float64)
    counted = [*dataclasses.astuple(step.collected.health), step.scored]
    events = torch.tensor(event_counts(step.collected.batches), device=device)
    return [
        torch.stack([value.double() for value in step.sums.values()]),
        torch.tensor(counted, device=device).double(),
        torch.tensor(list(step.flops.values()), dtype=torch.float64, device=device),
        torch.cat([events.double(), step.masses.double().to(device)]),
        table.flatten().to(device),
    ]


def end_step(run: Run, step: Step) -> dict[str, Any]:
    """The metrics of a step over all ranks; the languages' balance is settled by what it found."""
    args, languages, reduce = run.args, run.setup.languages, run.accelerator.reduce
    own = _own_sums(step, args.device)
    parts = reduce(torch.cat(own), "sum").split([len(part) for part in own])
    sums, (*health, scored), flops, events = (part.tolist() for part in parts[:-1])
    table = parts[-1].reshape(len(languages), WIDTH).cpu()
    if run.ratios is not None and step.number <= BALANCE_STEPS:  # it is left alone from then on
        run.ratios += table[:, LOSSES + 4 : LOSSES + AGREEMENT]
        if step.number == BALANCE_STEPS:
            run.balance = balance(run.ratios, languages)
    losses = {name: value / max(step.counts[name], 1.0) for name, value in zip(step.sums, sums, strict=True)}
    record: dict[str, Any] = {"loss": sum(step.weights[name] * value for name, value in losses.items())}
    record |= {f"loss/{name}": value for name, value in losses.items()}
    record |= agreement_metrics(table.sum(0).tolist(), args.overlap_k)
    record |= health_metrics(health) | event_metrics(events)
    record["languages"] = language_metrics(table, languages, args.overlap_k)
    if args.loss_average == "token":
        record |= {f"tokens/{name}": int(step.counts[name]) for name in losses if name != "sequence"}
    whole = time.perf_counter() - step.started
    record |= {f"time/{phase}": seconds for phase, seconds in step.seconds.items()}
    record |= {"time/step": whole, "tokens_per_second": scored / whole}
    record |= {f"flops/{phase}": value for phase, value in zip(PHASES, flops, strict=True) if value}
    record["memory/peak"] = peak_memory()
    if args.pivot is not None and "on_policy" in step.signals:
        record["verbalizer/with_pivot"] = step.collected.with_pivot
    if step.collected.without_example:
        record["verbalizer/without_example"] = step.collected.without_example
    record |= _rollout_gap(run)
    if run.setup.teachers.several:
        record["teachers"] = _teacher_shares(run, step)
    if served := run.setup.teachers.served:
        accounts = torch.tensor([one.take_account() for one in served.values()], dtype=torch.float64).sum(0)
        requests, tokens, tail, places = reduce(accounts.to(args.device), "sum").tolist()
        if places:
            record |= {"teacher/requests": requests, "teacher/tokens": tokens, "teacher/tail": tail / places}
    return record


def _teacher_shares(run: Run, step: Step) -> dict[str, dict[str, float]]:
    """The trained tokens that each teacher judged for each signal, and its share of them, over all ranks."""
    names = list(run.setup.teachers.members)
    own = torch.zeros(len(names), len(step.signals), dtype=torch.float64)
    for batch in step.collected.batches:
        for column, signal in enumerate(step.signals.values()):
            for scored in itertools.chain.from_iterable(batch.sequences[kind] for kind in signal.teacher_reads):
                own[names.index(scored.teacher), column] += float(scored.counted().sum())
    table = run.accelerator.reduce(own.to(run.args.device), "sum").cpu()
    totals = table.sum(0).tolist()
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for name, line in zip(names, table.tolist(), strict=True):
        for read, tokens, total in zip(step.signals, line, totals, strict=True):
            if total:
                found[name] |= {f"tokens/{read}": tokens, f"share/{read}": tokens / total}
    return found


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
