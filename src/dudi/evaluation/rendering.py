"""A comparison as a table for a terminal, Markdown, LaTeX (booktabs) or CSV."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Sequence
from io import StringIO

from dudi.errors import ConfigError
from dudi.evaluation.comparing import Cell, Comparison, Row
from dudi.evaluation.measured import OVERALL
from dudi.languages import LANGUAGES
from dudi.suggest import did_you_mean

FORMATS = ("text", "markdown", "latex", "csv")
DASH, DIAMOND = "–", "◇"
WIDTH = 80
_WIDEST = 12
"""More columns than this are written as lines in Markdown and LaTeX: methods then stand side by side."""


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """One cell as a table shows it.

    Attributes:
        text: Without marks.
        best: Whether it is the best of its column.
        second: Whether it is the second best.
        diamond: Whether it has one.
    """

    text: str
    best: bool = False
    second: bool = False
    diamond: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """A table before any format: a heading for each column and a label for each line.

    Attributes:
        columns: Headings.
        lines: Label and cells.
    """

    columns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Written, ...]], ...]

    def turned(self) -> Grid:
        """Columns as lines."""
        cells = zip(*(cells for _, cells in self.lines), strict=True)
        return Grid(tuple(label for label, _ in self.lines), tuple(zip(self.columns, cells, strict=True)))


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
        from dudi.evaluation.terminal import terminal_table

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


def title(comparison: Comparison) -> str:
    """What the numbers are: metric, seeds, benchmark."""
    runs = {row.runs for row in comparison.rows if not row.reference}
    count = next(iter(runs), 0) if len(runs) == 1 else 0
    seeds = {0: "mean over seeds", 1: "one seed"}.get(count, f"mean of {count} seeds")
    less = ", lower is better" if comparison.metric.better < 0 else ""
    name, part = comparison.benchmark.get("name"), comparison.benchmark.get("part")
    where = ", ".join(str(one) for one in (name, part) if one)
    return printable(f"{comparison.metric.title}{less}; {seeds}{f'; {where}' if where else ''}")


def remarks(comparison: Comparison, best: str, second: str) -> list[str]:
    """What stands below a table: what the marks mean, and what a reader must know.

    Args:
        comparison: The table.
        best: How the best is marked, such as `bold`.
        second: How the second best is.
    """
    cells = [cell for row in comparison.rows for cell in row.cells]
    lines = [f"{best}: best; {second}: second best"] if any(cell.best for cell in cells) else []
    if comparison.tests:
        nowhere = "" if any(cell.significant for cell in cells) else ", in no column here"
        lines.append(f"{DIAMOND}{nowhere}: {_tested(comparison)}")
    if not comparison.metric.better:
        lines.append(f"Nothing is marked: neither more nor less {comparison.metric.name} is known to be better")
    if comparison.baseline:
        lines.append(f"Δ: overall, less that of {comparison.baseline}; in % of it")
    if shown := [row.name for row in comparison.rows if row.reference]:
        lines.append(f"For reference, not ranked: {', '.join(shown)}")
    lines += [*(f"Not the same: {told}" for told in comparison.differs), *comparison.notes]
    return [printable(line) for line in lines]


def _tested(comparison: Comparison) -> str:
    tests = f"{comparison.tests} tests" if comparison.tests > 1 else "1 test"
    how = f"ASO, eps_min < {comparison.tau:g}, confidence {comparison.confidence:g} over {tests}"
    if comparison.candidate is None:
        return f"the best is better than the next best ({how})"
    rival = next(cell.against for row in comparison.rows for cell in row.cells if cell.against)
    return f"{comparison.candidate} is better than {rival}, the best other overall ({how})"


def has_std(comparison: Comparison) -> bool:
    """Whether any cell has a standard deviation."""
    return any(cell.std is not None for row in comparison.rows for cell in row.cells)


def column_title(by: str, column: str, *, long: bool) -> str:
    """A heading; languages by name where there is room."""
    return LANGUAGES[column].name if long and by == "language" and column in LANGUAGES else printable(column)


def printable(text: str) -> str:
    """A text without what a terminal would obey: files of others hold what they like."""
    return "".join(character if character.isprintable() else "?" for character in text)


def grid(comparison: Comparison, *, std: bool, long: bool) -> Grid:
    """The main table.

    Args:
        comparison: What is shown.
        std: Whether cells have their standard deviation.
        long: Whether headings have room for names of languages.
    """
    columns = [column_title(comparison.by, column, long=long) for column in comparison.columns]
    columns += ["Δ", "Δ %"] if comparison.baseline else []
    digits = comparison.metric.digits
    lines = []
    for row in comparison.rows:
        cells = [_written(cell, digits, std) for cell in row.cells]
        cells += _deltas(row, digits) if comparison.baseline else []
        lines.append((printable(row.name), tuple(cells)))
    return Grid(tuple(columns), tuple(lines))


def eps_grid(comparison: Comparison, *, long: bool) -> Grid:
    """Every test that was made: who, against whom, eps_min."""
    lines = []
    for place, column in enumerate(comparison.columns):
        for row in comparison.rows:
            cell = row.cells[place]
            if cell.eps is not None:
                value = Written(f"{cell.eps:.3f}", diamond=cell.significant)
                cells = (Written(printable(row.name)), Written(printable(str(cell.against))), value)
                lines.append((column_title(comparison.by, column, long=long), cells))
    return Grid(("tested", "against", "eps_min"), tuple(lines))


def _written(cell: Cell, digits: int, std: bool) -> Written:
    if cell.mean is None:
        return Written(DASH)
    spread = f" ± {cell.std:.{digits}f}" if std and cell.std is not None else ""
    return Written(f"{cell.mean:.{digits}f}{spread}", cell.best, cell.second, cell.significant)


def _deltas(row: Row, digits: int) -> list[Written]:
    pairs = ((row.delta, digits, ""), (row.percent, 1, "%"))
    return [Written(DASH if value is None else f"{_signed(value, places)}{unit}") for value, places, unit in pairs]


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # + 0.0: there is no -0.0


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
