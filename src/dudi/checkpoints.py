"""Crash-safe folders: written beside, synced, sealed by a manifest, then renamed.

A folder without a valid `manifest.json` is never read. Everything inside is safetensors or JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dudi.errors import ConfigError
from dudi.screening import screen_checkpoint

MANIFEST = "manifest.json"


def seal(folder: Path, fill: Callable[[Path], None], about: Mapping[str, Any]) -> None:
    """Write a folder so that it appears whole or not at all.

    Args:
        folder: Where it will stand; what stood there before is replaced.
        fill: Writes the files into the folder it is given.
        about: Kept in the manifest beside sizes and hashes.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    files = {}
    for path in sorted(p for p in partial.rglob("*") if p.is_file()):
        _sync(path)
        files[path.relative_to(partial).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    manifest = {**about, "files": files}
    write_json(partial / MANIFEST, {**manifest, "sha256": _digest_of(manifest)})
    _sync(partial / MANIFEST)
    _sync(partial)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)
    _sync(folder.parent)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose files are all as it says.

    Raises:
        ConfigError: no manifest, or a file is missing, has another size or another hash; the message names it.
        DataError: the folder holds what no checkpoint has: a pickle, a link, a way out.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files = manifest["files"].items()
        own = manifest.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{folder}: not a whole checkpoint ({MANIFEST}: {type(error).__name__})") from None
    # The manifest says at which step, and of which run, the folder is: a flipped bit in it must not pass either.
    if own != _digest_of(manifest):
        raise ConfigError(f"{path}: its content is not what was written; the checkpoint is damaged")
    screen_checkpoint(folder, manifest["files"])
    for name, expected in files:
        file = folder / name
        if not file.is_file() or file.stat().st_size != expected["bytes"]:
            raise ConfigError(f"{file}: missing or cut; the checkpoint is torn")
        if sha256_of(file) != expected["sha256"]:
            raise ConfigError(f"{file}: its content is not what {MANIFEST} says; the checkpoint is damaged")
    return manifest


def newest_valid(parent: Path) -> tuple[Path | None, list[str]]:
    """The newest whole `step-N` folder, and what was skipped and why."""
    found = sorted(parent.glob("step-*"), key=lambda p: -_step_of(p)) if parent.is_dir() else []
    skipped: list[str] = []
    for folder in found:
        try:
            verify(folder)
        except ConfigError as error:
            skipped.append(str(error))
            continue
        return folder, skipped
    return None, skipped


def rotate(parent: Path, keep: int | None) -> None:
    """Delete the oldest `step-N` folders, so that `keep` are left; the newest always stays."""
    if keep is None or keep < 1:
        return
    for folder in sorted(parent.glob("step-*"), key=lambda p: -_step_of(p))[keep:]:
        shutil.rmtree(folder, ignore_errors=True)


def _step_of(folder: Path) -> int:
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdigit() else -1


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(manifest: Mapping[str, Any]) -> str:
    """Hash of a manifest's content as it reads back from JSON, whatever the order of its keys."""
    content = json.loads(json.dumps(manifest, default=str))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """UTF-8 JSON, readable by people."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def save_optimizer(folder: Path, state: Mapping[str, Any]) -> None:
    """`torch.optim.Optimizer.state_dict()` as `optimizer.safetensors` and `optimizer.json`."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value.detach().cpu().contiguous()
            else:
                scalars.setdefault(str(index), {})[name] = value
    save_file(tensors, folder / "optimizer.safetensors")
    write_json(folder / "optimizer.json", {"scalars": scalars, "param_groups": state["param_groups"]})


def load_optimizer(folder: Path) -> dict[str, Any]:
    """What `save_optimizer` wrote."""
    described = read_json(folder / "optimizer.json")
    state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in described["scalars"].items()}
    for key, tensor in load_file(folder / "optimizer.safetensors").items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in described["param_groups"]]
    return {"state": state, "param_groups": groups}


def random_states() -> dict[str, Any]:
    """The state of every global generator of this process, as JSON values."""
    drawn = np.random.get_state(legacy=False)  # noqa: NPY002 the global one is what others draw from
    inner = drawn["state"]
    version, internal, gauss = random.getstate()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [drawn["bit_generator"], inner["key"].tolist(), inner["pos"], drawn["has_gauss"], drawn["gauss"]],
        "torch": torch.get_rng_state().tolist(),
        "cuda": [s.tolist() for s in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put the state of `random_states` back."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([torch.tensor(s, dtype=torch.uint8) for s in states["cuda"]])


def hash_parameters(model: torch.nn.Module) -> str:
    """SHA-256 over the names and bytes of a model's state: the identity of its weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
