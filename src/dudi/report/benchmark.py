"""What the report says about the benchmark: a few words, tables by split and language, a chart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from dudi.report.compared import Compared, compared, runs_without
from dudi.report.dots import DotRow, Dots
from dudi.report.groups import Group
from dudi.report.results import Result, described, in_words, result_of
from dudi.report.wording import DASH, Row, Table, language_name, whole_percent

_FURTHER = ("all", "in language", "chrF", "bits per byte")


@dataclasses.dataclass(frozen=True, slots=True)
class Benchmark:
    """The section of the page.

    Attributes:
        words: The result of a single run in two sentences; a note on several.
        by_split: A single run: a row for everybody who answered.
        meanings: (split, what it means).
        by_language: A single run: before and after by split.
        cells: What stands in the cells of `by_language`.
        compared: Several runs: tables of methods.
        colours: Several runs: label of a method to its colour.
        chart: Exact match by language; None where there is nothing to draw.
        details: (name, value): what was asked, and how.
        missing: Runs whose recipe asks for the benchmark and that have no result.
    """

    words: str = ""
    by_split: Table | None = None
    meanings: tuple[tuple[str, str], ...] = ()
    by_language: Table | None = None
    cells: str = ""
    compared: tuple[Compared, ...] = ()
    colours: Mapping[str, int] = dataclasses.field(default_factory=dict)
    chart: Dots | None = None
    details: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()


def benchmark_section(groups: Sequence[Group]) -> Benchmark | None:
    """The section, or None when no run has a result and no recipe asks for one."""
    runs = [run for group in groups for run in group.runs]
    missing = tuple(run.name for run in runs_without(groups))
    known = [result for run in runs if (result := result_of(run)) is not None]
    if known and len(runs) == 1:
        return _single(known[0])
    if not known:
        return Benchmark(missing=missing) if missing else None
    found = compared(groups)
    section = Benchmark(meanings=meanings(), details=described(known[0]), missing=missing)
    if found is None:
        return section
    return dataclasses.replace(
        section, words=found.words, compared=found.tables, colours=found.colours, chart=found.chart
    )


def split_table(result: Result) -> Table:
    """Everybody who answered, by split and overall."""
    rows = tuple(Row(result.title(subject), _split_cells(result, subject), subject) for subject in result.subjects)
    return Table((*_splits(), *_FURTHER), rows)


def language_table(result: Result) -> Table:
    """Before and after by language and split, and the teacher over all splits."""
    taught = "teacher" in result.scores
    rows = []
    for code in result.languages:
        cells = [_before_after(result, "by_language_and_split", code, split) for split in _splits()]
        cells.append(_before_after(result, "by_language", code))
        if taught:
            cells.append(result.exact("teacher", "by_language", code))
        rows.append(Row(language_name(code), tuple(cells)))
    return Table((*_splits(), "all", *(["teacher (all)"] if taught else [])), tuple(rows))


def before_after(result: Result) -> str:
    """What stands in the cells of `language_table`."""
    after = result.title("student")
    return after if result.before is None else f"{result.title(result.before)} → {after}"


def meanings(result: Result | None = None) -> tuple[tuple[str, str], ...]:
    """(split, what it means), with the number of questions when it is one result's."""
    from dudi.evaluation.table import MEANING  # late: a report without a benchmark needs no CLDR

    counts = {split: result.value("questions", "student", "by_split", split) for split in MEANING} if result else {}
    numbers = {split: f" ({count:.0f} questions)" for split, count in counts.items() if count is not None}
    return tuple((split, meaning + numbers.get(split, "")) for split, meaning in MEANING.items())


def _splits() -> tuple[str, ...]:
    return tuple(split for split, _ in meanings())


def _single(result: Result) -> Benchmark:
    marks = (("guess", "floor"), ("before", result.before or ""), ("after", "student"), ("teacher", "teacher"))
    shown = {mark: subject for mark, subject in marks if subject in result.scores}
    legend = {mark: result.title(subject) for mark, subject in shown.items()}
    rows = [
        DotRow(
            language_name(code),
            {mark: _percent(result.value("exact_match", who, "by_language", code)) for mark, who in shown.items()},
        )
        for code in result.languages
    ]
    return Benchmark(
        words=in_words(result),
        by_split=split_table(result),
        meanings=meanings(result),
        by_language=language_table(result),
        cells=before_after(result),
        chart=Dots("Answered exactly, by language", rows, legend),
        details=described(result),
    )


def _split_cells(result: Result, subject: str) -> tuple[str, ...]:
    chrf, bits = (result.value(metric, subject, "overall") for metric in ("chrf", "bits_per_byte"))
    return (
        *(result.exact(subject, "by_split", split) for split in _splits()),
        result.exact(subject, "overall"),
        whole_percent(result.value("in_language", subject, "overall")),
        DASH if chrf is None else f"{chrf:.1f}",
        DASH if bits is None else f"{bits:.2f}",
    )


def _before_after(result: Result, *place: str) -> str:
    after = result.exact("student", *place)
    return after if result.before is None else f"{result.exact(result.before, *place)} → {after}"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
