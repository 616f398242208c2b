"""A comparison as a table for a terminal, with and without colour."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from io import StringIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dudi.comparison.comparing import Comparison
from dudi.comparison.grid import DIAMOND, Grid, Written, eps_grid, grid, has_std, remarks, title


def terminal_table(comparison: Comparison, *, colour: bool, std: bool | None, eps: bool, width: int) -> str:
    """Write a comparison for a terminal; arguments as those of `dudi.comparison.rendering.render`."""
    tables = [_fitting(comparison, std, colour, width)]
    tables += [_Laid(eps_grid(comparison, long=True), colour)] if eps and comparison.tests else []
    marks = ("Bold", "underlined") if colour else ("*", "+")
    notes = [textwrap.fill(line, width, subsequent_indent="  ") for line in remarks(comparison, *marks)]
    parts = [textwrap.fill(title(comparison), width), *(table.printed(width) for table in tables), "\n".join(notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _fitting(comparison: Comparison, std: bool | None, colour: bool, width: int) -> _Laid:
    """The first that fits: with standard deviations, without, closer together, turned round."""
    with_std = [std] if std is not None else [has_std(comparison), False]
    straight = [grid(comparison, std=one, long=False) for one in with_std]
    turned = [grid(comparison, std=one, long=True).turned() for one in with_std]
    options = [_Laid(one, colour) for one in straight] + [_Laid(straight[-1], colour, gap=1)]
    options += [_Laid(one, colour) for one in turned] + [_Laid(turned[-1], colour, gap=1)]
    whole = (one for one in options if one.width <= width)
    folded = (one for one in options if one.least_width <= width)
    return next(whole, None) or next(folded, options[-1])


class _Laid:
    """A grid laid out: every column as wide as its widest number, labels folded where that is needed."""

    def __init__(self, grid: Grid, colour: bool, gap: int = 2) -> None:
        self.colour, self.gap = colour, gap
        places = range(len(grid.columns))
        columns = [_suffixed([cells[place] for _, cells in grid.lines], colour) for place in places]
        headed = [[Text(heading), *column] for heading, column in zip(grid.columns, columns, strict=True)]
        self.columns = [_to_the_right(column) for column in headed]
        self.widths = [column[0].cell_len for column in self.columns]
        self.labels = [label for label, _ in grid.lines]

    @property
    def width(self) -> int:
        """With whole labels."""
        return self._beside + max(map(cell_len, self.labels), default=0)

    @property
    def least_width(self) -> int:
        """With labels folded between their words."""
        return self._beside + max((cell_len(word) for label in self.labels for word in label.split()), default=0)

    @property
    def _beside(self) -> int:
        return sum(self.widths) + self.gap * len(self.widths)

    def printed(self, width: int) -> str:
        """The table; no number is cut, so it may be wider than the width that it is given."""
        width = max(self.least_width, min(self.width, width))
        table = Table(box=None, pad_edge=False, padding=(0, self.gap, 0, 0), header_style="dim" if self.colour else "")
        table.add_column("", width=width - self._beside)
        for column, wide in zip(self.columns, self.widths, strict=True):
            table.add_column(column[0], no_wrap=True, width=wide)
        for place, label in enumerate(self.labels, start=1):
            table.add_row(Text(label), *(column[place] for column in self.columns))
        console = Console(file=StringIO(), force_terminal=self.colour, width=width, highlight=False)
        with console.capture() as captured:
            console.print(table)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _suffixed(cells: Sequence[Written], colour: bool) -> list[Text]:
    """The cells of a column, with room behind each for the longest marks: so the digits stand below each other."""
    marks = [_marks(cell, colour) for cell in cells]
    room = max(map(len, marks), default=0)
    return [
        Text.assemble((cell.text, _style(cell, colour)), mark.ljust(room))
        for cell, mark in zip(cells, marks, strict=True)
    ]


def _to_the_right(column: Sequence[Text]) -> list[Text]:
    """Texts of the same width; rich's own alignment drops the room behind them."""
    width = max(text.cell_len for text in column)
    return [Text.assemble(" " * (width - text.cell_len), text) for text in column]


def _marks(cell: Written, colour: bool) -> str:
    rank = "" if colour else "*" if cell.best else "+" if cell.second else ""
    return rank + (DIAMOND if cell.diamond else "")


def _style(cell: Written, colour: bool) -> str:
    return "" if not colour else "bold" if cell.best else "underline" if cell.second else ""
