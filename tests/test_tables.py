"""One table, in five formats; other people's text stays text."""

import csv
import io

import pytest

from dudi.tables import Entry, Grid, Line, csv_text, grid_of, html_table, latex, markdown, terminal

TABLE = Grid(
    ("th", "a_b|c"),
    (
        Line("GKD", (Entry("1.5", second=True, value=1.523), Entry("–"))),
        Line("<b>DuDi</b>", (Entry("2.0", best=True, diamond=True, value=2.0), Entry("=1+1")), kind="strong", colour=9),
    ),
    corner="method",
)


def test_markdown():
    assert markdown(TABLE).splitlines() == [
        r"| method | th | a\_b\|c |",
        "| --- | ---: | ---: |",
        "| GKD | <ins>1.5</ins> | – |",
        r"| &lt;b\>DuDi&lt;/b\> | **2.0** ◇ | =1+1 |",
    ]


def test_latex():
    assert latex(TABLE).splitlines()[3:] == [
        r"\midrule",
        r"GKD & \underline{1.5} & -- \\",
        r"\textless{}b\textgreater{}DuDi\textless{}/b\textgreater{} & \textbf{2.0}$^{\diamond}$ & =1+1 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_csv_has_whole_numbers_and_no_formula():
    assert list(csv.reader(io.StringIO(csv_text(TABLE)))) == [
        ["method", "th", "a_b|c"],
        ["GKD", "1.523", "–"],
        ["<b>DuDi</b>", "2.0", "'=1+1"],
    ]


def test_html():
    text = html_table(TABLE, "first")
    assert '<table class="numbers first">' in text and "<u>1.5</u>" in text and "<b>2.0</b> ◇" in text
    assert '<tr class="student"><th scope="row"><i class="c1"></i>&lt;b&gt;DuDi&lt;/b&gt;</th>' in text


def test_a_terminal_without_colour_has_marks():
    assert terminal(TABLE, title="Exact").splitlines() == [
        "Exact",
        "method          th  a_b|c",
        "GKD          1.5+       –",
        "<b>DuDi</b>  2.0*◇   =1+1",
    ]
    assert "\x1b[1m" in terminal(TABLE, colour=True) and "*" not in terminal(TABLE, colour=True)


def test_turned():
    turned = TABLE.turned()
    assert turned.columns == ("GKD", "<b>DuDi</b>") and turned.corner == "method"
    assert turned.lines[0] == Line("th", (TABLE.lines[0].entries[0], TABLE.lines[1].entries[0]))


@pytest.mark.parametrize("write", [markdown, latex, csv_text, html_table, terminal])
def test_a_table_of_no_lines(write):
    assert "x" in write(grid_of(["x"], []))


def test_columns_of_texts_stand_at_the_left():
    table = grid_of(("what it is", ""), [("student", ("A", "one")), ("data", ("rows & more", "two"))], texts=True)
    assert terminal(table).splitlines() == [
        "         what it is",
        "student  A            one",
        "data     rows & more  two",
    ]
    assert markdown(table).splitlines()[1] == "| --- | --- | --- |"
    assert latex(table).startswith(r"\begin{tabular}{lll}")
    assert '<table class="first">' in html_table(table, "first")


def test_a_label_keeps_the_room_before_it():
    table = grid_of(("GB",), [("  weights", ("1.0",)), ("total", ("1.0",))], corner="Memory")
    assert terminal(table).splitlines() == ["Memory      GB", "  weights  1.0", "total      1.0"]
