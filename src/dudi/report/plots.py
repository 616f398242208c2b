"""Charts as SVG files of their own, with style, legend and a light background: for documents and other programs.

`line_chart([Series("dudi", [(1, 0.2), (50, 0.6)])], title="Overlap ratio")` is the text of such a file.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import Markup

from dudi.errors import ConfigError
from dudi.files import write_text
from dudi.report.bars import Bar, Bars
from dudi.report.charts import WIDTH, Chart, Key, sample, text
from dudi.report.files import resource
from dudi.report.lines import Lines, Series, XScale

__all__ = ["Bar", "Series", "bar_chart", "line_chart", "save", "score_against_size", "standalone"]

MARGIN, TITLE, LINE = 12, 30, 20
"""Around the drawing; height of the title and of a line of the legend."""
LETTER = 6.4
"""Mean width of a letter of the legend: an SVG cannot measure its text."""
SCALE = 2
"""The size that a viewer shows first, in pixels for each unit of the drawing."""
FONTS = ("Noto Sans", "DejaVu Sans", "Liberation Sans", "Arial", "Helvetica", "Segoe UI")
"""What PNG files are written with, where the style's own fonts are missing."""


def line_chart(
    series: Sequence[Series], *, title: str, x: str = "optimizer step", y: str = "", scale: XScale = "steps"
) -> str:
    """The text of an SVG file with lines, each with a band where its `spread` is given.

    `x` is the name of the axis of x, `y` the unit of the axis of y; `scale` is `steps` (ticks at whole numbers),
    `linear` or `log`. Colours are 0 to 7; a `spread` is +- of each point, such as the standard deviation.

    Raises:
        ConfigError: no line has a point, or a spread has another length than its points.
    """
    return standalone(Lines(title, series, x, y, scale))


def score_against_size(
    series: Sequence[Series], *, title: str, x: str = "parameters", y: str = "score", log: bool = True
) -> str:
    """The text of an SVG file with scores over the size of the student, a line a method, +- `spread` as error bars.

    Points are (parameters, mean score); `log` spaces powers of ten evenly.

    Raises:
        ConfigError: as `line_chart`.
    """
    return standalone(Lines(title, series, x, y, "log" if log else "linear", spread="bars"))


def bar_chart(bars: Sequence[Bar], *, title: str, unit: str, parts: Sequence[str]) -> str:
    """The text of an SVG file with stacked bars; `parts` are their labels, in the order of the legend.

    Raises:
        ConfigError: all bars are empty.
    """
    return standalone(Bars(title, bars, unit, parts))


def save(svg: str, file: Path) -> Path:
    """Write an SVG file whole or not at all.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    return write_text(file, svg)


def standalone(chart: Chart) -> str:
    """A chart as the text of an SVG file.

    Raises:
        ConfigError: there is nothing to draw, or the chart's lists do not fit each other.
    """
    try:
        drawn = chart.drawing()
    except ValueError as error:
        raise ConfigError(f"{chart.title}: every point needs an x, a y and, where there is one, a spread") from error
    if drawn is None:
        raise ConfigError(f"{chart.title}: there is nothing to draw; give at least one point")
    legend, rows = _legend(chart.keys)
    top = MARGIN + TITLE + rows * LINE
    width, height = WIDTH + 2 * MARGIN, top + drawn.height + MARGIN
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{:.0f}" viewBox="0 0 {} {:.0f}" role="img" '
        'aria-label="{}">\n<style>{}</style>\n<rect width="100%" height="100%" fill="{}"/>\n'
    ).format(SCALE * width, SCALE * height, width, height, drawn.said, Markup(style()), _light()["page"])
    body = Markup('<g transform="translate({} {})">{}</g>\n').format(MARGIN, top, Markup("\n").join(drawn.parts))
    svg = f"{head}{text(MARGIN, MARGIN + 12, chart.title, 'title')}\n{legend}{body}</svg>\n"
    # XML forbids the other characters.
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", svg)


def png(svg: str) -> bytes:
    """The chart of an SVG file as PNG, 2 x `SCALE` pixels for each unit of the drawing.

    Letters are drawn with this computer's fonts: one of `FONTS`, and any other for a letter that it lacks. A letter in
    none of them becomes a box.

    Raises:
        ConfigError: resvg-py is not installed, or there is none of the fonts.
    """
    try:
        import resvg_py
    except ImportError:
        raise ConfigError("report --png: needs the package resvg-py; run: pip install 'dudi[plots]'") from None
    return resvg_py.svg_to_bytes(svg_string=svg, zoom=2, sans_serif_family=_font(resvg_py.svg_to_bytes))


@functools.cache
def _font(draw: Callable[..., bytes]) -> str:
    """The first of `FONTS` that leaves a mark: without a font, resvg leaves letters out and says nothing."""
    letter = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><text y="9" font-family="{}">a</text></svg>'
    blank = draw(svg_string=letter.format("no such font"))
    for name in FONTS:
        if draw(svg_string=letter.format(name)) != blank:
            return name
    raise ConfigError(
        f"report --png: there is none of the fonts {', '.join(FONTS)} here; install one (Debian: fonts-dejavu-core, or "
        "fonts-noto-core, which has Thai, Tamil and Burmese)"
    )


def style() -> str:
    """The style of a file of its own: light, and without variables, which not every program knows."""
    light = _light()
    found = re.search(r"font-family:([^;]+);", resource("report.css"))
    family = " ".join(found[1].split()) if found else "sans-serif"
    rules = re.sub(r"var\(--(\w+)\)", lambda match: light[match[1]], resource("chart.css"))
    title = f".title {{ fill: {light['ink']}; font-size: 14px; font-weight: 600 }}"
    return f"\nsvg {{ font-family: {family} }}\n{rules}{title}\n"


def _light() -> dict[str, str]:
    """The page's light colours by name: the first that its style sheet gives each."""
    pairs = re.findall(r"--(\w+): (#[0-9a-f]+)", resource("report.css"))
    return dict(reversed(pairs))


def _legend(keys: Sequence[Key]) -> tuple[Markup, int]:
    """The legend below the title, and how many lines it takes."""
    parts, left, row = [], 0.0, 0
    for key in keys:
        width = 22 + LETTER * len(key.label) + 14
        if left and left + width > WIDTH:
            left, row = 0.0, row + 1
        place = Markup('<g transform="translate({:.1f} {})">{}{}</g>\n')
        words = text(22, 12, key.label, "label")
        parts.append(place.format(MARGIN + left, MARGIN + TITLE - 10 + row * LINE, sample(key), words))
        left += width
    return Markup("").join(parts), row + 1 if keys else 0
