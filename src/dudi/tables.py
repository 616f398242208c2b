"""A table before any format, and its text for a terminal, Markdown, LaTeX, CSV and HTML."""

from __future__ import annotations

import csv
import dataclasses
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from dudi.errors import plain

if TYPE_CHECKING:
    from rich.text import Text

DASH, DIAMOND = "–", "◇"
WIDTH = 80
"""Columns of a terminal whose width is not known."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """What stands in one place of a table."""

    text: str  # without marks
    best: bool = False  # of its column
    second: bool = False
    diamond: bool = False
    value: float | None = None  # the number in full, for CSV; None takes the text


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A line of a table."""

    label: str
    entries: tuple[Entry, ...]  # one a column
    kind: str = ""  # `strong` for the line that the table is about, `faint` for what is there for reference
    colour: int | None = None  # number of the colour that stands for it in charts


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """A table: a heading for each column, and its lines."""

    columns: tuple[str, ...]  # headings, without that of the labels
    lines: tuple[Line, ...]
    corner: str = ""  # heading of the labels
    texts: bool = False  # whether its columns are texts, which stand at the left: numbers stand at the right

    def turned(self) -> Grid:
        """Columns as lines."""
        columns = zip(*(line.entries for line in self.lines), strict=True)
        lines = (Line(heading, entries) for heading, entries in zip(self.columns, columns, strict=True))
        return Grid(tuple(line.label for line in self.lines), tuple(lines), self.corner, self.texts)


def grid_of(
    columns: Iterable[str],
    rows: Iterable[tuple[str, Iterable[str]]],
    *,
    kinds: Mapping[str, str] | None = None,
    corner: str = "",
    texts: bool = False,
) -> Grid:
    """A table of plain texts: its headings, each line's label and texts, and by label the kinds of lines."""
    lines = (Line(label, tuple(map(Entry, cells)), (kinds or {}).get(label, "")) for label, cells in rows)
    return Grid(tuple(columns), tuple(lines), corner, texts)


# --- a terminal


class Laid:
    """A table laid out for a terminal: columns as wide as their widest number, labels folded where that is needed.

    In colour it has escape codes, bold and underline, where a `*` and a `+` stand otherwise.

    Attributes:
        width: Its columns with whole labels.
        least_width: With labels folded between their words.
    """

    def __init__(self, grid: Grid, colour: bool = False, gap: int = 2) -> None:
        from rich.cells import cell_len

        self.grid, self.colour, self.gap = grid, colour, gap
        self.columns = []
        for place, heading in enumerate(grid.columns):
            self.columns.append(self._column(heading, [line.entries[place] for line in grid.lines]))
        self.widths = [max((text.cell_len for text in column), default=0) for column in self.columns]
        lines = [line.label for line in grid.lines]
        labels = [plain(label) for label in (grid.corner, *lines)]
        words = [word for label in labels for word in label.split()]
        self._beside = sum(self.widths) + gap * len(self.widths)
        self.width = self._beside + max(map(cell_len, labels))
        self.least_width = self._beside + max(map(cell_len, words), default=0)

    def text(self, width: int = WIDTH) -> str:
        """The table; no number is cut, so it may be wider than the width that it is given."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        width = max(self.least_width, min(self.width, width))
        table = Table(box=None, pad_edge=False, padding=(0, self.gap, 0, 0), header_style="dim" if self.colour else "")
        table.add_column(Text(plain(self.grid.corner)), width=width - self._beside)
        columns = []
        for column, wide in zip(self.columns, self.widths, strict=True):
            if not self.grid.texts:  # numbers at the right: rich's own alignment drops the room behind marks
                column = [Text.assemble(" " * (wide - text.cell_len), text) for text in column]
            table.add_column(column[0], no_wrap=True, width=wide)
            columns.append(column[1:])
        for line, *entries in zip(self.grid.lines, *columns, strict=True):
            style = {"strong": "bold", "faint": "dim"}.get(line.kind) if self.colour else None
            table.add_row(Text(plain(line.label)), *entries, style=style)
        console = Console(file=StringIO(), force_terminal=self.colour, width=width, highlight=False)
        with console.capture() as captured:
            console.print(table)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())

    def _column(self, heading: str, entries: Sequence[Entry]) -> list[Text]:
        """The heading, and the entries with room behind each for the longest marks: digits stand below each other."""
        from rich.text import Text

        marks = []
        for entry in entries:
            rank = "" if self.colour else "*" if entry.best else "+" if entry.second else ""
            marks.append(rank + (DIAMOND if entry.diamond else ""))
        room = max(map(len, marks), default=0)
        column = [Text(plain(heading))]
        for entry, mark in zip(entries, marks, strict=True):
            style = "" if not self.colour else "bold" if entry.best else "underline" if entry.second else ""
            column.append(Text.assemble((plain(entry.text), style), mark.ljust(room)))
        return column


def terminal(grid: Grid, *, title: str = "", colour: bool = False, width: int = WIDTH) -> str:
    """A table for a terminal, its title above it."""
    heading = f"\x1b[3m{plain(title)}\x1b[0m\n" if title and colour else f"{plain(title)}\n" if title else ""
    return heading + Laid(grid, colour).text(width)


# --- Markdown


def markdown(grid: Grid) -> str:
    """A table in GitHub's Markdown; underlined with `<ins>`, since GitHub drops `<u>`."""
    places = ["---" if grid.texts else "---:"] * len(grid.columns)
    lines = [map(plain_markdown, (grid.corner, *grid.columns)), ("---", *places)]
    for line in grid.lines:
        entries = [_marked(plain_markdown(entry.text), entry, _MARKDOWN) for entry in line.entries]
        lines.append((plain_markdown(line.label), *entries))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_MARKDOWN = ("**", "**"), ("<ins>", "</ins>"), ("", f" {DIAMOND}")


