"""Rows as the models read them, with the trained tokens marked: green on a terminal, in brackets elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape

from dudi.data.chat import ChatFormat
from dudi.data.examples import Example
from dudi.distill.arguments import DudiConfig
from dudi.distill.verbalizer import Verbalizer
from dudi.errors import plain


@dataclasses.dataclass(frozen=True, slots=True)
class Formats:
    """The chat formats of student and main teacher, and of all teachers by the keys that they are given for."""

    student: ChatFormat
    teacher: ChatFormat | None
    by_key: Mapping[str, ChatFormat] = dataclasses.field(default_factory=dict)


def show_rows(
    console: Console, args: DudiConfig, examples: Sequence[Example], formats: Formats, verbalizer: Verbalizer
) -> None:
    """For each example: what the student and the teacher read; the console's colours say how tokens are marked."""
    for example in examples:
        console.rule(f"{example.row.language}  {shown(example.row.id)}")
        _gold(console, example, formats)
        if "on_policy" in args.signals:
            said = verbalizer.verbalize(example.row)
            own = formats.by_key.get(example.row.teacher or "") or formats.by_key.get(said.target_language)
            reader = own or formats.teacher or formats.student
            console.print(f"[bold]rollout asked of the student, p_z[/] (answer in {said.target_language})")
            console.print(shown(formats.student.render(said.student_messages)) + _marked(console, "<rollout>"))
            console.print("[bold]read by the teacher, z[/]")
            console.print(shown(reader.render(said.teacher_messages)) + _marked(console, "<the same rollout>"))


def first_of_each(examples: Sequence[Example], languages: Sequence[str] | None = None) -> list[Example]:
    """The first example of each language, in the order of `languages`, or of their first occurrence."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.row.language, example)
    return [first[code] for code in (first if languages is None else languages) if code in first]


def shown(text: str) -> str:
    """Text of data, models and recipes for rich: no markup, and nothing that a terminal would obey."""
    return escape(plain(text, keep="\n\t"))


def _gold(console: Console, example: Example, formats: Formats) -> None:
    how = "green" if _coloured(console) else "between [[ and ]]"
    console.print(f"[bold]read by the student[/] (trained tokens {escape(how)})")
    prompt = formats.student.text(example.prompt, special_tokens=True)
    completion = formats.student.text(example.completion, special_tokens=True)
    note = "" if example.ended else " [yellow](cut: no end of turn)[/]"
    console.print(f"{shown(prompt)}{_marked(console, completion)}{note}")


def _marked(console: Console, text: str) -> str:
    return f"[green]{shown(text)}[/]" if _coloured(console) else shown(f"[[{text}]]")


def _coloured(console: Console) -> bool:
    return console.is_terminal and not console.no_color
