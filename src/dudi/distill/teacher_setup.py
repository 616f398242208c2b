"""A run's teachers before anything is trained: loaded, held against the student, their tokens lined up with its own."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi.data.chat import ChatFormat, Tokens, borrow_template, chat_format, template_kwargs
from dudi.data.examples import Example
from dudi.distill.arguments import DudiConfig
from dudi.distill.served import ServedTeacher
from dudi.distill.teacher_keys import DEFAULT
from dudi.distill.teachers import Teacher
from dudi.errors import ConfigError, DudiError
from dudi.models.image_text import tokenizer_in
from dudi.models.load import load_model, load_tokenizer, move
from dudi.models.vocabulary import vocabulary_difference
from dudi.models.widening import compute_in_float32
from dudi.objective.coverage import Coverage, measure_coverage
from dudi.objective.event_loss import EventLoss
from dudi.objective.forward import open_forward
from dudi.objective.heads import check_head, head_of
from dudi.objective.shared_events import SharedEvents
from dudi.training.identity import hash_of_model

Given = PreTrainedModel | ServedTeacher | str
"""A model, one that a server holds, or the name of one."""


def tokenizers_by_name(
    given: PreTrainedTokenizerBase | Mapping[str, PreTrainedTokenizerBase] | None, names: Mapping[str, str]
) -> dict[str, PreTrainedTokenizerBase]:
    """The given tokenizers by their teachers' names, the default one's in front; a `ConfigError` of an unknown key."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return dict.fromkeys(dict.fromkeys(names.values()) or [DEFAULT], tokenizer_in(given))
    unknown = [key for key in given if key not in names]
    if unknown:
        raise ConfigError(f"teacher_processing_class: '{unknown[0]}' is no key of teachers ({', '.join(names)})")
    by_name = {names[key]: tokenizer_in(tokenizer) for key, tokenizer in given.items()}
    return {name: by_name[name] for name in names.values() if name in by_name}


def line_up(
    teacher: PreTrainedModel | ServedTeacher,
    tokenizer: PreTrainedTokenizerBase,
    own: ChatFormat,
    vocabulary: int,
    args: DudiConfig,
    notes: list[str],
) -> tuple[ChatFormat, str | None]:
    """Make a teacher ready: its chat format, and what tells its tokenizer from the student's (None: nothing)."""
    name = teacher.name if isinstance(teacher, ServedTeacher) else str(teacher.config.name_or_path or "the teacher")
    borrow_template(tokenizer, own.tokenizer)
    theirs = chat_format(tokenizer, template_kwargs(args.chat_template_kwargs, "teacher"), name)
    different = vocabulary_difference(own.tokenizer, tokenizer, vocabulary, head_size(teacher))
    if different is None and theirs.end_of_turn != own.end_of_turn:
        ends = [own.tokenizer.convert_ids_to_tokens(one.end_of_turn) for one in (own, theirs)]
        raise ConfigError(
            f"the student's template ends a turn with {ends[0]!r}, the teacher's with {ends[1]!r}: the teacher would "
            "judge an ending it never writes; set student.chat_template: teacher"
        )
    if isinstance(teacher, ServedTeacher):
        check_served(teacher, different, min(vocabulary, teacher.vocabulary), args, notes)
        return theirs, different
    _freeze(teacher, args)
    if args.widens_frozen and compute_in_float32(teacher):
        notes.append("the teacher is held in 16 bits and computed with in float32: this CPU has no 16-bit products")
    open_forward(teacher)
    check_head(teacher)
    return theirs, different


def events_of(
    teacher: Teacher,
    student: ChatFormat,
    vocabulary: int,
    different: str | None,
    args: DudiConfig,
    examples: Sequence[Example],
    notes: list[str],
) -> EventLoss | None:
    """The loss across tokenizers, where they differ and a divergence is read.

    Raises:
        ConfigError: the method's teacher is the student's own average, and the cold start's speaks other tokens: the
            prompts of both would be read by one of them; or too few bytes can be compared.
    """
    if different is None:
        return None
    if args.teaches_itself:
        raise ConfigError(
            f"{different}; method {args.method} is its own teacher after the cold start. Take a cold start other than "
            "teacher_sft, or a teacher with the student's tokenizer"
        )
    notes.append(different)
    if not args.reads_teacher_tokens:
        return None
    sizes = (vocabulary, head_size(teacher.model))
    events, coverage = shared_events(student, teacher.chat, sizes, examples, args)
    notes.append(f"their shared events are compared:\n{coverage.table()}")
    return EventLoss(events, args.device)


