"""Crash-safe folders: written beside, synced, sealed by a manifest, then renamed.

A folder without a valid `manifest.json` is never read. Everything inside is safetensors or JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dudi.errors import ConfigError, EnvironmentFault
from dudi.files import json_text, settle_mode, sha256_of, sha256_of_json, sync, write_json_inside
from dudi.models.screening import screen_checkpoint
from dudi.models.sharding import whole

MANIFEST = "manifest.json"
SETTLED_NS = 2_000_000_000
"""Age from which on a file's times tell every later change: their clock may stand still for a moment."""
_OWN = re.compile(r"step-(0|[1-9][0-9]*)")
_hashed: dict[Path, list[Any]] = {}
"""What this process has hashed and found right, and the files' times and sizes before: a resume looks three times."""


def seal(folder: Path, fill: Callable[[Path], object], about: Mapping[str, Any], *, parents: bool = True) -> None:
    """Write a folder so that it appears whole or not at all.

    What stood there before is replaced: it is moved beside, and back again should we be killed before the new one
    stands (`settle`).

    Args:
        folder: Where it will stand.
        fill: Writes the files into the folder it is given.
        about: Kept in the manifest beside sizes and hashes.
        parents: Make the folders above where they are missing; else one that has vanished is an error.

    Raises:
        EnvironmentFault: a file cannot be written; what stood there before still does.
    """
    partial, old = _beside(folder, "partial"), _beside(folder, "old")
    try:
        settle(folder)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=parents)
        fill(partial)
        _close(partial, about)
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
        sync(folder.parent)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the room
        with contextlib.suppress(OSError):
            settle(folder)
        if (reason := _system_error(error)) is None:
            raise
        raise EnvironmentFault(f"{folder}: cannot be written ({reason}); what was saved before is whole") from error
    shutil.rmtree(old, ignore_errors=True)


