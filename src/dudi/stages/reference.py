"""The frozen reference, what is stored of it, and the moving average."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from dudi import checkpoints
from dudi.adapters import REFERENCE_ADAPTER, TEACHER_ADAPTER, adapter_pairs, copy_adapter, innermost, is_adapted
from dudi.arguments import DudiConfig
from dudi.data.chat import Tokens
from dudi.data.examples import ExampleSet
from dudi.methods import METHODS
from dudi.sharding import whole
from dudi.stages.shared import hash_of, stands, train_set
from dudi.teachers import AdapterOff, FrozenModel, MovingAverage, OtherAdapter, frozen_copy

if TYPE_CHECKING:
    from dudi.trainer import DudiTrainer


def reference_needed(args: DudiConfig) -> bool:
    """Whether a frozen reference is read."""
    return "sequence" in args.signals


def moving_average_needed(args: DudiConfig) -> bool:
    """Whether the teacher is the student's moving average."""
    return METHODS[args.method].teacher == "ema" and "on_policy" in args.signals


def make_reference(trainer: DudiTrainer, on_new_adapter: bool) -> FrozenModel | AdapterOff | OtherAdapter:
    """The policy that stage 2 starts from, frozen: a copy, the student without its adapter, or a copied adapter."""
    if not is_adapted(trainer.model):
        return frozen_copy(innermost(trainer.model))
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
    twin = frozen_copy(innermost(trainer.model))
    return MovingAverage(twin, trainer.args.ema_rate, lambda: _paired(trainer.inner_model(), twin.module))


def _paired(model: nn.Module, twin: nn.Module) -> list[tuple[Tensor, Tensor]]:
    return list(zip(model.parameters(), twin.parameters(), strict=True))


def store_gold_reference(trainer: DudiTrainer) -> None:
    """Store log pi_ref(y | x) of every training row, in row order: constants of the run, computed once and kept."""
    examples = train_set(trainer)
    key = hash_of({"data": examples.digest, "reference": _reference_hash(trainer)})
    folder = trainer.args.folder / "stages" / "reference"
    if not stands(trainer, folder, key):
        batch = trainer.args.per_device_train_batch_size
        starts = list(range(0, len(examples.examples), batch))[trainer.args.process_index :: trainer.args.world_size]
        own = [(start, trainer.reference_log_probs(_pairs(examples, start, batch)).tolist()) for start in starts]
        values = [value for _, part in sorted(gather_object(own)) for value in part]

        def fill(partial: Path) -> None:
            checkpoints.save_file({"gold": torch.tensor(values)}, partial / "log_probs.safetensors")

        trainer.write_once(lambda: checkpoints.seal(folder, fill, {"key": key}))
    stored = checkpoints.load_file(folder / "log_probs.safetensors")["gold"].tolist()
    trainer.gold_reference = {e.row.id: value for e, value in zip(examples.examples, stored, strict=True)}


def _reference_hash(trainer: DudiTrainer) -> str:
    """The reference's identity: a copy's own weights, or the whole state of the student whose adapter it is."""
    if isinstance(trainer.reference, FrozenModel):
        return checkpoints.hash_parameters(trainer.reference.module)
    return checkpoints.hash_parameters(trainer.peft_model)


def _pairs(examples: ExampleSet, start: int, size: int) -> list[tuple[Tokens, Tokens]]:
    return [(example.prompt, example.completion) for example in examples.examples[start : start + size]]


def reference_pairs(trainer: DudiTrainer) -> list[tuple[Tensor, Tensor]]:
    """The student's trainable parameters beside the reference's."""
    if isinstance(trainer.reference, FrozenModel):
        return _paired(trainer.inner_model(), trainer.reference.module)
    return adapter_pairs(trainer.peft_model, trainer.peft_model.active_adapter, REFERENCE_ADAPTER)


@torch.no_grad()
def copy_into_reference(trainer: DudiTrainer) -> None:
    """Make the reference equal to the student."""
    for student, reference in reference_pairs(trainer):
        reference.copy_(whole(student))


def save_reference(trainer: DudiTrainer, folder: Path, key: str) -> None:
    """Seal the reference's weights, numbered in the student's order."""
    tensors = {f"{i:05d}": reference.cpu().contiguous() for i, (_, reference) in enumerate(reference_pairs(trainer))}

    def fill(partial: Path) -> None:
        checkpoints.save_file(tensors, partial / "opponent.safetensors")

    trainer.write_once(lambda: checkpoints.seal(folder, fill, {"key": key}))


@torch.no_grad()
def load_reference(trainer: DudiTrainer, folder: Path) -> None:
    """Put the sealed weights back into the reference."""
    saved = checkpoints.load_file(folder / "opponent.safetensors")
    for i, (_, reference) in enumerate(reference_pairs(trainer)):
        reference.copy_(saved[f"{i:05d}"])
