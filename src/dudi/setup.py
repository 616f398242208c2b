"""What a trainer is made of, checked before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi.arguments import DudiConfig
from dudi.data.chat import ChatFormat, borrow_template, chat_format, template_kwargs
from dudi.data.examples import ExampleSet, tokenise
from dudi.data.rows import Row
from dudi.data.rejections import Rejections
from dudi.data.sources import rows_from_records
from dudi.errors import ConfigError, DudiError
from dudi.heads import check_head
from dudi.languages import load_languages
from dudi.methods import METHODS
from dudi.models import load_model, load_tokenizer
from dudi.scoring import open_forward
from dudi.verbalizer import Verbalizer
from dudi.vocabulary import shared_vocabulary

Records = Iterable[Mapping[str, Any]] | Iterable[Row]


@dataclasses.dataclass(slots=True)
class Setup:
    """The parts of a run.

    Attributes:
        model: The student, with its adapter if it has one.
        tokenizer: The student's.
        teacher: The second model, frozen, or None.
        student_format: The student's chat format.
        teacher_format: The teacher's; the student's own where there is no second model.
        vocabulary: The ids that both heads share.
        verbalizer: Writes z and p_z.
        languages: All languages that are known, as candidates for detection.
        train: Tokenised training rows.
        eval: Tokenised evaluation rows, or None.
        rejections: Rows that were not taken.
        notes: What a person should know before it starts.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    teacher: PreTrainedModel | None
    student_format: ChatFormat
    teacher_format: ChatFormat
    vocabulary: int
    verbalizer: Verbalizer
    languages: tuple[str, ...]
    train: ExampleSet | None
    eval: ExampleSet | None
    rejections: Rejections
    notes: list[str]


def build_setup(
    model: PreTrainedModel | nn.Module | str,
    teacher: PreTrainedModel | str | None,
    args: DudiConfig,
    train_dataset: Records | ExampleSet | None,
    eval_dataset: Records | ExampleSet | None,
    tokenizer: PreTrainedTokenizerBase | None,
    teacher_tokenizer: PreTrainedTokenizerBase | None,
) -> Setup:
    """Load what is named, hold student against teacher, and tokenise the rows.

    Raises:
        ConfigError: a missing teacher, different tokenizers, a template without an end of turn.
        DataError: no row is left.
    """
    if args.needs_teacher and teacher is None:
        raise ConfigError(
            f"method {args.method} needs a teacher: set teacher (teacher_model in Python) to a larger model with the "
            "student's vocabulary"
        )
    name = model if isinstance(model, str) else str(model.config.name_or_path or "the student")
    tokenizer = tokenizer if tokenizer is not None else load_tokenizer(name)
    notes: list[str] = []
    if teacher is not None and not args.needs_teacher:
        notes.append(f"method {args.method} reads no teacher: the one that was given is left alone")
        teacher = None
    if isinstance(model, str):
        model = load_model(model)
    if isinstance(teacher, str):
        teacher_tokenizer = teacher_tokenizer or load_tokenizer(teacher)
        teacher = load_model(teacher)
    if teacher is not None and teacher_tokenizer is None:
        teacher_tokenizer = _tokenizer_of(teacher) or tokenizer
    if borrow_template(tokenizer, teacher_tokenizer):
        notes.append(f"{name} has no chat template: it takes its teacher's")
    student_format = chat_format(tokenizer, template_kwargs(args.chat_template_kwargs, "student"), name)
    teacher_format = student_format
    vocabulary = _inner(model).get_output_embeddings().weight.shape[0]
    if teacher is not None and teacher_tokenizer is not None:
        teacher_format = _teacher_format(teacher, teacher_tokenizer, args, student_format)
        size = teacher.get_output_embeddings().weight.shape[0]
        vocabulary = shared_vocabulary(tokenizer, teacher_tokenizer, vocabulary, size)
        if args.device.type != "cpu" and teacher.device.type == "cpu" and not hasattr(teacher, "hf_device_map"):
            teacher.to(args.device)
        teacher.eval().requires_grad_(False)
        open_forward(teacher)
        check_head(teacher)
    open_forward(_inner(model))
    check_head(_inner(model))
    languages = tuple(load_languages())
    reads = teacher_format if teacher is not None else None
    rejections = Rejections()
    return Setup(
        model,
        tokenizer,
        teacher,
        student_format,
        teacher_format,
        vocabulary,
        Verbalizer(args.verbalizer, args.languages, args.seed, exclude_targets=args.exclude_targets),
        languages,
        _examples(train_dataset, student_format, reads, args, languages, rejections),
        _examples(eval_dataset, student_format, reads, args, languages, rejections),
        rejections,
        notes,
    )


def _inner(model: nn.Module) -> PreTrainedModel:
    return model.get_base_model() if "peft" in type(model).__module__ else model


def _tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerBase | None:
    """The tokenizer at the name a model was loaded from, where there is one."""
    name = model.config.name_or_path
    if not name:
        return None
    try:
        return load_tokenizer(name)
    except DudiError:
        return None


def _teacher_format(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: DudiConfig, student: ChatFormat
) -> ChatFormat:
    name = str(teacher.config.name_or_path or "the teacher")
    if not tokenizer.chat_template:
        tokenizer.chat_template = student.tokenizer.chat_template
    own = chat_format(tokenizer, template_kwargs(args.chat_template_kwargs, "teacher"), name)
    if own.end_of_turn != student.end_of_turn:
        ours, theirs = student.tokenizer.convert_ids_to_tokens([student.end_of_turn, own.end_of_turn])
        raise ConfigError(
            f"the student's template ends a turn with {ours!r}, the teacher's with {theirs!r}: the teacher would judge "
            "an ending it never writes; set student.chat_template: teacher"
        )
    return own


def _examples(
    dataset: Records | ExampleSet | None,
    student: ChatFormat,
    teacher: ChatFormat | None,
    args: DudiConfig,
    languages: tuple[str, ...],
    rejections: Rejections,
) -> ExampleSet | None:
    if dataset is None or isinstance(dataset, ExampleSet):
        return dataset
    if not hasattr(dataset, "__len__"):
        raise ConfigError(
            "streaming datasets are not supported: the reference reads every row once, before the first step; "
            "save the rows with `dudi prepare` and give the file"
        )
    rows = list(dataset)
    if not all(isinstance(row, Row) for row in rows):
        fixed = args.languages[0] if len(args.languages) == 1 else None
        rows = rows_from_records(rows, languages=languages, language=fixed, rejections=rejections).rows
    return tokenise(rows, student, teacher, args.max_length, rejections)


def reference_needed(args: DudiConfig) -> bool:
    """Whether a frozen reference is read."""
    return "sequence" in args.signals


def moving_average_needed(args: DudiConfig) -> bool:
    """Whether the teacher is the student's moving average."""
    return METHODS[args.method].teacher == "ema" and "on_policy" in args.signals
