"""What is looked at in a model's folder before it is loaded: pickles, paths out of it, what would fill the machine.

Every refusal is a `DataError` that names the file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open

from dudi.errors import DataError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
LARGEST: dict[str, int] = {
    "vocab_size": 1 << 22,
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 20,
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 12,
    "num_key_value_heads": 1 << 12,
    "head_dim": 1 << 14,
}
"""Sizes beyond these belong to no model, and would fill the memory before a weight is read."""


def screen(folder: Path, *, gguf: bool = False, trust_remote_code: bool = False) -> None:
    """Look a model's folder over before `transformers` reads it.

    Args:
        folder: The folder; anything else (a hub name) is left alone.
        gguf: The weights are in a GGUF file.
        trust_remote_code: Whether the user lets the model run code of its own.

    Raises:
        DataError: naming the file, and what it tries.
    """
    if not folder.is_dir():
        return
    config = _object(folder / "config.json")
    _check_sizes(folder / "config.json", config)
    kernel = next((v for k, v in config.items() if "attn_implementation" in k and "/" in str(v)), None)
    if kernel is not None and not trust_remote_code:
        raise DataError(
            f"{folder / 'config.json'}: asks for the kernel {kernel!r}, which is code from the hub; take it out"
        )
    for key, value in _object(folder / "tokenizer_config.json").items():
        if key.endswith("_file") and isinstance(value, str) and Path(value).name != value:
            raise DataError(
                f"{folder / 'tokenizer_config.json'}: {key} leads to {value!r}, out of the folder; take it out"
            )
    _object(folder / "generation_config.json")
    if not gguf:
        _check_weights(folder)


def _check_sizes(path: Path, config: dict[str, Any]) -> None:
    for key, value in config.items():
        if isinstance(value, dict):
            _check_sizes(path, value)
        elif key in LARGEST and value is not None and not (isinstance(value, int) and 0 <= value <= LARGEST[key]):
            raise DataError(f"{path}: {key} is {str(value)[:40]!r}; a model has a number up to {LARGEST[key]:,} there")


def _check_weights(folder: Path) -> None:
    if (folder / ADAPTER).is_file():
        _refuse_pickle_instead_of(folder / ADAPTER_WEIGHTS)
    if (folder / ADAPTER_WEIGHTS).is_file():
        _check_header(folder / ADAPTER_WEIGHTS)
    if not (folder / ADAPTER).is_file() and not (folder / INDEX).is_file():
        _refuse_pickle_instead_of(folder / WEIGHTS)
    shards = _object(folder / INDEX).get("weight_map", {})
    if not isinstance(shards, dict):
        raise DataError(f"{folder / INDEX}: weight_map is no mapping of weights to files")
    for name in sorted({str(shard) for shard in shards.values()} | {WEIGHTS}):
        if name == WEIGHTS and not (folder / name).exists():
            continue
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise DataError(
                f"{folder / INDEX}: names {name!r}; dudi reads safetensors in the model's own folder and no pickles"
            )
        _check_header(folder / name)


def _refuse_pickle_instead_of(weights: Path) -> None:
    """Name the pickle that a folder holds in place of its weights."""
    if weights.exists():
        return
    for file in sorted(weights.parent.iterdir()):
        if file.suffix in PICKLES:
            raise DataError(
                f"{file}: a pickle can run code when it is read, and there is no {weights.name}; convert it"
            )


def _check_header(path: Path) -> None:
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged, or no safetensors file ({str(error)[:120]}); fetch it again") from error


def _object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({str(error)[:80]}); fetch it again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: is no JSON object; fetch it again")
    return value


def screen_checkpoint(folder: Path, names: Iterable[str]) -> None:
    """Look a checkpoint's folder over: whoever can write there can also write a manifest that is right about it.

    Args:
        folder: The checkpoint.
        names: The files of its manifest.

    Raises:
        DataError: a file is a pickle or a link, or the manifest names one outside.
    """
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"{folder}: its manifest names {name!r}, out of the folder; do not use this checkpoint")
    for file in sorted(folder.rglob("*")):
        if file.is_symlink():
            raise DataError(f"{file}: a link, and dudi writes none; do not use this checkpoint")
        if file.suffix in PICKLES:
            raise DataError(f"{file}: a pickle, and dudi writes none; do not use this checkpoint")


@contextlib.contextmanager
def no_pickles() -> Iterator[None]:
    """Inside, `torch.load` refuses: libraries fall back to it when there is no safetensors file.

    Raises:
        DataError: something was about to be unpickled; the message names it.
    """

    def refuse(file: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise DataError(f"{file}: a pickle can run code when it is read; dudi reads safetensors alone")

    load = torch.load
    torch.load = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.load = load
