"""What the report says about the benchmark: a few words, a table by split, one by language, a chart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from markupsafe import Markup

from dudi.report.dots import DotRow, dot_chart
from dudi.report.results import Result, asks, described, in_words, result_of
from dudi.report.run_folder import RunFolder
from dudi.report.wording import DASH, in_order, language_name, whole_percent

_FURTHER = ("all", "in language", "chrF", "bits per byte")


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A line of a table.

    Attributes:
        name: Its heading.
        cells: Its numbers as text, a dash for what was not measured.
        kind: The subject, for its looks.
    """

    name: str
    cells: tuple[str, ...]
    kind: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Rows under one head, which leaves out the column of their names."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Benchmark:
    """The section of the page.

    Attributes:
        words: The result of a single run in two sentences; a note on several.
        by_split: A row for everybody who answered, or for each run's student.
        meanings: (split, what it means).
        by_language: Before and after by split, or each run's student.
        cells: What stands in the cells of `by_language`.
        chart: Exact match by language; None for several runs.
        legend: (kind of mark, who it stands for).
        details: (name, value): what was asked, and how.
        missing: Runs whose recipe asks for the benchmark and that have no result.
    """

    words: str = ""
    by_split: Table | None = None
    meanings: tuple[tuple[str, str], ...] = ()
    by_language: Table | None = None
    cells: str = ""
    chart: Markup | None = None
    legend: tuple[tuple[str, str], ...] = ()
    details: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()


def benchmark_section(runs: Sequence[RunFolder]) -> Benchmark | None:
    """The section, or None when no run has a result and no recipe asks for one."""
    results = [result_of(run) for run in runs]
    missing = tuple(run.name for run, result in zip(runs, results, strict=True) if result is None and asks(run))
    if results[0] is not None and len(runs) == 1:
        return _single(results[0])
    if any(results):
        return dataclasses.replace(_several(runs, results), missing=missing)
    return Benchmark(missing=missing) if missing else None


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
        chart=dot_chart("Answered exactly, by language", rows, legend),
        legend=tuple(legend.items()),
        details=described(result),
    )


def _several(runs: Sequence[RunFolder], results: Sequence[Result | None]) -> Benchmark:
    """Each run's student; dashes for a run without a result."""
    known = [result for result in results if result is not None]
    languages = in_order(code for result in known for code in result.languages)
    by_split, by_language = [], []
    for run, result in zip(runs, results, strict=True):
        cells = (DASH,) * len(_splits() + _FURTHER) if result is None else _split_cells(result, "student")
        own = [DASH if result is None else result.exact("student", "by_language", code) for code in languages]
        by_split.append(Row(run.name, cells))
        by_language.append(Row(run.name, tuple(own)))
    return Benchmark(
        words=_comparable(known),
        by_split=Table((*_splits(), *_FURTHER), tuple(by_split)),
        meanings=meanings(),
        by_language=Table(tuple(map(language_name, languages)), tuple(by_language)),
        cells="each run's student, all splits",
    )


def _comparable(results: Sequence[Result]) -> str:
    """Whether the runs were asked the same."""
    if len({str(result.how.get("fingerprint")) for result in results}) > 1:
        return "Each run's student. The runs were not asked the same questions: their numbers do not compare."
    return "Each run's student, asked the same questions. A difference between two single runs may be chance."


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
