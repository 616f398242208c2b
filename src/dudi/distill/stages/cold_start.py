"""The cold start: SFT or DFT on the rows, a folder, or nothing, before the method begins."""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import set_seed

from dudi.command import say
from dudi.distill.arguments import DudiConfig
from dudi.distill.keys import COLD_STARTS, METHOD_STAGE_KEYS
from dudi.distill.stages.cache import alone, fetch, hash_of, share, stands, teacher_hash
from dudi.distill.state import Run
from dudi.errors import ConfigError
from dudi.models.adapters import CONFIG, adapter_settings, is_adapted, with_adapter
from dudi.models.load import load_model
from dudi.training import checkpoints
from dudi.training.arguments import binding_keys
from dudi.training.logged import LoggedTrainer
from dudi.training.ranks import from_first
from dudi.training.runlog import RunLog, read_jsonl

COLD_START = "cold_start"
MakeTrainer = Callable[[nn.Module, DudiConfig], LoggedTrainer]
"""Makes a trainer of a model with other keys, on the same rows and logs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Started:
    """Where stage 2 starts.

    Attributes:
        model: The student, with its adapters.
        same_adapter: Whether it has an adapter, and it is the one of before.
        base_changed: Whether the weights under the adapter are others than before.
        key: Of the cold start that was trained, here or in another run (`cold_start_key`); None where none was.
    """

    model: nn.Module
    same_adapter: bool
    base_changed: bool = False
    key: str | None = None


def cold_start(
    run: Run, peft_config: Any, make_trainer: MakeTrainer, resumed: Mapping[str, Any] | None = None
) -> Started:
    """Bring the student to where stage 2 starts.

    It is taken from the run's folder or from the cache, where it stands there, and else trained. With the manifest of
    the checkpoint that the method goes on from (`resumed`), its cold start is taken, whatever this run would train:
    the student and its reference have begun there.

    Raises:
        ConfigError: the cold start that the method began from is gone, and this run would train another.
    """
    wanted, model = run.args.cold_start, run.model()
    if wanted == "none":
        return Started(model, peft_config is None and is_adapted(model))
    if wanted not in COLD_STARTS:
        return _from_folder(run, peft_config, _existing(Path(wanted)))
    folder = run.args.folder / "stages" / COLD_START
    own = cold_start_key(run)
    key = own if resumed is None else from_first(functools.partial(_began_from, resumed, folder, own))
    if key != own and run.args.process_index == 0:
        say("note: the method goes on from the cold start that it began with, which stays as long as it was")
    with alone(run, COLD_START, key):
        if stands(folder / "model", key) or fetch(run, COLD_START, key, folder):
            _load_student(model, folder / "model")
            _repeat_metrics(run, folder)
        elif key != own:
            raise ConfigError(
                f"{folder}: the cold start that the method began from is gone, and with these settings another would "
                "be trained; resume with the earlier max_steps and epochs, or use another --output"
            )
        else:
            _train_cold_start(run, folder, key, make_trainer)
            share(run, COLD_START, key, folder)
    return dataclasses.replace(_settle_adapter(run, peft_config), key=key)


def _began_from(resumed: Mapping[str, Any], folder: Path, own: str) -> str:
    """The key of the cold start that a checkpoint's run began from.

    Checkpoints of earlier versions do not name it: it is the one in the run's folder, or what this run would train.
    """
    if "began_from" in resumed:
        return str(resumed["began_from"].get(COLD_START, own))
    checkpoints.settle(folder / "model")
    try:
        return str(checkpoints.read_manifest(folder / "model").get("key", own))
    except ConfigError:
        return own


def cold_start_key(run: Run) -> str:
    """Hash of all that a cold start depends on: data, student, adapter, templates, world size, and its own keys."""
    args = run.args
    written = args.cold_start == "teacher_sft"
    unread = METHOD_STAGE_KEYS - ({"temperature", "max_new_tokens"} if written else set())
    stage = args.for_cold_start("-")
    keys = {k: v for k, v in binding_keys(stage).items() if k not in unread}
    own = {
        "keys": keys | {"max_steps": args.max_steps, "epochs": stage.num_train_epochs},
        "data": run.setup.train.digest if run.setup.train else "",
        "student": checkpoints.hash_parameters(run.model()),
        "teacher": teacher_hash(run) if written else "",
        "template": run.setup.student_format.digest,
        "world_size": args.world_size,
    }
    if is_adapted(run.model()):
        own["adapter"] = adapter_settings(run.model())
    if written:
        own["teacher_template"] = run.setup.teacher_format.digest
    return hash_of(own)


def start_folder_hash(args: DudiConfig) -> str | None:
    """Hash of the weights in the folder that `cold_start` names; None where it names none."""
    if args.cold_start in COLD_STARTS:
        return None
    files = sorted(_existing(Path(args.cold_start)).glob("*.safetensors"))
    return hash_of({file.name: checkpoints.sha256_of(file) for file in files})


def _train_cold_start(run: Run, folder: Path, key: str, make_trainer: MakeTrainer) -> None:
    model = run.model()
    nested = make_trainer(copy.deepcopy(model) if run.sharded else model, run.args.for_cold_start(str(folder)))
    nested.identity()  # of all ranks together, before one of them looks
    newest = from_first(functools.partial(_checkpoint_of, nested))
    nested.train(resume_from_checkpoint=None if newest is None else str(newest))
    nested.save_sealed(folder / "model", {"key": key})
    curve = [record for record in read_jsonl(nested.metrics_log.path) if record.get("stage") == COLD_START]
    RunLog(folder / "metrics.jsonl", run.args.should_save).replace(curve)
    nested.accelerator.unwrap_model(nested.model_wrapped, keep_fp32_wrapper=False)
    nested.accelerator.free_memory()
    del nested
    gc.collect()
    if run.sharded:
        _load_student(model, folder / "model")


def _checkpoint_of(nested: LoggedTrainer) -> Path | None:
    """Where a cold start that was cut off goes on; checkpoints of one with other settings are moved aside."""
    newest, skipped = checkpoints.newest_valid(nested.checkpoint_root)
    try:
        if newest is not None:
            nested.check_resume(newest)
    except ConfigError as error:
        skipped.append(str(error))
        newest = None
        os.replace(nested.checkpoint_root, checkpoints.free_name(nested.checkpoint_root.with_name("checkpoints.old")))
    for reason in skipped:
        warnings.warn(f"skipped: {reason}", stacklevel=2)
    return newest


def _repeat_metrics(run: Run, folder: Path) -> None:
    """A cold start that was not run here still belongs to this run's curves."""
    kept, there = read_jsonl(folder / "metrics.jsonl"), read_jsonl(run.log.path)
    others = [record for record in there if record.get("stage") != COLD_START]
    if run.args.process_index == 0 and len(there) - len(others) < len(kept):
        run.log.path.parent.mkdir(parents=True, exist_ok=True)
        run.log.replace([*({**record, "cached": True} for record in kept), *others])


