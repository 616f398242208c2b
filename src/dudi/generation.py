"""Who writes during training: the live student, and for SeqKD the teacher, each behind an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel
from trl.models import unwrap_model_for_generation

from dudi.adapters import innermost
from dudi.errors import ConfigError
from dudi.rollouts import TransformersEngine
from dudi.sharding import gathered

if TYPE_CHECKING:
    from dudi.trainer import DudiTrainer


def student_engine(trainer: DudiTrainer) -> TransformersEngine:
    """Rollouts of the student as it is at the time of the call."""

    @contextlib.contextmanager
    def opened() -> Iterator[PreTrainedModel]:
        wrapped, accelerator = trainer.model_wrapped, trainer.accelerator
        training = wrapped.training
        with (
            unwrap_model_for_generation(wrapped, accelerator) as model,
            gathered(model, accelerator),
            accelerator.autocast(),
        ):
            model.eval()
            yield innermost(model)
        wrapped.train(training)

    return _engine(trainer, opened, trainer.setup.student_format.stop_ids)


def teacher_engine(trainer: DudiTrainer) -> TransformersEngine:
    """Answers of the teacher.

    Raises:
        ConfigError: there is none.
    """
    teacher = trainer.setup.teacher
    if teacher is None:
        raise ConfigError(f"method {trainer.args.method}: there is no teacher to write answers")

    @contextlib.contextmanager
    def opened() -> Iterator[PreTrainedModel]:
        with gathered(teacher, trainer.accelerator), trainer.accelerator.autocast():
            yield teacher

    return _engine(trainer, opened, trainer.setup.teacher_format.stop_ids)


def _engine(
    trainer: DudiTrainer, model: Callable[[], AbstractContextManager[PreTrainedModel]], stop_ids: Sequence[int]
) -> TransformersEngine:
    """An engine with this run's sampling."""
    args = trainer.args
    return TransformersEngine(
        model,
        stop_ids=stop_ids,
        pad_id=trainer.setup.student_format.end_of_turn,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        vocabulary=trainer.setup.vocabulary,
        batch_size=args.rollout_batch_size,
        same_count=lambda count: _busiest(trainer, count),
        drop_ended=not _in_step(trainer),
    )


def _busiest(trainer: DudiTrainer, count: int) -> int:
    """Under DeepSpeed ranks decode in step: every rank runs as many batches as the busiest one."""
    if not _in_step(trainer):
        return count
    counts = trainer.accelerator.gather(torch.tensor([count], device=trainer.args.device))
    return int(counts.max())


def _in_step(trainer: DudiTrainer) -> bool:
    """Whether `generate` waits for the other ranks in each forward, as it does under ZeRO-3."""
    return bool(trainer.is_deepspeed_enabled)
