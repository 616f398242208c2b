"""What is known of a stage before any weights are loaded: from the configs of its models, and from their tokenizers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from dudi.errors import EnvironmentFault
from dudi.models.load import load_tokenizer, locate
from dudi.stacking import llm2vec, parts, stored
from dudi.stacking.arguments import StackArguments
from dudi.stacking.checks import check_reader
from dudi.stacking.configuration import MTLLMConfig, part
from dudi.stacking.earlier import started_from
from dudi.stacking.generating import check_writes
from dudi.stacking.recipe import ALONE, StackConfig
from dudi.stacking.rows import StackRow
from dudi.stacking.tokens import Source


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
    """Hold a stage's models, which are there, against its keys and rows, or the first of these, without any weights.

    Refused are a decoder as the encoder, an adapter that is none, fewer positions than `max_length`, fewer embeddings
    than a tokenizer has tokens, a row's language that the tokenizer does not know, and answers of what cannot write.
    """
    made = started_from(config)
    below, above = _named(config) if made is None else _earlier(config, made)
    own = below is not None and (args.llm_tokens or (made is not None and made.llm_tokens))
    if config.stage == "finetune" and config.task.kind == "generation":
        if made is None and all(one is None or one.config is not None for one in (below, above)):
            encoder, llm = (None if one is None else copy.deepcopy(one.config) for one in (below, above))
            made = MTLLMConfig(encoder_config=encoder, llm_config=llm, attention=config.llm.attention)
        if made is not None:
            check_writes(made)
    reader = above if below is None else below
    if reader is None:
        return  # what is missing is said where the parts are built
    reader.source.check_rows(rows)
    read = [] if below is None else [("encoder", below, args.max_length)]
    if above is not None and (below is None or own or config.stage == "align"):
        read.append(("llm", above, 2 * args.max_length + 1 if own else args.max_length))
    for role, one, longest in read:
        if one.config is not None:
            check_reader(empty_part(role, one.config), one.source, longest)


def _named(config: StackConfig) -> tuple[_Unloaded | None, _Unloaded | None]:
    """The encoder and the LLM that a recipe names."""
    below, llm = None, config.llm
    if config.encoder.model is not None and config.stage not in ALONE:
        name, revision = config.encoder.model, config.encoder.revision
        own = parts.config_of("encoder", name, revision)
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
    return parts.config_of("llm", base, None).get_text_config()


def _earlier(config: StackConfig, made: MTLLMConfig) -> tuple[_Unloaded, _Unloaded | None]:
    """The parts of an earlier stage, which `check_earlier` has found to have an encoder."""
    source, llm_source = stored.sources_of(stored.model_folder(config.earlier["start"]), made, config.encoder.codes)
    above = None if llm_source is None else _Unloaded(part(made.llm_config), llm_source)
    return _Unloaded(part(made.encoder_config), source), above


def configs_of(config: StackConfig) -> dict[str, tuple[str, PreTrainedConfig]]:
    """Name and config of the `encoder` and of the `llm` that a stage reads, from the hub too; no tokenizer is read."""
    found: dict[str, tuple[str, PreTrainedConfig]] = {}
    start = config.earlier.get("start")
    if start is not None:
        made = AutoConfig.from_pretrained(stored.model_folder(start))
        for role in ("encoder", "llm"):
            if (own := getattr(made, f"{role}_config", None)) is not None:
                found[role] = (start, own)
        return found
    if config.encoder.model is not None and config.stage not in ALONE:
        name = config.encoder.model
        found["encoder"] = (name, parts.config_of("encoder", name, config.encoder.revision))
    if config.llm.model is not None:
        name, keep = config.llm.model, config.llm.keep_layers
        if config.llm.gguf_file is not None:
            raise EnvironmentFault(f"{name}: the shapes of {config.llm.gguf_file} are known from its weights alone")
        base, _ = llm2vec.base_and_adapters(name)
        revision = config.llm.revision if base == name else None
        own = parts.config_of("llm", base, revision).get_text_config()
        if keep is not None:
            own.num_hidden_layers = keep if isinstance(keep, int) else len(keep)
        found["llm"] = (name, own)
    return found


def empty_part(role: str, config: PreTrainedConfig) -> PreTrainedModel:
    """A part without weights: its shapes say how many positions and embeddings it has."""
    make = parts.empty_encoder if role == "encoder" else parts.empty_llm
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return make(copy.deepcopy(config))