def _existing(folder: Path) -> Path:
    inside = folder / "model"
    if (inside / "config.json").is_file() or (inside / CONFIG).is_file():
        return inside
    if not folder.is_dir():
        raise ConfigError(f"cold_start: '{folder}' is neither a folder nor one of {', '.join(COLD_STARTS)}")
    return folder


def _from_folder(run: Run, peft_config: Any, folder: Path) -> Started:
    """Start from somebody's model, or from an adapter on the student."""
    model: Any = run.model()
    if not is_adapted(model) or (folder / CONFIG).is_file():
        _load_student(model, folder)
        return _settle_adapter(run, peft_config)
    if peft_config is None:
        raise ConfigError(
            f"cold_start: {folder} holds a whole model, and the student is a PeftModel; give the model alone, and its "
            "adapter as peft_config"
        )
    base = model.unload()  # some adapters hold copies of the base's weights
    _load_student(base, folder)
    renewed = with_adapter(base, peft_config, run.args.seed)
    return Started(renewed.to(run.args.device), run.args.cold_start_adapter == "continue", base_changed=True)


def _load_student(model: nn.Module, folder: Path) -> None:
    """Put the weights of a folder into the student: an adapter's into its adapter, a model's into the model."""
    if (folder / CONFIG).is_file():
        if not is_adapted(model):
            raise ConfigError(f"cold_start: {folder} holds an adapter, and the student has none; set lora")
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"), model.active_adapter)
        return
    state, own = load_model(str(folder)).state_dict(), model.state_dict()
    if own.keys() != state.keys() or any(own[name].shape != tensor.shape for name, tensor in state.items()):
        raise ConfigError(f"cold_start: the model in {folder} is not shaped as the student is")
    model.load_state_dict(state)


def _settle_adapter(run: Run, peft_config: Any) -> Started:
    """After a cold start with LoRA: merge its adapter and put on a new one, or go on with it."""
    model = run.model()
    if not is_adapted(model) or run.args.cold_start_adapter == "continue" or peft_config is None:
        return Started(model, is_adapted(model))
    set_seed(run.args.seed)  # nothing after it must depend on whether the cold start was cached
    renewed = with_adapter(model.merge_and_unload(), peft_config, run.args.seed)
    return Started(renewed.to(run.args.device), False, base_changed=True)
