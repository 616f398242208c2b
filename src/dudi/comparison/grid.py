"""A table of scores as data, before any format."""

from __future__ import annotations

import dataclasses

from dudi.comparison.comparing import Cell, Comparison, Row
from dudi.languages.registry import LANGUAGES

DASH, DIAMOND = "–", "◇"


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
