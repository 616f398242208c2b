"""The two parts of a stack: made empty from a config, or loaded from a checkpoint with nothing missing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    M2M100Config,
    MT5Config,
    MT5EncoderModel,
    PreTrainedConfig,
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)
from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

from dudi.errors import ConfigError, DataError, EnvironmentFault
from dudi.models.load import locate

# Keys of a translation model, as the encoder alone calls them. `M2M100Encoder.from_pretrained` without them leaves
# every weight random and only prints a report.
M2M100_KEYS = {
    r"^model\.encoder\.": "",
    r"^encoder\.": "",
    r"^model\.shared\.": "embed_tokens.",
    r"^shared\.": "embed_tokens.",
}
_IGNORED = ("position_ids",)


def empty_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder with random weights.

    Raises:
        ConfigError: `transformers` has no encoder for this kind of model.
    """
    kind = config.model_type
    if kind == "m2m_100":
        return M2M100Encoder(cast(M2M100Config, config))
    if kind == "mt5":
        return MT5EncoderModel(cast(MT5Config, config))
    if kind == "xlm-roberta":
        return XLMRobertaModel(cast(XLMRobertaConfig, config), add_pooling_layer=False)
    try:
        return AutoModelForTextEncoding.from_config(config)
    except ValueError as error:
        raise ConfigError(f"encoder: transformers has no text encoder of the kind '{kind}'") from error


def empty_llm(config: PreTrainedConfig) -> PreTrainedModel:
    """A decoder without its head, with random weights."""
    return AutoModel.from_config(config)


def load_encoder(name: str, *, dtype: torch.dtype, revision: str | None = None) -> PreTrainedModel:
    """The encoder of a checkpoint: of NLLB or M2M100 without its decoder, MT5, XLM-R, or any text encoder.

    Raises:
        ConfigError: no such model, or it has no encoder.
        DataError: a weight of the encoder is not in the checkpoint.
    """
    place = locate(name)
    options: dict[str, Any] = {"dtype": dtype, "revision": revision, "output_loading_info": True}
    kind = _config(name, place, revision).model_type
    if kind == "m2m_100":
        load: Callable[..., Any] = M2M100Encoder.from_pretrained
        options["key_mapping"] = M2M100_KEYS
    elif kind == "xlm-roberta":
        load, options = XLMRobertaModel.from_pretrained, options | {"add_pooling_layer": False}
    else:
        load = MT5EncoderModel.from_pretrained if kind == "mt5" else AutoModelForTextEncoding.from_pretrained
    return _loaded("encoder", name, lambda: load(place, **options))


def load_llm(
    name: str, *, dtype: torch.dtype, revision: str | None = None, attn_implementation: str | None = None
) -> PreTrainedModel:
    """A decoder without its head.

    Raises:
        ConfigError: no such model.
        DataError: a weight is not in the checkpoint.
    """
    options: dict[str, Any] = {"dtype": dtype, "revision": revision, "attn_implementation": attn_implementation}
    return _loaded("llm", name, lambda: AutoModel.from_pretrained(locate(name), output_loading_info=True, **options))


def _config(name: str, place: str, revision: str | None) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(place, revision=revision)
    except (OSError, ValueError) as error:
        raise _unreachable("encoder", name, error) from error


def _loaded(role: str, name: str, load: Callable[[], Any]) -> PreTrainedModel:
    try:
        model, info = load()
    except (OSError, ValueError) as error:
        raise _unreachable(role, name, error) from error
    check_loaded(name, [key for key in info["missing_keys"] if not key.endswith(_IGNORED)])
    return model


def _unreachable(role: str, name: str, error: Exception) -> ConfigError | EnvironmentFault:
    from pathlib import Path

    reason = str(error).partition("\n")[0][:160]
    if Path(name).is_absolute() or Path(name).exists() or name.startswith("."):
        return ConfigError(f"{role}: {name} is no model that can be read ({reason})")
    return EnvironmentFault(
        f"{role}: {name} cannot be had: {reason}; give a local folder, or check the name and the network"
    )


def bare_encoder(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder inside a model that was built in Python, as a copy."""
    inner: nn.Module = model
    if model.config.is_encoder_decoder and not type(model).__name__.endswith(("Encoder", "EncoderModel")):
        inner = model.get_encoder()
    elif model.base_model is not model:
        inner = model.base_model
    return _copied(inner, lambda: empty_encoder(copy.deepcopy(model.config)))


def bare_llm(model: PreTrainedModel) -> PreTrainedModel:
    """The decoder inside a causal language model that was built in Python, as a copy."""
    return _copied(model.base_model, lambda: empty_llm(copy.deepcopy(model.config)))


def _copied(source: nn.Module, make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """A new model with the weights of `source`, in its precision.

    It is made in that precision, as `from_pretrained` does: moved there, rotary frequencies would be rounded too.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(next(source.parameters()).dtype)
    try:
        target = make()
    finally:
        torch.set_default_dtype(usual)
    own, given = target.state_dict(), source.state_dict()
    # T5's encoder stack stands one level deeper in the encoder model than in the whole one.
    nested = {f"encoder.{key}": value for key, value in given.items()} if not own.keys() <= given.keys() else {}
    merged = {key: value for key, value in (nested | given).items() if key in own}
    if "shared.weight" in own and "shared.weight" not in merged and "embed_tokens.weight" in given:
        merged["shared.weight"] = given["embed_tokens.weight"]
    check_loaded(type(source).__name__, [key for key in own if key not in merged])
    target.load_state_dict(merged)
    return target


def check_loaded(name: str, missing: Sequence[str]) -> None:
    """Refuse a model of which weights stayed random.

    Raises:
        DataError: naming the first ones.
    """
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(
            f"{name}: weights are missing in the checkpoint and would be random: {', '.join(missing[:3])}{more}"
        )
