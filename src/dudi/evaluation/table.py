"""Scores as a table for a terminal of 80 columns, with and without colour."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from dudi.data.cldr.benchmark import SPLITS
from dudi.evaluation.summary import FLOOR
from dudi.languages.registry import LANGUAGES

WIDTH = 79
TITLES = {FLOOR: "guessing", "base": "base", "cold_start": "cold start", "teacher": "teacher"}
MEANING = {
    "seen": "trained in this language, asked in other words",
    "transfer": "trained in other languages only",
    "unseen": "trained in no language: only the teacher knows",
}


def benchmark_tables(summary: Mapping[str, Mapping[str, Any]], method: str, *, colour: bool = False) -> str:
    """What a person reads after a run: by split for every subject, by language before and after.

    Args:
        summary: What `summarise` returns.
        method: What to call the student.
        colour: Whether to write escape codes for a terminal.
    """
    console = Console(file=StringIO(), force_terminal=colour, width=WIDTH, highlight=False)
    console.print(_by_split(summary, method))
    for split in SPLITS:
        console.print(f"  [bold]{split}[/]: {MEANING[split]}")
    console.print()
    console.print(_by_language(summary, method))
    text = console.file
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) if isinstance(text, StringIO) else ""


def title(subject: str, method: str) -> str:
    """What a table calls a subject."""
    return method if subject == "student" else TITLES.get(subject, subject)


def before_method(subjects: Collection[str]) -> str | None:
    """What a student was before its method: the cold start, or else the base; None when neither answered."""
    return next((name for name in ("cold_start", "base") if name in subjects), None)


def _by_split(summary: Mapping[str, Mapping[str, Any]], method: str) -> Table:
    table = Table(title="Questions answered exactly, in %", box=None, title_justify="left", pad_edge=False)
    table.add_column("")
    for split in SPLITS:
        table.add_column(split, justify="right")
    for heading in ("all", "in language", "bits per byte"):
        table.add_column(heading, justify="right")
    for subject, own in summary.items():
        cells = [_share(own["by_split"].get(split), "exact_match") for split in SPLITS]
        cells += [_share(own["overall"], "exact_match"), _share(own["overall"], "in_language")]
        style = "bold" if subject == "student" else "dim" if subject == FLOOR else None
        table.add_row(title(subject, method), *cells, _bits(own["overall"]), style=style)
    return table


def _by_language(summary: Mapping[str, Mapping[str, Any]], method: str) -> Table:
    """Per language and split, before and after; the teacher beside."""
    before = before_method(summary) or "base"
    pairs = [subject for subject in (before, "student") if subject in summary] or list(summary)[1:2]
    words = f"{title(before, method)} > {method}" if len(pairs) == 2 else title(pairs[0], method)
    table = Table(title=f"By language: {words}", box=None, title_justify="left", pad_edge=False)
    table.add_column("")
    for split in SPLITS:
        table.add_column(split, justify="right")
    if "teacher" in summary:
        table.add_column("teacher (all)", justify="right")
    for code in summary[pairs[0]]["by_language"]:
        cells = [" > ".join(_cell(summary, subject, code, split) for subject in pairs) for split in SPLITS]
        if "teacher" in summary:
            cells.append(_share(summary["teacher"]["by_language"].get(code), "exact_match"))
        table.add_row(LANGUAGES[code].name if code in LANGUAGES else code, *cells)
    return table


def _cell(summary: Mapping[str, Mapping[str, Any]], subject: str, code: str, split: str) -> str:
    return _share(summary[subject]["by_language_and_split"].get(code, {}).get(split), "exact_match").rjust(3)


def _share(scores: Mapping[str, Any] | None, metric: str) -> str:
    value = None if scores is None else scores[metric]
    return "-" if value is None else f"{100 * value:.0f}"


def _bits(scores: Mapping[str, Any]) -> str:
    value = scores["bits_per_byte"]
    return "-" if value is None else f"{value:.2f}"
