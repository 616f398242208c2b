"""The head of a stack's LLM, which reading has no use for: found at the LLM's parent, and put on top of it again."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from dudi.errors import ConfigError
from dudi.models.load import load_model
from dudi.stacking.llm2vec import base_and_adapters

TIED, LINEAR, BIASED = "tied", "linear", "biased"
"""What `config.head` calls a head."""


def head_in(model: PreTrainedModel) -> nn.Linear | None:
    """The head of a whole causal language model; None where it is the model's embeddings.

    Raises:
        ConfigError: it is no linear layer.
    """
    layer: Any = model.get_output_embeddings()
    words: Any = model.get_input_embeddings()
    if not isinstance(layer, nn.Linear):
        raise ConfigError(f"generation: the head of this {type(model).__name__} is no linear layer")
    return None if layer.weight is words.weight and layer.bias is None else layer


def head_of_parent(parent: dict[str, Any], dtype: torch.dtype) -> nn.Linear | None:
    """The head of the LLM that a stack was built on; the whole model is in memory for the length of the call.

    Args:
        parent: Of `config.parents`.
        dtype: Precision of the head.

    Raises:
        ConfigError, EnvironmentFault: the model cannot be had.
        DataError: a weight of it is missing.
    """
    base, _ = base_and_adapters(parent["name"])
    revision = parent.get("revision") if base == parent["name"] else None
    whole = load_model(base, dtype=dtype, revision=revision, gguf_file=parent.get("gguf_file"))
    return head_in(whole)


def causal_class(config: PreTrainedConfig) -> Any:
    """The class of `transformers` that writes with a decoder, by the decoder's config.

    Raises:
        ConfigError: there is none: the decoder is a part of a larger model (Qwen2.5-VL's).
    """
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if kind is None:
        raise ConfigError(
            f"generation: transformers has no model of the kind '{config.model_type}' that writes; take another LLM"
        )
    return kind


def whole_llm(llm: PreTrainedModel, head: nn.Linear | None) -> Any:
    """The causal language model of `transformers` that a decoder and a head make (no copy): it can `generate`.

    Args:
        llm: The decoder.
        head: Its head; None: its embeddings.

    Raises:
        ConfigError: `transformers` has no such model, or it has more parts than these.
    """
    kind = causal_class(llm.config)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        whole = kind._from_config(llm.config)
        layer = nn.Linear(1, 1, bias=False) if head is None else head
    if head is None:
        embed: Any = llm.get_input_embeddings()
        layer.weight = embed.weight
    setattr(whole, whole.base_model_prefix, llm)
    whole.set_output_embeddings(layer)
    if any(parameter.is_meta for parameter in whole.parameters()):
        raise ConfigError(f"generation: a {kind.__name__} has more parts than its decoder and its head")
    return whole.train(llm.training)
