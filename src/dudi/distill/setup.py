"""What a trainer is made of, checked before anything is trained."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from dudi.data.chat import ChatFormat, borrow_template, chat_format, template_kwargs
from dudi.data.examples import Example, ExampleSet, digest_of
from dudi.data.rejections import Rejections
from dudi.data.rows import Row
from dudi.data.sources import by_language, content_digest
from dudi.distill.arguments import DudiConfig
from dudi.distill.dataset import MAX_REJECTED_SHARE, Records, RowReader, tell_rejections
from dudi.distill.served import ServedTeacher
from dudi.distill.teacher_keys import DEFAULT, merge_keys
from dudi.distill.teacher_setup import (
    Given,
    check_choice,
    events_of,
    head_size,
    line_up,
    load_teacher,
    tokenizers_by_name,
)
from dudi.distill.teachers import Teacher, Teachers
from dudi.distill.verbalizer import Verbalizer, pivots_of
from dudi.errors import ConfigError, DataError
from dudi.languages.registry import check_codes, load_languages
from dudi.models.adapters import innermost
from dudi.models.image_text import tokenizer_in
from dudi.models.limits import check_ids, check_length
from dudi.models.load import load_model, load_tokenizer
from dudi.objective.forward import open_forward
from dudi.objective.heads import check_head


@dataclasses.dataclass(slots=True)
class Setup:
    """The parts of a run.

    Attributes:
        teacher: The second model, frozen or served, or None; of several, the default one, as for all that is said of it
            below.
        teacher_format: The teacher's chat format; the student's own where there is no second model.
        vocabulary: The ids that both heads share; the student's, where the tokenizers differ.
        languages: All languages that are known, as candidates for detection.
        reader: Reads further rows.
        eval: Tokenised evaluation rows, by name where there are several datasets; or None.
        probe: Rows that the probe of `teacher_weight: auto` asks, none of them trained on; None without a probe.
        notes: What a person should know before it starts.
    """

    model: nn.Module
    teacher: PreTrainedModel | ServedTeacher | None
    student_format: ChatFormat
    teacher_format: ChatFormat
    vocabulary: int
    verbalizer: Verbalizer
    languages: tuple[str, ...]
    reader: RowReader
    train: ExampleSet | None
    eval: ExampleSet | dict[str, ExampleSet] | None
    probe: ExampleSet | None
    notes: list[str]
    teachers: Teachers


def build_setup(
    model: PreTrainedModel | nn.Module | str,
    teacher: Given | Mapping[str, Given] | None,
    args: DudiConfig,
    train_dataset: Records | ExampleSet | None,
    eval_dataset: Records | ExampleSet | Mapping[str, Records] | None,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None,
    teacher_tokenizer: PreTrainedTokenizerBase | Mapping[str, PreTrainedTokenizerBase] | None,
    rejections: Rejections | None = None,
    max_rejected_share: float = MAX_REJECTED_SHARE,
) -> Setup:
    """Load what is named, hold student against teacher, and tokenise the rows.

    Rows that are not taken are told here, and stop the run when they are too many, unless a caller counts them itself.

    Raises:
        ConfigError: a missing teacher, a template without an end of turn, tokenizers that cannot be lined up.
        DataError: no row is left.
    """
    notes: list[str] = []
    if args.verbalizer != "none":
        check_codes(args.languages, load_languages(), "languages")
    by_key = teacher if isinstance(teacher, Mapping) else {} if teacher is None else {DEFAULT: teacher}
    given, names = merge_keys(by_key)
    tokenizers = tokenizers_by_name(teacher_tokenizer, names)
    args.require_teacher(bool(given))
    if given and not args.needs_teacher:
        notes.append(f"method {args.method} reads no teacher: the one that was given is left alone")
    wanted = given if args.needs_teacher else {}
    name, student, student_tokenizer = _load_student(model, tokenizer)
    inner = innermost(student)
    lender = next(iter(tokenizers.values()), None)  # one that is given without a teacher may lend its template
    first = next(iter(wanted), "")
    loaded = {first: load_teacher(wanted[first], lender, student_tokenizer)} if wanted else {}
    if borrow_template(student_tokenizer, loaded[first][1] if wanted else lender):
        notes.append(f"{name} has no chat template: it takes its teacher's")
    own = chat_format(student_tokenizer, template_kwargs(args.chat_template_kwargs, "student"), name)
    if own.cut:
        notes.append(
            f"{name}: its template asks with {own.cut.strip()!r}, which its answers lack; trained and saved without it"
        )
    check_choice(args, len(wanted))
    vocabulary = head_size(inner)
    members: dict[str, Teacher] = {}
    differences: dict[str, str | None] = {}
    for key in wanted:
        one, its_tokenizer = loaded.get(key) or load_teacher(wanted[key], tokenizers.get(key), student_tokenizer)
        if one is inner:
            raise ConfigError(
                "teacher_model, teachers: one is the student itself, and would be frozen with it; load it a second time"
            )
        chat, differences[key] = line_up(one, its_tokenizer, own, vocabulary, args, notes)
        members[key] = Teacher(key, one, chat, own_tokens=differences[key] is not None)
    vocabulary = min([vocabulary, *(head_size(one.model) for one in members.values() if not one.own_tokens)])
    open_forward(inner)
    check_head(inner)
    check_ids(inner, student_tokenizer, "student")
    for member in members.values():
        if not isinstance(member.model, ServedTeacher):
            check_ids(member.model, member.chat.tokenizer, "teacher")
    chats, languages = [member.chat for member in members.values()], tuple(load_languages())
    taken = Rejections() if rejections is None else rejections
    reader = RowReader(args, own, chats, vocabulary, languages)
    try:
        train, rows = reader.read_all(train_dataset, "train_dataset", taken)
        evaluation, more = reader.read_all(eval_dataset, "eval_dataset", taken)
    except DataError:
        if rejections is None:
            tell_rejections(taken, 0, args, share=1.0)
        raise
    if rejections is None:
        tell_rejections(taken, rows + more, args, max_rejected_share)
    probe = None
    if args.teacher_weight == "auto" and train is not None:
        train, probe = rows_for_probe(train, evaluation, args.probe_rows, args.seed, notes)
    examples = [] if train is None else train.examples
    _check_lengths(inner, [member.model for member in members.values()], examples, args)
    for key, member in members.items():
        events = events_of(member, own, vocabulary, differences[key], args, examples, notes)
        members[key] = dataclasses.replace(member, events=events)
    teachers = Teachers(members, names if members and isinstance(teacher, Mapping) else {})
    verbalizer = verbalizer_of(args, [example.row for example in examples], notes)
    if args.needs_teacher:
        check_routes(teachers, args, verbalizer, [train, probe, *_sets(evaluation)], notes)
    return Setup(
        model=student,
        teacher=loaded[first][0] if wanted else None,
        student_format=own,
        teacher_format=chats[0] if chats else own,
        vocabulary=vocabulary,
        verbalizer=verbalizer,
        languages=languages,
        reader=reader,
        train=train,
        eval=evaluation,
        probe=probe,
        notes=notes,
        teachers=teachers,
    )


def _sets(evaluation: ExampleSet | Mapping[str, ExampleSet] | None) -> list[ExampleSet]:
    if isinstance(evaluation, Mapping):
        return list(evaluation.values())
    return [] if evaluation is None else [evaluation]


def check_routes(
    teachers: Teachers, args: DudiConfig, verbalizer: Verbalizer, sets: Sequence[ExampleSet | None], notes: list[str]
) -> None:
    """Hold the keys that teachers, and shares of them, are given under against all rows, which they will judge.

    Of the teachers no model is read. Names in the column `teacher` that are no key, and languages of shares that
    nothing is in, are added to the notes.

    Raises:
        ConfigError: a key that is neither a language nor in any row, a language without a teacher, or shares of 0 in
            all languages where nothing else is trained.
    """
    rows = [example for one in sets if one is not None for example in one.examples]
    targets = verbalizer.targets if args.chooses_target else ()
    if args.teacher_route == "given":  # else a probe finds out who judges what, and the keys are names
        teachers.check(rows, targets, tuple(load_languages()))
    named = Counter(example.row.teacher for example in rows if example.row.teacher not in (None, *teachers.routes))
    if named:
        listed = ", ".join(f"{name!r} {count:,}" for name, count in sorted(named.items()))
        notes.append(f"rows that name a teacher who is no key of `teachers` have their language's: {listed}")
    shares = args.teacher_weight if isinstance(args.teacher_weight, dict) else {}
    languages = {*targets, *(example.row.language for example in rows)}
    if shares and not any(shares.get(code, 1.0) for code in languages):
        args.refuse_no_share()
    if idle := sorted({*shares} - languages):
        notes.append(f"teacher_weight: no row is in {', '.join(idle)}, and no answer is asked for in it")


def _check_lengths(
    student: PreTrainedModel,
    teachers: Sequence[PreTrainedModel | ServedTeacher],
    examples: Sequence[Example],
    args: DudiConfig,
) -> None:
    """Hold what the keys make as long as it gets against models with so many positions and no more."""
    rolled_out = args.max_new_tokens if {"on_policy", "sequence"} & set(args.signals) else 0
    longest = max((len(example.prompt) for example in examples), default=0)
    check_length(student, args.max_length, "the student", "max_length")
    check_length(student, longest + rolled_out, "the student", "max_new_tokens after the longest prompt")
    longest = max((len(example.teacher_prompt) for example in examples), default=0)
    verbalized = args.teacher_max_length if args.verbalizer != "none" and rolled_out else 0
    what = "max_new_tokens after its longest prompt"
    if verbalized > longest:
        what = f"max_new_tokens ({rolled_out:,}) after a prompt of teacher_max_length ({verbalized:,})"
    longest = max(longest, verbalized)
    for teacher in teachers:
        check = teacher.check_length if isinstance(teacher, ServedTeacher) else partial(check_length, teacher)
        check(args.max_length, "the teacher", "max_length")
        check(longest + rolled_out, "the teacher", what)


def _load_student(
    model: nn.Module | str, tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None
) -> tuple[str, nn.Module, PreTrainedTokenizerBase]:
    """The student's name, the student and its tokenizer."""
    name = model if isinstance(model, str) else str(innermost(model).config.name_or_path or "")
    if not name and tokenizer is None:
        raise ConfigError("processing_class: the student is an object without a name to find it by; give its tokenizer")
    name = name or "the student"
    own = load_tokenizer(name) if tokenizer is None else tokenizer_in(tokenizer)
    return name, load_model(model) if isinstance(model, str) else model, own