def _marked(text: str, entry: Entry, marks: Sequence[tuple[str, str]]) -> str:
    """An entry's text with what stands before and behind the best, the second, and one with a diamond."""
    for (before, behind), marked in zip(
        marks, (entry.best, entry.second and not entry.best, entry.diamond), strict=True
    ):
        text = f"{before}{text}{behind}" if marked else text
    return text


def plain_markdown(text: str) -> str:
    """Text that Markdown leaves as it is, on one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"([\\`*_\[\]{}|>#~$])", r"\\\1", text)
    return text.replace("://", "&#58;//").replace("www.", "www&#46;")  # or a bare address becomes a link


# --- LaTeX

_LATEX = {character: "\\" + character for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    DIAMOND: r"$\diamond$",
    DASH: "--",
    "…": r"\dots{}",
}


def latex(grid: Grid) -> str:
    """A `tabular` in the manner of booktabs."""
    head = " & ".join(map(plain_latex, (grid.corner, *grid.columns)))
    places = ("l" if grid.texts else "r") * len(grid.columns)
    lines = [rf"\begin{{tabular}}{{l{places}}}", r"\toprule", rf"{head} \\", r"\midrule"]
    for line in grid.lines:
        lines.append(rf"{' & '.join((plain_latex(line.label), *map(_latex_entry, line.entries)))} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex_entry(entry: Entry) -> str:
    text = re.sub(r"^([+-])(?=\d)", r"$\1$", plain_latex(entry.text))
    text = rf"\textbf{{{text}}}" if entry.best else rf"\underline{{{text}}}" if entry.second else text
    return rf"{text}$^{{\diamond}}$" if entry.diamond else text


def plain_latex(text: str) -> str:
    """Text that LaTeX sets as it is, on one line."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


# --- CSV

_FORMULA = "=+-@＝＋－＠"


def csv_text(grid: Grid) -> str:
    """A table as CSV: numbers in full, and no text that a spreadsheet takes for a formula."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_inert, (grid.corner, *grid.columns)))
    for line in grid.lines:
        numbers = (_inert(entry.text) if entry.value is None else entry.value for entry in line.entries)
        writer.writerow([_inert(line.label), *numbers])
    return out.getvalue()


def _inert(text: str) -> str:
    """Text on one line; an apostrophe goes before what would begin a formula."""
    line = " ".join(text.split())
    return f"'{line}" if line and line[0] in _FORMULA else line


# --- HTML


def html_table(grid: Grid, kind: str = "") -> str:
    """A table of the report; `kind` are further classes of it."""
    head = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in grid.columns)
    classes = kind if grid.texts else f"numbers {kind}"
    lines = [
        f'<div class="wide"><table class="{html.escape(classes.strip())}">',
        f"<thead><tr><td>{html.escape(grid.corner)}</td>{head}</tr></thead>",
        "<tbody>",
    ]
    for line in grid.lines:
        style = {"strong": ' class="student"', "faint": ' class="floor"'}.get(line.kind, "")
        mark = "" if line.colour is None else f'<i class="c{line.colour % 8}"></i>'
        entries = "".join(f"<td>{_marked(html.escape(entry.text), entry, _HTML)}</td>" for entry in line.entries)
        lines.append(f'<tr{style}><th scope="row">{mark}{html.escape(line.label)}</th>{entries}</tr>')
    return "\n".join([*lines, "</tbody>", "</table></div>"])


_HTML = ("<b>", "</b>"), ("<u>", "</u>"), ("", f" {DIAMOND}")
