"""Only what was trained, on the disk: the rest of a stack is its parents', and is put together when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from dudi.errors import ConfigError, DataError, DudiError
from dudi.models.load import PACKAGE
from dudi.stacking import llm2vec, lora, parts

TRAINED = "trained.safetensors"
"""The file of what was trained; there is none where all weights are saved together."""
LOCAL = "local"
"""Of a parent in `config.json`: whether it was a folder with a relative name, and no name on the hub."""
ADAPTERS = "adapters_digest"
"""Of a parent in `config.json`: the hash of the adapters that were merged into it; versions before wrote none."""
_ABOUT = ("name", "adapters", "digest", LOCAL, ADAPTERS)
_MERGED, HEADS = "merged.", ("score.", "lm_head.")


# ---- saving


def save_trained(model: Any, folder: Path) -> None:
    """Save a stack as `config.json` and `trained.safetensors`, without the weights that are its parents'.

    A part without a parent in the config has been trained whole, and is saved whole.
    """
    reader, config = model.reader, model.config
    tensors = {name: value for name, value in reader.state_dict().items() if not _inherited(name, config.parents)}
    for number, weights in enumerate(reader.merged):
        tensors |= {f"{_MERGED}{number}.{name}": tensor for name, tensor in weights.items()}
    if model is not reader:
        own = HEADS if "llm" not in config.parents else ("score.",)  # a parent brings its own along
        tensors |= {name: value for name, value in model.state_dict().items() if name.startswith(own)}
    config.architectures = [type(model).__name__]
    held = [value.dtype for name, value in reader.named_parameters() if _inherited(name, config.parents)]
    config.dtype = str(held[0] if held else torch.float32).removeprefix("torch.")
    config.save_pretrained(folder)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / TRAINED)


def _inherited(name: str, parents: Mapping[str, Any]) -> bool:
    """Whether a weight of a reader is a parent's: in a part that has one, and no adapter's."""
    return name.partition(".")[0] in parents and ".lora_" not in name


def parent_of(part: parts.Part, name: Any, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `config.parents` says of a part: what it was read from and with; None where it was built in Python."""
    if not part.digest:
        return None
    parent = {"name": name, **options, "digest": part.digest}
    if Path(name).is_dir() and not Path(name).is_absolute():
        parent[LOCAL] = True  # elsewhere its name looks like one on the hub
    if part.adapters:
        parent[ADAPTERS] = part.adapters
    return parent


def trained_whole(model: Any, role: str) -> None:
    """Note that all weights of a part are trained: it is saved whole, and nothing of a parent is left in it."""
    config, model.reader.merged = model.config, []
    config.merged = None
    if config.parents is not None:
        config.parents = {own: parent for own, parent in config.parents.items() if own != role}


# ---- loading


def fill(model: Any, trained: Path, dtype: Any = "auto") -> None:
    """Give a model that was made on the meta device the weights of its parents and what was trained, in place.

    `dtype` is the parents' weights'; `auto`: as when it was saved.

    Raises:
        ConfigError: a parent cannot be had.
        DataError: a weight is missing, or has no place; or a parent is another model than the one that was trained on.
    """
    place, saved = str(trained.parent), load_file(trained)
    reader, config = model.reader, model.config
    config.parents = {role: from_here(parent, role, place) for role, parent in (config.parents or {}).items()}
    wanted = config.dtype if dtype in ("auto", None) else dtype
    precision = getattr(torch, wanted) if isinstance(wanted, str) else wanted
    reader.encoder = _part(place, "encoder", config, precision)
    reader.llm = _part(place, "llm", config, precision)
    if reader.llm is not None:
        reader.llm.config.is_causal, reader.llm.config.use_cache = config.attention == "causal", False
    _merge_again(reader, config.merged or [], saved, place)
    if config.lora is not None:
        lora.add_lora(reader.adapted, lora.LoraSettings(**config.lora))
        for name, weights in reader.adapted.named_parameters():
            if ".lora_" in name:
                weights.data = weights.data.float()
    for own in (reader.connector, reader.boundary):
        if own is not None:
            own.to_empty(device="cpu").float()
    head = {name: saved.pop(name) for name in list(saved) if name.startswith(HEADS)}
    copy_into(reader, saved, [name for name in reader.state_dict() if not _inherited(name, config.parents)], place)
    if model is not reader:
        model.fill_head(head, place)


