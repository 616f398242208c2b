"""A model cut down to some of its layers, as students are cut from their teachers."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from dudi.errors import ConfigError
from dudi.models.image_text import class_for

BY_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers")
"""The lists of configs that have one entry a layer."""


def spaced_layers(total: int, wanted: int) -> list[int]:
    """`wanted` of `total` layers, evenly spaced, the ends included."""
    if wanted == 1:
        return [0]
    return [round(i * (total - 1) / (wanted - 1)) for i in range(wanted)]


def keep_layers(config: PretrainedConfig, kept: int | Sequence[int]) -> list[int]:
    """Cut the whole model's config down to some layers of what reads its text, in place; returns their numbers.

    Raises:
        ConfigError: more layers than there are, one that is not there, or one named twice.
    """
    text = config.get_text_config()
    total = text.num_hidden_layers
    layers = spaced_layers(total, kept) if isinstance(kept, int) and 0 < kept <= total else kept
    if isinstance(layers, int) or not layers or any(not 0 <= layer < total for layer in layers):
        raise ConfigError(f"keep_layers: {kept} of a model with {total} layers, numbered 0 to {total - 1}")
    if len(set(layers)) < len(layers):
        raise ConfigError(f"keep_layers: {kept} of a model with {total} layers; name each layer once")
    values = text.to_dict()
    for name in BY_LAYER:
        if isinstance(values.get(name), list) and len(values[name]) == total:
            setattr(text, name, [values[name][layer] for layer in layers])
    text.num_hidden_layers = len(layers)
    if _reads_back(values.get("layer_types")) and not _reads_back(text.to_dict()["layer_types"]):
        raise ConfigError(f"keep_layers: {kept} keeps linear attention alone, which writes no text; keep a full layer")
    return list(layers)


def _reads_back(types: list[str] | None) -> bool:
    """Whether a layer reads all tokens before: the caches of `transformers` count these by such a layer."""
    return any(one.endswith("attention") and one != "linear_attention" for one in types or [])


def cut_layers(model: PreTrainedModel, kept: int | Sequence[int]) -> PreTrainedModel:
    """A student cut from a model's layers: embeddings, head and norms, and what reads images, as they are.

    Raises:
        ConfigError: as `keep_layers`, or a model whose layers are made in another way by number.
    """
    config = copy.deepcopy(model.config)
    layers = keep_layers(config, kept)
    config.name_or_path = ""  # an adapter of the cut model would be put on the whole one
    twin: PreTrainedModel = class_for(config).from_config(config, dtype=model.dtype)
    prefix = _prefix(model)
    new_name = {f"{prefix}{old}.": f"{prefix}{new}." for new, old in enumerate(layers)}
    state = {}
    for name, tensor in model.state_dict().items():
        own = next((f"{new}{name.removeprefix(old)}" for old, new in new_name.items() if name.startswith(old)), None)
        if own is not None or not name.startswith(prefix):
            state[own or name] = tensor
    try:
        twin.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(
            f"keep_layers: the layers of a {model.config.model_type} model differ by number in a way that dudi does "
            "not know; cut it yourself and name the folder"
        ) from error
    return twin


def _prefix(model: PreTrainedModel) -> str:
    """What the names of the text layers' weights begin with: `model.layers.`."""
    total = model.config.get_text_config().num_hidden_layers
    decoder = model.get_decoder()
    stacks = [name for name, part in decoder.named_modules() if isinstance(part, nn.ModuleList) and len(part) == total]
    outer = next(name for name, part in model.named_modules() if part is decoder)
    named = [f"{outer}.{name}." if outer else f"{name}." for name in stacks]
    if not named:
        raise ConfigError(f"keep_layers: no layers are found in a {model.config.model_type} model")
    return min(named, key=len)
