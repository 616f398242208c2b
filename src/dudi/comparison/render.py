"""A comparison as text: for a terminal, Markdown, LaTeX (booktabs) or CSV."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from dudi.comparison.grid import eps_grid, grid, remarks, title
from dudi.comparison.table import Comparison
from dudi.errors import ConfigError, did_you_mean
from dudi.evaluation.metrics import OVERALL
from dudi.tables import WIDTH, Entry, Grid, Laid, Line, csv_text, latex, markdown, plain_latex, plain_markdown

FORMATS = ("text", "markdown", "latex", "csv")
_WIDEST = 12
"""More columns than this are written as lines in Markdown and LaTeX: methods then stand side by side."""
_HEAD = ("by", "column", "metric", "unit", "mean", "std", "n", "best", "second", "significant", "eps")
_MORE = ("against", "delta", "percent", "reference", "differs", "p", "test", "stderr")


def render(
    comparison: Comparison,
    format: str,
    *,
    colour: bool = False,
    std: bool | None = None,
    eps: bool = False,
    width: int = WIDTH,
) -> str:
    """A comparison as `text`, `markdown`, `latex` or `csv`; CSV always has everything.

    Args:
        comparison: What `compare` returned.
        format: One of `FORMATS`.
        colour: Text: bold and underline as escape codes, where a `*` and a `+` stand otherwise.
        std: Whether standard deviations are shown; None shows them where there are any, in text where they fit.
        eps: Whether a table of every test, its eps_min or p, follows.
        width: Text: the terminal's columns. A table that does not fit is turned round, and never cut.

    Raises:
        ConfigError: there is no such format.
    """
    if format not in FORMATS:
        raise ConfigError(f"format: '{format}' is not one of {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    if format == "csv":
        return csv_text(every_cell(comparison))
    tested = [eps_grid(comparison)] if eps and comparison.duels else []
    if format == "text":
        return _text(comparison, tested, std, colour, width)
    table = grid(comparison, std=std is not False)
    table = table.turned() if len(table.columns) > _WIDEST else table
    return (_markdown if format == "markdown" else _latex)(comparison, [table, *tested])


def _text(comparison: Comparison, tested: Sequence[Grid], std: bool | None, colour: bool, width: int) -> str:
    tables = [_fitting(comparison, std, colour, width), *(Laid(one, colour) for one in tested)]
    marks = ("Bold", "underlined") if colour else ("*", "+")
    lines = remarks(comparison, *marks, tables[0].grid)
    notes = [textwrap.fill(line, width, subsequent_indent="  ") for line in lines]
    parts = [textwrap.fill(title(comparison), width), *(table.text(width) for table in tables), "\n".join(notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _fitting(comparison: Comparison, std: bool | None, colour: bool, width: int) -> Laid:
    """The first that fits: with standard deviations, without, closer together, turned round."""
    options = []
    with_std = [True, False] if std is None else [std]
    for turned in (False, True):
        tables = [grid(comparison, std=one, long=turned) for one in with_std]
        tables = [table.turned() for table in tables] if turned else tables
        options += [*(Laid(table, colour) for table in tables), Laid(tables[-1], colour, gap=1)]
    whole = (one for one in options if one.width <= width)
    folded = (one for one in options if one.least_width <= width)
    return next(whole, None) or next(folded, options[-1])


def _markdown(comparison: Comparison, tables: Sequence[Grid]) -> str:
    parts = [plain_markdown(title(comparison)), *map(markdown, tables)]
    lines = remarks(comparison, "Bold", "underlined", tables[0])
    parts += ["\n".join(f"- {plain_markdown(line)}" for line in lines)] if lines else []
    return "\n\n".join(parts) + "\n"


def _latex(comparison: Comparison, tables: Sequence[Grid]) -> str:
    lines = [title(comparison), *remarks(comparison, "Bold", "underlined", tables[0])]
    caption = " ".join(f"{plain_latex(line)}." for line in lines)
    parts = "\n\\par\\medskip\n".join(map(latex, tables))
    head = ["% needs \\usepackage{booktabs}", r"\begin{table}[t]", r"\centering"]
    return "\n".join([*head, parts, rf"\caption{{{caption}}}", r"\end{table}"]) + "\n"


def every_cell(comparison: Comparison) -> Grid:
    """A line for each cell: numbers in full, nothing where nothing was measured."""
    metric, differs = comparison.metric, "; ".join(comparison.differs)
    lines = []
    for row in comparison.rows:
        for column, cell in zip(comparison.columns, row.cells, strict=True):
            texts = [comparison.by, column, metric.name, metric.unit]
            marks = [int(cell.best), int(cell.second), int(cell.significant)]
            numbers = [_number(one) for one in (cell.mean, cell.std, cell.n, *marks, cell.eps)]
            deltas = [_number(one) for one in ((row.delta, row.percent) if column == OVERALL else (None, None))]
            more = [Entry(cell.against or ""), *deltas, _number(int(row.reference)), Entry(differs)]
            more += [_number(cell.p), Entry(cell.test or ""), _number(cell.error)]
            lines.append(Line(row.name, (*map(Entry, texts), *numbers, *more)))
    return Grid((*_HEAD, *_MORE), tuple(lines), "method")


def _number(value: float | None) -> Entry:
    return Entry("" if value is None else str(value), value=value)
