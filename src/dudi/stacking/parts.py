"""The two parts of a stack: made empty from a config, or loaded from a checkpoint with nothing missing."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, M2M100Config, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
)
from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder
from transformers.utils import logging

from dudi.errors import ConfigError, DataError, EnvironmentFault, first_of
from dudi.models.load import load_model, locate

# Keys of a translation model, as the encoder alone calls them; without them `from_pretrained` leaves weights random.
M2M100_KEYS = {
    r"^model\.encoder\.": "",
    r"^encoder\.": "",
    r"^model\.shared\.": "embed_tokens.",
    r"^shared\.": "embed_tokens.",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """An encoder or an LLM, and the config that it is made again from.

    Attributes:
        model: The part alone.
        config: Of the whole model where the part is the encoder of one; else the part's own.
        digest: Of its weights as they were loaded, by `digest_of`; empty of a part that was built in Python.
        adapters: Of the adapters that were merged into it after that (`llm2vec.digest_of_adapters`); empty without any.
    """

    model: PreTrainedModel
    config: PreTrainedConfig
    digest: str = ""
    adapters: str = ""


# ---- the classes


def _class_of(role: str, config: PreTrainedConfig) -> tuple[Any, dict[str, bool]]:
    """The class that holds a part, and what it is made with.

    It is the one without a decoder where there is one (T5), else that of the model without a head. A layer for the
    first token's vector (BERT) is left out: it is not read here, and often not saved.
    """
    kinds: Any = MODEL_MAPPING
    if role == "encoder" and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING:
        alone: Any = MODEL_FOR_TEXT_ENCODING_MAPPING[type(config)]
        # T5Gemma's wants a config that says that there is no decoder.
        if alone.__name__.endswith("EncoderModel") and config.model_type != "t5gemma":
            kinds = MODEL_FOR_TEXT_ENCODING_MAPPING
    if type(config) not in kinds:
        raise ConfigError(f"{role}: transformers has no model of the kind '{config.model_type}' that reads text")
    found = kinds[type(config)]
    kind = found[0] if isinstance(found, tuple) else found
    pools = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    return kind, {"add_pooling_layer": False} if pools else {}


def _encoder_in(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder of a model with an encoder and a decoder, or a model that is one."""
    reader = model
    if model.config.is_encoder_decoder or type(model).__name__.endswith("EncoderModel"):
        reader = cast(PreTrainedModel, model.get_encoder())
    if "input_ids" not in inspect.signature(reader.forward).parameters:
        raise ConfigError(f"encoder: a {type(model).__name__} does not read text")
    if not isinstance(reader, PreTrainedModel):  # FSMT's
        raise ConfigError(f"encoder: the encoder of a {type(model).__name__} cannot stand alone; take another encoder")
    return reader


def check_encoder_config(config: PreTrainedConfig) -> None:
    """Refuse a decoder in the place of the encoder by what its config says, before its weights are read.

    It was saved as a causal language model, and its kind has no masked one. What stays in doubt is let pass:
    `checks.check_encoder` looks at the states.
    """
    causal = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in config.architectures or ())
    sees_all = getattr(config, "use_bidirectional_attention", False) or getattr(config, "is_causal", True) is False
    known = (MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_TEXT_ENCODING_MAPPING)
    if causal and not config.is_encoder_decoder and not sees_all and not any(type(config) in kinds for kinds in known):
        raise ConfigError(
            f"encoder: a {(config.architectures or ['?'])[0]} reads from left to right and is no encoder; a decoder is "
            "named in llm"
        )


