"""The adapters of `peft` on a student: is there one, what is inside, put one on, copy one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dudi.errors import ConfigError

if TYPE_CHECKING:
    from peft import PeftModel

REFERENCE_ADAPTER = "reference"
TEACHER_ADAPTER = "teacher"
WITHOUT_EFFECT: dict[str, str] = {
    "task_type": "names the class around the model, which computes the same",
    "auto_mapping": "names the base's class for those who load the adapter",
    "peft_version": "of no library the version is part of a run's identity",
    "base_model_name_or_path": "the base's weights are part of it, whatever they are called",
    "revision": "likewise",
    "inference_mode": "an adapter in this mode is not trained",
    "runtime_config": "where matrices are computed, not what",
}
"""The fields of adapters' configs that change no number, and why; every other one is part of what a run is."""


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


def adapter_settings(model: nn.Module) -> dict[str, Any] | None:
    """What decides how an adapter learns, beside its weights: kind, rank, alpha, dropout, targets, initialisation ...

    Returns:
        The fields of the active adapter's config but those `WITHOUT_EFFECT`, as JSON values; None without an adapter.
    """
    if not is_adapted(model):
        return None
    config = model.peft_config[model.active_adapter]
    return {name: _plain(value) for name, value in config.to_dict().items() if name not in WITHOUT_EFFECT}


def _plain(value: Any) -> Any:
    """A config's value as JSON, the same whatever order a set has."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def in_adapter(name: str, adapter: str) -> bool:
    """Whether the parameter of this name belongs to an adapter: `...lora_A.default.weight`, `...ia3_l.default`."""
    return adapter in name.split(".")


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
