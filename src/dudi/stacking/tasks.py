"""A task learned in English: by labels (`teach`, `finetune`), or from a tuned teacher's vectors (`distill`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from dudi.errors import ConfigError, DataError
from dudi.models.frozen import evaluating
from dudi.stacking import assembly, building, lora
from dudi.stacking.arguments import StackArguments
from dudi.stacking.checks import check_reader, check_reading
from dudi.stacking.configuration import MTLLMConfig
from dudi.stacking.generating import NO_LABEL, MTLLMForCausalLM
from dudi.stacking.modeling import (
    MTLLMForMultipleChoice,
    MTLLMForSequenceClassification,
    MTLLMModel,
    MTLLMPreTrainedModel,
)
from dudi.stacking.rows import StackRow, Task, check_taught
from dudi.stacking.tokens import Source, read_inputs
from dudi.stacking.trainer import Batch, Objective, StackTrainer, Sums, check_there, run, trainable, trainable_lora
from dudi.stacking.writing import WritingLoss


class Labels(Objective):
    """Cross-entropy with the rows' labels, for `teach` and `finetune`."""

    def __init__(
        self, stage: str, source: Source, args: StackArguments, llm_tokenizer: PreTrainedTokenizerBase | None
    ) -> None:
        super().__init__(source, args, llm_tokenizer)
        self.stage = stage

    def collate(self, rows: Sequence[StackRow], places: Sequence[int]) -> Batch:
        """Ids, spans of choices, labels."""
        batch = self.source.collate(self.source.encode_rows(rows, max_length=self.args.max_length))
        return batch | {"labels": torch.tensor([NO_LABEL if row.label is None else row.label for row in rows])}

    def loss(self, model: nn.Module, inner: Any, batch: Batch) -> tuple[Tensor, Sums]:
        """Summed over rows."""
        out = model(**read_inputs(batch))
        total = self.total(out, batch)
        return total, {"loss": total, "right": (out.logits.argmax(dim=-1) == batch["labels"]).sum()}

    def total(self, out: Any, batch: Batch) -> Tensor:
        """In nats."""
        return nn.functional.cross_entropy(out.logits, batch["labels"], reduction="sum")


class Vectors(Labels):
    """Mean squared error to stored vectors, one of each training row: (D,), or (C, D) for choices.

    No label is learned from, so that the copied head stays as it is.
    """

    def __init__(
        self,
        source: Source,
        args: StackArguments,
        stored: Sequence[Tensor],
        llm_tokenizer: PreTrainedTokenizerBase | None,
    ) -> None:
        super().__init__("distill", source, args, llm_tokenizer)
        self.stored = stored

    def collate(self, rows: Sequence[StackRow], places: Sequence[int]) -> Batch:
        """As with labels, and the teacher's vectors: (B, D), or (B, C, D) with zeros where there is no choice."""
        batch = super().collate(rows, places)
        if min(places) < 0:
            return batch  # rows for evaluation are judged by their labels
        stored = [self.stored[place].float() for place in places]
        return batch | {"vectors": pad_sequence(stored, batch_first=True)}

    def total(self, out: Any, batch: Batch) -> Tensor:
        """A mean over the width of a vector and over the choices of a row."""
        if "vectors" not in batch:
            return super().total(out, batch)
        per_vector = (out.vectors - batch["vectors"]).square().mean(dim=-1)
        if per_vector.dim() == 2:
            there = (batch["choice_spans"][..., 1] > batch["choice_spans"][..., 0]).float()
            per_vector = (per_vector * there).sum(dim=-1) / there.sum(dim=-1)
        return per_vector.sum()


