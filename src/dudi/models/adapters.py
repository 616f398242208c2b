"""The adapters of `peft` on a student: is there one, what is inside, put one on, copy one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dudi.errors import ConfigError

if TYPE_CHECKING:
    from peft import PeftModel

REFERENCE_ADAPTER = "reference"
TEACHER_ADAPTER = "teacher"


def is_adapted(model: nn.Module) -> TypeGuard[PeftModel]:
    """Whether a model carries adapters of `peft`, which need not be installed to ask."""
    return any(kind.__module__.partition(".")[0] == "peft" for kind in type(model).__mro__)


def innermost(model: nn.Module) -> PreTrainedModel:
    """The causal language model inside the adapters; nothing that distributes it may be around them.

    Raises:
        ConfigError: it is no model of `transformers`.
    """
    inner = model.get_base_model() if is_adapted(model) else model
    if not isinstance(inner, PreTrainedModel):
        raise ConfigError(
            f"model: a {type(inner).__name__} is no model of transformers; load it with AutoModelForCausalLM"
        )
    return inner


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Draws inside hang on the seed alone, and those afterwards on nothing inside; torch starts anywhere by itself."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def with_adapter(model: nn.Module, peft_config: Any, seed: int) -> nn.Module:
    """The model with a new adapter, if one is asked for and it has none.

    Args:
        model: The student.
        peft_config: Of the adapter; None: none.
        seed: Of the adapter's start, which depends on nothing else.
    """
    if peft_config is None or is_adapted(model):
        return model
    from peft import get_peft_model

    with drawn_from(seed):
        return get_peft_model(model, copy.deepcopy(peft_config))


def copy_adapter(peft_model: PeftModel, name: str) -> None:
    """Add a frozen copy of the active adapter under another name."""
    active = peft_model.active_adapter
    peft_model.add_adapter(name, copy.deepcopy(peft_model.peft_config[active]))
    with torch.no_grad():
        for own, twin in adapter_pairs(peft_model, active, name):
            twin.copy_(own)
    peft_model.set_adapter(active)


def adapter_pairs(peft_model: PeftModel, first: str, second: str) -> list[tuple[Tensor, Tensor]]:
    """Corresponding parameters of two adapters of one model."""
    parameters = dict(peft_model.named_parameters())
    mark, other = f".{first}.", f".{second}."
    return [(p, parameters[name.replace(mark, other)]) for name, p in parameters.items() if mark in name]
