"""The cold start: SFT or DFT on the rows, a folder, or nothing, before the method begins."""

from __future__ import annotations

import copy
import functools
import gc
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, set_seed

from dudi import checkpoints
from dudi.adapters import innermost, is_adapted, with_adapter
from dudi.arguments import COLD_STARTS, METHOD_STAGE_KEYS
from dudi.errors import ConfigError
from dudi.ranks import from_first
from dudi.runlog import RunLog, read_jsonl
from dudi.saving import binding_keys
from dudi.stages.shared import fetch, hash_of, share, stands, teacher_hash

if TYPE_CHECKING:
    from dudi.trainer import DudiTrainer

COLD_START = "cold_start"


def cold_start(trainer: DudiTrainer) -> str:
    """Bring the student to where stage 2 starts; returns how an adapter was treated (`merge`, `continue`, `none`)."""
    wanted = trainer.args.cold_start
    if wanted == "none":
        return "continue" if trainer.peft_config is None and is_adapted(trainer.model) else "none"
    if wanted not in COLD_STARTS:
        _load_student(trainer, _existing(Path(wanted)))
        return _settle_adapter(trainer)
    folder = trainer.args.folder / "stages" / COLD_START
    key = cold_start_key(trainer)
    if stands(trainer, folder / "model", key) or fetch(trainer, COLD_START, key, folder):
        _load_student(trainer, folder / "model")
        _repeat_metrics(trainer, folder)
    else:
        _train_cold_start(trainer, folder, key)
        share(trainer, COLD_START, key, folder)
    return _settle_adapter(trainer)


def cold_start_key(trainer: DudiTrainer) -> str:
    """Hash of all that a cold start depends on: data, student, templates, world size, and its own keys."""
    args = trainer.args
    sampling = {"temperature", "max_new_tokens"} if args.cold_start == "teacher_sft" else set()
    unread = METHOD_STAGE_KEYS - sampling
    stage = args.for_cold_start("-")
    keys = {k: v for k, v in binding_keys(stage).items() if k not in unread}
    own = {
        "keys": keys | {"max_steps": args.max_steps, "epochs": stage.num_train_epochs},
        "data": trainer.setup.train.digest if trainer.setup.train else "",
        "student": checkpoints.hash_parameters(trainer.model),
        "teacher": teacher_hash(trainer) if args.cold_start == "teacher_sft" else "",
        "template": trainer.setup.student_format.digest,
        "world_size": args.world_size,
    }
    return hash_of(own)


def _train_cold_start(trainer: DudiTrainer, folder: Path, key: str) -> None:
    args = trainer.args.for_cold_start(str(folder))
    model = copy.deepcopy(trainer.model) if trainer.is_fsdp_enabled else trainer.model
    nested = type(trainer)(
        model,
        trainer.setup.teacher if trainer.args.cold_start == "teacher_sft" else None,
        args,
        trainer.setup.train,
        processing_class=trainer.setup.tokenizer,
        teacher_processing_class=trainer.setup.teacher_format.tokenizer,
        stage=COLD_START,
        log_dir=trainer.metrics_log.path.parent,
        interrupts=trainer.interrupts,
    )
    nested.allow_changed = trainer.allow_changed
    nested.identity()  # of all ranks together, before one of them looks
    newest = from_first(functools.partial(_checkpoint_of, nested))
    nested.train(resume_from_checkpoint=None if newest is None else str(newest))
    nested.save_sealed(folder / "model", {"key": key})
    RunLog(folder / "metrics.jsonl", args.should_save).replace(_curve(nested))
    nested.accelerator.unwrap_model(nested.model_wrapped, keep_fp32_wrapper=False)
    nested.accelerator.free_memory()
    sharded = trainer.is_fsdp_enabled
    del nested
    gc.collect()
    if sharded:
        _load_student(trainer, folder / "model")


def _checkpoint_of(nested: DudiTrainer) -> Path | None:
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


def _curve(trainer: DudiTrainer) -> list[dict[str, Any]]:
    """The cold start's lines of the run's metrics."""
    return [record for record in read_jsonl(trainer.metrics_log.path) if record.get("stage") == COLD_START]


def _repeat_metrics(trainer: DudiTrainer, folder: Path) -> None:
    """A cold start that was not run here still belongs to this run's curves."""
    kept, own = read_jsonl(folder / "metrics.jsonl"), _curve(trainer)
    if trainer.args.process_index == 0 and len(own) < len(kept):
        others = [record for record in read_jsonl(trainer.metrics_log.path) if record.get("stage") != COLD_START]
        trainer.metrics_log.path.parent.mkdir(parents=True, exist_ok=True)
        trainer.metrics_log.replace([*({**record, "cached": True} for record in kept), *others])


def _existing(folder: Path) -> Path:
    inside = folder / "model"
    if (inside / "config.json").is_file() or (inside / "adapter_config.json").is_file():
        return inside
    if not folder.is_dir():
        raise ConfigError(f"cold_start: '{folder}' is neither a folder nor one of {', '.join(COLD_STARTS)}")
    return folder


def _load_student(trainer: DudiTrainer, folder: Path) -> None:
    """Put the weights of a folder into the student: an adapter's into its adapter, a model's into its base."""
    model = trainer.model
    if (folder / "adapter_config.json").is_file():
        if not is_adapted(model):
            raise ConfigError(f"cold_start: {folder} holds an adapter, and the student has none; set lora")
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"), model.active_adapter)
        return
    source = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    target = innermost(model)
    state = source.state_dict()
    own = target.state_dict()
    plain = {name.replace(".base_layer.", "."): name for name in own if ".lora_" not in name}
    if plain.keys() != state.keys() or any(own[plain[n]].shape != t.shape for n, t in state.items()):
        raise ConfigError(f"cold_start: the model in {folder} is not shaped as the student is")
    target.load_state_dict({plain[name]: tensor for name, tensor in state.items()}, strict=False)


def _settle_adapter(trainer: DudiTrainer) -> str:
    """After a cold start with LoRA: merge its adapter and put on a new one, or go on with it."""
    if not is_adapted(trainer.model):
        return "none"
    if trainer.args.cold_start_adapter == "continue" or trainer.peft_config is None:
        return "continue"
    set_seed(trainer.args.seed)  # nothing after it must depend on whether the cold start was cached
    trainer.model = with_adapter(trainer.model.merge_and_unload(), trainer.peft_config, trainer.args.seed)
    trainer.model_wrapped = trainer.model
    trainer.model.to(trainer.args.device)
    return "merge"
