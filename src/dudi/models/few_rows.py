"""Products of a few rows with a wide matrix, which is what decoding consists of, in the form that a CPU is fastest at.

`F.linear` reads a matrix at a fraction of the memory's rate when it has two to sixteen rows to multiply with. With the
weights in front it is twice as fast for up to four rows; oneDNN, where torch was built with it, from five on. What is
chosen hangs on shapes alone, so that the same batch draws the same tokens (`docs/speed.md` has the measurements).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IN_FRONT = 4
"""Most rows for which the weights stand in front."""
FEW = 32
"""Most rows that are few."""
LARGE = 2**21
"""Numbers in a matrix (8 MiB in fp32) from which reading it is what a product costs."""
HEAD = 32
"""Outputs for each input from which a matrix is a head's."""


def is_large(weight: Tensor) -> bool:
    """Whether a matrix is worth it: in fp32, on a CPU, too large for a cache."""
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.numel() >= LARGE


def multiply_few(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` of rows (R, H) and a large matrix (V, H), without a gradient -> (R, V)."""
    count = len(rows)
    if rows.dtype != weight.dtype or torch.is_autocast_enabled("cpu"):
        return F.linear(rows, weight, bias)
    if 1 < count <= IN_FRONT and weight.shape[0] >= HEAD * weight.shape[1]:
        product = torch.mm(weight, rows.t()).t().contiguous()
        return product if bias is None else product.add_(bias)
    if count <= FEW and torch.backends.mkldnn.is_available():
        product = torch.ops.mkldnn._linear_pointwise(rows.contiguous(), weight, bias, "none", [], "")
        return cast(Tensor, product)
    return F.linear(rows, weight, bias)


@contextlib.contextmanager
def few_rows(model: nn.Module) -> Iterator[None]:
    """While it is inside, the large linear layers of a model multiply a few rows so; it is only for decoding.

    A layer that somebody else has given a forward of its own is left alone.
    """
    linear = [layer for layer in model.modules() if type(layer) is nn.Linear]
    changed = [layer for layer in linear if "forward" not in layer.__dict__ and is_large(layer.weight)]
    for layer in changed:
        layer.forward = _forward_of(layer)  # type: ignore[method-assign]  # of this layer alone, and for a while
    try:
        yield
    finally:
        for layer in changed:
            del layer.forward


def _forward_of(layer: nn.Linear) -> Any:
    def forward(states: Tensor) -> Tensor:
        rows = states.numel() // states.shape[-1]
        if rows > FEW:
            return F.linear(states, layer.weight, layer.bias)
        product = multiply_few(states.reshape(rows, -1), layer.weight, layer.bias)
        return product.view(*states.shape[:-1], -1)

    return forward