def check_served(
    teacher: ServedTeacher, different: str | None, vocabulary: int, args: DudiConfig, notes: list[str]
) -> None:
    """Hold what only a whole distribution, or weights, can do against a teacher that a server holds.

    Raises:
        ConfigError: a key asks for it, the tokenizers differ, or the server refuses.
        EnvironmentFault: the server does not answer.
    """
    if args.reads_teacher_tokens and different is not None:
        raise ConfigError(
            f"{different}; across tokenizers whole distributions are compared, and a server names teacher_top_k tokens."
            " Take a teacher with the student's tokenizer, load this one here (without teacher.server), or learn its "
            "text: method seqkd with off_policy_loss: cross_entropy"
        )
    if args.reads_teacher_tokens and args.kd_temperature != 1:
        raise ConfigError(
            "kd_temperature: a served teacher's tail is known at temperature 1 alone; set it to 1, or load the teacher"
        )
    if args.reads_teacher_tokens and "on_policy" in args.signals and args.overlap_k > args.teacher_top_k:
        raise ConfigError(f"teacher_top_k: overlap_k needs {args.overlap_k} at least; raise it, or lower overlap_k")
    if args.teacher_offload != "none":
        raise ConfigError("teacher_offload: a served teacher has no weights here; take it out")
    if args.teacher_cache is not None:
        raise ConfigError("teacher_cache: keeps a teacher's states, which a server does not give; take it out")
    teacher.check(args.teacher_top_k, vocabulary, reads_tokens=args.reads_teacher_tokens)
    notes.append(f"the teacher is {teacher.identity} at {teacher.server.url}")


def identity_of(teacher: PreTrainedModel | ServedTeacher, name: str = "the teacher") -> str:
    """What a run knows its teacher by: the hash of its weights, or the name under which it is served."""
    return teacher.identity if isinstance(teacher, ServedTeacher) else hash_of_model(teacher, name)


def load_teacher(
    teacher: Given, tokenizer: PreTrainedTokenizerBase | None, students: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel | ServedTeacher, PreTrainedTokenizerBase]:
    """The teacher and its tokenizer: the given one, the one it was saved with, else the student's."""
    if not isinstance(teacher, str | ServedTeacher):
        if tokenizer is None and teacher.config.name_or_path:
            with contextlib.suppress(DudiError):
                tokenizer = load_tokenizer(teacher.config.name_or_path)
        return teacher, tokenizer or students
    if tokenizer is None:
        tokenizer = load_tokenizer(teacher if isinstance(teacher, str) else teacher.name)
    return load_model(teacher) if isinstance(teacher, str) else teacher, tokenizer


def _freeze(teacher: PreTrainedModel, args: DudiConfig) -> None:
    """Frozen, and on the run's device unless it was placed on purpose (`device_map`)."""
    placed = "hf_device_map" in vars(teacher)
    if args.teacher_offload == "cpu":
        if placed or getattr(teacher, "is_quantized", False):
            raise ConfigError(
                "teacher_offload: cpu moves weights, and a teacher that is quantised or has a device_map stays where "
                "it is; take one of them out"
            )
        move(teacher, "cpu")
    elif args.device.type != "cpu" and teacher.device.type == "cpu" and not placed:
        move(teacher, args.device)
    teacher.eval().requires_grad_(False)


def check_choice(args: DudiConfig, teachers: int) -> None:
    """Raise a `ConfigError` for several teachers of a method that is its own teacher, and for a choice of one."""
    if teachers == 1 and args.teacher_route == "auto":
        raise ConfigError("teacher_route: auto chooses among several; name them in `teachers`, or take it out")
    if teachers > 1 and args.teaches_itself:
        raise ConfigError(f"teachers: method {args.method} is its own teacher; give one teacher for its cold start")


def shared_events(
    student: ChatFormat, teacher: ChatFormat, sizes: tuple[int, int], examples: Sequence[Example], args: DudiConfig
) -> tuple[SharedEvents, Coverage]:
    """The common events of two chat formats with heads of these sizes, and how much of the targets they cover.

    Raises:
        ConfigError: they cover less than `min_shared_bytes` of a language.
    """
    events = SharedEvents(student.tokenizer, teacher.tokenizer, student.stop_ids, teacher.stop_ids, *sizes)
    completions: dict[str, list[Tokens]] = {}
    for example in examples:
        completions.setdefault(example.row.language, []).append(example.completion)
    coverage = measure_coverage(events, completions)
    coverage.check(args.min_shared_bytes)
    return events, coverage


def head_size(model: PreTrainedModel | ServedTeacher) -> int:
    """Rows of a model's head: the ids that it gives a probability."""
    if isinstance(model, ServedTeacher):
        return model.vocabulary
    return head_of(model).weight.shape[0]
