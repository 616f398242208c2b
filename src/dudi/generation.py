"""Who writes during training: the live student, and for SeqKD the teacher, each behind an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl.models import unwrap_model_for_generation

from dudi.adapters import innermost
from dudi.data.chat import Tokens
from dudi.errors import ConfigError
from dudi.heads import head_of
from dudi.losses import token_log_probs
from dudi.rollouts import Engine, TransformersEngine, VLLMEngine
from dudi.rollouts.vllm import Backend, Sampling
from dudi.scoring import completion_states, inside
from dudi.sharding import gathered
from dudi.teachers import evaluating

if TYPE_CHECKING:
    from dudi.trainer import DudiTrainer


SCORED_AT_ONCE = 128
"""Rows of logits that are held when log-probabilities are compared."""


def student_engine(trainer: DudiTrainer) -> Engine:
    """Rollouts of the student as it is at the time of the call."""
    if trainer.args.use_vllm:
        trainer.vllm = _vllm_engine(trainer) if trainer.vllm is None else trainer.vllm
        return trainer.vllm

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
    )


def _vllm_engine(trainer: DudiTrainer) -> VLLMEngine:
    """An engine on vLLM with this run's sampling; it starts with the first rollouts."""
    args, setup = trainer.args, trainer.setup
    head = len(head_of(innermost(setup.model)))
    stop_ids = setup.student_format.stop_ids

    def opened() -> Backend:
        from dudi.rollouts.vllm_backends import Student, open_backend

        dtype = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
        return open_backend(Student(trainer.peft_model, setup.tokenizer, trainer.accelerator, dtype), args)

    return VLLMEngine(
        opened,
        Sampling(args.temperature, args.max_new_tokens, tuple(stop_ids), range(setup.vocabulary, head)),
        version=lambda: trainer.state.global_step,
        log_probs=lambda pairs, temperature: _log_probs(trainer, pairs, temperature),
        idle=([stop_ids[0]], [stop_ids[0]]),
    )


def _log_probs(trainer: DudiTrainer, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float) -> Tensor:
    """(N,) log-probabilities of completions under the student at a temperature, one completion after the other."""

    def work(model: PreTrainedModel) -> Tensor:
        states = completion_states(model, pairs)
        labels = torch.cat([torch.as_tensor(ids, dtype=torch.int64) for _, ids in pairs]).to(states.device)
        head = head_of(model).shared_with(trainer.setup.vocabulary)
        parts = zip(states.split(SCORED_AT_ONCE), labels.split(SCORED_AT_ONCE), strict=True)
        return torch.cat([token_log_probs(head.logits(rows) / temperature, ids) for rows, ids in parts])

    with evaluating(trainer.model_wrapped) as module, trainer.accelerator.autocast():
        log_probs: Tensor = inside(module, work)
    return log_probs
