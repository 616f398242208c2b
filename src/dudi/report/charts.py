"""What all charts share: colours, the key, and the SVG around a drawing. Colours come from `chart.css`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from markupsafe import Markup

WIDTH = 380
COLOURS = 8
"""Colours that the style sheet has (`.c0` to `.c7`); further series start over."""
DASHES = 4
"""Patterns of lines that the style sheet has (`.d0`, solid, to `.d3`)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend.

    Attributes:
        dash: Which pattern of line; None for what is drawn as an area or a mark.
        mark: The drawing of a mark within 16 x 16, in place of a line or a square.
    """

    label: str
    colour: int = 0
    dash: int | None = None
    mark: Markup | None = None


class Chart(Protocol):
    """A chart as data, which draws itself."""

    @property
    def title(self) -> str:
        """What it shows."""

    @property
    def keys(self) -> Sequence[Key]:
        """Its legend; empty where one would say nothing."""

    def drawing(self) -> Drawing | None:
        """The drawing, or None when there is nothing to draw."""


@dataclasses.dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing of `WIDTH` by `height`: its SVG elements, and what screen readers read aloud."""

    parts: tuple[Markup, ...]
    height: float
    said: str


def inline(chart: Chart) -> Markup | None:
    """A chart as an element of a page, or None when there is nothing to draw."""
    drawn = chart.drawing()
    if drawn is None:
        return None
    return Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, drawn.height, drawn.said, Markup("").join(drawn.parts)
    )


def stroke(colour: int, dash: int) -> str:
    """A line's classes; from the second round of colours on, a dash tells it from its namesake."""
    return f"c{colour % COLOURS} d{(dash + colour // COLOURS) % DASHES}"


def sample(key: Key) -> Markup:
    """A key's line, square or mark, within 16 x 16."""
    if key.mark is not None:
        return key.mark
    if key.dash is None:
        return Markup('<rect class="c{}" x="1" y="2" width="12" height="12" rx="3"/>').format(key.colour % COLOURS)
    return Markup('<line class="line {}" x1="0" x2="16" y1="8" y2="8"/>').format(stroke(key.colour, key.dash))


def key_mark(key: Key) -> Markup:
    """The same as an element of a page."""
    return Markup('<svg class="mark" viewBox="0 0 16 16" aria-hidden="true">{}</svg>').format(sample(key))


def text(x: float, y: float, words: str, kind: str = "tick", anchor: str = "start") -> Markup:
    """A text in a drawing; `anchor` is `start`, `middle` or `end`."""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, words)


def rule(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> Markup:
    """A straight line in a drawing."""
    return Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(kind, x1, x2, y1, y2)
