"""Frozen weights that are held in 16 bits and computed with in fp32, where a processor has no 16-bit products.

torch multiplies bfloat16 matrices on such a CPU one number at a time: six times slower than fp32 on AVX2 alone
(docs/speed.md). Here each module's weights become fp32 while it runs, and are 16-bit again afterwards: half the
memory, fp32's speed, and fp32's results for those weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

NARROW = (torch.bfloat16, torch.float16)


def compute_in_float32(model: nn.Module) -> bool:
    """Let a frozen model widen the weights of each module while it runs.

    An embedding widens the rows that are looked up, and not the table.

    Args:
        model: Changed in place: it gets hooks. Its weights stay as they are between two calls.

    Returns:
        Whether any of its weights has 16 bits, so that there was something to do.
    """
    narrow = [module for module in model.modules() if _narrow_parameters(module)]
    for module in narrow:
        held: dict[str, Tensor] = {}
        widen = _widen_rows if isinstance(module, nn.Embedding) else _widen
        module.register_forward_pre_hook(widen(held))
        module.register_forward_hook(_restore(held), always_call=True)
    return bool(narrow)


def _narrow_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    own = module.named_parameters(recurse=False)
    return [(name, parameter) for name, parameter in own if parameter.dtype in NARROW]


def _widen(held: dict[str, Tensor]) -> Callable[..., None]:
    def before(module: nn.Module, arguments: Any) -> None:
        for name, parameter in _narrow_parameters(module):
            held[name] = parameter.data
            parameter.data = parameter.data.float()

    return before


def _widen_rows(held: dict[str, Tensor]) -> Callable[..., Any]:
    def before(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for name, parameter in _narrow_parameters(module):
            held[name] = parameter.data
            rows, places = arguments[0].unique(return_inverse=True)
            parameter.data = parameter.data[rows].float()
            return (places, *arguments[1:])
        return arguments

    return before


def _restore(held: dict[str, Tensor]) -> Callable[..., None]:
    def after(module: nn.Module, arguments: Any, output: Any) -> None:
        for name, value in held.items():
            module.get_parameter(name).data = value
        held.clear()

    return after
