"""What a trainer is made of, checked before anything is trained."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sized
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi.data.chat import ChatFormat, borrow_template, chat_format, template_kwargs
from dudi.data.examples import Example, ExampleSet, digest_of, tokenise
from dudi.data.rejections import Rejections
from dudi.data.rows import Row
from dudi.data.sources import rows_from_records
from dudi.distill.arguments import DudiConfig
from dudi.distill.verbalizer import Verbalizer
from dudi.errors import ConfigError, DudiError
from dudi.languages.registry import load_languages
from dudi.models.adapters import innermost
from dudi.models.limits import check_ids, check_length
from dudi.models.load import load_model, load_tokenizer, move
from dudi.models.vocabulary import shared_vocabulary
from dudi.objective.forward import open_forward
from dudi.objective.heads import check_head, head_of

Records = Iterable[Mapping[str, Any] | Row]


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
        probe: Rows that the probe of `teacher_weight: auto` asks, none of them trained on; None without a probe.
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
    probe: ExampleSet | None
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
    rejections: Rejections | None = None,
) -> Setup:
    """Load what is named, hold student against teacher, and tokenise the rows.

    Raises:
        ConfigError: a missing teacher, different tokenizers, a template without an end of turn.
        DataError: no row is left.
    """
    notes: list[str] = []
    wanted = _teacher_that_is_read(teacher, args, notes)
    name, student, tokenizer = _load_student(model, tokenizer)
    loaded, teacher_tokenizer = _load_teacher(wanted, teacher_tokenizer, tokenizer)
    if borrow_template(tokenizer, teacher_tokenizer):
        notes.append(f"{name} has no chat template: it takes its teacher's")
    own = chat_format(tokenizer, template_kwargs(args.chat_template_kwargs, "student"), name)
    theirs, vocabulary = None, _head_size(innermost(student))
    if loaded is not None and teacher_tokenizer is not None:
        theirs = _teacher_format(loaded, teacher_tokenizer, args, own)
        vocabulary = shared_vocabulary(tokenizer, teacher_tokenizer, vocabulary, _head_size(loaded))
        _freeze(loaded, args)
        _make_scorable(loaded)
    _make_scorable(innermost(student))
    check_ids(innermost(student), tokenizer, "student")
    if loaded is not None and teacher_tokenizer is not None:
        check_ids(loaded, teacher_tokenizer, "teacher")
    languages = tuple(load_languages())
    rejections = Rejections() if rejections is None else rejections
    train = _examples(train_dataset, own, theirs, args, languages, rejections)
    evaluation = _examples(eval_dataset, own, theirs, args, languages, rejections)
    probe = None
    if args.teacher_weight == "auto" and train is not None:
        train, probe = rows_for_probe(train, evaluation, args.probe_rows, args.seed)
    _check_lengths(innermost(student), loaded, train, args)
    return Setup(
        model=student,
        tokenizer=tokenizer,
        teacher=loaded,
        student_format=own,
        teacher_format=own if theirs is None else theirs,
        vocabulary=vocabulary,
        verbalizer=Verbalizer(args.verbalizer, args.languages, args.seed, exclude_targets=args.exclude_targets),
        languages=languages,
        train=train,
        eval=evaluation,
        probe=probe,
        rejections=rejections,
        notes=notes,
    )


def _check_lengths(
    student: PreTrainedModel, teacher: PreTrainedModel | None, train: ExampleSet | None, args: DudiConfig
) -> None:
    """Hold what the keys make as long as it gets against models with so many positions and no more."""
    examples = [] if train is None else train.examples
    check_length(student, args.max_length, "the student", "max_length")
    rolled_out = args.max_new_tokens if {"on_policy", "sequence"} & set(args.signals) else 0
    longest = max((len(example.prompt) for example in examples), default=0)
    check_length(student, longest + rolled_out, "the student", "max_new_tokens after the longest prompt")
    if teacher is not None:
        longest = max((len(example.teacher_prompt) for example in examples), default=0)
        longest = max(longest, args.teacher_max_length if args.verbalizer != "none" and rolled_out else 0)
        check_length(teacher, args.max_length, "the teacher", "max_length")
        check_length(teacher, longest + rolled_out, "the teacher", "max_new_tokens after its longest prompt")


def _teacher_that_is_read(
    teacher: PreTrainedModel | str | None, args: DudiConfig, notes: list[str]
) -> PreTrainedModel | str | None:
    """The given teacher, or None for a method that reads none."""
    args.require_teacher(teacher is not None)
    if teacher is not None and not args.needs_teacher:
        notes.append(f"method {args.method} reads no teacher: the one that was given is left alone")
        return None
    return teacher


def _load_student(
    model: nn.Module | str, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[str, nn.Module, PreTrainedTokenizerBase]:
    """The student's name, the student and its tokenizer."""
    name = model if isinstance(model, str) else str(innermost(model).config.name_or_path or "the student")
    tokenizer = load_tokenizer(name) if tokenizer is None else tokenizer
    return name, load_model(model) if isinstance(model, str) else model, tokenizer


