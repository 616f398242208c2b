"""What a decoder multiplies: its shape, and the FLOPs of its passes. No weights are read.

A multiplication and an addition are two. The formulas describe llama-like decoders as `transformers` runs them:
pre-norm, gated MLP, scaled-dot-product attention that never holds the (T, T) matrix.
"""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from dudi.errors import ConfigError
from dudi.models.image_text import class_for, text_modules


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """The numbers that decide what a model costs.

    Attributes:
        parameters: All weights; tied ones count once.
        text: Those that read or write text, which can be trained; all of them but in a model that reads images too.
        linear: Weights of the matrix products that every token goes through, without the head.
        hidden: Width of the residual stream.
        query: Query heads (`heads`) times their width.
        key_value: Key (or value) heads times their width.
        intermediate: Inner width of the MLP.
        vocabulary: Rows of the head.
        normed_heads: Whether queries and keys are normed (Qwen3).
        experts: Whether the MLP is a mixture of experts, all of which `linear` counts.
    """

    name: str
    parameters: int
    text: int
    linear: int
    layers: int
    hidden: int
    query: int
    key_value: int
    heads: int
    intermediate: int
    vocabulary: int
    normed_heads: bool = False
    experts: bool = False


def empty_model(config: PretrainedConfig) -> PreTrainedModel:
    """The model of a config on the meta device: every shape, no storage.

    Raises:
        ConfigError: `transformers` knows no causal language model for this config.
    """
    with torch.device("meta"):
        try:
            return class_for(config).from_config(copy.deepcopy(config))
        except ValueError as error:
            raise ConfigError(
                f"{config.name_or_path or config.model_type}: transformers knows no causal language model of the type "
                f"'{config.model_type}'"
            ) from error


def shape_of(config: PretrainedConfig, name: str | None = None) -> Shape:
    """The shape of the model that `config` describes, as `empty_model` makes it."""
    return shape_of_model(empty_model(config), name)


def shape_of_model(model: PreTrainedModel, name: str | None = None) -> Shape:
    """The shape of a model that is there; adapters in it count as what every token goes through.

    It is without what distributes it; people call it by its `name`, by default its name or path.
    """
    config = model.config
    text = config.get_text_config()
    values = text.to_dict()
    head = model.get_output_embeddings()
    reading = nn.ModuleList(text_modules(model))  # each of its parameters once
    linear = sum(m.weight.numel() for m in reading.modules() if isinstance(m, nn.Linear) and m is not head)
    stacked = sum(p.numel() for p in reading.parameters() if p.dim() == 3)
    head_width = values.get("head_dim") or text.hidden_size // text.num_attention_heads
    key_value_heads = values.get("num_key_value_heads") or text.num_attention_heads
    normed_heads = any(name.endswith("q_norm.weight") for name, _ in reading.named_parameters())
    return Shape(
        name=name or config.name_or_path or config.model_type,
        parameters=model.num_parameters(),
        text=sum(p.numel() for p in reading.parameters()),
        linear=linear + stacked,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        query=text.num_attention_heads * head_width,
        key_value=key_value_heads * head_width,
        heads=text.num_attention_heads,
        intermediate=values.get("intermediate_size") or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
        normed_heads=normed_heads,
        experts=stacked > 0,
    )


def forward_flops(shape: Shape, lengths: float, squares: float, head_rows: float) -> float:
    """One forward pass over whole sequences: of the sums of their lengths and of the lengths' squares.

    Attention counts the full square, as profilers do; a causal kernel does about half of that part. `head_rows`
    positions reach the head.
    """
    attention = 4.0 * shape.query * shape.layers * squares
    return 2.0 * shape.linear * lengths + attention + 2.0 * shape.hidden * shape.vocabulary * head_rows


def sequence_flops(shape: Shape, prompt: float, completion: float) -> float:
    """One forward pass over a sequence of which the completion alone reaches the head."""
    length = prompt + completion
    return forward_flops(shape, length, length * length, completion)


def decode_flops(shape: Shape, prompt: float, new: float) -> float:
    """One answer of `new` tokens after a prompt of `prompt` tokens, with a KV cache."""
    pairs = prompt * prompt + new * prompt + new * (new + 1) / 2
    return forward_flops(shape, prompt + new, pairs, new)
