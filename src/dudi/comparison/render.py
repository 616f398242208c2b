"""A comparison as text: for a terminal, Markdown, LaTeX (booktabs) or CSV."""

from __future__ import annotations

import textwrap

from dudi.comparison.grid import eps_grid, grid, has_std, remarks, title
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
    """Write a comparison down.

    Args:
        comparison: What `compare` returned.
        format: `text`, `markdown`, `latex` or `csv`.
        colour: Text: bold and underline as escape codes, where a `*` and a `+` stand otherwise.
        std: Whether standard deviations are shown; None shows them where there are any, in text where they fit. CSV
            always has them.
        eps: Whether a table of every test, its eps_min or p, follows. CSV always has them.
        width: Text: the terminal's columns. A table that does not fit is turned round, and never cut.

    Raises:
        ConfigError: there is no such format.
    """
    if format not in FORMATS:
        raise ConfigError(f"format: '{format}' is not one of {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    if format == "csv":
        return csv_text(every_cell(comparison))
    tested = eps_grid(comparison, long=True) if eps and comparison.duels else None
    if format == "text":
        return _text(comparison, tested, std, colour, width)
    table = grid(comparison, std=has_std(comparison) if std is None else std, long=True)
    table = table.turned() if len(table.columns) > _WIDEST else table
    return (_markdown if format == "markdown" else _latex)(comparison, table, tested)


def _text(comparison: Comparison, tested: Grid | None, std: bool | None, colour: bool, width: int) -> str:
    tables = [_fitting(comparison, std, colour, width), *([Laid(tested, colour)] if tested else [])]
    marks = ("Bold", "underlined") if colour else ("*", "+")
    lines = remarks(comparison, *marks, tables[0].grid)
    notes = [textwrap.fill(line, width, subsequent_indent="  ") for line in lines]
    parts = [textwrap.fill(title(comparison), width), *(table.text(width) for table in tables), "\n".join(notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _fitting(comparison: Comparison, std: bool | None, colour: bool, width: int) -> Laid:
    """The first that fits: with standard deviations, without, closer together, turned round."""
    with_std = [std] if std is not None else [has_std(comparison), False]
    straight = [grid(comparison, std=one, long=False) for one in with_std]
    turned = [grid(comparison, std=one, long=True).turned() for one in with_std]
    options = [Laid(one, colour) for one in straight] + [Laid(straight[-1], colour, gap=1)]
    options += [Laid(one, colour) for one in turned] + [Laid(turned[-1], colour, gap=1)]
    whole = (one for one in options if one.width <= width)
    folded = (one for one in options if one.least_width <= width)
    return next(whole, None) or next(folded, options[-1])


def _markdown(comparison: Comparison, table: Grid, tested: Grid | None) -> str:
    parts = [plain_markdown(title(comparison)), markdown(table), *([markdown(tested)] if tested else [])]
    lines = remarks(comparison, "Bold", "underlined", table)
    parts += ["\n".join(f"- {plain_markdown(line)}" for line in lines)] if lines else []
    return "\n\n".join(parts) + "\n"


def _latex(comparison: Comparison, table: Grid, tested: Grid | None) -> str:
    lines = remarks(comparison, "Bold", "underlined", table)
    caption = [f"{plain_latex(line)}." for line in [title(comparison), *lines]]
    parts = [latex(table), *([r"\par\medskip", latex(tested)] if tested else [])]
    lines = ["% needs \\usepackage{booktabs}", r"\begin{table}[t]", r"\centering", *parts]
    return "\n".join([*lines, rf"\caption{{{' '.join(caption)}}}", r"\end{table}"]) + "\n"


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
