"""Dots on a scale from nothing to all: one row a language, one mark a subject or a method.

Subjects differ in shape and in colour, and lie on one line; methods lie below each other, with their spread.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from dudi.report.charts import COLOURS, WIDTH, Drawing, Key, rule, text
from dudi.report.scales import nice_ticks, short

LEFT, RIGHT, TOP, ROW = 84, 46, 8, 28
"""The drawing's margins, with room for names and for the value at the right; the height of a row."""
LANE = 11
"""Height of one method within a row."""

SHAPES = {
    "guess": '<line class="guess" x1="{x:.1f}" x2="{x:.1f}" y1="{high:.1f}" y2="{low:.1f}">{title}</line>',
    "teacher": '<path class="open c1" d="M{x:.1f} {high:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5z">{title}</path>',
    "before": '<circle class="open c6" cx="{x:.1f}" cy="{y:.1f}" r="5.5">{title}</circle>',
    "after": '<circle class="dot c0" cx="{x:.1f}" cy="{y:.1f}" r="4">{title}</circle>',
}
"""Kinds of marks from the back to the front: each stays visible under those in front of it."""
_METHOD = '<circle class="dot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="4">{title}</circle>'


@dataclasses.dataclass(frozen=True, slots=True)
class DotRow:
    """One row: kinds of marks to values in %, None for what was not measured, and to +- in % where it is known."""

    name: str
    values: Mapping[str, float | None]
    spread: Mapping[str, float] = dataclasses.field(default_factory=dict)


def method_mark(colour: int) -> str:
    """The kind of mark of a method with this colour."""
    return f"method:{colour}"


@dataclasses.dataclass(frozen=True, slots=True)
class Dots:
    """Rows of marks on one scale that begins at 0 %; `names`: for whom a kind of `SHAPES` or a `method_mark` stands."""

    title: str
    rows: Sequence[DotRow]
    names: Mapping[str, str]

    @property
    def keys(self) -> Sequence[Key]:
        return [Key(name, mark=_shape(kind, 8.0, 8.0, "")) for kind, name in self.names.items()]

    def drawing(self) -> Drawing | None:
        """The drawing, or None when nothing was measured."""
        reach = [1.0]
        for row in self.rows:
            known = {kind: value for kind, value in row.values.items() if value is not None}
            reach += [value + row.spread.get(kind, 0.0) for kind, value in known.items()]
        if len(reach) == 1:
            return None
        ticks = nice_ticks(0.0, max(reach), 4)
        methods = [kind for kind in self.names if kind not in SHAPES]
        height = max(ROW, LANE * len(methods) + 10)
        bottom = TOP + height * len(self.rows)
        parts: list[Markup] = []
        for tick in ticks:
            x = _x(tick, ticks[-1])
            parts.append(rule(x, TOP - 6, x, bottom, "grid" if tick else "axis"))
            parts.append(text(x, bottom + 17, f"{short(tick)}%", anchor="middle"))
        said = []
        for place, row in enumerate(self.rows):
            middle = TOP + height * (place + 0.5)
            parts += self._row(row, middle, ticks[-1])
            for lane, kind in enumerate(methods):
                parts += self._lane(row, kind, middle + LANE * (lane - (len(methods) - 1) / 2), ticks[-1])
            shown = [f"{self.names[kind]} {value:.0f}%" for kind, value in row.values.items() if value is not None]
            said.append(f"{row.name}: {', '.join(shown) or 'not measured'}")
        return Drawing(tuple(parts), bottom + 24, f"{self.title}. {'; '.join(said)}")

    def _row(self, row: DotRow, y: float, most: float) -> list[Markup]:
        known = {kind: value for kind in SHAPES if (value := row.values.get(kind)) is not None}
        parts = [text(LEFT - 9, y + 4, row.name, "label", "end")]
        if "before" in known and "after" in known:
            parts.append(rule(_x(known["before"], most), y, _x(known["after"], most), y, "line c0"))
        for kind, value in known.items():
            parts.append(_shape(kind, _x(value, most), y, f"{row.name}, {self.names[kind]}: {value:.0f}%"))
        if "after" in known:
            parts.append(text(WIDTH - 4, y + 4, f"{known['after']:.0f}%", "label value", "end"))
        return parts

    def _lane(self, row: DotRow, kind: str, y: float, most: float) -> list[Markup]:
        value, spread = row.values.get(kind), row.spread.get(kind)
        if value is None:
            return []
        around = "" if spread is None else f" ± {spread:.1f}"
        mark = _shape(kind, _x(value, most), y, f"{row.name}, {self.names[kind]}: {value:.1f}{around}%")
        if spread is None:
            return [mark]
        low, high = (_x(min(max(value + side * spread, 0.0), most), most) for side in (-1, 1))
        return [rule(low, y, high, y, f"error {_colour(kind)}"), mark]


def _x(value: float, most: float) -> float:
    return LEFT + value / most * (WIDTH - LEFT - RIGHT)


def _colour(kind: str) -> str:
    return f"c{int(kind.partition(':')[2]) % COLOURS}"


def _shape(kind: str, x: float, y: float, title: str) -> Markup:
    inside = Markup("<title>{}</title>").format(title) if title else Markup("")
    if kind in SHAPES:
        return Markup(SHAPES[kind]).format(x=x, y=y, high=y - 6.5, low=y + 6.5, title=inside)
    return Markup(_METHOD).format(colour=_colour(kind), x=x, y=y, title=inside)
