"""Who writes during training: the live student, and for SeqKD the teacher, each behind an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl.models import unwrap_model_for_generation

from dudi.data.chat import ChatFormat, Tokens
from dudi.distill.served import ServedEngine, ServedTeacher
from dudi.distill.state import Run
from dudi.distill.teacher_setup import head_size
from dudi.distill.teachers import Teacher
from dudi.models.adapters import innermost
from dudi.models.frozen import evaluating
from dudi.models.sharding import gathered
from dudi.objective.forward import completion_states, inside, joined_ids
from dudi.objective.heads import head_of
from dudi.objective.losses import token_log_probs
from dudi.rollouts import Engine, TransformersEngine, VLLMEngine
from dudi.rollouts.vllm import Backend, Sampling
from dudi.training.arguments import training_dtype

Opened = Callable[[], AbstractContextManager[PreTrainedModel]]
SCORED_AT_ONCE = 128
"""Rows of logits that are held when log-probabilities are compared."""


def student_engine(run: Run, temperature: float) -> TransformersEngine:
    """Answers of the student as it is at the time of the call; of temperature 0 the likeliest ones."""

    @contextlib.contextmanager
    def opened() -> Iterator[PreTrainedModel]:
        wrapped, accelerator = run.wrapped(), run.accelerator
        training = wrapped.training
        with (
            unwrap_model_for_generation(wrapped, accelerator) as model,
            gathered(model, accelerator),
            accelerator.autocast(),
        ):
            model.eval()
            yield innermost(model)
        wrapped.train(training)

    return _engine(run, opened, run.setup.student_format, run.setup.vocabulary, temperature)


def teacher_engine(run: Run, teacher: Teacher, temperature: float) -> Engine:
    """Answers of a teacher, sampled as rollouts are; of temperature 0 the likeliest ones."""
    model, own = teacher.model, head_size(teacher.model)
    vocabulary = own if teacher.own_tokens else run.setup.vocabulary
    if isinstance(model, ServedTeacher):
        stop_ids, never = tuple(teacher.chat.stop_ids), range(vocabulary, own)
        return ServedEngine(model, Sampling(temperature, run.args.max_new_tokens, stop_ids, never))

    @contextlib.contextmanager
    def opened() -> Iterator[PreTrainedModel]:
        with run.policies[teacher.name].opened(), gathered(model, run.accelerator), run.accelerator.autocast():
            yield model

    return _engine(run, opened, teacher.chat, vocabulary, temperature)


def _engine(run: Run, model: Opened, chat: ChatFormat, vocabulary: int, temperature: float) -> TransformersEngine:
    """An engine with this run's sampling."""
    args = run.args
    return TransformersEngine(
        model,
        stop_ids=chat.stop_ids,
        pad_id=chat.end_of_turn,
        max_new_tokens=args.max_new_tokens,
        temperature=temperature,
        vocabulary=vocabulary,
        batch_size=args.rollout_batch_size,
    )


def vllm_engine(run: Run) -> VLLMEngine:
    """The student's rollouts on vLLM, with this run's sampling; it starts with the first of them."""
    args, setup = run.args, run.setup
    head = len(head_of(innermost(setup.model)))
    stop_ids = setup.student_format.stop_ids

    def opened() -> Backend:
        from dudi.rollouts.vllm_backends import Colocated, Served, Student, VllmOptions

        options = VllmOptions(
            weight_sync=args.vllm_weight_sync,
            server_base_url=args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}",
            server_timeout=args.vllm_server_timeout,
            group_port=args.vllm_group_port,
            gpu_memory_utilization=args.vllm_gpu_memory_utilization,
            max_model_length=args.vllm_max_model_length or args.max_length + args.max_new_tokens + 512,
            enable_sleep_mode=args.vllm_enable_sleep_mode,
            model_impl=args.vllm_model_impl,
            batch_size=args.rollout_batch_size,
            seed=args.seed,
            folder=args.folder,
        )
        student = Student(run.peft_model, setup.student_format.tokenizer, run.accelerator, training_dtype(args))
        return Colocated(student, options) if args.vllm_mode == "colocate" else Served(student, options)

    return VLLMEngine(
        opened,
        Sampling(args.temperature, args.max_new_tokens, tuple(stop_ids), range(setup.vocabulary, head)),
        version=run.step,
        log_probs=lambda pairs, temperature: _log_probs(run, pairs, temperature),
        idle=([stop_ids[0]], [stop_ids[0]]),
    )


def _log_probs(run: Run, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float) -> Tensor:
    """(N,) log-probabilities of completions under the student at a temperature, one completion after the other."""

    def work(model: PreTrainedModel) -> Tensor:
        states = completion_states(model, pairs)
        labels = joined_ids([ids for _, ids in pairs], states.device)
        head = head_of(model).shared_with(run.setup.vocabulary)
        parts = zip(states.split(SCORED_AT_ONCE), labels.split(SCORED_AT_ONCE), strict=True)
        return torch.cat([token_log_probs(head.logits(rows) / temperature, ids) for rows, ids in parts])

    with evaluating(run.wrapped()) as module, run.accelerator.autocast():
        log_probs: Tensor = inside(module, work)
    return log_probs
