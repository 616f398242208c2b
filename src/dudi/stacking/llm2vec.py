"""LLMs that come as a base and LoRA adapters, as LLM2Vec's do: MNTP, then SimCSE, each merged before the next."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import cached_file

from dudi.errors import ConfigError, DataError, EnvironmentFault
from dudi.files import sha256_of, sha256_of_json
from dudi.models.load import locate
from dudi.stacking import lora, parts

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WHOLE = ("model.safetensors", "model.safetensors.index.json")
"""Of a model that is no adapter."""


def load_adapted_llm(
    name: str,
    adapters: Sequence[str] = (),
    *,
    dtype: torch.dtype,
    revision: str | None = None,
    attn_implementation: str | None = None,
    gguf_file: str | None = None,
    keep_layers: int | Sequence[int] | None = None,
) -> parts.Part:
    """A decoder without its head, adapters merged into it.

    Args:
        name: A model, or a folder of an adapter alone, which names its base.
        adapters: More adapters, merged in this order.
        dtype: Precision of the weights.
        revision: Of `name` on the hub.
        attn_implementation: As in `from_pretrained`.
        gguf_file: As in `parts.load_llm`.
        keep_layers: As there.

    Raises:
        ConfigError: something cannot be read, or is an adapter of another kind.
        DataError: an adapter does not fit the model.
    """
    base, first = base_and_adapters(name)
    chain = [*first, *adapters]
    own_revision = revision if base == name else None
    part = parts.load_llm(
        base,
        dtype=dtype,
        revision=own_revision,
        attn_implementation=attn_implementation,
        gguf_file=gguf_file,
        keep_layers=keep_layers,
    )
    merge_adapters(part.model, chain)
    return dataclasses.replace(part, adapters=digest_of_adapters(chain))


def base_and_adapters(name: str) -> tuple[str, list[str]]:
    """A model and no adapter; or the base that a folder of an adapter alone names, and that folder.

    Raises:
        ConfigError: its config cannot be read.
    """
    place = locate(name)
    if any(_file(place, file, required=False) is not None for file in WHOLE):
        return name, []
    found = _file(place, CONFIG, required=False)
    return (name, []) if found is None else (str(_read(found)["base_model_name_or_path"]), [name])


def merge_adapters(model: PreTrainedModel, adapters: Sequence[str]) -> PreTrainedModel:
    """Merge LoRA adapters into a model, in place, one after the other.

    Raises:
        ConfigError: an adapter cannot be read, or is of another kind.
        DataError: a weight of the adapter has no place in the model, or one is missing.
    """
    for name in adapters:
        _add(model, name)
        lora.merge_lora(model)
    return model


def digest_of_adapters(names: Sequence[str]) -> str:
    """A hash of adapters, wherever their base lies: of their weights and their settings; empty without any."""
    if not names:
        return ""
    settings = [check_adapter(name) for name in names]
    weights = [sha256_of(_need(locate(name), WEIGHTS, name)) for name in names]
    return sha256_of_json([weights, [{**own, "base_model_name_or_path": None} for own in settings]])


def check_adapter(name: str) -> dict[str, Any]:
    """What an adapter says of itself, without its weights.

    Raises:
        ConfigError: it has no config, or is of a kind that cannot be merged.
        EnvironmentFault: it cannot be had.
    """
    described = _read(_need(locate(name), CONFIG, name))
    if described.get("peft_type") != "LORA":
        raise ConfigError(f"{name}: an adapter of the kind {described.get('peft_type')}; only LORA can be merged")
    if described.get("modules_to_save"):
        raise ConfigError(f"{name}: it replaces whole layers ({described['modules_to_save']}); only LORA can be merged")
    return described


def _add(model: PreTrainedModel, name: str) -> None:
    place, described = locate(name), check_adapter(name)
    from safetensors.torch import load_file

    given = load_file(_need(place, WEIGHTS, name))
    # Every key of it counts: with rsLoRA the scale is another, a rank may differ from layer to layer.
    lora.inject(model, described | {"lora_dropout": 0.0})
    own = {key: tensor for key, tensor in model.state_dict().items() if ".lora_" in key}
    named = {_plain(key): tensor for key, tensor in given.items()}
    wanted = {key.replace(".default.", "."): tensor for key, tensor in own.items()}
    _check_same(name, set(named), set(wanted))
    with torch.no_grad():
        for key, tensor in wanted.items():
            _fill(tensor, named[key], f"{name}: {key}")


def _fill(tensor: Tensor, value: Tensor, where: str) -> None:
    if tensor.shape != value.shape:
        raise DataError(f"{where}: shape {tuple(value.shape)} where the model has {tuple(tensor.shape)}")
    tensor.copy_(value)


def _plain(key: str) -> str:
    """`base_model.model.model.layers.0...` as a decoder without a head calls it."""
    key = key.removeprefix("base_model.model.")
    if key.endswith("lora_magnitude_vector"):  # DoRA's, which peft saves under a shorter name
        key += ".weight"
    return key.removeprefix("model.").removeprefix("transformer.")


def _check_same(name: str, given: set[str], wanted: set[str]) -> None:
    """An adapter whose weights go nowhere would leave the base as it is, and say nothing."""
    for odd, what in ((given - wanted, "has no place in the model"), (wanted - given, "is missing in the adapter")):
        if odd:
            raise DataError(f"{name}: {sorted(odd)[0]} {what} ({len(odd)} of {len(wanted)})")


def _file(place: str, file: str, *, required: bool) -> Path | None:
    if Path(place).is_dir():
        path = Path(place) / file
        return path if path.is_file() else None
    try:
        found = cached_file(place, file, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        if not required:
            return None
        raise EnvironmentFault(f"{place}: cannot be had: {str(error).partition(chr(10))[0][:160]}") from error
    return None if found is None else Path(found)


def _need(place: str, file: str, name: str) -> Path:
    path = _file(place, file, required=True)
    if path is None:
        raise ConfigError(f"llm.adapters: {name} has no {file}")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no mapping")
    return values
