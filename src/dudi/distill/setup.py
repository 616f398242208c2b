"""What a trainer is made of, checked before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi.data.chat import ChatFormat, Tokens, borrow_template, chat_format, template_kwargs
from dudi.data.examples import Example, ExampleSet, tokenise
from dudi.data.rejections import Rejections
from dudi.data.rows import Row
from dudi.data.sources import rows_from_records
from dudi.distill.arguments import DudiConfig, build_signals
from dudi.distill.verbalizer import Verbalizer
from dudi.errors import ConfigError, DudiError
from dudi.languages.registry import load_languages
from dudi.models.adapters import innermost
from dudi.models.load import load_model, load_tokenizer, move
from dudi.models.vocabulary import vocabulary_difference
from dudi.objective.coverage import measure_coverage
from dudi.objective.event_loss import EventLoss
from dudi.objective.forward import open_forward
from dudi.objective.heads import check_head, head_of
from dudi.objective.shared_events import SharedEvents

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
        vocabulary: The ids that both heads share; the student's, where the tokenizers differ.
        events: The loss across tokenizers, where they differ and a divergence is read; else None.
        own_tokens: Whether the teacher's tokenizer is its own: its answers are then taken over as text.
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
    events: EventLoss | None
    own_tokens: bool
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
    rejections: Rejections | None = None,
) -> Setup:
    """Load what is named, hold student against teacher, and tokenise the rows.

    Raises:
        ConfigError: a missing teacher, a template without an end of turn, tokenizers that cannot be lined up.
        DataError: no row is left.
    """
    notes: list[str] = []
    wanted = _teacher_that_is_read(teacher, args, notes)
    name, student, tokenizer = _load_student(model, tokenizer)
    loaded, teacher_tokenizer = _load_teacher(wanted, teacher_tokenizer, tokenizer)
    if borrow_template(tokenizer, teacher_tokenizer):
        notes.append(f"{name} has no chat template: it takes its teacher's")
    own = chat_format(tokenizer, template_kwargs(args.chat_template_kwargs, "student"), name)
    theirs, different, vocabulary = None, None, _head_size(innermost(student))
    if loaded is not None and teacher_tokenizer is not None:
        theirs = _teacher_format(loaded, teacher_tokenizer, args, own)
        different = vocabulary_difference(tokenizer, teacher_tokenizer, vocabulary, _head_size(loaded))
        if different is None:
            check_ends(own, theirs)
            vocabulary = min(vocabulary, _head_size(loaded))
        _freeze(loaded, args)
        _make_scorable(loaded)
    _make_scorable(innermost(student))
    languages = tuple(load_languages())
    rejections = Rejections() if rejections is None else rejections
    train = _examples(train_dataset, own, theirs, args, languages, rejections)
    events = None
    if different is not None and loaded is not None and theirs is not None:
        _check_own_teacher(args, different)
        notes.append(different)
        if args.reads_teacher_tokens:
            sizes = vocabulary, _head_size(loaded)
            events = _common_events(own, theirs, sizes, args, [] if train is None else train.examples, notes)
    return Setup(
        model=student,
        tokenizer=tokenizer,
        teacher=loaded,
        student_format=own,
        teacher_format=own if theirs is None else theirs,
        vocabulary=vocabulary,
        events=events,
        own_tokens=different is not None,
        verbalizer=Verbalizer(args.verbalizer, args.languages, args.seed, exclude_targets=args.exclude_targets),
        languages=languages,
        train=train,
        eval=_examples(eval_dataset, own, theirs, args, languages, rejections),
        rejections=rejections,
        notes=notes,
    )


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
    return chat_format(tokenizer, template_kwargs(args.chat_template_kwargs, "teacher"), name)


def check_ends(student: ChatFormat, teacher: ChatFormat) -> None:
    """Hold the ends of turn of two models with one tokenizer against each other.

    Raises:
        ConfigError: they are different tokens.
    """
    if teacher.end_of_turn != student.end_of_turn:
        ours, theirs = (student.tokenizer.convert_ids_to_tokens(i) for i in (student.end_of_turn, teacher.end_of_turn))
        raise ConfigError(
            f"the student's template ends a turn with {ours!r}, the teacher's with {theirs!r}: the teacher would judge "
            "an ending it never writes; set student.chat_template: teacher"
        )


def _check_own_teacher(args: DudiConfig, different: str) -> None:
    """Refuse a method whose teacher is the student's own average, and whose cold start's teacher speaks other tokens.

    Raises:
        ConfigError: the prompts of both would be read by one of them.
    """
    if not args.reads_teacher_tokens and any(signal.teacher_reads for signal in build_signals(args).values()):
        raise ConfigError(
            f"{different}; method {args.method} is its own teacher after the cold start. Take a cold start other than "
            "teacher_sft, or a teacher with the student's tokenizer"
        )


def _common_events(
    student: ChatFormat,
    teacher: ChatFormat,
    sizes: tuple[int, int],
    args: DudiConfig,
    examples: Sequence[Example],
    notes: list[str],
) -> EventLoss:
    """What both tokenizers know, once it covers enough of the rows."""
    events = shared_events(student, teacher, sizes)
    coverage = measure_coverage(events, completions_by_language(examples))
    coverage.check(args.min_shared_bytes)
    notes.append(f"their shared events are compared:\n{coverage.table()}")
    return EventLoss(events, args.device)


def shared_events(student: ChatFormat, teacher: ChatFormat, sizes: tuple[int | None, int | None]) -> SharedEvents:
    """The common events of two chat formats, for heads of so many rows."""
    return SharedEvents(student.tokenizer, teacher.tokenizer, student.stop_ids, teacher.stop_ids, *sizes)


def completions_by_language(examples: Sequence[Example]) -> dict[str, list[Tokens]]:
    """The targets of each language."""
    found: dict[str, list[Tokens]] = {}
    for example in examples:
        found.setdefault(example.row.language, []).append(example.completion)
    return found


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
