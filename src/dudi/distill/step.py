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
from dudi.distill.batch import MicroBatch, event_counts, teacher_metrics, teacher_tokens
from dudi.distill.by_language import (
    AGREEMENT,
    LOSSES,
    SPOKEN,
    WIDTH,
    balance,
    entropies,
    language_metrics,
    language_shares,
    token_table,
)
from dudi.distill.collect import Collected
from dudi.distill.metrics import WATCHED_POSITIONS, RolloutHealth, event_metrics, health_metrics, watched_positions
from dudi.distill.state import Run
from dudi.distill.work import PHASES, flops_of
from dudi.environment import peak_memory
from dudi.errors import DataError, first_of
from dudi.objective.signals import Kind, Signal
from dudi.rollouts import VLLMEngine

EVENTS = 9
"""Numbers of what two tokenizers have in common: `event_counts` and `Masses`."""
BALANCE_STEPS = 8
"""Steps after which the languages' balance is frozen."""


@dataclasses.dataclass(slots=True)
class Step:
    """One optimizer step, over all its micro-batches.

    Attributes:
        number: The optimizer step, counted from 1.
        signals: Those that run.
        weights: Their weights in Eq. 8.
        collected: The sequences of this rank.
        counts: Each signal's denominator, over all micro-batches and ranks.
        promised: Whether the loss is Eq. 8 and nothing else, so that `factors` may be relied on before it is there.
        sums: Each signal's summed loss so far, on this rank.
        languages: (L, WIDTH) what happened in each language so far, on this rank (`by_language`).
        masses: Sums of both models' ends and of what is outside their common events.
        scored: Completion tokens that the student was scored on, on this rank.
        flops: What each phase multiplies on this rank (`work.flops_of`).
        seconds: Wall time of each phase.
        bad_numbers: What was not finite on this rank, and the ids of the rows that it came from.
        started: When the step began.
    """

    number: int
    signals: dict[str, Signal]
    weights: dict[str, float]
    collected: Collected = dataclasses.field(default_factory=lambda: Collected([], RolloutHealth(), [], []))
    counts: dict[str, float] = dataclasses.field(default_factory=dict)
    promised: bool = False
    sums: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    languages: Tensor | None = None
    masses: Tensor | None = None
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
        table = torch.cat([losses, agreement, torch.zeros(len(losses), SPOKEN, dtype=torch.float64)], dim=1)
        self.languages = table if self.languages is None else self.languages + table
        self.masses = masses if self.masses is None else self.masses + masses

    def note_bad_loss(self, batch: MicroBatch, teacher_states: Mapping[str, Tensor]) -> None:
        """Remember the rows of a micro-batch whose loss is not finite: the teacher's fault, if what it gave is not."""
        finite = all(bool(torch.isfinite(states).all()) for states in teacher_states.values())
        what = "the loss" if finite else "the teacher's output"
        self.bad_numbers[what] = self.bad_numbers.get(what, []) + row_ids([batch])

    def timings(self, scored: float) -> dict[str, float]:
        """The `time/*` metrics in seconds, and the completion tokens scored per second on all ranks."""
        whole = time.perf_counter() - self.started
        times = {f"time/{phase}": seconds for phase, seconds in self.seconds.items()}
        return times | {"time/step": whole, "tokens_per_second": scored / whole}


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
        raise DataError(f"step {number}: no token is left to train on; rows {first_of(ids, 8)}")
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


def row_ids(batches: Sequence[MicroBatch]) -> list[str]:
    """Ids of the rows of micro-batches."""
    return [s.example.row.id for batch in batches for s in next(iter(batch.sequences.values()))]


def rank_sums(step: Step, device: torch.device) -> Tensor:
    """What has to be summed over the ranks, in fp64.

    Each signal's loss, the rollouts' health, tokens, FLOPs, what two tokenizers have in common, and the languages.
    """
    if step.languages is None or step.masses is None:
        raise RuntimeError("rank_sums is asked for after the step's last micro-batch")
    step.languages[:, -SPOKEN:] = torch.tensor(step.collected.spoken, dtype=torch.float64)
    return torch.cat(
        [
            torch.stack([value.double() for value in step.sums.values()]),
            torch.tensor([*dataclasses.astuple(step.collected.health), step.scored], device=device).double(),
            torch.tensor(list(step.flops.values()), dtype=torch.float64, device=device),
            torch.tensor(event_counts(step.collected.batches), device=device).double(),
            step.masses.double().to(device),
            step.languages.flatten().to(device),
        ]
    )


def language_table(total: Tensor, languages: Sequence[str]) -> Tensor:
    """(L, WIDTH) of a step's summed `rank_sums`."""
    return total[len(total) - len(languages) * WIDTH :].reshape(len(languages), WIDTH).cpu()


def step_record(step: Step, total: Tensor, args: DudiConfig, languages: Sequence[str]) -> dict[str, Any]:
    """The metrics of a step.

    Args:
        step: The step, after its last micro-batch.
        total: `rank_sums`, summed.
        args: The run's config.
        languages: Codes of the languages that are told apart.
    """
    names, table = list(step.sums), language_table(total, languages)
    losses = {name: value / max(step.counts[name], 1.0) for name, value in zip(names, total.tolist(), strict=False)}
    weighed = sum(step.weights[name] * value for name, value in losses.items())
    rest = total[len(names) : len(total) - table.numel()].tolist()
    *health, scored = rest[: -EVENTS - len(PHASES)]
    flops = rest[-EVENTS - len(PHASES) : -EVENTS]
    overlap, student, teacher, positions = table.sum(0)[LOSSES : LOSSES + 4].tolist()
    record: dict[str, Any] = {"loss": weighed, **{f"loss/{name}": value for name, value in losses.items()}}
    if positions:
        record[f"overlap@{args.overlap_k}"] = overlap / positions
        record |= entropies(student / positions, teacher / positions)
    record |= health_metrics(health)
    record |= event_metrics(rest[-EVENTS:])
    record["languages"] = language_metrics(table, languages, args.overlap_k)
    if args.loss_average == "token":
        record |= {f"tokens/{name}": int(step.counts[name]) for name in names if name != "sequence"}
    record |= step.timings(scored)
    record |= {f"flops/{phase}": value for phase, value in zip(PHASES, flops, strict=True) if value}
    record["memory/peak"] = peak_memory()
    if args.pivot is not None and "on_policy" in step.signals:
        record["verbalizer/with_pivot"] = step.collected.with_pivot
    if step.collected.without_example:
        record["verbalizer/without_example"] = step.collected.without_example
    return record


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
        requests, tokens, tail, places = reduce(accounts.to(device), "sum").tolist()
        if places:
            record |= {"teacher/requests": requests, "teacher/tokens": tokens, "teacher/tail": tail / places}
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
