"""Evaluation during training: the off-policy term and bits per byte, and on request every signal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from dudi.data.examples import Example
from dudi.heads import head_of
from dudi.scoring import MicroBatch, inside, student_rows
from dudi.signals import Distance, OffPolicySignal, Signal
from dudi.steps import Step
from dudi.teachers import evaluating

if TYPE_CHECKING:
    from dudi.trainer import DudiTrainer


def evaluate_examples(trainer: DudiTrainer, dataloader: Any, prefix: str) -> tuple[dict[str, float], int]:
    """Losses over an evaluation set.

    A method without an off-policy term is evaluated by its cross-entropy. Nothing is drawn from the global
    generators, and rollouts use noise of their own, so that a run is the same with and without evaluation.

    Args:
        trainer: Whose student is evaluated.
        dataloader: Of lists of examples.
        prefix: Of the metrics' names.

    Returns:
        The metrics, and the number of rows.
    """
    args = trainer.args
    off_policy = trainer.signals.get("off_policy") or OffPolicySignal(
        "cross_entropy", Distance(args.divergence, args.beta, args.kd_temperature)
    )
    signals: dict[str, Signal] = {"off_policy": off_policy}
    if args.eval_rollouts and "on_policy" in trainer.signals:
        signals["on_policy"] = trainer.signals["on_policy"]
    names = [*signals, "nats", "bytes", "rows"]
    own = torch.zeros(2, len(names), dtype=torch.float64)
    model = trainer.model_wrapped
    with evaluating(model):
        for examples in dataloader:
            _add(trainer, model, list(examples), signals, own)
    total = trainer.accelerator.reduce(own.to(args.device), "sum").cpu()
    sums = dict(zip(names, total[0].tolist(), strict=True))
    counts = dict(zip(names, total[1].tolist(), strict=True))
    losses = {name: sums[name] / max(counts[name], 1.0) for name in signals}
    metrics = {f"{prefix}_loss": losses["off_policy"]}
    metrics[f"{prefix}_bits_per_byte"] = sums["nats"] / math.log(2) / max(sums["bytes"], 1.0)
    if "on_policy" in losses:
        metrics[f"{prefix}_loss/on_policy"] = losses["on_policy"]
    return metrics, int(sums["rows"])


def _add(
    trainer: DudiTrainer, model: Any, examples: list[Example], signals: dict[str, Signal], own: torch.Tensor
) -> None:
    """Add one batch: sums in the first line of `own`, counts in the second."""
    collected = trainer.collector.collect([examples], signals, epoch=0, purpose="eval")
    batch = collected.batches[0]
    step = Step(0, signals, dict.fromkeys(signals, 1.0))
    sums = trainer.score(model, batch, signals, step)["sums"]
    weights = batch.summed_weights()
    for column, (name, signal) in enumerate(signals.items()):
        own[0, column] += float(sums[name])
        own[1, column] += signal.count(weights, batch.pairs)
    own[0, len(signals)] += gold_nats(trainer, model, batch)
    own[0, len(signals) + 1] += sum(len(_target(trainer, example).encode("utf-8")) for example in examples)
    own[0, len(signals) + 2] += len(examples)


def _target(trainer: DudiTrainer, example: Example) -> str:
    return trainer.setup.student_format.text(example.completion)


def gold_nats(trainer: DudiTrainer, model: Any, batch: MicroBatch) -> float:
    """Summed -log pi(y | x) of the batch, the end of turn included."""
    gold = MicroBatch({"gold": batch.sequences["gold"]})

    def work(student: Any) -> torch.Tensor:
        rows = student_rows(student, gold, {}, {})["gold"]
        head = head_of(student).shared_with(trainer.setup.vocabulary)
        return -rows.log_probs(head, trainer.args.loss_kernel).double().sum()

    return float(inside(model, work))