def empty_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder with random weights; a ConfigError where `transformers` has none for this kind of model."""
    if config.model_type == "m2m_100":
        return M2M100Encoder(cast(M2M100Config, config))
    kind, options = _class_of("encoder", config)
    return _encoder_in(kind._from_config(config, **options))


def empty_llm(config: PreTrainedConfig) -> PreTrainedModel:
    """A decoder without its head, with random weights."""
    kind, options = _class_of("llm", config)
    return cast(PreTrainedModel, kind._from_config(config, **options))


# ---- from a checkpoint


def load_encoder(name: str, *, dtype: torch.dtype, revision: str | None = None) -> Part:
    """The encoder of a checkpoint: what `get_encoder()` gives of one with a decoder, or a text encoder as it is.

    NLLB and M2M100 are read without their decoders; so are T5, MT5 and UMT5. Others are loaded whole and cut.

    Raises:
        ConfigError: no such model, or it has no encoder.
        DataError: a weight of the encoder is not in the checkpoint.
    """
    config = config_of("encoder", name, revision)
    options: dict[str, Any] = {"dtype": dtype, "revision": revision}
    if config.model_type == "m2m_100":
        encoder = _loaded("encoder", name, M2M100Encoder, lambda model: model, key_mapping=M2M100_KEYS, **options)
    else:
        kind, own = _class_of("encoder", config)
        encoder = _loaded("encoder", name, kind, _encoder_in, **own, **options)
    return Part(encoder, config, digest_of(encoder))


def load_llm(
    name: str,
    *,
    dtype: torch.dtype,
    revision: str | None = None,
    attn_implementation: str | None = None,
    gguf_file: str | None = None,
    keep_layers: int | Sequence[int] | None = None,
) -> Part:
    """A decoder without its head; of a model that reads images too, the part that reads text.

    Arguments as of `building.build_stack`.

    Raises:
        ConfigError: no such model.
        DataError: a weight is not in the checkpoint.
    """
    if gguf_file is not None or keep_layers is not None:
        whole = load_model(
            name, dtype=dtype, revision=revision, attn_implementation=attn_implementation,
            gguf_file=gguf_file, keep_layers=keep_layers,
        )  # fmt: skip
        decoder = _decoder_in(whole)
    else:
        kind, options = _class_of("llm", config_of("llm", name, revision))
        decoder = _loaded(
            "llm", name, kind, _decoder_in,
            dtype=dtype, revision=revision, attn_implementation=attn_implementation, **options,
        )  # fmt: skip
    return Part(decoder, decoder.config, digest_of(decoder))


def _decoder_in(model: PreTrainedModel) -> PreTrainedModel:
    """The decoder inside a causal language model, or inside one that reads images too."""
    inner: Any = model.base_model
    return inner if inner.config.get_text_config() is inner.config else inner.get_decoder()


def config_of(role: str, name: str, revision: str | None) -> PreTrainedConfig:
    """The config of a checkpoint, which messages call the `encoder` or the `llm`."""
    try:
        return AutoConfig.from_pretrained(locate(name), revision=revision)
    except (OSError, ValueError) as error:
        raise _unreachable(role, name, error) from error


def _loaded(
    role: str, name: str, kind: Any, cut: Callable[[PreTrainedModel], PreTrainedModel], **options: Any
) -> PreTrainedModel:
    """The part that `cut` takes of a model; none of its weights is missing in the checkpoint."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # it reports each weight of a decoder that is left out; what is missing we say
    try:
        model, info = kind.from_pretrained(locate(name), output_loading_info=True, **options)
    except (OSError, ValueError) as error:
        raise _unreachable(role, name, error) from error
    finally:
        logging.set_verbosity(before)
    part = cut(model)
    inside = next(path for path, module in model.named_modules() if module is part)
    missing = []
    for key in info["missing_keys"]:
        layer: Any = model.get_submodule(key.rpartition(".")[0])
        # Positions that a layer computes are not saved; Marian's, Pegasus' and RoFormer's are parameters all the same.
        computed = hasattr(layer, "create_weight") and torch.equal(layer.weight, layer.create_weight())
        if key.startswith(inside) and not key.endswith("position_ids") and not computed:
            missing.append(key)
    check_loaded(name, missing)
    return part


def _unreachable(role: str, name: str, error: Exception) -> ConfigError | EnvironmentFault:
    reason = str(error).partition("\n")[0][:160]
    if Path(name).is_absolute() or Path(name).exists() or name.startswith("."):
        return ConfigError(f"{role}: {name} is no model that can be read ({reason})")
    return EnvironmentFault(
        f"{role}: {name} cannot be had: {reason}; give a local folder, or check the name and the network"
    )


def digest_of(module: nn.Module) -> str:
    """A hash that tells one model's weights from another's: of each tensor its name, its shape and 16 of its values.

    The values are taken in bf16, so that a model has one digest in bf16 and in fp32.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.flatten()
        # A place beyond 2^24 is rounded, the last one to behind the end.
        places = torch.linspace(0, len(flat) - 1, 16).long().clamp(max=len(flat) - 1).to(flat.device)
        values = flat[places].to(torch.bfloat16).float().tolist()
        digest.update(f"{name} {tuple(tensor.shape)} {values}\n".encode())
    return digest.hexdigest()


def check_loaded(name: str, missing: Sequence[str]) -> None:
    """Refuse a model some of whose weights are missing and stayed random: a DataError names the first ones."""
    if missing:
        raise DataError(f"{name}: weights are missing in the checkpoint and would be random: {first_of(missing, 3)}")


# ---- from a model in memory


def bare_encoder(model: PreTrainedModel) -> Part:
    """The encoder inside a model that was built in Python, as a copy."""
    config = copy.deepcopy(model.config)
    alone = type(model).__name__.endswith("Encoder") or not model.config.is_encoder_decoder
    inner = model.base_model if alone else model.get_encoder()
    if alone and type(model).__name__.endswith("EncoderModel"):
        inner = _encoder_in(model)
    return Part(_copied(inner, lambda: empty_encoder(copy.deepcopy(config))), config)


def bare_llm(model: PreTrainedModel) -> Part:
    """The decoder inside a causal language model that was built in Python, as a copy."""
    inner = _decoder_in(model)
    config = copy.deepcopy(inner.config)
    return Part(_copied(inner, lambda: empty_llm(copy.deepcopy(config))), config)


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
    check_loaded(type(source).__name__, [key for key in own if key not in given])
    target.load_state_dict({key: given[key] for key in own})
    return target
