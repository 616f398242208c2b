"""Where a run goes on: which checkpoint, or whether it is finished already."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from dudi import checkpoints
from dudi.errors import ConfigError
from dudi.runlog import read_jsonl

if TYPE_CHECKING:
    from dudi.config import RunConfig
    from dudi.config.recipe import Recipe


def say(text: str) -> None:
    """Print for a person."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def starting_point(folder: Path, resume: str, own: Collection[str]) -> Path | None:
    """The checkpoint to go on from, or None for a fresh start.

    Args:
        folder: The run's folder.
        resume: `auto`, `never` or a checkpoint.
        own: The stages that the run may have.

    Raises:
        ConfigError: the path holds no whole checkpoint, or the folder holds a run of another method.
    """
    if resume not in ("auto", "never"):
        path = Path(resume)
        checkpoints.verify(path)
        return path
    if resume == "never":
        move_aside(folder)
        return None
    newest, skipped = checkpoints.newest_valid(folder / "checkpoints")
    for reason in skipped:
        say(f"skipped: {reason}")
    if skipped and newest is None:
        say("no whole checkpoint is left: the method starts at its first step")
    stages = {record.get("stage") for record in read_jsonl(folder / "metrics.jsonl")}
    foreign = stages - set(own)
    if foreign:
        raise ConfigError(
            f"{folder} holds a run of {', '.join(sorted(map(str, foreign)))}; use another --output, or --resume never"
        )
    return newest


def config_digest(config: Recipe) -> str:
    """Hash of every value of a recipe, given or default."""
    values = [config.model_dump(mode="json", exclude={"training"}), config.settings]
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def is_finished(folder: Path, config: Recipe) -> bool:
    """Whether a folder holds exactly this recipe's final model, whole."""
    model = folder / "model"
    checkpoints.settle(model)
    if not model.is_dir():
        return False
    try:
        return checkpoints.verify(model).get("config") == config_digest(config)
    except ConfigError as error:
        say(f"skipped: {error}")
        return False


def is_reported(folder: Path, config: RunConfig) -> bool:
    """Whether everything that follows the final model was written after it."""
    names = ["report.html", "README.md"] + (["benchmark.json"] if config.benchmark is not None else [])
    since = (folder / "model" / checkpoints.MANIFEST).stat().st_mtime_ns
    return all((folder / name).is_file() and (folder / name).stat().st_mtime_ns >= since for name in names)


def move_aside(folder: Path) -> None:
    """Make place for a new run, without losing the old one."""
    if not folder.exists():
        return
    number = 1
    while (old := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    folder.rename(old)
    say(f"the run that was in {folder} is now in {old}")


def go_on(folder: Path, start: Path | None, resume: str) -> None:
    """Say where the run goes on; checkpoints after one that was asked for by name are set aside."""
    if start is None:
        return
    say(f"going on from {start}")
    if resume != "auto" and start.resolve().parent == (folder / "checkpoints").resolve():
        step = int(checkpoints.read_manifest(start)["step"])
        for moved in checkpoints.set_aside_after(folder / "checkpoints", step):
            say(f"a later checkpoint is now in {moved}")
