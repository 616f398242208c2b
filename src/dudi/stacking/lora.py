"""LoRA adapters inside a part of the stack: put in, switched off for the teacher, merged at the end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from dudi.errors import ConfigError
from dudi.models.adapters import drawn_from


@dataclasses.dataclass(frozen=True, slots=True)
class LoraSettings:
    """An adapter of rank r, scaled by alpha / r: 16 and 32 on all linear layers (or those named) are the authors'."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"


AUTHORS = LoraSettings()


def check_goes_on(settings: LoraSettings | None, held: Mapping[str, Any] | None) -> None:
    """Refuse settings of a new adapter for a model that brings one along (`held`), with which it goes on.

    Raises:
        ConfigError: the two differ, and the settings are not the authors', which nobody has to ask for.
    """
    if held is not None and settings not in (None, AUTHORS) and dataclasses.asdict(settings) != dict(held):
        raise ConfigError(
            f"lora: the model goes on with the adapter that it has ({dict(held)}), and {settings} was given: merge it "
            "first (dudi.stacking.merge), or leave the settings out"
        )


def add_lora(module: nn.Module, settings: LoraSettings, seed: int = 0) -> None:
    """Put an adapter into the linear layers of a module, in place; only the adapter is left trainable.

    The module keeps its class, and its weights get names with `base_layer` and `lora_A.default` in them. The adapter's
    start depends on the seed alone.

    Raises:
        ConfigError: peft is not installed, or no layer is called so.
    """
    keys = {"r": settings.r, "lora_alpha": settings.alpha, "lora_dropout": settings.dropout}
    inject(module, {**keys, "target_modules": settings.target_modules}, seed)


def inject(module: nn.Module, keys: Mapping[str, Any], seed: int = 0) -> None:
    """Put an adapter into the linear layers of a module, in place, as peft's `LoraConfig` describes it.

    The keys are those of `adapter_config.json`; what peft does not know is left out.

    Raises:
        ConfigError: peft is not installed, or no layer is called so.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError("lora: needs the package peft; run: pip install 'dudi[peft]'") from None
    known = {field.name for field in dataclasses.fields(LoraConfig) if field.init}
    # GPT-2 keeps its weights the other way round: said here, or peft warns and does it anyway.
    turned = any(type(child).__name__ == "Conv1D" for child in module.modules())
    own = {key: value for key, value in keys.items() if key in known}
    config = LoraConfig(**own | {"fan_in_fan_out": turned, "inference_mode": False})
    try:
        with drawn_from(seed):
            inject_adapter_in_model(config, module)
    except ValueError as error:
        raise ConfigError(f"lora.target_modules: {str(error).splitlines()[0]}") from error


def lora_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights of the adapters inside a module, on the CPU, by their names."""
    held = module.state_dict()
    return {name: tensor.detach().cpu().clone() for name, tensor in held.items() if ".lora_" in name}


@contextlib.contextmanager
def without_lora(module: nn.Module) -> Iterator[None]:
    """The module as it was before the adapter, for the length of a block."""
    layers: list[Any] = [child for child in module.modules() if "lora_A" in child._modules]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merge_lora(module: nn.Module) -> None:
    """Add the adapters to the weights under them and take them away, in place."""
    for name, layer in list(module.named_modules()):
        if "lora_A" in layer._modules:
            layer.merge(safe_merge=True)
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, layer.get_base_layer())
    module.__dict__.pop("peft_config", None)  # or peft takes the next adapter for a second one, and warns
