"""What runs before the first step of a method, and between the iterations of SPIN.

Each stage leaves a sealed folder in the run's `stages/`; the cold start and the teacher's answers are also shared
between runs through `cache_dir`, keyed by everything that they depend on.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, set_seed

from dudi import checkpoints
from dudi.arguments import COLD_STARTS, METHOD_STAGE_KEYS
from dudi.data.examples import ExampleSet, digest_of, with_completion
from dudi.errors import ConfigError
from dudi.methods import METHODS
from dudi.rollouts import Engine, NoiseKey, Request, Rollout
from dudi.saving import binding_keys
from dudi.setup import moving_average_needed, reference_needed
from dudi.teachers import (
    REFERENCE_ADAPTER,
    TEACHER_ADAPTER,
    AdapterOff,
    FrozenModel,
    MovingAverage,
    OtherAdapter,
    adapter_pairs,
    copy_adapter,
    frozen_copy,
)

if TYPE_CHECKING:
    from dudi.trainer import DudiTrainer

COLD_START = "cold_start"


def is_adapted(model: nn.Module) -> bool:
    """Whether a model carries adapters of `peft`."""
    return "peft" in type(model).__module__


def with_adapter(model: nn.Module, peft_config: Any) -> nn.Module:
    """The model with a new adapter, if one is asked for."""
    if peft_config is None or is_adapted(model):
        return model
    from peft import get_peft_model

    return get_peft_model(model, copy.deepcopy(peft_config))


def step_of(checkpoint: str | bool) -> int:
    """The optimizer step of a checkpoint folder."""
    name = Path(str(checkpoint)).name.removeprefix("step-")
    return int(name) if name.isdigit() else 0


def prepare(trainer: DudiTrainer) -> None:
    """Everything that comes before the first step: cold start, targets, reference, moving average."""
    started = cold_start(trainer)
    if trainer.args.targets == "teacher":
        write_targets(trainer)
    if reference_needed(trainer.args):
        trainer.reference = make_reference(trainer, on_new_adapter=started != "continue")
        if not METHODS[trainer.args.method].iterated:
            store_gold_reference(trainer)
    if moving_average_needed(trainer.args):
        trainer.teacher = make_moving_average(trainer)
    # A cached stage draws nothing from the global generators: without this, dropout would depend on the cache.
    set_seed(trainer.args.seed)


# ---- the cold start


def cold_start(trainer: DudiTrainer) -> str:
    """Bring the student to where stage 2 starts; returns how an adapter was treated (`merge`, `continue`, `none`)."""
    wanted = trainer.args.cold_start
    if wanted == "none":
        return "continue" if trainer.peft_config is None and is_adapted(trainer.model) else "none"
    if wanted not in COLD_STARTS:
        _load_student(trainer, _existing(Path(wanted)))
        return _settle_adapter(trainer)
    folder = Path(trainer.args.output_dir) / "stages" / COLD_START
    key = cold_start_key(trainer)
    if _holds(folder / "model", key) or _fetch(trainer, COLD_START, key, folder):
        _load_student(trainer, folder / "model")
        _repeat_metrics(trainer, folder)
    else:
        _train_cold_start(trainer, folder, key)
        _share(trainer, COLD_START, key, folder)
    return _settle_adapter(trainer)


def cold_start_key(trainer: DudiTrainer) -> str:
    """Hash of all that a cold start depends on: data, student, templates, world size, and its own keys."""
    args = trainer.args
    sampling = {"temperature", "max_new_tokens"} if args.cold_start == "teacher_sft" else set()
    unread = METHOD_STAGE_KEYS - sampling
    keys = {k: v for k, v in binding_keys(args.for_cold_start("-")).items() if k not in unread}
    own = {
        "keys": keys | {"max_steps": args.max_steps, "epochs": args.stage_epochs},
        "data": trainer.setup.train.digest if trainer.setup.train else "",
        "student": checkpoints.hash_parameters(trainer.model),
        "teacher": _teacher_hash(trainer) if args.cold_start == "teacher_sft" else "",
        "template": trainer.setup.student_format.digest,
        "world_size": args.world_size,
    }
    return _hash(own)


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
    )
    newest, _ = checkpoints.newest_valid(nested.checkpoint_root)
    if newest is not None:
        try:
            nested.check_resume(newest)
        except ConfigError:
            newest = None
    nested.train(resume_from_checkpoint=None if newest is None else str(newest))
    nested.save_sealed(folder / "model", {"key": key})
    lines = [r for r in _metrics(nested) if r.get("stage") == COLD_START]
    if args.should_save:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines), encoding="utf-8")
    nested.accelerator.unwrap_model(nested.model_wrapped, keep_fp32_wrapper=False)
    nested.accelerator.free_memory()
    sharded = trainer.is_fsdp_enabled
    del nested
    gc.collect()
    if sharded:
        _load_student(trainer, folder / "model")


def _metrics(trainer: DudiTrainer) -> list[dict[str, Any]]:
    from dudi.runlog import read_jsonl

    return read_jsonl(trainer.metrics_log.path)


def _repeat_metrics(trainer: DudiTrainer, folder: Path) -> None:
    """A cold start that was not run here still belongs to this run's curves."""
    from dudi.runlog import read_jsonl

    if any(record.get("stage") == COLD_START for record in _metrics(trainer)):
        return
    for record in read_jsonl(folder / "metrics.jsonl"):
        trainer.metrics_log.append({**record, "cached": True})


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
    target = model.get_base_model() if is_adapted(model) else model
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
    set_seed(trainer.args.seed)  # the new adapter's start must not depend on whether the cold start was cached
    trainer.model = with_adapter(trainer.model.merge_and_unload(), trainer.peft_config)
    trainer.model_wrapped = trainer.model
    trainer.model.to(trainer.args.device)
    return "merge"


