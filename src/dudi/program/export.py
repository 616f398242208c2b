"""`dudi export`: its words, and what it does."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi.command import output_file, say
from dudi.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dudi.evaluation.source import ModelSource

KINDS = ("Q8_0", "F16", "BF16", "F32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of `dudi export`."""
    parser.add_argument(
        "model", metavar="MODEL", help="a run, a folder (an adapter is merged), a hub name, a GGUF file"
    )
    parser.add_argument(
        "--gguf", nargs="?", const=KINDS[0], metavar="|".join(KINDS), help="one file for llama.cpp (default: Q8_0)"
    )
    parser.add_argument("--output", type=output_file, metavar="FILE", help="default: NAME.KIND.gguf")
    parser.add_argument("--name", help="what the file calls the model (default: its folder's name)")
    parser.add_argument("--chat-template", type=Path, metavar="FILE", help="a jinja file in place of the model's own")
    parser.add_argument("--pre", metavar="NAME", help="llama.cpp's name of how text is cut (default: found out)")
    parser.add_argument("--revision", help="commit, tag or branch on the hub")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that the model's repository brings")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def run(given: argparse.Namespace) -> int:
    """Write the file and say what is in it.

    Raises:
        ConfigError: nothing to write was named, or the model cannot be exported.
        DataError: its files or weights are damaged.
        EnvironmentFault: it cannot be had, or the file not be written.
    """
    if given.gguf is None:
        raise ConfigError("dudi export: say as what: --gguf, or --gguf F32")
    kind = given.gguf.upper()
    if kind not in KINDS:
        hint = did_you_mean(given.gguf, KINDS)
        raise ConfigError(f"--gguf: '{given.gguf}' is not one of {', '.join(KINDS)}{hint}; MODEL stands before it")
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError("dudi export: the package gguf is missing: pip install 'dudi[gguf]'")
    from dudi.environment import quiet_libraries
    from dudi.evaluation.source import source_of
    from dudi.models.gguf_file import check_kind, write_gguf
    from dudi.models.gguf_vocabulary import vocabulary_of
    from dudi.models.image_text import text_alone

    quiet_libraries()
    keys = ("revision", "chat_template", "trust_remote_code")
    source = source_of(given.model, device="cpu", **{key: getattr(given, key) for key in keys})
    name = given.name or source.name
    output = given.output or Path(f"{name.replace('/', '-')}.{kind}.gguf")
    if output.exists() and not given.force:
        raise ConfigError(f"{output}: is there already; --force replaces it")
    chat = source.chat(template=False)
    whole = whole_model(source)
    check_kind(whole.config.get_text_config())
    model = text_alone(whole)
    vocabulary = vocabulary_of(chat.tokenizer, model.config.vocab_size, _ends(model, chat), given.pre)
    tensors, unquantised = write_gguf(model, vocabulary, name, kind, output)
    names = [end for end in ("eos_token_id", "eot_token_id", "eom_token_id") if end in vocabulary]
    ends = ", ".join(vocabulary["token_list"][vocabulary[end]] for end in names)
    lines = [
        f"{output}: {output.stat().st_size / 1e6:,.1f} MB, {tensors} tensors, {kind}",
        f"  {model.config.model_type}; tokenizer {vocabulary['tokenizer_model']}, "
        f"text cut as {vocabulary['tokenizer_pre']}; ends at {ends}",
    ]
    if unquantised:
        lines.append(f"  F16 in place of {kind}, since their rows do not fill blocks: {len(unquantised)} matrices")
    if model is not whole:
        lines.append(f"  the text of a {whole.config.model_type} model alone, without what reads images")
    if "chat_template" not in vocabulary:
        lines.append("  no chat template: the model has none; --chat-template FILE gives it one")
    return say("\n".join(lines))


def _ends(model: PreTrainedModel, chat: Any) -> list[int]:
    """Where an answer ends: the template's end of turn, the tokenizer's, and what the generation config adds."""
    named = model.generation_config.eos_token_id if model.generation_config is not None else None
    more = [named] if isinstance(named, int) else named or []
    return list(dict.fromkeys([*chat.stop_ids, *more]))


def whole_model(source: ModelSource) -> PreTrainedModel:
    """The model in the precision that it is stored in; an adapter is merged into its base, in fp32.

    Raises:
        ConfigError: an adapter without `peft`, or one that cannot be merged.
        EnvironmentFault: the model cannot be had.
    """
    import torch

    from dudi.evaluation.source import base_of
    from dudi.models.adapters import merged
    from dudi.models.load import load_model, locate
    from dudi.models.screening import screen

    keys: dict[str, Any] = {"revision": source.revision, "trust_remote_code": source.trust_remote_code}
    base = base_of(source.model)
    if base is None:
        dtype: Any = "auto" if source.gguf_file is None else torch.float32
        return load_model(source.model, dtype=dtype, gguf_file=source.gguf_file, **keys)
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(f"{source.model}: is an adapter, and the package peft is missing: pip install 'dudi[peft]'")
    from peft import PeftConfig, PeftModel

    folder = locate(source.model)
    screen(Path(folder), trust_remote_code=source.trust_remote_code)
    settings = PeftConfig.from_pretrained(folder)
    if settings.is_prompt_learning:
        raise ConfigError(f"{source.model}: {settings.peft_type} puts vectors before the prompt and cannot be merged")
    under = load_model(base, revision=settings.revision, trust_remote_code=source.trust_remote_code)
    return merged(PeftModel.from_pretrained(under, folder))
