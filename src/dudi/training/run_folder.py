"""Where a run goes on: which checkpoint, or whether it is finished already."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dudi.command import say
from dudi.environment import collect_environment
from dudi.errors import ConfigError
from dudi.files import write_json, write_text
from dudi.training import checkpoints
from dudi.training.lock import hold_anew
from dudi.training.runlog import read_jsonl

_FOLDERS = ("model", "checkpoints", "stages", "texts", "vectors")
_LOGS = ("metrics.jsonl", "samples.jsonl", "eval.jsonl", "bad_numbers.json")
_RECORDS = ("resolved.yaml", "env.json", "data.json", "README.md", "report.html", "evaluation.json", "answers.jsonl")
REPLACED = (*_FOLDERS, *_LOGS, *_RECORDS)
"""What a run writes into its folder, in place of what is there."""


def check_output(folder: Path, resume: str, named: Mapping[str, str | None]) -> None:
    """Refuse a folder in which a run would replace what no run has written, or what it reads itself.

    What it reads is `named` in the recipe, by its keys: models and rows; a name that is no path here is passed over.

    Raises:
        ConfigError: with what lies there, and what to do.
    """
    place = Path(os.path.realpath(folder))  # which no loop of links stops
    for key, name in named.items():
        path = Path(os.path.realpath(Path(name).expanduser())) if name else None
        if path is None or not path.exists() or not path.is_relative_to(place):
            continue
        if path == place:
            raise ConfigError(f"--output: {folder} is the folder of {key} itself; name another --output")
        if resume == "never" and folder.exists():
            raise ConfigError(f"--output: {folder} holds {name} ({key}), which would be moved away; name another")
        if path.relative_to(place).parts[0] in REPLACED:
            raise ConfigError(f"--output: a run in {folder} would replace {name} ({key}); name another --output")
    if resume == "never" or holds_run(folder):
        return
    paths = [folder / name for name in REPLACED]
    there = [path.name for path in paths if (any(path.iterdir()) if path.is_dir() else path.exists())]
    if there:
        raise ConfigError(
            f"--output: {folder} holds {', '.join(there)}, and no run of dudi: a run would replace what is there; name "
            "another --output, or move it away"
        )


def holds_run(folder: Path) -> bool:
    """Whether a run has begun in a folder: it says what it is, or has left its records or a checkpoint."""
    recorded = (folder / "resolved.yaml").is_file() and (folder / "env.json").is_file()
    checkpoint = next(folder.glob(f"checkpoints/step-*/{checkpoints.MANIFEST}"), None)
    return (folder / "identity.json").is_file() or recorded or checkpoint is not None


def starting_point(folder: Path, resume: str, own: Collection[str]) -> Path | None:
    """The checkpoint to go on from, or None for a fresh start.

    Args:
        folder: The run's folder.
        resume: `auto`, `never` (the whole folder is moved aside) or a checkpoint.
        own: The stages that the run may have.

    Raises:
        ConfigError: the path is not there or holds no whole checkpoint, or the folder holds a run of another method.
    """
    if resume not in ("auto", "never"):
        path = Path(resume)
        inside = [*checkpoints.steps_in(path), *checkpoints.steps_in(path / "checkpoints")]
        if inside or not path.is_dir():
            what = "holds checkpoints and is none" if inside else "no such folder"
            there = ", ".join(map(str, inside or checkpoints.steps_in(folder / "checkpoints")))
            raise ConfigError(f"--resume: {path}: {what}; {f'name one: {there}' if there else 'the run has none yet'}")
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
    foreign = sorted(map(str, stages - set(own)))
    if foreign:
        raise ConfigError(f"{folder} holds a run of {', '.join(foreign)}; use another --output, or --resume never")
    return newest


def is_finished(folder: Path, digest: str) -> bool:
    """Whether a folder holds the final model of the recipe with this digest, whole."""
    model = folder / "model"
    checkpoints.settle(model)
    if not model.is_dir():
        return False
    try:
        return checkpoints.verify(model).get("config") == digest
    except ConfigError as error:
        say(f"skipped: {error}")
        return False


def is_reported(folder: Path, names: Collection[str]) -> bool:
    """Whether each of these files, which follow the final model, was written after it."""
    since = (folder / "model" / checkpoints.MANIFEST).stat().st_mtime_ns
    return all((folder / name).is_file() and (folder / name).stat().st_mtime_ns >= since for name in names)


def move_aside(folder: Path) -> None:
    """Make place for a new run, without losing the old one.

    Raises:
        ConfigError: the folder holds the working directory.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ConfigError(f"--output: {folder} is where this command runs, and cannot be moved aside; name another")
    number = 1
    while (old := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    folder.rename(old)
    hold_anew(folder)
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


def write_records(folder: Path, resolved: str, data: dict[str, Any], *, dtype: str, use_cpu: bool) -> None:
    """Write down what a run is before it begins: `resolved.yaml` (its text), `env.json` and `data.json`.

    The precision that the recipe asks for and whether it leaves the accelerator alone are as in `choose_precision`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "resolved.yaml", resolved)
    found = collect_environment(folder, requested=dtype, use_cpu=use_cpu)
    write_json(folder / "env.json", found | {"command": ["dudi", *sys.argv[1:]]})
    write_json(folder / "data.json", data)
