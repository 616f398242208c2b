"""Charts: their scales, their places, and what stands in their files."""

import itertools
import math
import re
import struct
import sys
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dudi.errors import ConfigError
from dudi.report import plots
from dudi.report.bars import Bar, Bars
from dudi.report.charts import Key, inline, key_mark
from dudi.report.dots import DotRow, Dots, method_mark
from dudi.report.lines import Lines, Series
from dudi.report.plots import bar_chart, line_chart, png, save, score_against_size, standalone, style
from dudi.report.scales import log_ticks, nice_ticks, short, thinned
from report_helpers import HOSTILE, Page

KINDS = ("guess", "before", "after", "teacher")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_labels_stay_text_in_charts(text):
    charts = (
        Lines(text, [Series(text, [(1, 1), (2, 3)])], text, text),
        Bars(text, [Bar(text, [("rollout", 1.0)])], text, ["rollout"]),
    )
    for chart in charts:
        svg = Page(str(inline(chart)))
        assert svg.open == []
        assert {"script", "img"}.isdisjoint(name for name, _ in svg.elements)
        assert text in " ".join(svg.texts)
        assert svg.all("svg")[0]["aria-label"].startswith(text)
        assert text in " ".join(ET.fromstring(standalone(chart)).itertext())


@settings(max_examples=200, deadline=None)
@given(low=st.floats(-1e9, 1e9), span=st.floats(0, 1e9))
def test_ticks_cover_the_values_in_even_steps(low, span):
    ticks = nice_ticks(low, low + span)
    slack = 1e-6 * max(1.0, abs(low), span)
    assert 2 <= len(ticks) <= 12
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack
    gaps = [b - a for a, b in itertools.pairwise(ticks)]
    assert max(gaps) - min(gaps) <= 1e-6 * max(gaps) + 1e-6


def test_logarithmic_ticks_are_round_and_within():
    assert log_ticks(0.9e6, 60e6) == [1e6, 2e6, 5e6, 1e7, 2e7, 5e7]
    assert log_ticks(1.1e6, 1.3e6) == [1.1e6, 1.3e6]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (1234.0, "1234"), (2e-5, "2.0e-5"), (25_000, "25k"), (3.2e9, "3.2G")]
)
def test_numbers_are_short(value, text):
    assert short(value) == text


def test_thinning_keeps_the_mean():
    values = [(float(i), float(i % 7)) for i in range(1000)]
    kept = thinned(values, 250)
    assert len(kept) == 250
    assert sum(y for _, y in kept) / 250 == pytest.approx(sum(y for _, y in values) / 1000)


def test_empty_charts_are_none():
    assert inline(Lines("empty", [Series("a", [])])) is None
    assert inline(Lines("nothing", [Series("a", [(1.0, math.nan)])])) is None
    assert inline(Bars("empty", [], "s", [])) is None
    assert inline(Dots("empty", [DotRow("a", {"after": None})], {"after": "student"})) is None
    with pytest.raises(ConfigError, match="nothing to draw"):
        line_chart([], title="empty")


def places(svg, tag, *keys):
    return [tuple(float(one[key]) for key in keys) for one in Page(str(svg)).all(tag)]


def test_lines_stay_inside_the_drawing():
    svg = str(inline(Lines("x", [Series("a", [(1, -5.0), (7, 1e6), (9, 0.0)], spread=[1e6, math.nan, 2.0])])))
    for path in re.findall(r'points="([^"]+)"', svg):
        numbers = [tuple(map(float, place.split(","))) for place in path.split()]
        assert all(0 <= x <= 380 and 0 <= y <= 230 for x, y in numbers)
    assert svg.count("<polygon") == 1


def test_bars_are_as_long_as_their_values():
    svg = inline(Bars("x", [Bar("a", [("p", 1.0), ("q", 3.0)])], "s", ["p", "q"]))
    (first,), (second,) = places(svg, "rect", "width")
    assert second == pytest.approx(3 * first, rel=0.01)


def test_marks_stand_where_their_values_are():
    names = {kind: kind for kind in KINDS}
    rows = [DotRow("a", dict(zip(names, (0.0, 25.0, 50.0, 100.0), strict=True))), DotRow("b", {"after": None})]
    chart = Dots("x", rows, names)
    svg = Page(str(inline(chart)))
    before, after = (float(circle["cx"]) for circle in svg.all("circle"))
    guess = next(float(line["x1"]) for line in svg.all("line") if line["class"] == "guess")
    assert after - guess == pytest.approx(2 * (before - guess), rel=0.01)
    assert "b: not measured" in svg.all("svg")[0]["aria-label"]
    assert len({str(key_mark(key)) for key in chart.keys}) == 4


def test_methods_lie_below_each_other_with_their_spread():
    names = {method_mark(0): "dudi", method_mark(1): "sft"}
    row = DotRow("Thai", {method_mark(0): 40.0, method_mark(1): 20.0}, {method_mark(0): 10.0})
    svg = inline(Dots("x", [row], names))
    (x0, y0), (x1, y1) = places(svg, "circle", "cx", "cy")
    assert y0 < y1
    error = next(line for line in Page(str(svg)).all("line") if "error" in line["class"])
    assert float(error["x2"]) - float(error["x1"]) == pytest.approx(x0 - x1, rel=0.01)  # 2 x 10 % and 40 - 20 %
    assert "dudi 40%, sft 20%" in str(svg)
    assert "Thai, dudi: 40.0 ± 10.0%" in str(svg)


