"""What is looked at in a model's folder before it is loaded: pickles, code of its own, paths out of it.

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
SETTINGS = ("config.json", "tokenizer_config.json", "generation_config.json", INDEX)
"""What says how a model is to be loaded."""
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def screen(folder: Path, *, gguf: bool = False, trust_remote_code: bool = False) -> None:
    """Look a model's folder over before `transformers` reads it; anything else (a hub name) is left alone."""
    if not folder.is_dir():
        return
    screen_settings(folder, trust_remote_code=trust_remote_code)
    if gguf:
        return
    if (folder / ADAPTER).is_file():
        _refuse_pickle_instead_of(folder / ADAPTER_WEIGHTS)
    if (folder / ADAPTER_WEIGHTS).is_file():
        _check_header(folder / ADAPTER_WEIGHTS)
    if not (folder / ADAPTER).is_file() and not (folder / INDEX).is_file():
        _refuse_pickle_instead_of(folder / WEIGHTS)
    for name in sorted(_shards(folder) | {WEIGHTS}):
        if name != WEIGHTS or (folder / name).exists():
            _check_header(folder / name)


def screen_settings(folder: Path, *, trust_remote_code: bool = False) -> None:
    """Look the `SETTINGS` over that a folder holds; its weights need not be there yet."""
    config, tokenizer = folder / "config.json", folder / "tokenizer_config.json"
    kernel = next(_kernels(_object(config)), None)
    if kernel is not None and not trust_remote_code:
        raise DataError(f"{config}: asks for the kernel {kernel!r}, which is code from the hub; take it out")
    for key, value in _object(tokenizer).items():
        if key.endswith("_file") and isinstance(value, str) and Path(value).name != value:
            raise DataError(f"{tokenizer}: {key} leads to {value!r}, out of the folder; take it out")
    _object(folder / "generation_config.json")
    _shards(folder)


def _kernels(config: dict[str, Any]) -> Iterator[str]:
    """The attention kernels by the hub's names, here and in the configs inside."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _kernels(value)
        if "attn_implementation" in key and "/" in str(value):
            yield str(value)


def _shards(folder: Path) -> set[str]:
    """The files that a model's index names."""
    path = folder / INDEX
    if not path.exists():
        return set()
    index = _object(path)
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not isinstance(index.get("metadata"), dict):
        raise DataError(f"{path}: needs a weight_map of weights to files, and metadata; fetch it again")
    names = {str(shard) for shard in shards.values()}
    for name in sorted(names):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise DataError(f"{path}: names {name!r}; dudi reads safetensors in the model's own folder and no pickles")
    return names


def _refuse_pickle_instead_of(weights: Path) -> None:
    """Name the pickle that a folder holds in place of its weights."""
    if weights.exists():
        return
    for file in sorted(weights.parent.iterdir()):
        if file.suffix in PICKLES:
            why = f"a pickle can run code when it is read, and there is no {weights.name}"
            raise DataError(f"{file}: {why}; convert it")


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
    """Look a checkpoint and its manifest's names over: who can write there can write a manifest that is right about it.

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
