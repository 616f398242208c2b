"""The models that are read and never trained: teacher, moving average, reference.

Each opens itself as a context that yields a module in eval mode, without gradients; the module takes
`forward.inside`. A policy that lives in the student's own adapters switches them inside the context only.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor, nn

from dudi.models.sharding import whole

if TYPE_CHECKING:
    from peft import PeftModel

M = TypeVar("M", bound=nn.Module)


class Policy(Protocol):
    """A model that gives log-probabilities and is never trained."""

    def opened(self) -> contextlib.AbstractContextManager[nn.Module]:
        """The module to call, in eval mode and without gradients."""
        ...


@contextlib.contextmanager
def evaluating(module: M) -> Iterator[M]:
    """Eval mode and no gradients, and the mode it was in afterwards."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield module
    finally:
        module.train(training)


class FrozenModel:
    """A model of its own: a larger teacher, or a copy of the cold start as reference."""

    def __init__(self, model: nn.Module) -> None:
        self.module = model.eval().requires_grad_(False)

    @contextlib.contextmanager
    def opened(self) -> Iterator[nn.Module]:
        with torch.no_grad():
            yield self.module


class OffloadedModel(FrozenModel):
    """A model whose weights lie in the computer's memory, and come to the device while it is opened.

    Nothing is copied back: the weights in the computer's memory are kept, and taken up again.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__(model)
        self.device, pinned = device, device.type == "cuda"
        tensors = [*model.parameters(), *model.buffers()]
        self._kept = [(tensor, tensor.data.pin_memory() if pinned else tensor.data) for tensor in tensors]

    @contextlib.contextmanager
    def opened(self) -> Iterator[nn.Module]:
        """The model on the device; its head has to be moved by whoever needs it later."""
        try:
            for tensor, kept in self._kept:
                tensor.data = kept.to(self.device, non_blocking=True)
            with super().opened() as module:
                yield module
        finally:
            for tensor, kept in self._kept:
                tensor.data = kept


def frozen_copy(model: nn.Module, dtype: torch.dtype = torch.float32) -> FrozenModel:
    """A frozen copy of an fp32 model that is trained on, with its adapters.

    It is rounded to `dtype` weight by weight, so that there is no second copy in fp32 on the way.
    """
    if dtype == torch.float32:
        return FrozenModel(copy.deepcopy(model))
    rounded = {id(p): nn.Parameter(p.detach().to(dtype), requires_grad=False) for p in model.parameters()}
    return FrozenModel(copy.deepcopy(model, rounded))  # what stands in the memo is taken, and not copied


@dataclasses.dataclass(frozen=True, slots=True)
class AdapterOff:
    """The student without its adapter: the merged cold start, when a new adapter was put on it."""

    student: Callable[[], nn.Module]
    peft_model: Callable[[], PeftModel]

    @contextlib.contextmanager
    def opened(self) -> Iterator[nn.Module]:
        with evaluating(self.student()) as module, self.peft_model().disable_adapter():
            yield module


@dataclasses.dataclass(frozen=True, slots=True)
class OtherAdapter:
    """The student with another of its adapters: a frozen copy of the cold start's, or the moving average's."""

    student: Callable[[], nn.Module]
    peft_model: Callable[[], PeftModel]
    name: str

    @contextlib.contextmanager
    def opened(self) -> Iterator[nn.Module]:
        """The student with this adapter active; its own is trainable again afterwards."""
        peft_model = self.peft_model()
        active = peft_model.active_adapter
        with evaluating(self.student()) as module:
            peft_model.set_adapter(self.name, inference_mode=True)
            try:
                yield module
            finally:
                peft_model.set_adapter(active)


@dataclasses.dataclass(frozen=True, slots=True)
class MovingAverage:
    """The exponential moving average of the student (SDFT): theta_T <- (1 - rate) theta_T + rate theta.

    It is kept in fp32 beside a model of 16 bits, in which most steps of a small rate would be rounded away.
    """

    policy: FrozenModel | OtherAdapter
    rate: float
    pairs: Callable[[], list[tuple[Tensor, Tensor]]]
    _exact: dict[int, Tensor] = dataclasses.field(default_factory=dict, init=False)

    def opened(self) -> contextlib.AbstractContextManager[nn.Module]:
        return self.policy.opened()

    @torch.no_grad()
    def update(self) -> None:
        """One step of the average; called after each optimizer step."""
        for i, (student, average) in enumerate(self.pairs()):
            exact = self._exact_of(i, average)
            exact.lerp_(whole(student.detach()).to(exact.dtype), self.rate)
            average.copy_(exact)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged parameters, numbered in the student's order."""
        return {f"{i:05d}": self._exact_of(i, average).detach() for i, (_, average) in enumerate(self.pairs())}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put saved parameters back."""
        for i, (_, average) in enumerate(self.pairs()):
            exact = self._exact_of(i, average)
            exact.copy_(state[f"{i:05d}"])
            average.copy_(exact)

    def _exact_of(self, number: int, average: Tensor) -> Tensor:
        """A parameter of the average in fp32 at least; itself where it is that exact."""
        if average.dtype not in (torch.bfloat16, torch.float16):
            return average
        if number not in self._exact:
            self._exact[number] = average.detach().float()
        return self._exact[number]
