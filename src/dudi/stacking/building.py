"""A stack from its parents, a head on a stack, a stack from its folder."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from dudi.errors import ConfigError
from dudi.models.load import locate
from dudi.stacking import assembly, llm2vec, lora, parts
from dudi.stacking.configuration import MTLLMConfig
from dudi.stacking.generating import MTLLMForCausalLM, with_lm_head
from dudi.stacking.modeling import (
    MTLLMForMultipleChoice,
    MTLLMForSequenceClassification,
    MTLLMModel,
    MTLLMPreTrainedModel,
    on_device,
)
from dudi.stacking.rows import Task

KINDS: Mapping[str, Any] = {
    kind.__name__: kind
    for kind in (MTLLMModel, MTLLMForSequenceClassification, MTLLMForMultipleChoice, MTLLMForCausalLM)
}
"""The classes of a stack, by the name that `architectures` has in `config.json`."""


def build_stack(
    encoder: str | PreTrainedModel | None,
    llm: str | PreTrainedModel | None,
    *,
    adapters: Sequence[str] = (),
    attention: str = "bidirectional",
    dtype: str = "float32",
    seed: int = 0,
    revisions: tuple[str | None, str | None] = (None, None),
    attn_implementation: str | None = None,
    gguf_file: str | None = None,
    keep_layers: int | Sequence[int] | None = None,
) -> MTLLMModel:
    """A stack of two models, its connector random.

    Args:
        encoder: A translation model or a text encoder: a name, a folder, or a model, whose weights are copied; None for
            an LLM alone.
        llm: A decoder, likewise; a folder of LoRA adapters (LLM2Vec) brings its base along. None: the encoder alone.
        adapters: Adapters that are merged into the LLM, in this order.
        attention: `bidirectional` or `causal`.
        dtype: Precision of parts that are loaded by name.
        seed: Of the connector.
        revisions: Of encoder and LLM, on the hub.
        attn_implementation: Of the LLM; None: transformers' choice.
        gguf_file: A GGUF file in the LLM's folder.
        keep_layers: Cut the LLM down to these layers; a number means that many, evenly spaced.

    Raises:
        ConfigError: a model cannot be read.
        DataError: weights are missing, or the LLM cannot be read as `attention` says.
    """
    precision, below, above = getattr(torch, dtype), None, None
    options: dict[str, Any] = {
        "revision": revisions[1],
        "attn_implementation": attn_implementation,
        "gguf_file": gguf_file,
        "keep_layers": keep_layers,
    }
    if isinstance(encoder, str):
        below = parts.load_encoder(encoder, dtype=precision, revision=revisions[0])
    elif encoder is not None:
        below = parts.bare_encoder(encoder)
    if isinstance(llm, str):
        above = llm2vec.load_adapted_llm(llm, adapters, dtype=precision, **options)
    elif llm is not None:
        above = parts.bare_llm(llm)
        llm2vec.merge_adapters(above.model, adapters)
    model = join(below, above, attention=attention, seed=seed)
    parents = {}
    if below is not None:
        parents["encoder"] = assembly.parent_of(below, encoder, {"revision": revisions[0]})
    if above is not None:
        parents["llm"] = assembly.parent_of(above, llm, options | {"adapters": list(adapters)})
    if None not in parents.values():  # a part that was built in Python has no parent to be read from again
        model.config.parents = parents
    return model


def join(
    below: parts.Part | None, above: parts.Part | None, *, attention: str = "bidirectional", seed: int = 0
) -> MTLLMModel:
    """A stack that holds these very parts (no copy): an encoder, an LLM, or both."""
    configs = [None if part is None else copy.deepcopy(part.config) for part in (below, above)]
    config = MTLLMConfig(encoder_config=configs[0], llm_config=configs[1], attention=attention)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = MTLLMModel(config)
    model.encoder, model.llm = (None if part is None else part.model for part in (below, above))
    if model.llm is not None:
        model.llm.config.is_causal, model.llm.config.use_cache = attention == "causal", False
    if model.connector is not None:
        model.connector = new_linear(config.encoder_size, config.hidden_size, bias=True, seed=seed)
    on_device(model, model.adapted.device).eval()
    model.check_attention()
    return model


def new_linear(inputs: int, outputs: int, *, bias: bool, seed: int) -> nn.Linear:
    """A linear layer whose weights depend on the seed alone."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        layer.weight.normal_(std=inputs**-0.5, generator=torch.Generator().manual_seed(seed))
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