def finetune(
    model: MTLLMPreTrainedModel,
    source: Source,
    rows: Sequence[StackRow],
    task: Task,
    args: StackArguments,
    lora_settings: lora.LoraSettings | None = lora.AUTHORS,
    *,
    eval_rows: Sequence[StackRow] = (),
    llm_tokenizer: PreTrainedTokenizerBase | None = None,
    resume: str | Path | None = None,
    about: Mapping[str, Any] | None = None,
) -> MTLLMPreTrainedModel:
    """Tune a model with a head on labelled rows, in place: the LLM alone becomes a teacher, a stack is fine-tuned.

    A stack that writes learns the rows' answers, behind the task's prompt. Its head is the LLM's, and learns only where
    all of the LLM does.

    Args:
        model: With a head (`with_head`).
        source: The tokenizer that it reads with.
        rows: English rows with labels; with answers, where these are written.
        task: What is asked.
        args: The keys.
        lora_settings: Of a new adapter; an adapter that is there goes on as it is. None: without one all of the LLM is
            trained.
        eval_rows: For evaluation during training.
        llm_tokenizer: Saved beside a stack; of one that writes, or whose LLM reads its own tokens, it is needed.
        resume: A checkpoint of the same run.
        about: More of what identifies the run.

    Raises:
        ConfigError: the model has no head, or one for another task; the LLM is to read its own tokens, and a part or
            its tokenizer is missing; or a key was given that is not read: of the LLM alone as by `teach`.
        DataError: there are no rows; a row has no label or no answer, or a label that is none of the task's; or a
            language code is unknown.
    """
    alone = model.config.parts == "llm"
    stage = "teach" if alone else "finetune"
    args.begin(stage)
    _check_own_head(model, task)
    check_there(stage, rows)
    head = None if task.kind == "generation" else cast(nn.Linear, model.get_submodule("score"))
    check_taught([*rows, *eval_rows], task, None if head is None else head.out_features)
    source.check_rows([*rows, *eval_rows])
    _prepare_reading(model, source, task, args, llm_tokenizer)
    _prepare_training(model, args, lora_settings, head)
    objective: WritingLoss | Labels
    if head is not None:
        objective = Labels(stage, source, args, llm_tokenizer)
    elif llm_tokenizer is not None:
        objective = WritingLoss(source, task, args, llm_tokenizer)
        check_reader(cast(PreTrainedModel, model.reader.llm), Source(llm_tokenizer), objective.longest)
    else:
        raise ConfigError("generation: the LLM's tokenizer is missing; give llm_tokenizer")
    run(StackTrainer(model, args, objective, rows, eval_rows, about), resume)
    model.config.stage = model.reader.config.stage = "teacher" if alone else "finetuned"
    return model


def vectors(
    teacher: MTLLMPreTrainedModel,
    source: Source,
    rows: Sequence[StackRow],
    *,
    batch_size: int = 32,
    max_length: int = 256,
) -> list[Tensor]:
    """What a tuned teacher makes of each row: (D,), or (C, D) for choices; fp32 on the CPU."""
    found: list[Tensor] = []
    for begin in range(0, len(rows), batch_size):
        part = rows[begin : begin + batch_size]
        batch = source.collate(source.encode_rows(part, max_length=max_length))
        with evaluating(teacher):
            out = teacher.reader(**{key: value.to(teacher.device) for key, value in batch.items()}).vectors.cpu()
        found += [one[: len(row.choices)] if row.choices else one for one, row in zip(out, part, strict=True)]
    return found


def distill(
    stack: MTLLMModel,
    source: Source,
    rows: Sequence[StackRow],
    task: Task,
    stored: Sequence[Tensor],
    head: Tensor,
    args: StackArguments,
    lora_settings: lora.LoraSettings | None = lora.AUTHORS,
    *,
    head_labels: Sequence[str] = (),
    eval_rows: Sequence[StackRow] = (),
    llm_tokenizer: PreTrainedTokenizerBase | None = None,
    resume: str | Path | None = None,
    about: Mapping[str, Any] | None = None,
) -> MTLLMPreTrainedModel:
    """Stage 2: the stack learns the vectors that the tuned teacher gave the English rows, and takes over its head.

    Args:
        stack: After Stage 1 (or before, to see what Stage 1 is worth).
        source: The encoder's tokenizer.
        rows: The rows that the vectors are of.
        task: What is asked.
        stored: One tensor a row, from `vectors`.
        head: (labels, D) weight of the teacher's head.
        args: The keys.
        lora_settings: Of a new adapter; the one that Stage 1 left goes on as it is. None: without one all of the LLM is
            trained.
        head_labels: The classes that the head tells apart, in its order (`labels_of` the teacher's config), which are
            held against the task's; none where nobody named them.
        eval_rows: Labelled rows for evaluation during training.
        llm_tokenizer: Saved beside the stack.
        resume: A checkpoint of the same run.
        about: More of what identifies the run.

    Raises:
        ConfigError: there is no encoder; the answers are written; the head has another shape or other classes; Stage 2
            does not read a key that was given; or the LLM is to read its own tokens, and a part or its tokenizer is
            missing.
        DataError: there are no rows, or not as many vectors; a label is none of the task's; or a language code is
            unknown.
    """
    args.begin("distill")
    if task.kind == "generation":
        raise ConfigError("distill: a written answer has no vector; learn to write with finetune")
    if stack.config.parts == "llm":
        raise ConfigError("distill: an LLM alone has no encoder; Stage 2 needs one under it")
    _check_labels(head_labels, task, "the teacher's head")
    check_there("distill", rows)
    check_taught([row for row in (*rows, *eval_rows) if row.label is not None], task, len(head))
    if len(stored) != len(rows):
        raise DataError(f"distill: {len(stored)} vectors for {len(rows)} rows; they were made from other rows")
    source.check_rows([*rows, *eval_rows])
    _prepare_reading(stack, source, task, args, llm_tokenizer)
    model = building.with_head(stack, task)
    if model.score.weight.shape != head.shape:
        raise ConfigError(f"the teacher's head is {tuple(head.shape)}, this one {tuple(model.score.weight.shape)}")
    with torch.no_grad():
        model.score.weight.copy_(head)
    _prepare_training(model, args, lora_settings, None)
    objective = Vectors(source, args, stored, llm_tokenizer)
    run(StackTrainer(model, args, objective, rows, eval_rows, about), resume)
    model.config.stage = model.reader.config.stage = "distilled"
    return model


