"""Horizontal stacked bars on one scale: where the time went."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from markupsafe import Markup

from dudi.report.charts import COLOURS, WIDTH, Drawing, Key, text
from dudi.report.scales import nice_ticks, short

SIDE, ROW = 12, 44


@dataclasses.dataclass(frozen=True, slots=True)
class Bar:
    """One stacked bar: (label of the part, its size) from left to right."""

    label: str
    parts: Sequence[tuple[str, float]]

    @property
    def total(self) -> float:
        return sum(size for _, size in self.parts)


@dataclasses.dataclass(frozen=True, slots=True)
class Bars:
    """A chart of bars, each with its name above; `parts` are labels in the order of the legend and its colours."""

    title: str
    bars: Sequence[Bar]
    unit: str
    parts: Sequence[str]

    @property
    def keys(self) -> Sequence[Key]:
        return [Key(name, colour) for colour, name in enumerate(self.parts)]

    def drawing(self) -> Drawing | None:
        """The drawing, or None when all bars are empty."""
        longest = max((bar.total for bar in self.bars), default=0.0)
        if longest <= 0:
            return None
        ticks = nice_ticks(0.0, longest, 4)
        scale = (WIDTH - 2 * SIDE) / ticks[-1]
        bottom = ROW * len(self.bars) + 8
        drawn = [part for row, bar in enumerate(self.bars) for part in self._bar(bar, 14 + ROW * row, scale)]
        drawn += [text(SIDE + tick * scale, bottom + 14, short(tick), anchor="middle") for tick in ticks]
        drawn.append(text(WIDTH - SIDE, bottom + 32, self.unit, "name", "end"))
        said = []
        for bar in self.bars:
            said.append(f"{bar.label}: " + ", ".join(f"{name} {short(size)}" for name, size in bar.parts))
        return Drawing(tuple(drawn), bottom + 38, f"{self.title}. {'; '.join(said)}")

    def _bar(self, bar: Bar, top: int, scale: float) -> list[Markup]:
        drawn = [text(SIDE, top, f"{bar.label}: {short(bar.total)} {self.unit}", "label")]
        left = float(SIDE)
        shape = '<rect class="c{}" x="{:.1f}" y="{}" width="{:.1f}" height="18"><title>{}: {} {}</title></rect>'
        for name, size in bar.parts:
            colour, width = list(self.parts).index(name) % COLOURS, max(size * scale, 0)
            drawn.append(Markup(shape).format(colour, left, top + 6, width, name, short(size), self.unit))
            left += size * scale
        return drawn
