"""One loop for both models: Muon for the matrices, AdamW for the rest, a rate that ends at zero."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from dudi.stacking.muon import Muon

Batch = TypeVar("Batch")


def train(
    model: PreTrainedModel,
    batches: Iterator[Batch],
    loss_of: Callable[[PreTrainedModel, Batch], torch.Tensor],
    *,
    steps: int,
    rate: float,
    warmup: int = 100,
    decay: float = 0.5,
    name: str = "model",
) -> list[float]:
    """Train in place; returns the loss of each step, in nats per token.

    Args:
        model: What is trained.
        batches: At least as many as steps.
        loss_of: The mean loss of a batch.
        steps: How many.
        rate: The largest learning rate.
        warmup: Steps in which the rate rises.
        decay: The share of the steps, at the end, in which the rate falls to zero.
        name: For the progress lines.
    """
    matrices = [p for key, p in model.named_parameters() if p.ndim == 2 and "embed" not in key and "shared" not in key]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=rate, weight_decay=0.02),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda s: _share(s, steps, warmup, decay)) for o in optimizers]
    losses: list[float] = []
    started = time.perf_counter()
    model.train()
    for step, batch in zip(range(1, steps + 1), batches, strict=False):
        loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
        if step % 100 == 0 or step == steps:
            spent = time.perf_counter() - started
            recent = losses[-100:]
            sys.stderr.write(
                f"{name}: step {step}/{steps}  loss {sum(recent) / len(recent):.3f}  "
                f"{spent:.0f} s, {spent / step * (steps - step):.0f} s left\n"
            )
    model.eval()
    return losses


def _share(step: int, steps: int, warmup: int, decay: float) -> float:
    left = (1 - step / steps) / decay if decay else 1.0
    return min(1.0, (step + 1) / warmup, left)
