"""Write the tables of docs/config.md from the code: `python scripts/config_reference.py [--check]`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from dudi.config.schema import REFUSED, Section, TrainingKey
from dudi.distill.keys import METHOD_KEYS, PARTS, method_default
from dudi.distill.recipe import DUDI, training_keys
from dudi.objective.methods import METHODS
from dudi.stacking.recipe import STACK, readers_of
from dudi.training.keys import INHERITED
from dudi.training.values import describe, render

PAGE = Path(__file__).resolve().parents[1] / "docs" / "config.md"
BEGIN = "<!-- begin: written by scripts/config_reference.py -->"
END = "<!-- end -->"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(value: Any) -> str:
    """A value as a recipe writes it."""
    return f"`{render(value)}`"


def section_tables(
    sections: Mapping[str, type[Section]], readers: Callable[[str], tuple[str, ...]] = lambda key: ()
) -> str:
    """One table per section, with what reads each key where not everything does."""
    parts = []
    for name, section in sections.items():
        rows = []
        for key, field in section.model_fields.items():
            required = field.default is PydanticUndefined and field.default_factory is None
            default = "required" if required else code(field.get_default(call_default_factory=True))
            read_by = " or ".join(readers(f"{name}.{key}")) or "all"
            rows.append([f"`{name}.{key}`", describe(field.annotation), default, field.description or "", read_by])
        parts.append(f"### {name}\n\n" + keys_table(rows))
    return "\n\n".join(parts)


def training_table(keys: Mapping[str, TrainingKey]) -> str:
    """The keys that dudi declares, or whose default it changes."""
    rows = []
    for key in keys.values():
        if key.own:
            default = "the method's" if key.rule.common is not None else code(key.default)
            read_by = " or ".join(PARTS[one].what if one in PARTS else one for one in key.rule.read_by)
            value = describe(key.hint).removesuffix(" or null") if key.rule.common is not None else describe(key.hint)
            rows.append([f"`{key.yaml_name}`", value, default, key.help, read_by or "all"])
    return keys_table(rows)


def keys_table(rows: list[list[str]]) -> str:
    """Keys, with what reads them where something does not."""
    width = 5 if any(row[4] != "all" for row in rows) else 4
    return table(["key", "value", "default", "meaning", "read by"][:width], [row[:width] for row in rows])


def method_table() -> str:
    """What each method sets."""
    keys = [key for key in training_keys().values() if key.name in METHOD_KEYS]
    rows = [[f"`{key.yaml_name}`", *(code(method_default(method, key.name)) for method in METHODS)] for key in keys]
    return table(["key", *(f"`{method}`" for method in METHODS)], rows)


def reference() -> str:
    """The generated part of the page."""
    refused = table(["field", "instead"], [[f"`{name}`", advice] for name, advice in REFUSED.items()])
    fixed = [[f"`{name}`", rule.refused] for name, rule in INHERITED.items() if rule.refused]
    return "\n\n".join(
        [
            BEGIN,
            "## Sections",
            section_tables(DUDI.sections),
            "### teachers",
            "`teachers.NAME` has the keys of `teacher`. A NAME is a language, a value of a row's `teacher`, or "
            "`default`.",
            "## Training keys",
            training_table(training_keys()),
            "## The methods' own defaults",
            method_table(),
            "A key that is read by what the method lacks is refused where it is given: `alpha: 0.7` for `sft`.",
            "## Fields of TrainingArguments that a recipe does not set",
            refused,
            "## Fields of TrainingArguments that keep their default",
            "Another value would have no effect, and is refused.",
            table(["field", "why"], fixed),
            "## Sections of `dudi stack`",
            "`encoder`, `llm`, `start`, `teacher` and `data` may be given as text; `docs/mtllm.md` says what they do.",
            section_tables({name: one for name, one in STACK.sections.items() if name != "lora"}, readers_of),
            "`lora` is as above.",
            "## Training keys of `dudi stack`",
            training_table(STACK.training()),
            END,
        ]
    )


def updated(page: str) -> str:
    """The page with its generated part replaced.

    Raises:
        ValueError: the page has lost its markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/config.md needs the lines {BEGIN} and {END}")
    return before + reference() + after


def main() -> int:
    """Write the page, or with --check say whether it is up to date."""
    page = PAGE.read_text(encoding="utf-8")
    new = updated(page)
    if "--check" in sys.argv[1:]:
        return 0 if new == page else 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