def _load_teacher(
    teacher: PreTrainedModel | str | None, tokenizer: PreTrainedTokenizerBase | None, students: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel | None, PreTrainedTokenizerBase | None]:
    """The teacher and its tokenizer: the given one, the one it was saved with, else the student's.

    A tokenizer that was given without a teacher is kept: the student may take its chat template.
    """
    if teacher is None:
        return None, tokenizer
    if isinstance(teacher, str):
        tokenizer = load_tokenizer(teacher) if tokenizer is None else tokenizer
        return load_model(teacher), tokenizer
    return teacher, tokenizer if tokenizer is not None else _tokenizer_of(teacher) or students


def _head_size(model: PreTrainedModel) -> int:
    return head_of(model).weight.shape[0]


def _freeze(teacher: PreTrainedModel, args: DudiConfig) -> None:
    """Frozen, and on the run's device unless it was placed on purpose (`device_map`)."""
    placed = "hf_device_map" in vars(teacher)
    if args.device.type != "cpu" and teacher.device.type == "cpu" and not placed:
        move(teacher, args.device)
    teacher.eval().requires_grad_(False)


def _make_scorable(model: PreTrainedModel) -> None:
    open_forward(model)
    check_head(model)


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
        ours, theirs = (student.tokenizer.convert_ids_to_tokens(i) for i in (student.end_of_turn, own.end_of_turn))
        raise ConfigError(
            f"the student's template ends a turn with {ours!r}, the teacher's with {theirs!r}: the teacher would judge "
            "an ending it never writes; set student.chat_template: teacher"
        )
    return own


def rows_for_probe(
    train: ExampleSet, evaluation: ExampleSet | None, per_language: int, seed: int
) -> tuple[ExampleSet, ExampleSet]:
    """The rows to train on, and those that a probe asks: of the evaluation rows, or held out of the training rows.

    Which rows they are hangs on the seed and their ids alone. A language never gives more than half of its rows away.

    Args:
        train: The training rows.
        evaluation: Evaluation rows, or None.
        per_language: Most rows of a language.
        seed: Of the run.
    """
    source = train.examples if evaluation is None else evaluation.examples
    of_language: dict[str, list[Example]] = {}
    for example in source:
        of_language.setdefault(example.row.language, []).append(example)
    chosen: set[str] = set()
    for examples in of_language.values():
        drawn = sorted(examples, key=lambda one: hashlib.sha256(f"probe/{seed}/{one.row.id}".encode()).digest())
        limit = per_language if evaluation is not None else min(per_language, len(examples) // 2)
        chosen |= {example.row.id for example in drawn[:limit]}
    probe = [example for example in source if example.row.id in chosen]
    if evaluation is not None:
        return train, ExampleSet(probe, {}, digest_of(probe))
    kept = [example for example in train.examples if example.row.id not in chosen]
    return ExampleSet(kept, train.truncated, digest_of(kept)), ExampleSet(probe, {}, digest_of(probe))


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
    if not isinstance(dataset, Sized):
        raise ConfigError(
            "streaming datasets are not supported: the reference reads every row once, before the first step; "
            "save the rows with `dudi prepare` and give the file"
        )
    given = list(dataset)
    rows = [row for row in given if isinstance(row, Row)]
    records = [record for record in given if not isinstance(record, Row)]
    if records:
        fixed = args.languages[0] if len(args.languages) == 1 else None
        rows += rows_from_records(records, languages=languages, language=fixed, rejections=rejections).rows
    return tokenise(rows, student, teacher, args.max_length, rejections)
