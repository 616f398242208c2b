"""One loop for both models: Muon for the matrices, AdamW for the rest, a rate that ends at zero."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from transformers import PreTrainedModel

Batch = TypeVar("Batch")


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by Newton and Schulz's iteration (Jordan et al. 2024), in fp32.

    `torch.optim.Muon` iterates in bf16, which a CPU without bf16 arithmetic pays for with 10 times the time.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every matrix; its root mean square is that of AdamW's."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                momentum = state.setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonal(parameter.grad.lerp(momentum, group["momentum"]))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(update, alpha=group["lr"] * 0.2 * max(parameter.shape) ** 0.5)


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest matrix whose singular values are about one."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


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
