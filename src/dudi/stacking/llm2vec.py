"""LLMs that come as a base and LoRA adapters, as LLM2Vec's do: MNTP, then SimCSE, each merged before the next."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
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
    name: str, adapters: Sequence[str] = (), *, revision: str | None = None, **options: Any
) -> parts.Part:
    """A decoder without its head, adapters merged into it in their order.

    `name` is a model, or a folder of an adapter alone, which names its base. Options are those of `parts.load_llm`.

    Raises:
        ConfigError: something cannot be read, or is an adapter of another kind.
        DataError: an adapter does not fit the model.
    """
    base, first = base_and_adapters(name)
    chain = [*first, *adapters]
    part = parts.load_llm(base, revision=revision if base == name else None, **options)
    merge_adapters(part.model, chain)
    return dataclasses.replace(part, adapters=digest_of_adapters(chain))


def base_and_adapters(name: str) -> tuple[str, list[str]]:
    """A model and no adapter; or the base that a folder of an adapter alone names, and that folder.

    Raises:
        ConfigError: its config cannot be read.
    """
    place = locate(name)
    if any(find_file(place, file) is not None for file in WHOLE):
        return name, []
    found = find_file(place, CONFIG)
    return (name, []) if found is None else (str(_read(found)["base_model_name_or_path"]), [name])


def merge_adapters(model: PreTrainedModel, adapters: Sequence[str]) -> None:
    """Merge LoRA adapters into a model, in place, one after the other.

    Raises:
        ConfigError: an adapter cannot be read, or is of another kind.
        DataError: a weight of the adapter has no place in the model, or one is missing.
    """
    for name in adapters:
        described = check_adapter(name)
        given = {_plain(key): tensor for key, tensor in load_file(_need(name, WEIGHTS)).items()}
        # Every key of it counts: with rsLoRA the scale is another, a rank may differ from layer to layer.
        lora.inject(model, described | {"lora_dropout": 0.0})
        held = model.state_dict()
        wanted = {key.replace(".default.", "."): tensor for key, tensor in held.items() if ".lora_" in key}
        # An adapter whose weights go nowhere would leave the base as it is, and say nothing.
        lost, missing = given.keys() - wanted.keys(), wanted.keys() - given.keys()
        for odd, what in ((lost, "has no place in the model"), (missing, "is missing in the adapter")):
            if odd:
                raise DataError(f"{name}: {min(odd)} {what} ({len(odd)} of {len(wanted)})")
        for key, tensor in wanted.items():
            if tensor.shape != given[key].shape:
                shapes = f"shape {tuple(given[key].shape)} where the model has {tuple(tensor.shape)}"
                raise DataError(f"{name}: {key}: {shapes}")
            tensor.copy_(given[key])
        lora.merge_lora(model)


def _plain(key: str) -> str:
    """`base_model.model.model.layers.0...` as a decoder without a head calls it."""
    key = key.removeprefix("base_model.model.")
    if key.endswith("lora_magnitude_vector"):  # DoRA's, which peft saves under a shorter name
        key += ".weight"
    return key.removeprefix("model.").removeprefix("transformer.")


def digest_of_adapters(names: Sequence[str]) -> str:
    """A hash of adapters, wherever their base lies: of their weights and their settings; empty without any."""
    if not names:
        return ""
    settings = [check_adapter(name) for name in names]
    weights = [sha256_of(_need(name, WEIGHTS)) for name in names]
    return sha256_of_json([weights, [{**own, "base_model_name_or_path": None} for own in settings]])


def check_adapter(name: str) -> dict[str, Any]:
    """What an adapter says of itself, without its weights.

    Raises:
        ConfigError: it has no config, or is of a kind that cannot be merged.
        EnvironmentFault: it cannot be had.
    """
    described = _read(_need(name, CONFIG))
    if described.get("peft_type") != "LORA":
        raise ConfigError(f"{name}: an adapter of the kind {described.get('peft_type')}; only LORA can be merged")
    if described.get("modules_to_save"):
        raise ConfigError(f"{name}: it replaces whole layers ({described['modules_to_save']}); only LORA can be merged")
    return described


def find_file(place: str, file: str, revision: str | None = None, *, required: bool = False) -> Path | None:
    """A file of a folder or of a repository on the hub; None where it has none, or cannot be had.

    Raises:
        EnvironmentFault: it cannot be had, and is `required`.
    """
    if Path(place).is_dir():
        path = Path(place) / file
        return path if path.is_file() else None
    try:
        found = cached_file(place, file, revision=revision, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        if not required:
            return None
        raise EnvironmentFault(f"{place}: cannot be had: {str(error).partition(chr(10))[0][:160]}") from error
    return None if found is None else Path(found)


def _need(name: str, file: str) -> Path:
    path = find_file(locate(name), file, required=True)
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