# ---- answers that are written once


def write_targets(trainer: DudiTrainer) -> None:
    """SeqKD: let the teacher answer every row once, and train on that."""
    examples = _train_set(trainer)
    key = _hash(
        {
            "data": examples.digest,
            "teacher": _teacher_hash(trainer),
            "template": trainer.setup.teacher_format.digest,
            **{name: getattr(trainer.args, name) for name in ("seed", "temperature", "max_new_tokens")},
        }
    )
    folder = Path(trainer.args.output_dir) / "stages" / "targets"
    if not _holds(folder / "answers", key) and not _fetch(trainer, "targets", key, folder, "answers"):
        engine = trainer.engine_of(trainer.teacher_for_generation, trainer.setup.teacher_format.stop_ids)
        prompts = [list(example.teacher_prompt) for example in examples.examples]
        _write_answers(trainer, engine, prompts, "teacher", 0, folder / "answers", {"key": key})
        _share(trainer, "targets", key, folder)
    answers = _read_answers(folder / "answers")
    replaced = [
        with_completion(example, answers[example.row.id].ids, answers[example.row.id].ended, trainer.args.max_length)
        for example in examples.examples
    ]
    trainer.use_examples(ExampleSet(replaced, examples.truncated, digest_of(replaced)))


def _write_answers(
    trainer: DudiTrainer,
    engine: Engine,
    prompts: list[list[int]],
    kind: str,
    epoch: int,
    folder: Path,
    about: Mapping[str, Any],
) -> None:
    """Answer every training row, each rank its share, and seal the answers in row order."""
    args, examples = trainer.args, _train_set(trainer).examples
    own = range(args.process_index, len(examples), args.world_size)
    requests = [Request(prompts[i], NoiseKey(args.seed, examples[i].row.id, epoch, kind)) for i in own]
    written = [(i, r.ids, r.ended) for i, r in zip(own, engine.generate(requests), strict=True)]
    lines = [
        json.dumps({"id": examples[i].row.id, "ids": ids, "ended": ended}, ensure_ascii=False)
        for i, ids, ended in sorted(gather_object(written))
    ]

    def fill(partial: Path) -> None:
        (partial / "answers.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")

    if args.should_save:
        checkpoints.seal(folder, fill, about)
    trainer.accelerator.wait_for_everyone()


