"""`--dry-run`: what a recipe would do, shown on one row per language; nothing is trained and no weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console

from dudi.data.chat import ChatFormat
from dudi.data.examples import ExampleSet, tokenise
from dudi.data.rejections import Rejections
from dudi.data.rows import Row
from dudi.data.sources import RowSet
from dudi.distill.arguments import DudiConfig
from dudi.distill.showing import Formats, first_of_each, show_rows, shown
from dudi.distill.teacher_keys import by_key, merge_keys
from dudi.distill.teachers import Teachers
from dudi.errors import EnvironmentFault
from dudi.models.vocabulary import vocabulary_difference
from dudi.plan import Counted, plan_run, render
from dudi.tables import grid_of, terminal
from dudi.training.arguments import training_dtype

if TYPE_CHECKING:
    from dudi.distill.loading import Loaded
    from dudi.distill.recipe import RunConfig


def describe(config: RunConfig, args: DudiConfig) -> str:
    """Everything a person should see before training, as text; in colour when it goes to a terminal.

    Raises:
        DudiError: what training would refuse of the rows, the keys, and the models as far as their configs tell.
    """
    from dudi.distill.loading import Loaded
    from dudi.distill.run import read_rows
    from dudi.distill.setup import check_routes, rows_for_probe, verbalizer_of
    from dudi.distill.teacher_setup import check_choice

    rows, evaluation = read_rows(config, args)
    loaded = Loaded(config, args)
    loaded.find_models()
    by_name = loaded.teacher_formats if args.needs_teacher else {}
    chats, rejections = list(by_name.values()), Rejections()
    formats = Formats(loaded.student_format, chats[0] if chats else None, by_key(by_name))

    def tokenised(found: RowSet) -> ExampleSet:
        return tokenise(found.rows, formats.student, formats.teacher, args.max_length, rejections, chats[1:])

    examples, asked = tokenised(rows), None if evaluation is None else tokenised(evaluation)
    notes: list[str] = []
    probe = None
    if args.teacher_weight == "auto":
        examples, probe = rows_for_probe(examples, asked, args.probe_rows, args.seed, notes)
    outer = Console()
    console = Console(
        file=StringIO(), force_terminal=outer.is_terminal, width=min(outer.width, 120), highlight=False, soft_wrap=True
    )
    console.print(shown(config.resolved_yaml()))
    _languages(console, rows.rows, examples, rejections)
    if formats.teacher is not None:
        for section, chat in zip(config.named_teachers.values(), chats, strict=True):
            _tokenizers(console, args, examples, formats.student, chat, served=section.server is not None)
        _ask_servers(loaded, formats.student, chats, notes)
    verbalizer = verbalizer_of(args, [example.row for example in examples.examples], notes)
    if args.needs_teacher:
        check_choice(args, len(config.named_teachers))
        sets = [one for one in (examples, probe, asked) if one is not None]
        check_routes(Teachers({}, merge_keys(config.teachers)[1]), args, verbalizer, sets, notes)
    console.print("\n".join(shown(note) for note in notes), end="\n" if notes else "")
    with_pivot_first = sorted(examples.examples, key=lambda one: verbalizer.pivot_of(one.row) is None)
    show_rows(console, args, first_of_each(with_pivot_first if args.pivot else examples.examples), formats, verbalizer)
    try:
        if args.teacher_cache is not None and chats:
            tokens = sum(len(example.completion) for example in examples.examples)
            element = 4 if training_dtype(args) == "float32" else 2
            width = next(iter(loaded.teacher_configs.values())).get_text_config().hidden_size
            size = tokens * width * element / 1e6
            console.print(shown(f"teacher_cache: {tokens:,} tokens of targets, {size:,.1f} MB in {args.teacher_cache}"))
        counted = Counted(len(examples.examples), None if probe is None else len(probe.examples))
        console.print(shown(render(plan_run(config, loaded=loaded, counted=counted))))
    except EnvironmentFault as error:
        console.print(f"no estimate: {shown(str(error))}")
    console.print("dry run: nothing was trained")
    return str(console.file.getvalue()) if isinstance(console.file, StringIO) else ""


def _ask_servers(loaded: Loaded, student: ChatFormat, chats: Sequence[ChatFormat], notes: list[str]) -> None:
    """Ask the servers of teachers that are elsewhere, as training does at its start.

    Raises:
        ConfigError: a server refuses, or cannot do what the recipe needs.
        EnvironmentFault: it does not answer.
    """
    from dudi.distill.served import ServedTeacher
    from dudi.distill.teacher_setup import check_served

    size = loaded.student_config.get_text_config().vocab_size
    for section, chat in zip(loaded.config.named_teachers.values(), chats, strict=True):
        if section.server is not None:
            teacher = ServedTeacher(str(section.model), section.server, section.server_timeout)
            different = vocabulary_difference(student.tokenizer, chat.tokenizer, size, teacher.vocabulary)
            check_served(teacher, different, min(size, teacher.vocabulary), loaded.args, notes)


def _tokenizers(
    console: Console, args: DudiConfig, examples: ExampleSet, student: ChatFormat, teacher: ChatFormat, *, served: bool
) -> None:
    """Where student and teacher have different tokenizers: how much of each language can be compared.

    Raises:
        ConfigError: too little of it.
    """
    from dudi.distill.teacher_setup import shared_events

    sizes = len(student.tokenizer), len(teacher.tokenizer)
    different = vocabulary_difference(student.tokenizer, teacher.tokenizer, *sizes)
    if different is None:
        return
    console.print(shown(different))
    if args.reads_teacher_tokens and not served:
        _, coverage = shared_events(student, teacher, sizes, examples.examples, args)
        console.print(shown(coverage.table()))


def _languages(console: Console, rows: Sequence[Row], examples: ExampleSet, rejections: Rejections) -> None:
    """Rows, tokens per character and truncation, per language."""
    lines = []
    for language in sorted({row.language for row in rows}):
        own = [example for example in examples.examples if example.row.language == language]
        if not own:
            lines.append((language, ["0", "-", "-", "-"]))
            continue
        tokens = sum(len(example.completion) for example in own)
        characters = sum(len(example.row.completion) for example in own)
        cut = examples.truncated.get(language, 0) / len(own)
        longest = max(len(example.prompt) for example in own)
        lines.append((language, [str(len(own)), f"{tokens / max(characters, 1):.2f}", f"{cut:.1%}", str(longest)]))
    columns = ("rows", "tokens/character", "cut", "prompt tokens (longest)")
    console.print(shown(terminal(grid_of(columns, lines, corner="language"))))
    if len(rejections):
        console.print("\n".join(shown(line) for line in rejections.summary()))
