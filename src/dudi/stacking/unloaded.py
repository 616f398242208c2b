"""What is known of a stage before any weights are loaded: from the configs of its models, and from their tokenizers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from dudi.errors import EnvironmentFault
from dudi.models.load import load_tokenizer, locate
from dudi.stacking import llm2vec, parts, stored
from dudi.stacking.arguments import StackArguments
from dudi.stacking.checks import check_reader
from dudi.stacking.configuration import MTLLMConfig
from dudi.stacking.earlier import started_from
from dudi.stacking.generating import check_writes
from dudi.stacking.recipe import StackConfig
from dudi.stacking.rows import StackRow
from dudi.stacking.tokens import Source
from dudi.stacking.trainer import LLM_TOKENIZER


@dataclasses.dataclass(frozen=True, slots=True)
class _Unloaded:
    """A part of which no weight is read.

    Attributes:
        config: Its own; None where it is known only from the weights (GGUF), or is not there to be read.
        source: Its tokenizer.
    """

    config: PreTrainedConfig | None
    source: Source


def check_unloaded(config: StackConfig, args: StackArguments, rows: Sequence[StackRow]) -> None:
    """Hold a stage's models against its keys and rows, as far as that needs no weights.

    Args:
        config: The recipe; the models that it names are there.
        args: Its training keys.
        rows: What it would read, or the beginning of it.

    Raises:
        ConfigError: a decoder is named as the encoder, an adapter is none, a model has fewer positions than
            `max_length` or fewer embeddings than its tokenizer has tokens; or answers are to be written by what cannot.
        DataError: a row's language is none of the tokenizer's.
        EnvironmentFault: a config or a tokenizer cannot be had.
    """
    alone = config.stage in ("adapt", "teach")
    if config.start.model is not None and not alone:
        below, above, both = _earlier(config.start.model, config)
    else:
        below, above, both = *_named(config), False
    if config.stage == "finetune" and config.task.kind == "generation":
        _check_writing(config, below, above)
    reader = above if below is None else below
    if reader is None:
        return  # what is missing is said where the parts are built
    reader.source.check_rows(rows)
    if below is not None:
        _check("encoder", below, args.max_length)
    own = below is not None and (both or args.llm_tokens)
    if above is not None and (below is None or own or config.stage == "align"):
        _check("llm", above, 2 * args.max_length + 1 if own else args.max_length)


def _named(config: StackConfig) -> tuple[_Unloaded | None, _Unloaded | None]:
    """The encoder and the LLM that a recipe names."""
    below, llm = None, config.llm
    if config.encoder.model is not None and config.stage not in ("adapt", "teach"):
        name, revision = config.encoder.model, config.encoder.revision
        own = parts.config_of("encoder", name, locate(name), revision)
        parts.check_encoder_config(own)
        below = _Unloaded(own, Source(load_tokenizer(name, revision=revision), config.encoder.codes))
    if llm.model is None:
        return below, None
    for name in llm.adapters:
        llm2vec.check_adapter(name)
    source = Source(load_tokenizer(llm.model, revision=llm.revision, gguf_file=llm.gguf_file))
    return below, _Unloaded(_llm_config(config), source)


def _llm_config(config: StackConfig) -> PreTrainedConfig | None:
    """The LLM's config. On the hub an adapter is told from a model by its weights, which are not fetched here."""
    name = str(config.llm.model)
    if config.llm.gguf_file is not None or not Path(locate(name)).is_dir():
        return None
    base, first = llm2vec.base_and_adapters(name)
    if first and not Path(locate(base)).is_dir():
        return None
    return parts.config_of("llm", base, locate(base), None).get_text_config()


def _earlier(start: str, config: StackConfig) -> tuple[_Unloaded | None, _Unloaded | None, bool]:
    """The parts of an earlier stage, and whether its LLM reads its own tokens too."""
    folder = stored.model_folder(start)
    made: Any = AutoConfig.from_pretrained(folder)
    source = Source(load_tokenizer(str(folder)), (getattr(made, "codes", None) or {}) | config.encoder.codes)
    below, above = getattr(made, "encoder_config", None), getattr(made, "llm_config", None)
    inside = folder / LLM_TOKENIZER
    if below is None:
        return None, None if above is None else _Unloaded(above, source), False
    llm = _Unloaded(above, Source(load_tokenizer(str(inside)))) if above is not None and inside.is_dir() else None
    return _Unloaded(below, source), llm, bool(made.llm_tokens)


def _check_writing(config: StackConfig, below: _Unloaded | None, above: _Unloaded | None) -> None:
    """Refuse to learn to write with what cannot, where the configs of the parts are at hand."""
    made, there = started_from(config), [part for part in (below, above) if part is not None]
    if made is None and all(part.config is not None for part in there):
        encoder, llm = (None if part is None else copy.deepcopy(part.config) for part in (below, above))
        made = MTLLMConfig(encoder_config=encoder, llm_config=llm, attention=config.llm.attention)
    if made is not None:
        check_writes(made)


def _check(role: str, part: _Unloaded, max_length: int) -> None:
    if part.config is not None:
        check_reader(empty_part(role, part.config), part.source, max_length)


def configs_of(config: StackConfig) -> tuple[tuple[str, str, PreTrainedConfig] | None, ...]:
    """(role, name, config) of the encoder and of the LLM that a stage reads, from the hub too; no tokenizer is read.

    Raises:
        ConfigError: no such folder.
        EnvironmentFault: a config cannot be had.
    """
    alone = config.stage in ("adapt", "teach")
    if config.start.model is not None and not alone:
        made: Any = AutoConfig.from_pretrained(stored.model_folder(config.start.model))
        named = {"encoder": getattr(made, "encoder_config", None), "llm": getattr(made, "llm_config", None)}
        return tuple(None if one is None else (role, config.start.model, one) for role, one in named.items())
    found: list[tuple[str, str, PreTrainedConfig] | None] = [None, None]
    if config.encoder.model is not None and not alone:
        name, revision = config.encoder.model, config.encoder.revision
        found[0] = ("encoder", name, parts.config_of("encoder", name, locate(name), revision))
    if config.llm.model is not None:
        name, keep = config.llm.model, config.llm.keep_layers
        if config.llm.gguf_file is not None:
            raise EnvironmentFault(f"{name}: the shapes of {config.llm.gguf_file} are known from its weights alone")
        base, _ = llm2vec.base_and_adapters(name)
        revision = config.llm.revision if base == name else None
        own = parts.config_of("llm", base, locate(base), revision).get_text_config()
        if keep is not None:
            own.num_hidden_layers = keep if isinstance(keep, int) else len(keep)
        found[1] = ("llm", name, own)
    return tuple(found)


def empty_part(role: str, config: PreTrainedConfig) -> PreTrainedModel:
    """A part without weights: its shapes say how many positions and embeddings it has."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return (parts.empty_encoder if role == "encoder" else parts.empty_llm)(copy.deepcopy(config))