def _read_answers(folder: Path) -> dict[str, Rollout]:
    text = (folder / "answers.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in text.split("\n") if line]
    return {r["id"]: Rollout(r["ids"], r["ended"]) for r in records}


# ---- the reference and the moving average


def make_reference(trainer: DudiTrainer, on_new_adapter: bool) -> FrozenModel | AdapterOff | OtherAdapter:
    """The policy that stage 2 starts from, frozen: a copy, the student without its adapter, or a copied adapter."""
    if not is_adapted(trainer.model):
        return frozen_copy(trainer.model)
    if on_new_adapter and not METHODS[trainer.args.method].iterated:
        return AdapterOff(lambda: trainer.model_wrapped, lambda: trainer.peft_model)
    copy_adapter(trainer.model, REFERENCE_ADAPTER)
    return OtherAdapter(lambda: trainer.model_wrapped, lambda: trainer.peft_model, REFERENCE_ADAPTER)


def make_moving_average(trainer: DudiTrainer) -> MovingAverage:
    """The teacher of SDFT, equal to the student at first."""
    if is_adapted(trainer.model):
        own = trainer.model.active_adapter
        copy_adapter(trainer.model, TEACHER_ADAPTER)
        adapter = OtherAdapter(lambda: trainer.model_wrapped, lambda: trainer.peft_model, TEACHER_ADAPTER)
        return MovingAverage(
            adapter, trainer.args.ema_rate, lambda: adapter_pairs(trainer.peft_model, own, TEACHER_ADAPTER)
        )
    twin = frozen_copy(trainer.model)
    return MovingAverage(twin, trainer.args.ema_rate, lambda: _paired(trainer.inner_model(), twin.module))


def _paired(model: nn.Module, twin: nn.Module) -> list[tuple[Tensor, Tensor]]:
    return list(zip(model.parameters(), twin.parameters(), strict=True))


def store_gold_reference(trainer: DudiTrainer) -> None:
    """log pi_ref(y | x) of every training row, in row order: constants of the run, computed once and kept."""
    examples = _train_set(trainer)
    key = _hash({"data": examples.digest, "reference": _reference_hash(trainer)})
    folder = Path(trainer.args.output_dir) / "stages" / "reference"
    if not _holds(folder, key):
        batch = trainer.args.per_device_train_batch_size
        starts = list(range(0, len(examples.examples), batch))[trainer.args.process_index :: trainer.args.world_size]
        own = [(start, trainer.reference_log_probs(_pairs(examples, start, batch)).tolist()) for start in starts]
        values = [value for _, part in sorted(gather_object(own)) for value in part]

        def fill(partial: Path) -> None:
            checkpoints.save_file({"gold": torch.tensor(values)}, partial / "log_probs.safetensors")

        if trainer.args.should_save:
            checkpoints.seal(folder, fill, {"key": key})
        trainer.accelerator.wait_for_everyone()
    stored = checkpoints.load_file(folder / "log_probs.safetensors")["gold"].tolist()
    trainer.gold_reference = {e.row.id: value for e, value in zip(examples.examples, stored, strict=True)}


def _reference_hash(trainer: DudiTrainer) -> str:
    """The reference's identity: of a copy its own weights, of an adapter the student's whole state (it is part of it)."""
    if isinstance(trainer.reference, FrozenModel):
        return checkpoints.hash_parameters(trainer.reference.module)
    return checkpoints.hash_parameters(trainer.peft_model)


def _pairs(examples: ExampleSet, start: int, size: int) -> list[tuple[Any, Any]]:
    return [(example.prompt, example.completion) for example in examples.examples[start : start + size]]


# ---- the iterations of SPIN


def begin_iteration(trainer: DudiTrainer, iteration: int) -> None:
    """Make the student the new opponent, let it answer every row, and start the optimizer afresh.

    Each row is trained once per iteration, against its answer from this iteration or the one before: a coin, the same
    for the same seed, row and iteration (the original trains on both iterations' data).
    """
    folder = Path(trainer.args.output_dir) / "stages" / "spin"
    key = _hash({"identity": trainer.identity(), "iteration": iteration})
    here = folder / f"iteration-{iteration}"
    resumed_inside = (trainer.state.epoch or 0) != iteration
    if not resumed_inside:
        _copy_into_reference(trainer)
        trainer.optimizer.state.clear()
        _write_answers(trainer, trainer.student_engine(), _prompts(trainer), "spin", iteration, here, {"key": key})
        _save_reference(trainer, here / "reference", key)
    elif not _holds(here / "reference", key):
        raise ConfigError(
            f"{here}: the opponent of iteration {iteration} is gone; this run cannot be resumed inside it"
        )
    else:
        _load_reference(trainer, here / "reference")
    pools = [_read_answers(folder / f"iteration-{i}") for i in range(max(0, iteration - 1), iteration + 1)]
    trainer.collector.pool = {
        row_id: pools[_coin(trainer.args.seed, row_id, iteration) % len(pools)][row_id] for row_id in pools[0]
    }
    store_gold_reference(trainer)


def _coin(seed: int, row_id: str, iteration: int) -> int:
    text = repr((seed, row_id, iteration, "pool")).encode("utf-8", "backslashreplace")
    return hashlib.sha256(text).digest()[0]


def _prompts(trainer: DudiTrainer) -> list[list[int]]:
    return [list(example.prompt) for example in _train_set(trainer).examples]


def reference_pairs(trainer: DudiTrainer) -> list[tuple[Tensor, Tensor]]:
    """The student's trainable parameters beside the reference's."""
    if isinstance(trainer.reference, FrozenModel):
        return _paired(trainer.inner_model(), trainer.reference.module)
    return adapter_pairs(trainer.peft_model, trainer.peft_model.active_adapter, REFERENCE_ADAPTER)


@torch.no_grad()
def _copy_into_reference(trainer: DudiTrainer) -> None:
    for student, reference in reference_pairs(trainer):
        reference.copy_(student)


def _save_reference(trainer: DudiTrainer, folder: Path, key: str) -> None:
    tensors = {f"{i:05d}": reference.cpu().contiguous() for i, (_, reference) in enumerate(reference_pairs(trainer))}
    if trainer.args.should_save:
        checkpoints.seal(
            folder, lambda partial: checkpoints.save_file(tensors, partial / "opponent.safetensors"), {"key": key}
        )
    trainer.accelerator.wait_for_everyone()


@torch.no_grad()
def _load_reference(trainer: DudiTrainer, folder: Path) -> None:
    saved = checkpoints.load_file(folder / "opponent.safetensors")
    for i, (_, reference) in enumerate(reference_pairs(trainer)):
        reference.copy_(saved[f"{i:05d}"])


# ---- shared folders


def _train_set(trainer: DudiTrainer) -> ExampleSet:
    if trainer.setup.train is None:
        raise ConfigError("train_dataset: there is none")
    return trainer.setup.train


def _teacher_hash(trainer: DudiTrainer) -> str:
    if trainer.setup.teacher is None:
        raise ConfigError(f"method {trainer.args.method}: teacher-written answers need a teacher")
    return checkpoints.hash_parameters(trainer.setup.teacher)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _holds(folder: Path, key: str) -> bool:
    """Whether a folder is whole and belongs to this key."""
    if not (folder / checkpoints.MANIFEST).is_file():
        return False
    try:
        return checkpoints.verify(folder).get("key") == key
    except ConfigError:
        return False


def _cache(trainer: DudiTrainer, kind: str, key: str) -> Path:
    root = trainer.args.cache_dir or os.environ.get("DUDI_CACHE") or Path.home() / ".cache" / "dudi"
    return Path(root) / kind / key


def _fetch(trainer: DudiTrainer, kind: str, key: str, folder: Path, part: str = "model") -> bool:
    """Take a stage from the cache into this run, if it is there."""
    shared = _cache(trainer, kind, key)
    if not _holds(shared / part, key):
        return False
    if trainer.args.should_save:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(shared, folder, copy_function=_link)
    trainer.accelerator.wait_for_everyone()
    return True


def _share(trainer: DudiTrainer, kind: str, key: str, folder: Path) -> None:
    """Offer a finished stage to other runs; a cache that cannot be written is no reason to stop."""
    shared = _cache(trainer, kind, key)
    if not trainer.args.should_save or shared.exists():
        return
    partial = shared.with_name(f".{key}.{os.getpid()}")
    try:
        shutil.copytree(folder, partial, copy_function=_link, ignore=shutil.ignore_patterns("checkpoints", "runs"))
        os.replace(partial, shared)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
