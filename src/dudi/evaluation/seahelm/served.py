"""The checkpoint as a server sees it: a name of its own, and the sampling that its requests get."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError, DataError, EnvironmentFault

GENERATION = "generation_config.json"
SAMPLING = (
    "do_sample",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "num_beams",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "max_new_tokens",
)
"""The keys of a generation config that decide which tokens are drawn."""
_LEFT_BEHIND = ("optimizer.safetensors", "training_args.bin")


def checkpoint_folder(model: str) -> Path:
    """A checkpoint's folder: given as one, as a run's, as `package:NAME/FOLDER`, or by its hub name, and then fetched.

    Raises:
        ConfigError: the folder holds no model.
        EnvironmentFault: a hub name that cannot be had.
    """
    if model.startswith("package:"):
        from dudi.models.load import locate

        model = locate(model)
    folder = Path(model).expanduser()
    if (folder / "resolved.yaml").is_file():
        folder = folder / "model"
    if not folder.is_dir():
        if folder.is_absolute() or model.count("/") != 1 or model.startswith("."):
            raise ConfigError(f"{model}: no such folder")
        folder = _from_hub(model)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ConfigError(f"{folder}: is not a model that can be served (needs config.json and *.safetensors)")
    return folder.resolve()


def served_name(folder: Path) -> str:
    """`NAME-0123456789`: the folder's name and a hash over its files.

    SEA-HELM files its results under the last part of a model's name: two checkpoints that are both called `model`
    would share answers. The place of the folder does not enter, what is in it does.
    """
    digest = hashlib.sha256()
    for file in _files(folder):
        with file.open("rb") as opened:
            digest.update(f"{file.name}\0".encode() + hashlib.file_digest(opened, "sha256").digest())
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", folder.name).strip("-.") or "model"
    return f"{plain}-{digest.hexdigest()[:10]}"


def sampling(folder: Path, temperature: float | None, server: str) -> dict[str, Any]:
    """What decides a token beside the request, which carries a seed and a length only.

    Args:
        folder: The checkpoint.
        temperature: In place of the checkpoint's own; 0 is greedy.
        server: `transformers` reads all keys; `vllm` draws at temperature 1 where none is written.
    """
    content = {**_generation_config(folder), **(override(temperature, server) or {})}
    return {key: content[key] for key in SAMPLING if content.get(key) is not None}


def view(folder: Path, name: str, place: Path, generation: Mapping[str, Any] | None) -> Path:
    """A folder of links to the checkpoint, under the name that the server gives it.

    `transformers serve` knows a model by its path alone, so a path of that name it must be.

    Args:
        folder: The checkpoint.
        name: Of `served_name`.
        place: Where the new folder is made; one of that name is replaced.
        generation: Keys that win over the checkpoint's generation config; None leaves it alone.
    """
    made = place / name
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    for file in _files(folder):
        (made / file.name).symlink_to(file)
    if generation is not None:
        (made / GENERATION).unlink(missing_ok=True)
        content = {**_generation_config(folder), **generation}
        kept = {key: value for key, value in content.items() if value is not None}
        (made / GENERATION).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return made


def override(temperature: float | None, server: str) -> dict[str, Any] | None:
    """The keys that a temperature puts into the generation config; None: nothing is changed."""
    return None if temperature is None else _tempered(temperature, server)


def _tempered(temperature: float, server: str) -> dict[str, Any]:
    if temperature > 0:
        return {"do_sample": True, "temperature": temperature}
    zero = 0.0 if server == "vllm" else None  # transformers warns of a temperature beside do_sample=False
    return {"do_sample": False, "temperature": zero, "top_p": None, "top_k": None, "min_p": None}


def _generation_config(folder: Path) -> dict[str, Any]:
    file = folder / GENERATION
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: is not JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and file.name not in _LEFT_BEHIND)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, ignore_patterns=["*.bin", "*.pth", "*.gguf", "*.h5", "*.msgpack"]))
    except Exception as error:  # the hub's errors share no class with those of the network below it
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EnvironmentFault(f"{name}: is no folder here, and the hub does not give it: {reason}") from error