def from_here(parent: Mapping[str, Any], role: str, place: str) -> dict[str, Any]:
    """A parent whose names lead to it from the working directory, too: a relative one counts from where it was saved.

    Nothing says where that was, but a run mostly lies below it: each folder above the model, in `place`, is tried.

    Raises:
        ConfigError: the parent was a folder (`local`), and is in none of them.
    """
    named: dict[str, Any] = {"name": _from_here(str(parent["name"]), place)}
    if "adapters" in parent:
        named["adapters"] = [_from_here(name, place) for name in parent["adapters"]]
    if parent.get(LOCAL) and not Path(named["name"]).is_dir():
        raise ConfigError(
            f"{place}: its {role} is the folder {parent['name']}, relative to where the run was made, and is there "
            "neither from here nor from any folder above the run; go to where the run was made"
        )
    return {**parent, **named}


def _from_here(name: str, place: str) -> str:
    if Path(name).is_absolute() or name.startswith(PACKAGE) or Path(name).exists():
        return name
    above = Path(place).resolve().parents
    return next((str(folder / name) for folder in above if (folder / name).is_dir()), name)


def _part(place: str, role: str, config: Any, dtype: torch.dtype) -> PreTrainedModel | None:
    """A part with its parent's weights; one that was trained whole is empty, and gets those that were saved."""
    own, parent = getattr(config, f"{role}_config"), config.parents.get(role)
    if own is None:
        return None
    if parent is None:
        empty = parts.empty_encoder(own) if role == "encoder" else parts.empty_llm(own)
        return empty.to(dtype)  # type: ignore[arg-type]
    keys = {key: value for key, value in parent.items() if key not in _ABOUT}
    try:
        if role == "encoder":
            part = parts.load_encoder(parent["name"], dtype=dtype, **keys)
        else:
            part = llm2vec.load_adapted_llm(parent["name"], parent["adapters"], dtype=dtype, **keys)
    except DudiError as error:
        raise ConfigError(f"{place}: holds what was trained, and its {role} cannot be had: {error}") from error
    if part.digest != parent["digest"] or part.adapters != parent.get(ADAPTERS, part.adapters):
        raise DataError(f"{place}: {parent['name']} is another {role} than the one that this was trained on")
    return part.model


def _merge_again(reader: Any, settings: list[dict[str, Any]], saved: dict[str, Tensor], place: str) -> None:
    """Merge the adapters that were merged when this was trained, one after the other."""
    reader.merged = []
    for number, own in enumerate(settings):
        begin = f"{_MERGED}{number}."
        weights = {name.removeprefix(begin): saved.pop(name) for name in list(saved) if name.startswith(begin)}
        lora.add_lora(reader.adapted, lora.LoraSettings(**own))
        copy_into(reader.adapted, weights, list(lora.lora_weights(reader.adapted)), place)
        lora.merge_lora(reader.adapted)
        reader.merged.append(weights)


@torch.no_grad()
def copy_into(module: nn.Module, tensors: Mapping[str, Tensor], wanted: list[str], place: str) -> None:
    """Copy tensors into a module by their names: each has to have a place, and each that is wanted has to be there."""
    own = module.state_dict()
    parts.check_loaded(place, [name for name in wanted if name not in tensors])
    for name, tensor in tensors.items():
        if name not in own or own[name].shape != tensor.shape:
            raise DataError(f"{place}: {name} has no place in this model; is config.json another's than {TRAINED}?")
        own[name].copy_(tensor)