def check_teacher(kind: Any, config: MTLLMConfig, task: Task, name: str) -> None:
    """Refuse a teacher, by its class and config: one without a head, of another task, or of other classes.

    Raises:
        ConfigError: which calls it by its `name`.
    """
    if kind is MTLLMModel:
        raise ConfigError(f"teacher.model: {name} has no head; name the run of `dudi stack teach`")
    if config.task not in (None, task.kind):
        raise ConfigError(f"task.kind: {task.kind}, and the teacher {name} was tuned on {config.task}")
    _check_labels(labels_of(config), task, f"the teacher {name}")


def labels_of(config: PreTrainedConfig, *, unnamed: bool = False) -> tuple[str, ...]:
    """The classes that a head tells apart, in its order; where nobody named them none, or what `unnamed` ones go by."""
    named = {int(number): str(label) for number, label in (config.id2label or {}).items()}
    names = tuple(named[number] for number in sorted(named))
    nobody = all(name.startswith("LABEL_") for name in names)  # these are transformers' own
    return () if nobody and not unnamed else names


def _check_labels(head: Sequence[str], task: Task, who: str) -> None:
    """Refuse a head that is taken over where its classes, if they are known, are not the task's in the task's order."""
    if task.kind != "choice" and head and task.labels and tuple(head) != task.labels:
        order = "the same classes in another order" if sorted(head) == sorted(task.labels) else "other classes"
        raise ConfigError(
            f"task.labels: {who} has {order}: {', '.join(head)}; the task's are {', '.join(task.labels)}. The head is "
            "taken over as it is: name its classes, in its order"
        )


def _check_own_head(model: MTLLMPreTrainedModel, task: Task) -> None:
    """Refuse a model without a head for this task: it has none, or one of another kind or for other classes."""
    wanted = {
        "classification": MTLLMForSequenceClassification,
        "choice": MTLLMForMultipleChoice,
        "generation": MTLLMForCausalLM,
    }[task.kind]
    if not isinstance(model, wanted):
        raise ConfigError(
            f"finetune: {task.kind} needs a {wanted.__name__}, not a {type(model).__name__}: put the task's head "
            "on with dudi.stacking.with_head(model, task)"
        )
    if task.kind == "classification":
        _check_labels(labels_of(model.config), task, "the model's head")
        classes = cast(nn.Linear, model.get_submodule("score")).out_features
        if task.labels and classes != len(task.labels):
            raise ConfigError(f"task.labels: {len(task.labels)} classes, and the model's head has {classes}")


def _prepare_reading(
    model: MTLLMPreTrainedModel,
    source: Source,
    task: Task,
    args: StackArguments,
    llm_tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """Let model and source read rows of a task: with the LLM's own tokens where they are asked for or already there."""
    reader = model.reader
    if args.llm_tokens and reader.config.parts != "llm":  # alone, it reads nothing else
        building.read_own_tokens(model, args.seed)
    if reader.boundary is not None and source.beside is None:
        if llm_tokenizer is None:
            raise ConfigError("llm_tokens: the LLM's tokenizer is missing; give llm_tokenizer")
        source.beside = Source(llm_tokenizer)
    check_reading(reader, source, args.max_length)
    source.separate(task.separator)


def _prepare_training(
    model: MTLLMPreTrainedModel, args: StackArguments, settings: lora.LoraSettings | None, head: nn.Module | None
) -> None:
    """Choose what is trained: an adapter where there is one, else the whole LLM; the connector; the head."""
    reader = model.reader
    lora.check_goes_on(settings, reader.config.lora)
    model.config.max_row_length = reader.config.max_row_length = args.max_length
    if settings is not None and reader.config.lora is None:
        lora.add_lora(reader.adapted, settings, args.seed)
        model.config.lora = reader.config.lora = dataclasses.asdict(settings)
    adapted = reader.config.lora is not None
    if not adapted:
        assembly.trained_whole(model, "encoder" if reader.llm is None else "llm")
        head = model.lm_head if isinstance(model, MTLLMForCausalLM) else head
    connector = reader.connector if args.train_connector else None
    trainable(model, connector, reader.boundary, head, None if adapted else reader.adapted)
    trainable_lora(reader.adapted)
    score = None if isinstance(model, MTLLMForCausalLM) else model.get_submodule("score")
    for part in (reader.connector, reader.boundary, score):
        if part is not None:
            part.float()