def verbalizer_of(args: DudiConfig, rows: Sequence[Row], notes: list[str]) -> Verbalizer:
    """The verbalizer of a run, with the parallel rows of its pivot; a `DataError` where no row has one."""
    excluded, pivot = args.exclude_targets, args.pivot
    verbalizer = Verbalizer(args.verbalizer, args.languages, args.seed, exclude_targets=excluded, pivot=pivot)
    if pivot is None or not rows or "on_policy" not in args.signals:
        return verbalizer
    verbalizer.pivots = pivots_of(rows, pivot)
    others = [row for row in rows if row.language != pivot]
    count = sum(verbalizer.pivot_of(row) is not None for row in others)
    if not count:
        if not any(row.language == pivot for row in rows):
            raise DataError(f"pivot: no training row is in '{pivot}'; are there any, and is it among `languages`?")
        raise DataError(f"pivot: no row has a parallel one in '{pivot}' (the column `parallel`, docs/data.md)")
    notes.append(f"pivot: {count:,} of {len(others):,} rows in other languages have a parallel one in {pivot}")
    return verbalizer


def _not_trained(rows: Sequence[Example], train: ExampleSet, notes: list[str]) -> list[Example]:
    """The rows that are no training rows, whatever their ids: a cold-started student has read those."""
    trained = {content_digest(example.row) for example in train.examples}
    kept: list[Example] = []
    left_out: Counter[str] = Counter()
    for example in rows:
        if content_digest(example.row) in trained:
            left_out[example.row.language] += 1
        else:
            kept.append(example)
    if not kept:
        notes.append(
            f"data.eval: all {len(rows):,} rows are training rows; the probe's are held out of training instead"
        )
    elif left_out:
        notes.append(f"data.eval: training rows are left out of the probe: {by_language(left_out)}")
    return kept


