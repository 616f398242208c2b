"""The same charts as PNG, drawn by matplotlib: for slides and papers that take no SVG."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError, EnvironmentFault
from dudi.report.bars import Bars
from dudi.report.charts import COLOURS, DASHES, Chart, Key
from dudi.report.dots import Dots
from dudi.report.files import resource
from dudi.report.lines import Lines
from dudi.report.scales import log_ticks, short

DPI = 200
_DASHES: tuple[Any, ...] = ("solid", (0, (6, 3)), (0, (2, 3)), (0, (8, 3, 2, 3)))
_WEIGHTS = {"thin": (1.0, 0.6), "normal": (2.0, 1.0), "thick": (3.0, 1.0)}
_MARKS = {"guess": "|", "before": "o", "teacher": "D", "after": "o"}
_MARK_COLOURS = {"guess": None, "before": 6, "teacher": 1, "after": 0}


def require() -> None:
    """See that matplotlib is there, before anything is written.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError("report --png: needs the package matplotlib; run: pip install 'dudi[plots]'") from None


def save_png(chart: Chart, file: Path) -> Path:
    """Draw a chart into a PNG file.

    Raises:
        ConfigError: matplotlib is not installed.
        EnvironmentFault: the file cannot be written.
    """
    require()
    from matplotlib.figure import Figure  # not pyplot: it keeps state and looks for a display

    figure = Figure(figsize=(6.4, _height(chart)), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(_plain(chart.title), loc="left", fontsize=11, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    if isinstance(chart, Lines):
        _draw_lines(axes, chart)
    elif isinstance(chart, Bars):
        _draw_bars(axes, chart)
    elif isinstance(chart, Dots):
        _draw_dots(axes, chart)
    if chart.keys:
        axes.legend(handles=[_handle(key, chart) for key in chart.keys], fontsize=8, frameon=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file)
    except OSError as error:
        raise EnvironmentFault(f"{file}: cannot be written: {error.strerror}") from error
    return file


def _height(chart: Chart) -> float:
    rows = len(chart.bars) if isinstance(chart, Bars) else len(chart.rows) if isinstance(chart, Dots) else 0
    return 4.0 if not rows else 1.6 + 0.42 * rows


def _plain(text: str) -> str:
    """Without matplotlib's mathematics between dollar signs."""
    return text.replace("$", r"\$")


def _colours() -> list[str]:
    return re.findall(r"\.c\d \{ color: (#[0-9a-f]+)", resource("chart.css"))


def _colour(place: int) -> str:
    return _colours()[place % COLOURS]


def _draw_lines(axes: Any, chart: Lines) -> None:
    for line in chart.series:
        rows = line.triples()
        if not rows:
            continue
        xs, ys, spreads = (list(column) for column in zip(*rows, strict=True))
        width, alpha = _WEIGHTS[line.weight]
        dash = _DASHES[line.dash % DASHES]
        axes.plot(xs, ys, color=_colour(line.colour), linestyle=dash, linewidth=width, alpha=alpha)
        _draw_spread(axes, chart, line.colour, xs, ys, spreads)
    axes.set_xlabel(_plain(chart.x))
    axes.set_ylabel(_plain(chart.y))
    axes.grid(axis="y", color="#d5dae0")
    if chart.scale == "log":
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.set_xticks(log_ticks(low, high), [short(tick) for tick in log_ticks(low, high)])
        axes.minorticks_off()


def _draw_spread(
    axes: Any, chart: Lines, colour: int, xs: Sequence[float], ys: Sequence[float], spreads: Sequence[float]
) -> None:
    known = [(x, y, s) for x, y, s in zip(xs, ys, spreads, strict=True) if math.isfinite(s)]
    if not known:
        return
    x, y, s = (list(column) for column in zip(*known, strict=True))
    if chart.spread == "bars":
        axes.errorbar(x, y, yerr=s, fmt="none", ecolor=_colour(colour), capsize=3)
    else:
        low, high = ([a + side * b for a, b in zip(y, s, strict=True)] for side in (-1, 1))
        axes.fill_between(x, low, high, color=_colour(colour), alpha=0.15, linewidth=0)


def _draw_bars(axes: Any, chart: Bars) -> None:
    for row, bar in enumerate(chart.bars):
        left = 0.0
        for name, size in bar.parts:
            axes.barh(row, size, left=left, color=_colour(list(chart.parts).index(name)), height=0.6)
            left += size
    axes.set_yticks(range(len(chart.bars)), [_plain(bar.label) for bar in chart.bars])
    axes.invert_yaxis()
    axes.set_xlabel(_plain(chart.unit))


def _draw_dots(axes: Any, chart: Dots) -> None:
    methods = [kind for kind in chart.names if kind not in _MARKS]
    for place, row in enumerate(chart.rows):
        for kind, value in row.values.items():
            if value is None:
                continue
            lane = 0.0 if kind in _MARKS else (methods.index(kind) - (len(methods) - 1) / 2) * 0.6 / len(methods)
            spread = row.spread.get(kind)
            colour = _mark_colour(kind)
            if spread is not None:
                axes.errorbar(value, place + lane, xerr=spread, fmt="none", ecolor=colour)
            fill = "white" if kind in ("before", "teacher") else colour
            axes.plot(value, place + lane, _MARKS.get(kind, "o"), color=colour, markerfacecolor=fill, clip_on=False)
    axes.set_yticks(range(len(chart.rows)), [_plain(row.name) for row in chart.rows])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("%")


def _mark_colour(kind: str) -> str:
    place = _MARK_COLOURS[kind] if kind in _MARK_COLOURS else int(kind.partition(":")[2])
    return "#1b1f24" if place is None else _colour(place)


def _handle(key: Key, chart: Chart) -> Any:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    label = _plain(key.label)
    if isinstance(chart, Dots):
        kind = next(kind for kind, name in chart.names.items() if name == key.label)
        colour = _mark_colour(kind)
        fill = "white" if kind in ("before", "teacher") else colour
        return Line2D(
            [], [], marker=_MARKS.get(kind, "o"), linestyle="", color=colour, markerfacecolor=fill, label=label
        )
    if key.dash is None:
        return Patch(color=_colour(key.colour), label=label)
    return Line2D([], [], color=_colour(key.colour), linestyle=_DASHES[key.dash % DASHES], label=label)