def _close(partial: Path, about: Mapping[str, Any]) -> None:
    """Bring every file to the disk, then the manifest that names them."""
    files = {}
    for path in sorted(p for p in partial.rglob("*") if p.is_file()):
        settle_mode(path)
        sync(path)
        files[path.relative_to(partial).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    manifest = {**about, "files": files}
    write_json_inside(partial / MANIFEST, {**manifest, "sha256": _digest_of(manifest)})
    sync(partial / MANIFEST)
    for inner in (p for p in partial.rglob("*") if p.is_dir()):
        sync(inner)
    sync(partial)


def settle(folder: Path) -> None:
    """Finish a replacement that was cut off: what stood at `folder` goes back to it, or away if the new one stands."""
    old = _beside(folder, "old")
    if not old.exists():
        return
    if folder.exists():
        shutil.rmtree(old)
    else:
        os.replace(old, folder)


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")


def _system_error(error: Exception) -> str | None:
    """What the system had against a write: libraries in Rust tell it in exceptions that are no `OSError`."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    found = re.search(r"([^:]*) \(os error \d+\)", str(error))
    return found[1].strip() if found else None


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose files are all as it says.

    Raises:
        ConfigError: no manifest, or a file is missing, has another size or another hash; the message names it.
        DataError: the folder holds what no checkpoint has: a pickle, a link, a way out.
    """
    manifest = read_manifest(folder)
    screen_checkpoint(folder, manifest["files"])
    seen: list[Any] = [manifest["sha256"]]
    newest, settled = 0, time.time_ns() - SETTLED_NS
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file() or (now := file.stat()).st_size != expected["bytes"]:
            raise ConfigError(f"{file}: missing or cut; the checkpoint is torn")
        seen.append((now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns))
        newest = max(newest, now.st_mtime_ns, now.st_ctime_ns)
    if _hashed.get(folder) == seen:
        return manifest
    for name, expected in manifest["files"].items():
        if sha256_of(folder / name) != expected["sha256"]:
            raise ConfigError(f"{folder / name}: its content is not what {MANIFEST} says; the checkpoint is damaged")
    if newest < settled:
        _hashed[folder] = seen
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """A folder's manifest, held against its own hash; the files are not looked at.

    Raises:
        ConfigError: there is none, or it is not what was written.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
        manifest = json.loads(text)
        manifest["files"].items()
        own = manifest["sha256"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{folder}: not a whole checkpoint ({MANIFEST}: {type(error).__name__})") from None
    # The manifest says at which step, and of which run, the folder is: a flipped bit in it must not pass either.
    if own != _digest_of(manifest) or text != json_text(manifest):
        raise ConfigError(f"{path}: its content is not what was written; the checkpoint is damaged")
    return manifest


def verify_checkpoint(folder: Path, run: Path) -> dict[str, Any]:
    """`verify`, and the same for the sealed folders of the run that the checkpoint cannot do without (`needs`).

    Raises:
        ConfigError: naming the file, in the checkpoint or in what it needs, or a file that is not in the manifest.
    """
    manifest = verify(folder)
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST and name not in manifest["files"]:
            raise ConfigError(f"{path}: not in {MANIFEST}; a checkpoint holds what was saved and nothing else")
    for name, seal_of_it in manifest.get("needs", {}).items():
        if verify(run / name)["sha256"] != seal_of_it:
            raise ConfigError(f"{run / name}: not the one that {folder} was saved with")
    return manifest


def newest_valid(parent: Path) -> tuple[Path | None, list[str]]:
    """The newest whole `step-N` folder, and what was skipped and why."""
    for old in parent.glob(".step-*.old") if parent.is_dir() else []:
        if _OWN.fullmatch(name := old.name[1 : -len(".old")]):
            settle(old.with_name(name))
    skipped: list[str] = []
    for _, folder in _by_step(parent):
        try:
            verify_checkpoint(folder, parent.parent)
            return folder, skipped
        except ConfigError as error:
            skipped.append(str(error))
    return None, skipped


def rotate(parent: Path, keep: int | None, safe: Collection[int] = ()) -> None:
    """Delete the oldest `step-N` folders, so that `keep` are left (None: all).

    The folders of `safe` steps stay in any case: the one just saved, which is the only one known to be whole (a torn
    one can have a higher number, after a resume from the one before it), and the best. They are steps and no paths: a
    folder has many spellings, and may have moved.
    """
    for gone in parent.glob(".step-*.gone"):
        if _OWN.fullmatch(gone.name[1 : -len(".gone")]):
            shutil.rmtree(gone, ignore_errors=True)
    if keep is None or keep < 1:
        return
    others = [folder for step, folder in _by_step(parent) if step not in safe]
    for folder in others[max(0, keep - len(safe)) :]:
        gone = _beside(folder, "gone")
        os.replace(folder, gone)  # a kill in the middle leaves no half-deleted checkpoint
        shutil.rmtree(gone, ignore_errors=True)


def set_aside_after(parent: Path, step: int) -> list[Path]:
    """Rename the checkpoints after `step`, which somebody has decided to go back to; returns their new places."""
    later = [folder for number, folder in _by_step(parent) if number > step]
    return [folder.rename(free_name(folder.with_name(f"old-{folder.name}"))) for folder in later]


def free_name(path: Path) -> Path:
    """`path`, or the first of `path.1`, `path.2` ... that is not taken."""
    number, free = 0, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


def step_folder(parent: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return parent / f"step-{step}"


def steps_in(parent: Path) -> list[Path]:
    """What lies in a folder under a checkpoint's name, whole or not, the newest last: to be named to people."""
    return sorted(parent.glob("step-*"), key=lambda step: (len(step.name), step.name))


def _by_step(parent: Path) -> list[tuple[int, Path]]:
    """Each N with its folder `step-N`, the newest first; what people keep beside them (`step-3-good`) is theirs."""
    own = [folder for folder in parent.glob("step-*") if _OWN.fullmatch(folder.name)] if parent.is_dir() else []
    return sorted(((int(folder.name.removeprefix("step-")), folder) for folder in own), reverse=True)


def _digest_of(manifest: Mapping[str, Any]) -> str:
    """Hash of a manifest's content, whatever the order of its keys: without its own hash, and as it reads back."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return sha256_of_json(json.loads(json.dumps(content, default=str)))


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
    write_json_inside(folder / "optimizer.json", {"scalars": scalars, "param_groups": state["param_groups"]})


def load_optimizer(folder: Path) -> dict[str, Any]:
    """What `save_optimizer` wrote."""
    described = read_json(folder / "optimizer.json")
    state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in described["scalars"].items()}
    for key, tensor in load_file(folder / "optimizer.safetensors").items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    groups = described["param_groups"]
    for group in groups:
        if "betas" in group:
            group["betas"] = tuple(group["betas"])
    return {"state": state, "param_groups": groups}


def random_states() -> dict[str, Any]:
    """The state of every global generator of this process, as JSON values."""
    version, internal, gauss = random.getstate()
    kind, keys, *place = np.random.get_state(legacy=True)  # noqa: NPY002 the global one is what others draw from
    return {
        "python": [version, list(internal), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), *place],
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


def hash_parameters(model: torch.nn.Module, leave_out: Callable[[str], bool] | None = None) -> str:
    """SHA-256 over the names and bytes of a model's state: the identity of its weights.

    A tensor does not count where `leave_out` says so of its name.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if leave_out is not None and leave_out(name):
            continue
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(whole(tensor.detach()).cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