def rows_for_probe(
    train: ExampleSet,
    evaluation: ExampleSet | Mapping[str, ExampleSet] | None,
    per_language: int,
    seed: int,
    notes: list[str],
) -> tuple[ExampleSet, ExampleSet]:
    """The rows to train on, and those that a probe asks: of the evaluation rows, or held out of the training rows.

    Which rows they are hangs on the seed and their ids alone. A language never gives more than half of its rows away.
    What was left out is added to `notes`.

    Raises:
        DataError: no row can be asked.
    """
    given = [example for one in _sets(evaluation) for example in one.examples]
    apart = _not_trained(given, train, notes) if given else []
    source = apart or train.examples
    of_language: dict[str, list[Example]] = {}
    for example in source:
        of_language.setdefault(example.row.language, []).append(example)
    chosen: set[str] = set()
    for examples in of_language.values():
        drawn = sorted(examples, key=lambda one: hashlib.sha256(f"probe/{seed}/{one.row.id}".encode()).digest())
        limit = per_language if apart else min(per_language, len(examples) // 2)
        chosen |= {example.row.id for example in drawn[:limit]}
    probe = [example for example in source if example.row.id in chosen]
    if apart:
        return train, ExampleSet(probe, {}, digest_of(probe))
    if not probe:
        raise DataError(
            "teacher_weight: auto: no row can be asked, since of one row a language none is held out; give rows with "
            "data.eval (eval_dataset in Python), or the weights by hand"
        )
    notes.append(f"teacher_weight: auto: {len(probe):,} rows are held out of training for its probe")
    kept = [example for example in train.examples if example.row.id not in chosen]
    return ExampleSet(kept, train.truncated, digest_of(kept)), ExampleSet(probe, {}, digest_of(probe))
