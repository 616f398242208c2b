"""Dots on a scale from nothing to all: one row a language, one mark a subject. Marks differ in shape and in colour."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from dudi.report.charts import WIDTH, nice_ticks, short, svg

LEFT, RIGHT, TOP, ROW = 84, 46, 8, 28
"""The drawing's margins, with room for names and for the value at the right; the height of a row."""

_SHAPES = {
    "guess": '<line class="guess" x1="{x:.1f}" x2="{x:.1f}" y1="{high:.1f}" y2="{low:.1f}">{title}</line>',
    "teacher": '<path class="open c1" d="M{x:.1f} {high:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5z">{title}</path>',
    "before": '<circle class="open c6" cx="{x:.1f}" cy="{y:.1f}" r="5.5">{title}</circle>',
    "after": '<circle class="dot c0" cx="{x:.1f}" cy="{y:.1f}" r="4">{title}</circle>',
}
"""Kinds of marks from the back to the front: each stays visible under those in front of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class DotRow:
    """One row.

    Attributes:
        name: At the left.
        values: Kind of mark to its value in %, None for what was not measured.
    """

    name: str
    values: Mapping[str, float | None]


def dot_chart(title: str, rows: Sequence[DotRow], names: Mapping[str, str]) -> Markup | None:
    """Rows of marks on one scale that begins at 0 %, or None when there is nothing to draw.

    Args:
        title: What it shows; read aloud by screen readers.
        rows: From top to bottom.
        names: Kind of mark (`guess`, `before`, `after`, `teacher`) to who it stands for.
    """
    known = [value for row in rows for value in row.values.values() if value is not None]
    if not known:
        return None
    ticks = nice_ticks(0.0, max(*known, 1.0), 4)
    bottom = TOP + ROW * len(rows)
    parts = [_tick(tick, ticks[-1], bottom) for tick in ticks]
    for place, row in enumerate(rows):
        parts += _row(row, TOP + ROW * (place + 0.5), ticks[-1], names)
    return svg(f"{title}. {'; '.join(_said(row, names) for row in rows)}", parts, bottom + 24)


def mark(kind: str) -> Markup:
    """A mark alone, for the legend."""
    shape = _shape(kind, 8.0, 8.0, "")
    return Markup('<svg class="mark" viewBox="0 0 16 16" aria-hidden="true">{}</svg>').format(shape)


def _x(value: float, most: float) -> float:
    return LEFT + value / most * (WIDTH - LEFT - RIGHT)


def _tick(tick: float, most: float, bottom: float) -> Markup:
    x = _x(tick, most)
    return Markup(
        '<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>'
        '<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}%</text>'
    ).format("grid" if tick else "axis", x, x, TOP - 6, bottom, x, bottom + 17, short(tick))


def _row(row: DotRow, y: float, most: float, names: Mapping[str, str]) -> list[Markup]:
    known = {kind: value for kind in _SHAPES if (value := row.values.get(kind)) is not None}
    parts = [Markup('<text class="label" x="{}" y="{}" text-anchor="end">{}</text>').format(LEFT - 9, y + 4, row.name)]
    if "before" in known and "after" in known:
        ends = (_x(known[kind], most) for kind in ("before", "after"))
        line = '<line class="line c0" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
        parts.append(Markup(line).format(*ends, y, y))
    parts += [
        _shape(kind, _x(value, most), y, f"{row.name}, {names[kind]}: {value:.0f}%") for kind, value in known.items()
    ]
    if "after" in known:
        text = Markup('<text class="label value" x="{}" y="{}" text-anchor="end">{:.0f}%</text>')
        parts.append(text.format(WIDTH - 4, y + 4, known["after"]))
    return parts


def _shape(kind: str, x: float, y: float, title: str) -> Markup:
    inside = Markup("<title>{}</title>").format(title) if title else Markup("")
    return Markup(_SHAPES[kind]).format(x=x, y=y, high=y - 6.5, low=y + 6.5, title=inside)


def _said(row: DotRow, names: Mapping[str, str]) -> str:
    shown = ", ".join(f"{names[kind]} {value:.0f}%" for kind, value in row.values.items() if value is not None)
    return f"{row.name}: {shown or 'not measured'}"