# --- files


def test_a_file_needs_no_page_around_it():
    text = line_chart([Series("dudi", [(1, 0.2), (9, 0.6)]), Series("sft", [(1, 0.1)], 1)], title="Overlap", y="share")
    root = ET.fromstring(text)
    words = [one.text for one in root.iter(f"{SVG}text")]
    assert {"Overlap", "dudi", "sft", "share", "optimizer step"} <= set(words)
    assert root.find(f"{SVG}rect").get("fill") == "#fff"
    assert "font-family: system-ui" in text
    used = {name for one in root.iter() for name in one.get("class", "").split()} - {"tick", "name", "normal", "d0"}
    assert all(f".{name} " in style() for name in used)
    assert "var(" not in text


def test_a_single_line_has_no_legend():
    root = ET.fromstring(line_chart([Series("dudi", [(1, 2)])], title="x"))
    assert "dudi" not in [one.text for one in root.iter(f"{SVG}text")]


def test_the_legend_has_the_dashes_of_the_lines():
    chart = Lines("t", [Series(str(place), [(0, place), (1, place)], place, dash=place == 9) for place in range(10)])
    strokes = [f"c{place} d0" for place in range(8)] + ["c0 d1", "c1 d2"]
    assert re.findall(r'<polyline class="line (c\d d\d)', inline(chart)) == strokes
    assert [re.search(r"c\d d\d", key_mark(key)).group() for key in chart.keys] == strokes


def test_a_long_legend_takes_several_lines_and_moves_the_drawing_down():
    few, many = (
        ET.fromstring(line_chart([Series(f"method number {i}", [(1, i)], i) for i in range(count)], title="x"))
        for count in (2, 9)
    )
    assert float(many.get("height")) > float(few.get("height"))
    assert all(float(one.get("transform")[10:].split()[0]) < 380 for one in many.findall(f"{SVG}g"))


def test_scores_over_sizes_have_even_powers_and_error_bars():
    series = [Series("dudi", [(1e6, 20.0), (1e7, 40.0), (1e8, 50.0)], spread=[1.0, 2.0, math.nan])]
    text = score_against_size(series, title="Score against size", y="exact match in %")
    first, second, third = (x for (x,) in places(text, "circle", "cx"))
    assert second - first == pytest.approx(third - second, abs=0.2)
    assert text.count('class="error c0"') == 6  # two points, each with a line and its two ends
    assert "dudi, parameters 10M: 40 ± 2" in text
    linear = [x for (x,) in places(score_against_size(series, title="x", log=False), "circle", "cx")]
    assert linear[1] - linear[0] < linear[2] - linear[1]


def test_a_spread_of_another_length_is_said():
    with pytest.raises(ConfigError, match="every point needs"):
        line_chart([Series("a", [(1, 2), (2, 3)], spread=[1.0])], title="x")


def test_characters_that_xml_forbids_cost_no_file(tmp_path):
    text = bar_chart([Bar("a\x00b\ud800", [("p", 1.0)])], title="\x1b[1mx", unit="s", parts=["p"])
    file = save(text, tmp_path / "deep" / "bar.svg")
    assert ET.fromstring(file.read_bytes()).tag == f"{SVG}svg"


# --- PNG


def test_without_resvg_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ConfigError, match=r"pip install 'dudi\[plots\]'"):
        png(standalone(Lines("x", [Series("a", [(1, 2)])])))


def test_without_a_font_letters_are_not_left_out_in_silence(monkeypatch):
    pytest.importorskip("resvg_py", reason="the extra plots is not installed")
    monkeypatch.setattr(plots, "FONTS", ("No Such Font",))
    plots._font.cache_clear()
    with pytest.raises(ConfigError, match="none of the fonts No Such Font here; install one"):
        png(standalone(Lines("x", [Series("a", [(1, 2)])])))


@pytest.mark.parametrize(
    "chart",
    [
        Lines("$x$", [Series("a $", [(1, 2), (3, 4)], 1, 1, spread=[1, math.nan])], legend=[Key("a_$", 1, 1)]),
        Lines("sizes", [Series("a", [(1e6, 2), (1e7, 4)], spread=[1, 1])], scale="log", spread="bars"),
        Bars("bars", [Bar("a", [("p", 1.0), ("q", 2.0)])], "s", ["p", "q"]),
        Dots("dots", [DotRow("Thai", dict.fromkeys(KINDS, 3.0))], {kind: kind for kind in KINDS}),
        Dots("methods", [DotRow("Thai", {method_mark(2): 3.0}, {method_mark(2): 1.0})], {method_mark(2): "sft"}),
    ],
    ids=lambda chart: chart.title,
)
def test_every_chart_becomes_a_png_of_its_size_with_its_words(chart):
    pytest.importorskip("resvg_py", reason="the extra plots is not installed")
    svg = standalone(chart)
    drawn = png(svg)
    assert drawn.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", drawn[16:24])
    root = ET.fromstring(svg)
    assert (width, height) == (2 * int(root.get("width")), 2 * int(root.get("height")))
    assert drawn != png(svg.replace(f">{chart.title}<", ">other<"))  # letters are drawn, too
