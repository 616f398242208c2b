"""The frozen reference, what is stored of it, and the moving average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from dudi.command import say
from dudi.distill.arguments import DudiConfig
from dudi.distill.stages.cache import hash_of, seal_stage, stands
from dudi.distill.state import Run
from dudi.errors import ConfigError
from dudi.models.adapters import (
    REFERENCE_ADAPTER,
    TEACHER_ADAPTER,
    adapter_pairs,
    adapter_settings,
    copy_adapter,
    innermost,
    is_adapted,
    lies_in_adapter,
    starts_as_its_base,
    trained,
)
from dudi.models.frozen import AdapterOff, FrozenModel, MovingAverage, OtherAdapter, frozen_copy
from dudi.models.sharding import whole
from dudi.models.widening import compute_in_float32
from dudi.objective.methods import METHODS
from dudi.training import checkpoints
from dudi.training.arguments import training_dtype


def check_reference(args: DudiConfig, model: nn.Module) -> None:
    """Raise a `ConfigError` for the precision of a copy that is not made: an adapter's reference is no copy."""
    if args.reference_dtype != "float32" and lies_in_adapter(model):
        raise ConfigError(
            f"reference_dtype: {args.reference_dtype} has no effect on an adapter, whose reference is the student's "
            "own weights and no copy of them; take it out"
        )


def make_reference(run: Run, on_new_adapter: bool) -> FrozenModel | AdapterOff | OtherAdapter:
    """The policy that stage 2 starts from, frozen: a copy, the student without its adapter, or a copied adapter."""
    model = run.model()
    if not lies_in_adapter(model):
        copied = frozen_copy(model if is_adapted(model) else innermost(model), getattr(torch, run.args.reference_dtype))
        if run.args.widens_frozen:
            compute_in_float32(copied.module)
        return copied
    if on_new_adapter and not METHODS[run.args.method].iterated and starts_as_its_base(model):
        return AdapterOff(run.wrapped, lambda: run.peft_model)
    name = copy_adapter(model, REFERENCE_ADAPTER)
    return OtherAdapter(run.wrapped, lambda: run.peft_model, name)


def make_moving_average(run: Run) -> MovingAverage:
    """The teacher of SDFT, equal to the student at first."""
    model = run.model()
    twin: FrozenModel | OtherAdapter
    if lies_in_adapter(model):
        twin = OtherAdapter(run.wrapped, lambda: run.peft_model, copy_adapter(model, TEACHER_ADAPTER))
    else:
        twin = frozen_copy(model if is_adapted(model) else innermost(model))
    return MovingAverage(twin, run.args.ema_rate, lambda: _pairs_with(run, twin))


def _pairs_with(run: Run, other: FrozenModel | OtherAdapter) -> list[tuple[Tensor, Tensor]]:
    """The student's parameters beside those of a policy that was copied from it: an adapter's, or all that a copy has.

    A copy of a student with adapters is paired in what is trained; the rest never differs.
    """
    own: Any = run.peft_model
    if isinstance(other, OtherAdapter):
        return adapter_pairs(own, own.active_adapter, other.name)
    if not is_adapted(own):
        return list(zip(run.inner_model.parameters(), other.module.parameters(), strict=True))
    twins = dict(other.module.named_parameters())
    return [(parameter, twins[name]) for name, parameter in trained(own)]


def reads_rows_once(args: DudiConfig, rows: int) -> bool:
    """Whether `max_steps` ends a run before it reads a row again: then nothing is worth keeping for it."""
    each = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return 0 < args.max_steps * each <= rows


def store_gold_reference(run: Run) -> dict[str, float]:
    """By row id, log pi_ref(y | x) of every training row: constants of the run, computed once and kept."""
    examples = run.rows
    # A copy's own weights, or the whole state of the student whose adapter it is.
    reference = run.reference.module if isinstance(run.reference, FrozenModel) else run.peft_model
    parts: dict[str, Any] = {
        "data": examples.digest,
        "reference": checkpoints.hash_parameters(reference),
        "precision": training_dtype(run.args),
    }
    if isinstance(run.reference, OtherAdapter):
        parts["adapter"] = adapter_settings(run.model())
    key = hash_of(parts)
    folder = run.args.folder / "stages" / "reference"
    if not stands(folder, key):
        if run.args.process_index == 0:
            say(f"the reference reads {len(examples.examples):,} targets once")
        batch = run.args.per_device_train_batch_size
        starts = list(range(0, len(examples.examples), batch))[run.args.process_index :: run.args.world_size]
        own: list[tuple[int, list[float]]] = []
        for start in starts:
            pairs = [(one.prompt, one.completion) for one in examples.examples[start : start + batch]]
            own.append((start, run.reference_log_probs(pairs).tolist()))
        values = torch.tensor([value for _, part in sorted(gather_object(own)) for value in part])
        file = "log_probs.safetensors"
        seal_stage(run, folder, key, lambda partial: checkpoints.save_file({"gold": values}, partial / file))
    stored = checkpoints.load_file(folder / "log_probs.safetensors")["gold"].tolist()
    return {e.row.id: value for e, value in zip(examples.examples, stored, strict=True)}


def reference_pairs(run: Run) -> list[tuple[Tensor, Tensor]]:
    """The student's trainable parameters beside the reference's."""
    if not isinstance(run.reference, FrozenModel | OtherAdapter):
        raise RuntimeError("the reference has no weights of its own")
    return _pairs_with(run, run.reference)


@torch.no_grad()
def copy_into_reference(run: Run) -> None:
    """Make the reference equal to the student."""
    for student, reference in reference_pairs(run):
        reference.copy_(whole(student))


def save_reference(run: Run, folder: Path, key: str) -> None:
    """Seal the reference's weights, numbered in the student's order."""
    tensors = {f"{i:05d}": reference.cpu().contiguous() for i, (_, reference) in enumerate(reference_pairs(run))}
    seal_stage(run, folder, key, lambda partial: checkpoints.save_file(tensors, partial / "opponent.safetensors"))


@torch.no_grad()
def load_reference(run: Run, folder: Path) -> None:
    """Put the sealed weights back into the reference."""
    saved = checkpoints.load_file(folder / "opponent.safetensors")
    for i, (_, reference) in enumerate(reference_pairs(run)):
        reference.copy_(saved[f"{i:05d}"])
