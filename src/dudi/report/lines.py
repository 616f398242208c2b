"""Lines and points over a number: metrics over optimizer steps, scores over the size of a model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from markupsafe import Markup

from dudi.report.charts import COLOURS, WIDTH, Drawing, Key, rule, stroke, text
from dudi.report.scales import log_ticks, nice_ticks, short, thinned, whole_ticks

HEIGHT = 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 40
MOST_TOOLTIPS = 48
FEW = 12
"""Up to so many points of a line are marked with dots."""

XScale = Literal["steps", "linear", "log"]
Triple = tuple[float, float, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """One line.

    Attributes:
        label: For the legend and the tooltips.
        points: (x, y) in the order of x.
        dash: Which pattern of line, from 0, the solid one.
        weight: `thin` for one of several runs, `thick` for their mean.
        spread: +- of each point, such as the standard deviation over seeds; empty for none. NaN where there is none.
    """

    label: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dash: int = 0
    weight: Literal["thin", "normal", "thick"] = "normal"
    spread: Sequence[float] = ()

    def triples(self) -> list[Triple]:
        """(x, y, spread), long lines thinned, points that are no numbers left out."""
        spread = self.spread or [math.nan] * len(self.points)
        rows = [(x, y, s) for (x, y), s in zip(self.points, spread, strict=True) if math.isfinite(x + y)]
        return [(x, y, s) for x, y, s in thinned(rows)]


@dataclasses.dataclass(frozen=True, slots=True)
class Lines:
    """A chart of lines.

    Attributes:
        series: The lines; empty ones are left out.
        x: Name of the axis of x.
        y: Unit of the axis of y, shown above it.
        scale: `steps` has ticks at whole numbers only; `log` spaces powers of ten evenly.
        spread: How the spread is drawn: as bars at the points, or as a band.
        legend: The legend; empty: the series by their labels, where there is more than one.
    """

    title: str
    series: Sequence[Series]
    x: str = "optimizer step"
    y: str = ""
    scale: XScale = "steps"
    spread: Literal["bars", "band"] = "band"
    legend: Sequence[Key] = ()

    @property
    def keys(self) -> Sequence[Key]:
        """The legend as given, else one entry a line."""
        own = [Key(line.label, line.colour, line.dash) for line in self.series if line.points]
        return self.legend or (own if len(own) > 1 else ())

    def drawing(self) -> Drawing | None:
        """The drawing, or None when no line has a point."""
        drawn = [(line, rows) for line in self.series if (rows := line.triples())]
        if not drawn:
            return None
        frame = _Axes.around([row for _, rows in drawn for row in rows], self.scale)
        parts: list[Markup] = []
        for tick in frame.y_ticks:
            parts.append(rule(LEFT, frame.y(tick), WIDTH - RIGHT, frame.y(tick)))
            parts.append(text(LEFT - 6, frame.y(tick) + 4, short(tick), anchor="end"))
        parts += [text(frame.x(tick), HEIGHT - BOTTOM + 16, short(tick), anchor="middle") for tick in frame.x_ticks]
        base = frame.y(frame.y_ticks[0])
        parts.append(rule(LEFT, base, WIDTH - RIGHT, base, "axis"))
        parts += [text(WIDTH - RIGHT, HEIGHT - 6, self.x, "name", "end"), text(2, 10, self.y, "name")]
        for line, rows in drawn:
            parts += _line(frame, line, rows, self)
        said = "; ".join(f"{line.label}: from {short(rows[0][1])} to {short(rows[-1][1])}" for line, rows in drawn)
        return Drawing(tuple(parts), HEIGHT, f"{self.title}. {said}")


@dataclasses.dataclass(frozen=True, slots=True)
class _Axes:
    """From values to places in the drawing."""

    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    x_low: float
    x_high: float
    logarithmic: bool

    @classmethod
    def around(cls, rows: Sequence[Triple], scale: XScale) -> _Axes:
        """A frame that holds every point with its spread."""
        xs = [x for x, _, _ in rows]
        spreads = [s if math.isfinite(s) else 0.0 for _, _, s in rows]
        ys = [y + side * s for (_, y, _), s in zip(rows, spreads, strict=True) for side in (-1, 1)]
        y_ticks = nice_ticks(min(ys), max(ys))
        low, high = min(xs), max(xs)
        if scale == "log" and low > 0:
            # Some air at both ends: the first and the last size would lie on the frame.
            low, high = low / 1.25, high * 1.25
            return cls(log_ticks(low, high), y_ticks, math.log10(low), math.log10(high), True)
        x_ticks = whole_ticks(low, high) if scale == "steps" else nice_ticks(low, high, 4)
        return cls(x_ticks, y_ticks, min(low, x_ticks[0]), max(high, x_ticks[-1]), False)

    def x(self, value: float) -> float:
        span = (self.x_high - self.x_low) or 1.0
        place = math.log10(value) if self.logarithmic else value
        return LEFT + (place - self.x_low) / span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return HEIGHT - BOTTOM - (value - low) / ((high - low) or 1.0) * (HEIGHT - TOP - BOTTOM)


def _line(frame: _Axes, line: Series, rows: Sequence[Triple], chart: Lines) -> list[Markup]:
    """A line with its spread, and dots on short ones; on long ones places that answer to the pointer."""
    colour = f"c{line.colour % COLOURS}"
    places = [(frame.x(x), frame.y(y)) for x, y, _ in rows]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    shape = Markup('<polyline class="line {} {}" points="{}"><title>{}</title></polyline>')
    drawn = (_band if chart.spread == "band" else _error_bars)(frame, rows, colour)
    drawn.append(shape.format(stroke(line.colour, line.dash), line.weight, path, line.label))
    if line.weight == "thin":  # beside a mean, which has the dots
        return drawn
    kind, radius = (f"dot {colour}", 3) if len(rows) <= FEW else (f"hit {colour}", 6)
    every = math.ceil(len(places) / MOST_TOOLTIPS)
    shape = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}, {} {}: {}</title></circle>')
    for place, (x, y, spread) in list(zip(places, rows, strict=True))[::every]:
        value = f"{short(y)} ± {short(spread)}" if math.isfinite(spread) else short(y)
        drawn.append(shape.format(kind, *place, radius, line.label, chart.x.rpartition(" ")[2], short(x), value))
    return drawn


def _band(frame: _Axes, rows: Sequence[Triple], colour: str) -> list[Markup]:
    known = [(x, y, s) for x, y, s in rows if math.isfinite(s)]
    if len(known) < 2:
        return _error_bars(frame, rows, colour)
    above = [(x, y + s) for x, y, s in known]
    below = [(x, y - s) for x, y, s in reversed(known)]
    path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in above + below)
    return [Markup('<polygon class="band {}" points="{}"/>').format(colour, path)]


def _error_bars(frame: _Axes, rows: Sequence[Triple], colour: str) -> list[Markup]:
    parts: list[Markup] = []
    for x, y, s in rows:
        if math.isfinite(s):
            middle, low, high = frame.x(x), frame.y(y - s), frame.y(y + s)
            kind = f"error {colour}"
            parts.append(rule(middle, low, middle, high, kind))
            parts += [rule(middle - 3, end, middle + 3, end, kind) for end in (low, high)]
    return parts
