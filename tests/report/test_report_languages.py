"""What a report shows by language: charts of a run's metrics, shares of teachers, and the probe, in page and card."""

import json

import pytest

from dudi.report import write_model_card, write_report
from dudi.report.language_figures import language_charts, probe_grid, teacher_charts
from dudi.report.run_folder import read_run
from report_helpers import build_run, metrics

PROBE = {
    "th": {"rows": 48, "teacher": 0.9, "student": 0.4, "error": 0.05, "weight": 0.9999},
    "my": {"rows": 12, "teacher": 0.2, "student": 0.5, "error": 0.1, "weight": 0.047},
}
ROUTED = {
    code: {**one, "teacher_name": "B" if code == "my" else "A", "teachers": {"A": one["teacher"], "B": 0.3}}
    for code, one in PROBE.items()
}


def by_language(steps=6):
    for record in metrics(steps=steps):
        step = record["step"]
        languages = {
            code: {
                "loss/off_policy": step + place,
                "share/off_policy": 0.25 + place / 2,
                "overlap@8": 0.5,
                "student_entropy": 1.0,
                "rollout/wrong_language_rate": 0.1 * place,
            }
            for place, code in enumerate(("id", "my"))
            if record["stage"] == "dudi" and (step % 2 or code == "id")
        }
        teachers = {"A": {"share/off_policy": 0.7}, "B": {"share/off_policy": 0.3}}
        yield {**record, "languages": languages, "teachers": teachers}


@pytest.fixture
def run(tmp_path):
    folder = build_run(tmp_path / "run", records=list(by_language()))
    (folder / "stages" / "probe").mkdir(parents=True)
    (folder / "stages" / "probe" / "probe.json").write_text(json.dumps(ROUTED))
    return folder


def test_a_line_is_a_language_at_the_steps_that_have_it(run):
    charts = {chart.title: chart for chart in language_charts(read_run(run))}
    lines = {line.label: line.points for line in charts["Off-policy signal by language"].series}
    assert lines["id"] == [(step, step) for step in range(1, 7)]
    assert lines["my"] == [(step, step + 1) for step in (1, 3, 5)]
    shares = charts["Share of the off-policy signal by language"].series
    assert [line.points[0] for line in shares] == [(1, 25.0), (1, 75.0)]
    wrong = charts["In a wrong language, by language"].series
    assert wrong[1].points == [(1, 10.0), (3, 10.0), (5, 10.0)]
    assert charts["Overlap ratio by language"].series[0].points[0] == (1, 0.5)


def test_shares_of_teachers(run):
    (first, second) = teacher_charts(read_run(run))
    assert {line.label: line.points[-1] for line in first.series} == {"A": (6, 70.0), "B": (6, 30.0)}
    assert not any(line.points for line in second.series)


def test_the_page_and_its_files(run):
    said = write_report([run]).read_text(encoding="utf-8")
    assert "<h2>Languages</h2>" in said and "What the probe found" in said and "Overlap ratio by language" in said
    files = {file.name for file in (run / "figures").glob("*-by-language.svg")}
    assert "off-policy-signal-by-language.svg" in files and "sequence-signal-by-language.svg" not in files


def test_the_probe_as_a_table(run):
    grid = probe_grid(read_run(run))
    assert grid.columns == ("rows", "teacher A", "teacher B", "student", "error of the difference", "teacher's share")
    assert [line.label for line in grid.lines] == ["th", "my"]
    assert [entry.best for entry in grid.lines[0].entries[1:3]] == [True, False]
    assert [entry.best for entry in grid.lines[1].entries[1:3]] == [False, True]
    assert [entry.text for entry in grid.lines[1].entries] == ["12", "0.2", "0.3", "0.5", "0.1", "4.7%"]


def test_the_card_has_it(run):
    text = write_model_card(run).read_text(encoding="utf-8")
    assert "## What the probe found" in text and "99.99%" not in text and "100.0%" in text


def test_a_run_without_them_shows_none(tmp_path):
    folder = build_run(tmp_path / "run")
    text = write_report([folder]).read_text(encoding="utf-8")
    assert "What the probe found" not in text and "by language" not in text
    assert "probe" not in write_model_card(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("broken", [[], {"th": 3}, {"th": {"teachers": 4, "weight": "x", "rows": None}}, "text"])
def test_a_broken_probe_breaks_nothing(run, broken):
    (run / "stages" / "probe" / "probe.json").write_text(json.dumps(broken))
    write_report([run])
    write_model_card(run)


def test_broken_languages_break_nothing(tmp_path):
    damaged = zip(metrics(steps=4), BROKEN, strict=False)
    records = [{**record, "languages": odd, "teachers": odd} for record, odd in damaged]
    folder = build_run(tmp_path / "run", records=records)
    write_report([folder])


BROKEN = [3, [], {"id": 4, "my": {"loss/off_policy": "x"}}, {"id": {"loss/off_policy": None}}, "a", None, {}]