def read_own_tokens(model: MTLLMPreTrainedModel, seed: int = 0) -> None:
    """Let the LLM of a stack read its own tokens of a text too, in place; where it does already, nothing is done.

    Between the encoder's states and the LLM's own tokens stands one learned embedding, the boundary (MindMerger, arXiv
    2405.17386). It starts at random, from the seed alone, of the size of the LLM's own embeddings.

    Raises:
        ConfigError: a part is missing.
    """
    reader = model.reader
    if reader.boundary is not None:
        return
    if reader.llm is None or reader.encoder is None:
        raise ConfigError("llm_tokens: needs an encoder and an LLM; set llm_tokens=false")
    embed: Any = reader.llm.get_input_embeddings()
    with torch.no_grad():
        ids = torch.arange(min(len(embed.weight), 1024), device=embed.weight.device)
        drawn = torch.randn(1, reader.config.hidden_size, generator=torch.Generator().manual_seed(seed))
        drawn *= embed(ids).float().std().cpu()
    reader.boundary = nn.Embedding.from_pretrained(drawn.to(reader.device), freeze=False)
    model.config.llm_tokens = True


def with_head(model: MTLLMModel, task: Task, *, seed: int = 0) -> Any:
    """A model for a task around a reader (no copy), with a new head.

    Returns:
        A `MTLLMForSequenceClassification`, `MTLLMForMultipleChoice` or, with the LLM's own head, `MTLLMForCausalLM`.

    Raises:
        ConfigError: an answer is to be written, and the model cannot write.
    """
    if task.kind == "generation":
        return with_lm_head(model, task=task)
    config = copy.deepcopy(model.config)
    config.task, config.separator = task.kind, task.separator
    if task.labels:
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {label: index for index, label in enumerate(task.labels)}
    kind = MTLLMForMultipleChoice if task.kind == "choice" else MTLLMForSequenceClassification
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        headed = kind(config)
    headed.stack, model.config = model, config
    headed.score = new_linear(config.hidden_size, headed.score.out_features, bias=False, seed=seed).to(model.device)
    return headed.train(model.training)


def read_config(folder: str | Path) -> tuple[Any, MTLLMConfig]:
    """The class and the config of the model that a folder holds, without its weights.

    Raises:
        ConfigError: the folder holds no stack.
    """
    try:
        config = AutoConfig.from_pretrained(locate(str(folder)))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: no model of dudi stack ({str(error).partition(chr(10))[0][:120]})") from error
    named = (config.architectures or ["?"])[0]
    if named not in KINDS:
        raise ConfigError(f"{folder}: holds a {named}, not a model of dudi stack ({', '.join(KINDS)})")
    return KINDS[named], config


def load_stack(folder: str | Path, *, dtype: str = "auto") -> Any:
    """The model that a folder holds, in the class it was saved as.

    Raises:
        ConfigError: the folder holds no stack.
        DataError: weights are missing, or the attention is not what the config says.
    """
    kind, _ = read_config(folder)
    return kind.from_pretrained(locate(str(folder)), dtype=dtype)


def merge(model: MTLLMPreTrainedModel) -> None:
    """Merge the adapter of a stack into its weights, in place; what it was is kept, to be saved beside the parents."""
    reader, config = model.reader, model.config
    reader.merged.append(lora.lora_weights(reader.adapted))
    lora.merge_lora(reader.adapted)
    config.merged, config.lora = [*(config.merged or []), config.lora], None
