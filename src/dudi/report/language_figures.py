"""What a run was in each language: its metrics over the steps, its teachers' shares, and what the probe found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dudi.evaluation.records import part_of
from dudi.report.charts import COLOURS, Chart
from dudi.report.lines import Lines, Series
from dudi.report.run_folder import RunFolder, number, overlap_key, points
from dudi.report.wording import in_order, in_unit, shown
from dudi.tables import Entry, Grid, Line

_SIGNALS = (("off_policy", "Off-policy signal"), ("on_policy", "On-policy signal"))


def language_charts(run: RunFolder) -> list[Chart]:
    """A chart for each metric that a run has by language, a line for each language; none of a run in one language."""
    records = run.stage(cold=False)
    codes = in_order({str(code) for record in records for code in part_of(record, "languages")})
    if len(codes) < 2:
        return []
    overlap = overlap_key(records) or "overlap@"
    metrics = [("Sequence signal by language", "loss/sequence", "nats a pair")]
    metrics += [(f"{title} by language", f"loss/{name}", "nats a token") for name, title in _SIGNALS]
    metrics += [(f"Share of the {title.lower()} by language", f"share/{name}", "%") for name, title in _SIGNALS]
    metrics += [
        ("Overlap ratio by language", overlap, "share"),
        ("Entropy of the student by language", "student_entropy", "nats"),
        ("Entropy of the teacher by language", "teacher_entropy", "nats"),
        ("In a wrong language, by language", "rollout/wrong_language_rate", "%"),
    ]
    return [_chart(run, title, "languages", codes, key, unit) for title, key, unit in metrics]


def teacher_charts(run: RunFolder) -> list[Chart]:
    """Each teacher's share of the tokens, where a run has several."""
    records = run.stage(cold=False)
    names = list(dict.fromkeys(str(name) for record in records for name in part_of(record, "teachers")))
    charts = []
    for name, title in _SIGNALS if len(names) > 1 else ():
        charts.append(_chart(run, f"Share of each teacher, {title.lower()}", "teachers", names, f"share/{name}", "%"))
    return charts


def _chart(run: RunFolder, title: str, part: str, names: list[str], key: str, unit: str) -> Chart:
    """One metric of every name in a part of the records (`languages`, `teachers`)."""
    series = []
    for place, name in enumerate(names):
        records = [{**part_of(record, part, name), "step": record.get("step")} for record in run.stage(cold=False)]
        series.append(Series(name, in_unit(unit, points(records, key)), place % COLOURS, dash=place // COLOURS))
    return Lines(title, series, y=unit)


def stack_languages(run: RunFolder) -> list[str]:
    """The languages of the parallel text that a stack was measured on, in the order of the record."""
    keys = (key for record in run.metrics for key in record if key.startswith("fvu/"))
    return list(dict.fromkeys(key.removeprefix("fvu/") for key in keys))


def stack_language_charts(run: RunFolder) -> list[Chart]:
    """FVU and cosine of each language of a stack over the steps."""
    charts: list[Chart] = []
    for title, key, unit in (("FVU by language", "fvu", "share"), ("Cosine by language", "cosine", "")):
        series = []
        for colour, code in enumerate(stack_languages(run)):
            series.append(Series(code, points(run.metrics, f"{key}/{code}"), colour, dash=colour))
        charts.append(Lines(title, series, y=unit))
    return charts


def probe_grid(run: RunFolder) -> Grid | None:
    """What the probe of `teacher_weight: auto` found; None for a run without one."""
    found = {str(code): one for code, one in run.probe.items() if isinstance(one, Mapping)}
    if not found:
        return None
    scores: dict[str, Mapping[str, Any]] = {}
    for code, one in found.items():
        several = one.get("teachers")
        scores[code] = several if isinstance(several, Mapping) else {"": one.get("teacher")}  # the only one has no name
    teachers = list(dict.fromkeys(str(name) for own in scores.values() for name in own))
    columns = [f"teacher {name}" if name else "teacher" for name in teachers]
    lines = []
    for code in in_order(found):
        one, own = found[code], scores[code]
        best = one.get("teacher_name") if len(teachers) > 1 else None
        entries = [Entry(shown(number(one.get("rows")), ".0f"))]
        entries += [Entry(shown(number(own.get(name))), best=name == best) for name in teachers]
        rest = (("student", ""), ("error", ""), ("weight", ".1%"))
        entries += [Entry(shown(number(one.get(key)), form)) for key, form in rest]
        lines.append(Line(code, tuple(entries)))
    heads = ("rows", *columns, "student", "error of the difference", "teacher's share")
    return Grid(heads, tuple(lines), "language")
