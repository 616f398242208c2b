"""A comparison as a table for a terminal, Markdown, LaTeX (booktabs) or CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from io import StringIO

from dudi.comparison.comparing import Comparison
from dudi.comparison.grid import DASH, DIAMOND, Grid, Written, eps_grid, grid, has_std, remarks, title
from dudi.errors import ConfigError, did_you_mean
from dudi.evaluation.metrics import OVERALL

FORMATS = ("text", "markdown", "latex", "csv")
WIDTH = 80
_WIDEST = 12
"""More columns than this are written as lines in Markdown and LaTeX: methods then stand side by side."""


def render(
    comparison: Comparison,
    format: str,
    *,
    colour: bool = False,
    std: bool | None = None,
    eps: bool = False,
    width: int = WIDTH,
) -> str:
    """Write a comparison down.

    Args:
        comparison: What `compare` returned.
        format: `text`, `markdown`, `latex` or `csv`.
        colour: Text: bold and underline as escape codes, where a `*` and a `+` stand otherwise.
        std: Whether standard deviations are shown; None shows them where there are any, in text where they fit. CSV
            always has them.
        eps: Whether a table of eps_min follows. CSV always has it.
        width: Text: the terminal's columns. A table that does not fit is turned round, and never cut.

    Raises:
        ConfigError: there is no such format.
    """
    if format == "text":
        from dudi.comparison.terminal import terminal_table

        return terminal_table(comparison, colour=colour, std=std, eps=eps, width=width)
    if format == "csv":
        return _csv(comparison)
    if format not in FORMATS:
        raise ConfigError(f"format: '{format}' is not one of {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    table = grid(comparison, std=has_std(comparison) if std is None else std, long=True)
    table = table.turned() if len(table.columns) > _WIDEST else table
    tested = eps_grid(comparison, long=True) if eps and comparison.tests else None
    return (_markdown if format == "markdown" else _latex)(comparison, table, tested)


# --- what every format shows


# --- Markdown


def _markdown(comparison: Comparison, table: Grid, tested: Grid | None) -> str:
    parts = [_plain_markdown(title(comparison)), _markdown_table(table)]
    parts += [_markdown_table(tested)] if tested else []
    lines = remarks(comparison, "Bold", "underlined")
    parts += ["\n".join(f"- {_plain_markdown(line)}" for line in lines)] if lines else []
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Grid) -> str:
    lines = [("", *map(_plain_markdown, table.columns)), ("---", *["---:"] * len(table.columns))]
    lines += [(_plain_markdown(label), *map(_markdown_cell, cells)) for label, cells in table.lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cell(cell: Written) -> str:
    """Underlined with `<ins>`: GitHub drops `<u>`."""
    text = _plain_markdown(cell.text)
    text = f"**{text}**" if cell.best else f"<ins>{text}</ins>" if cell.second else text
    return f"{text} {DIAMOND}" if cell.diamond else text


def _plain_markdown(text: str) -> str:
    """Text that Markdown leaves as it is, on one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|>#~])", r"\\\1", text)


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


def _latex(comparison: Comparison, table: Grid, tested: Grid | None) -> str:
    caption = [f"{_plain_latex(line)}." for line in [title(comparison), *remarks(comparison, "Bold", "underlined")]]
    parts = [_tabular(table), *([r"\par\medskip", _tabular(tested)] if tested else [])]
    lines = ["% needs \\usepackage{booktabs}", r"\begin{table}[t]", r"\centering", *parts]
    return "\n".join([*lines, rf"\caption{{{' '.join(caption)}}}", r"\end{table}"]) + "\n"


def _tabular(table: Grid) -> str:
    lines = [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    lines += [_latex_line(["", *map(_plain_latex, table.columns)]), r"\midrule"]
    lines += [_latex_line([_plain_latex(label), *map(_latex_cell, cells)]) for label, cells in table.lines]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex_line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex_cell(cell: Written) -> str:
    text = re.sub(r"^([+-])(?=\d)", r"$\1$", _plain_latex(cell.text))
    text = rf"\textbf{{{text}}}" if cell.best else rf"\underline{{{text}}}" if cell.second else text
    return rf"{text}$^{{\diamond}}$" if cell.diamond else text


def _plain_latex(text: str) -> str:
    """Text that LaTeX sets as it is, on one line."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


# --- CSV

_HEAD = ("method", "by", "column", "metric", "unit", "mean", "std", "n", "best", "second", "significant", "eps")
_FORMULA = "=+-@＝＋－＠"
_MORE = ("against", "delta", "percent", "reference", "differs")


def _csv(comparison: Comparison) -> str:
    """A line for each cell: numbers in full, nothing where nothing was measured."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_HEAD, *_MORE])
    for row in comparison.rows:
        for column, cell in zip(comparison.columns, row.cells, strict=True):
            about = map(_inert, (row.name, comparison.by, column, comparison.metric.name, comparison.metric.unit))
            marks = [int(cell.best), int(cell.second), int(cell.significant)]
            delta = [row.delta, row.percent] if column == OVERALL else [None, None]
            numbers = [cell.mean, cell.std, cell.n, *marks, cell.eps, _inert(cell.against), *delta]
            writer.writerow([*about, *numbers, int(row.reference), _inert("; ".join(comparison.differs))])
    return out.getvalue()


def _inert(text: str | None) -> str | None:
    """Text on one line that no spreadsheet takes for a formula: an apostrophe goes before what would begin one."""
    line = None if text is None else " ".join(text.split())
    return f"'{line}" if line and line[0] in _FORMULA else line
