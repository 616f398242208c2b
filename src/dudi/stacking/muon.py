"""Muon for the matrices of a model and Adam for the rest, as one optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
BETAS = (0.9, 0.98)


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by Newton and Schulz's iteration (Jordan et al. 2024), in fp32; Adam where it cannot be.

    `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")` has the same formulas (iterated in fp32 the two agree to 1e-6),
    but iterates in bf16 on every device: its updates of random matrices lie 0.9 to 1.5 % from these (Frobenius, 64 x 64
    to 1024 x 1024), so that a run on a GPU would be another one than on a CPU; a CPU without bf16 arithmetic pays for
    it with 10 times the time. It takes matrices alone, too. Here the parameters with two dimensions get Muon, scaled so
    that one learning rate serves both (an update's root mean square is about 0.2, as Adam's), and all others get Adam.
    A group of parameters with `muon: False` gets Adam whatever their shape (embeddings). The weight decay is decoupled,
    and of the matrices alone.
    """

    def __init__(
        self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], lr: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "muon": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if group["muon"] and parameter.ndim == 2:
                    self._orthogonal(parameter, parameter.grad, group)
                else:
                    self._adam(parameter, parameter.grad, group)

    def _orthogonal(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        momentum = state.setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(gradient, 1 - MOMENTUM)
        update = orthogonal(gradient.lerp(momentum, MOMENTUM))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(update, alpha=group["lr"] * 0.2 * max(parameter.shape) ** 0.5)

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        first, second = (1 - beta ** float(state["step"]) for beta in BETAS)
        state["mean"].lerp_(gradient, 1 - BETAS[0])
        state["square"].lerp_(gradient.square(), 1 - BETAS[1])
        scale = (state["square"] / second).sqrt_().add_(1e-8)
        parameter.addcdiv_(state["mean"], scale, value=-group["lr"] / first)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrix whose singular values are about one: (M, N) to (M, N)."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x
