"""Charts as inline SVG: lines over optimizer steps, and stacked bars. Colours come from the page's style sheet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 380, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 40
MOST_POINTS = 240
"""More points than this are averaged in neighbouring groups: a screen shows no more."""
MOST_TOOLTIPS = 48
COLOURS = 8
"""Series colours that the style sheet has (`.c0` to `.c7`); further series start over with another dash."""

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """One line.

    Attributes:
        label: For the legend and the tooltips; any text.
        points: (x, y) in the order of x.
        colour: Which colour.
        dashed: Drawn in dashes: the second of two lines of a colour.
    """

    label: str
    points: Sequence[Point]
    colour: int = 0
    dashed: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Bar:
    """One stacked bar: (label of the part, its size) from left to right."""

    label: str
    parts: Sequence[tuple[str, float]]


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, in steps of 1, 2 or 5 times a power of ten."""
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-280):  # below that, steps would drown in rounding
        pad = abs(low) * 0.1 if abs(low) > 1e-280 else 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if rough <= m * power * 1.0001)
    first, final = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, final + 1)]


def short(value: float) -> str:
    """A number for an axis or a tooltip: four significant digits, k, M and G above ten thousand."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and (unit != "k" or abs(value) >= 1e4):
            return f"{value / size:.4g}{unit}"
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:.4g}"


def thinned(values: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Means of neighbouring points, so that at most `most` are left; their count is in the caption's hands."""
    group = math.ceil(len(values) / most)
    if group <= 1:
        return list(values)
    parts = [values[i : i + group] for i in range(0, len(values), group)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def line_chart(title: str, series: Sequence[Series], unit: str = "", x_name: str = "optimizer step") -> Markup | None:
    """Lines over steps, or None when there is nothing to draw.

    Args:
        title: What it shows; read aloud by screen readers.
        series: The lines; empty ones are left out.
        unit: Shown above the axis of y.
        x_name: Shown below the axis of x.
    """
    drawn = [dataclasses.replace(line, points=thinned(line.points)) for line in series if line.points]
    if not drawn:
        return None
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    x_ticks, y_ticks = _x_ticks(min(xs), max(xs)), nice_ticks(min(ys), max(ys))
    frame = _Frame(min(min(xs), x_ticks[0]), max(max(xs), x_ticks[-1]), y_ticks[0], y_ticks[-1])
    parts = [*_grid(frame, x_ticks, y_ticks), _axis_names(unit, x_name)]
    parts += [_line(frame, line) for line in drawn]
    return svg(_summary(title, drawn), parts, HEIGHT)


@dataclasses.dataclass(frozen=True, slots=True)
class _Frame:
    """From values to places in the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        span = (self.x_high - self.x_low) or 1.0
        return LEFT + (value - self.x_low) / span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        span = (self.y_high - self.y_low) or 1.0
        return HEIGHT - BOTTOM - (value - self.y_low) / span * (HEIGHT - TOP - BOTTOM)


def _x_ticks(low: float, high: float) -> list[float]:
    """Whole steps only."""
    if low == high:
        return [low]
    return [tick for tick in nice_ticks(low, high, 4) if tick == int(tick) and low <= tick <= high] or [low, high]


def _grid(frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[Markup]:
    parts = []
    for tick in y_ticks:
        y = frame.y(tick)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y)
        )
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                LEFT - 6, y + 4, short(tick)
            )
        )
    for tick in x_ticks:
        x = frame.x(tick)
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x, HEIGHT - BOTTOM + 16, short(tick)
            )
        )
    base = frame.y(y_ticks[0])
    parts.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, base, base)
    )
    return parts


def _axis_names(unit: str, x_name: str) -> Markup:
    return Markup(
        '<text class="name" x="{}" y="{}" text-anchor="end">{}</text><text class="name" x="2" y="10">{}</text>'
    ).format(WIDTH - RIGHT, HEIGHT - 6, x_name, unit)


def _line(frame: _Frame, line: Series) -> Markup:
    places = [(frame.x(x), frame.y(y)) for x, y in line.points]
    style = f"line c{line.colour % COLOURS}" + (" dashed" if line.dashed or line.colour >= COLOURS else "")
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    drawn = Markup('<polyline class="{}" points="{}"><title>{}</title></polyline>').format(style, path, line.label)
    every = math.ceil(len(places) / MOST_TOOLTIPS)
    dots = [
        Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}, step {}: {}</title></circle>').format(
            f"dot c{line.colour % COLOURS}" if len(places) <= 12 else "hit",
            *place,
            3 if len(places) <= 12 else 6,
            line.label,
            short(x),
            short(y),
        )
        for place, (x, y) in list(zip(places, line.points, strict=True))[::every]
    ]
    return drawn + Markup("").join(dots)


def _summary(title: str, lines: Sequence[Series]) -> str:
    said = "; ".join(f"{line.label}: from {short(line.points[0][1])} to {short(line.points[-1][1])}" for line in lines)
    return f"{title}. {said}"


def stacked_bars(title: str, bars: Sequence[Bar], unit: str, parts: Sequence[str]) -> Markup | None:
    """Horizontal stacked bars on one scale, each with its name above, or None when there is nothing to draw.

    Args:
        title: What it shows.
        bars: The bars; parts that are missing are left out.
        unit: Of the sizes.
        parts: The parts' labels in the order of the legend, which gives them their colours.
    """
    longest = max((sum(size for _, size in bar.parts) for bar in bars), default=0.0)
    if longest <= 0:
        return None
    ticks = nice_ticks(0.0, longest, 4)
    scale = (WIDTH - 2 * RIGHT) / ticks[-1]
    drawn: list[Markup] = []
    for row, bar in enumerate(bars):
        drawn += _bar(bar, 14 + 44 * row, scale, unit, parts)
    bottom = 44 * len(bars) + 8
    for tick in ticks:
        x = RIGHT + tick * scale
        drawn.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x, bottom + 14, short(tick)
            )
        )
    drawn.append(
        Markup('<text class="name" x="{}" y="{}" text-anchor="end">{}</text>').format(WIDTH - RIGHT, bottom + 32, unit)
    )
    said = "; ".join(f"{bar.label}: " + ", ".join(f"{name} {short(size)}" for name, size in bar.parts) for bar in bars)
    return svg(f"{title}. {said}", drawn, bottom + 38)


def _bar(bar: Bar, top: int, scale: float, unit: str, parts: Sequence[str]) -> list[Markup]:
    total = sum(size for _, size in bar.parts)
    drawn = [
        Markup('<text class="label" x="{}" y="{}">{}: {} {}</text>').format(RIGHT, top, bar.label, short(total), unit)
    ]
    left = float(RIGHT)
    for name, size in bar.parts:
        drawn.append(
            Markup(
                '<rect class="c{}" x="{:.1f}" y="{}" width="{:.1f}" height="18"><title>{}: {} {}</title></rect>'
            ).format(parts.index(name) % COLOURS, left, top + 6, max(size * scale, 0), name, short(size), unit)
        )
        left += size * scale
    return drawn


def svg(title: str, parts: Sequence[Markup], height: float) -> Markup:
    """A drawing of this height, `WIDTH` wide, with what screen readers read aloud."""
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, title, Markup("").join(parts)
    )
