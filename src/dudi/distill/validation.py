"""Evaluation during training: the off-policy term and bits per byte, and on request every signal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dudi.data.examples import Example
from dudi.distill.arguments import DudiConfig
from dudi.distill.batch import MicroBatch
from dudi.distill.passes import losses_of, student_rows
from dudi.distill.state import Run
from dudi.distill.step import Step
from dudi.models.frozen import evaluating
from dudi.objective.forward import inside
from dudi.objective.heads import Distance, head_of
from dudi.objective.signals import OffPolicySignal, Signal


def evaluate_examples(run: Run, examples: Sequence[Example], prefix: str) -> tuple[dict[str, float], int]:
    """Losses over an evaluation set, each row counted once, however many ranks there are.

    A method without an off-policy term is evaluated by its cross-entropy. Nothing is drawn from the global
    generators, and rollouts use noise of their own, so that a run is the same with and without evaluation.

    Returns:
        The metrics, their names with the prefix, and the number of rows.
    """
    args = run.args
    off_policy = run.signals.get("off_policy") or OffPolicySignal(
        "cross_entropy", Distance(args.divergence, args.beta, args.kd_temperature)
    )
    signals: dict[str, Signal] = {"off_policy": off_policy}
    if args.eval_rollouts and "on_policy" in run.signals:
        signals["on_policy"] = run.signals["on_policy"]
    own = torch.zeros(2 * len(signals) + 3, dtype=torch.float64)
    model = run.wrapped()
    # Inside a training loop the model does this itself; before one it is bare.
    with evaluating(model), run.accelerator.autocast():
        for batch, counted in _batches_of_rank(examples, args):
            found = torch.tensor(_numbers(run, model, batch, signals), dtype=torch.float64)
            if counted:
                own += found
    total = run.accelerator.reduce(own.to(args.device), "sum").tolist()
    *parts, nats, size, rows = total
    sums, counts = parts[: len(signals)], parts[len(signals) :]
    losses = {name: value / max(weight, 1.0) for name, value, weight in zip(signals, sums, counts, strict=True)}
    metrics = {f"{prefix}_loss": losses["off_policy"]}
    metrics[f"{prefix}_bits_per_byte"] = nats / math.log(2) / max(size, 1.0)
    if "on_policy" in losses:
        metrics[f"{prefix}_loss/on_policy"] = losses["on_policy"]
    return metrics, int(rows)


def _batches_of_rank(examples: Sequence[Example], args: DudiConfig) -> Iterator[tuple[Sequence[Example], bool]]:
    """This rank's batches, and whether they count.

    Every rank has as many, since all of them gather sharded weights together: one that has no row left scores a row
    that does not count.
    """
    size = args.eval_batch_size
    for start in range(0, len(examples), size * args.world_size):
        own = examples[start + args.process_index * size :][: min(size, len(examples))]
        yield (own, True) if own else (examples[:1], False)


def _numbers(run: Run, model: Any, examples: Sequence[Example], signals: dict[str, Signal]) -> list[float]:
    """Of one batch: each signal's sum, then what each is divided by, and the targets' nats, bytes and rows."""
    batch = run.collector.collect([examples], signals, epoch=0, purpose="eval").batches[0]
    sums = losses_of(run, model, batch, signals, Step(0, signals, dict.fromkeys(signals, 1.0)))["sums"]
    losses, weights = [float(sums[name]) for name in signals], batch.summed_weights()
    counts = [signal.count(weights, batch.pairs) for signal in signals.values()]
    targets = [run.setup.student_format.text(example.completion) for example in examples]
    size = sum(len(target.encode("utf-8")) for target in targets)
    return [*losses, *counts, gold_nats(run, model, batch), size, len(examples)]


def gold_nats(run: Run, model: Any, batch: MicroBatch) -> float:
    """Summed -log pi(y | x) of the batch, the end of turn included."""
    gold = MicroBatch({"gold": batch.sequences["gold"]})

    def work(student: Any) -> torch.Tensor:
        rows = student_rows(student, gold, {})["gold"]
        head = head_of(student).shared_with(run.setup.vocabulary)
        return -rows.log_probs(head, run.args.loss_kernel).double().sum()

    return float(inside(model, work))
