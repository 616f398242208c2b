"""One line of `metrics.jsonl`: what an optimizer step was, summed over the ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dudi.arguments import DudiConfig
from dudi.metrics import health_metrics
from dudi.steps import Step, peak_memory


def rank_sums(step: Step, device: torch.device) -> Tensor:
    """What has to be summed over the ranks, fp64: each signal's loss, the agreement, the rollouts' health, tokens."""
    agreement = torch.zeros(4) if step.agreement is None else step.agreement
    return torch.cat(
        [
            torch.stack([value.double() for value in step.sums.values()]),
            agreement.double().to(device),
            torch.tensor([*step.collected.health.as_list(), step.scored], device=device).double(),
        ]
    )


def step_record(step: Step, total: list[float], args: DudiConfig) -> dict[str, Any]:
    """The metrics of a step.

    Args:
        step: The step, after its last micro-batch.
        total: `rank_sums`, summed.
        args: The run's config.
    """
    names = list(step.sums)
    losses = {name: value / max(step.counts[name], 1.0) for name, value in zip(names, total, strict=False)}
    overlap, student, teacher, positions, *health, scored = total[len(names) :]
    record: dict[str, Any] = {
        "loss": sum(step.weights[name] * value for name, value in losses.items()),
        **{f"loss/{name}": value for name, value in losses.items()},
    }
    if positions:
        record[f"overlap@{args.overlap_k}"] = overlap / positions
        record |= {"student_entropy": student / positions, "teacher_entropy": teacher / positions}
    record |= health_metrics(health)
    if args.loss_average == "token":
        record |= {f"tokens/{name}": int(step.counts[name]) for name in names if name != "sequence"}
    record |= step.timings(scored)
    record["memory/peak"] = peak_memory()
    if step.collected.without_example:
        record["verbalizer/without_example"] = step.collected.without_example
    return record
