"""Frozen weights that are held in 16 bits and computed with in fp32, where a processor has no 16-bit products.

torch multiplies bfloat16 matrices on such a CPU one number at a time: six times slower than fp32 on AVX2 alone
(docs/speed.md). Here each module's weights become fp32 while it runs, and are 16-bit again afterwards: half the
memory, fp32's speed, and fp32's results for those weights.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

NARROW = (torch.bfloat16, torch.float16)


def compute_in_float32(model: nn.Module) -> bool:
    """Let a frozen model widen the weights of each module while it runs, by hooks; between two calls they stay.

    Returns:
        Whether any of its weights has 16 bits, so that there was something to do.
    """
    narrow = [module for module in model.modules() if _narrow_parameters(module)]
    for module in narrow:
        there = [getattr(hook, "__self__", None) for hook in module._forward_pre_hooks.values()]
        if any(isinstance(owner, _Widened) for owner in there):
            continue  # it has them already: a teacher may serve more than one run
        hooks = _WidenedRows() if isinstance(module, nn.Embedding) else _Widened()
        module.register_forward_pre_hook(hooks.widen)
        module.register_forward_hook(hooks.restore, always_call=True)
    return bool(narrow)


def _narrow_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    own = module.named_parameters(recurse=False)
    return [(name, parameter) for name, parameter in own if parameter.dtype in NARROW]


@dataclasses.dataclass(eq=False)
class _Widened:
    """The hooks of one module, and its 16-bit weights while it runs."""

    held: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def widen(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        for name, parameter in _narrow_parameters(module):
            self.held[name] = parameter.data
            parameter.data = parameter.data.float()
        return arguments

    def restore(self, module: nn.Module, arguments: Any, output: Any) -> None:
        for name, value in self.held.items():
            module.get_parameter(name).data = value
        self.held.clear()


class _WidenedRows(_Widened):
    """The same of an embedding: the rows that are looked up, and not the table."""

    padding: int | None = None

    def widen(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        if not _narrow_parameters(module) or not isinstance(module, nn.Embedding):
            return arguments
        self.held["weight"], self.padding = module.weight.data, module.padding_idx
        rows, places = arguments[0].unique(return_inverse=True)
        module.weight.data = module.weight.data[rows].float()
        module.padding_idx = None  # the id of another row, now; it says which one is not trained
        return (places, *arguments[1:])

    def restore(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if self.held:
            module.padding_idx = self.padding  # type: ignore[assignment]
        super().restore(module, arguments, output)
