"""What the report says about the benchmark: a few words, tables by split and language, a chart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from dudi.evaluation.benchmarks import find
from dudi.evaluation.metrics import STANDARD_ERROR
from dudi.evaluation.records import FLOOR, STUDENT
from dudi.evaluation.tables import groups_grid, language_name, languages_grid, splits_of, tasks_grid
from dudi.report import accuracy
from dudi.report.compared import Compared, compared
from dudi.report.dots import DotRow, Dots
from dudi.report.groups import Group
from dudi.report.results import SUBJECTS, Result, benchmarks_of, described, in_words, result_of
from dudi.tables import Grid, grid_of

_FURTHER = ("all", "in language", "chrF", "bits per byte")


@dataclasses.dataclass(frozen=True, slots=True)
class QuestionsSection:
    """The section of the page.

    Attributes:
        name: The benchmark's, where there are several.
        words: The result of a single run in two sentences; a note on several.
        by_split: A single run: a row for everybody who answered.
        meanings: (split, what it means).
        by_language: A single run: before and after by split.
        by_group: A single run: the scores of groups of tasks that a benchmark makes in its own way.
        tables: Of what no run made: the tables of one evaluation, of several each task in each language; by title.
        cells: What stands in the cells of `by_language`.
        compared: Several runs: tables of methods.
        colours: Several runs: label of a method to its colour.
        chart: Exact match by language; None where there is nothing to draw.
        details: (name, value): what was asked, and how.
        missing: Runs whose recipe asks for the benchmark and that have no result.
        heading: Above `by_split`.
        exact: Whether answers were held against references; else there are metrics of another kind.
        note: What the metrics of another kind are.
    """

    name: str = ""
    words: str = ""
    by_split: Grid | None = None
    meanings: tuple[tuple[str, str], ...] = ()
    by_language: Grid | None = None
    by_group: Grid | None = None
    tables: Mapping[str, Grid] = dataclasses.field(default_factory=dict)
    cells: str = ""
    compared: tuple[Compared, ...] = ()
    colours: Mapping[str, int] = dataclasses.field(default_factory=dict)
    chart: Dots | None = None
    details: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    heading: str = "Questions answered exactly, in %"
    exact: bool = True
    note: str = ""


def benchmark_sections(groups: Sequence[Group]) -> list[QuestionsSection]:
    """A section for each benchmark; nothing when no run has a result and no recipe asks for one."""
    runs = [run for group in groups for run in group.runs]
    missing = tuple(run.name for run in runs if result_of(run) is None and run.value("benchmark"))
    sections = []
    names = benchmarks_of(runs)
    for name in names:
        known = [result for run in runs if (result := result_of(run, name)) is not None]
        if known:
            section = _single(known[0]) if len(runs) == 1 else _several(groups, known, name)
            sections.append(dataclasses.replace(section, name=name if len(names) > 1 else "", missing=missing))
    return sections or ([QuestionsSection(missing=missing)] if missing else [])


def _several(groups: Sequence[Group], known: Sequence[Result], name: str) -> QuestionsSection:
    first = known[0]
    details = accuracy.asked(first.evaluations[STUDENT])
    section, found = QuestionsSection(meanings=meanings(known), details=details), compared(groups, name)
    if found is None:
        return section
    return dataclasses.replace(
        section, words=found.words, compared=found.tables, colours=found.colours, chart=found.chart
    )


def split_table(result: Result) -> Grid:
    """Everybody who answered, by split and overall."""
    subjects = [name for name in dict.fromkeys((*SUBJECTS, *result.evaluations)) if name in result.evaluations]
    rows = [(result.title(subject), _split_cells(result, subject)) for subject in subjects]
    kinds = {result.title(STUDENT): "strong", result.title(FLOOR): "faint"}
    return grid_of((*_splits(result), *_FURTHER), rows, kinds=kinds)


def language_table(result: Result, sides: Sequence[str]) -> Grid:
    """Of `sides`, before and after, each language by split, and of the teacher all splits."""
    taught = "teacher" in result.evaluations
    rows = []
    for code in result.languages:
        places = [*(("by_language_and_split", code, split) for split in _splits(result)), ("by_language", code)]
        cells = []
        for place in places:
            cells.append(" → ".join(result.shown("exact_match", who, *place) for who in sides))
        if taught:
            cells.append(result.shown("exact_match", "teacher", "by_language", code))
        rows.append((language_name(code), cells))
    return grid_of((*_splits(result), "all", *(["teacher (all)"] if taught else [])), rows)


def meanings(results: Sequence[Result]) -> tuple[tuple[str, str], ...]:
    """(split, what it means) of a benchmark that says it, with the number of questions when it is one result's."""
    known = find(results[0].name).meanings
    counts = {split: results[0].value("questions", STUDENT, "by_split", split) for split in known}
    numbers = {split: f" ({count:.0f} questions)" for split, count in counts.items() if count is not None}
    return tuple((split, known[split] + (numbers.get(split, "") if len(results) == 1 else "")) for split in known)


def _splits(result: Result) -> list[str]:
    return splits_of(*result.evaluations.values())


def _single(result: Result) -> QuestionsSection:
    if result.has_cells:
        by_task, by_language = tasks_grid(result.evaluations), languages_grid(result.evaluations)
        by_group = groups_grid(result.evaluations)
        lines = (*by_task.lines, *by_language.lines)
        has_errors = any("±" in entry.text for line in lines for entry in line.entries)
        return QuestionsSection(
            words=in_words(result),
            by_split=by_task,
            by_language=by_language,
            by_group=by_group if by_group.lines else None,
            details=(*described(result.how), *((("±", STANDARD_ERROR),) if has_errors else ())),
            heading="By task",
            exact=False,
            note="Tasks of lm-evaluation-harness; bits per byte and perplexities: less is better.",
        )
    if accuracy.is_chosen(result.evaluations[STUDENT]):
        return QuestionsSection(
            words=accuracy.accuracy_in_words(result),
            by_split=accuracy.split_grid(result, _splits(result)),
            by_language=accuracy.language_grid(result),
            chart=accuracy.language_chart(result),
            details=accuracy.asked(result.evaluations[STUDENT]),
            heading="Answered right",
            exact=False,
            note="Each row has one right answer.",
        )
    marks = (("guess", FLOOR), ("before", result.before or ""), ("after", STUDENT), ("teacher", "teacher"))
    shown = {mark: subject for mark, subject in marks if subject in result.evaluations}
    legend = {mark: result.title(subject) for mark, subject in shown.items()}
    sides = [STUDENT] if result.before is None else [result.before, STUDENT]
    rows = []
    for code in result.languages:
        shares = {mark: result.value("exact_match", who, "by_language", code) for mark, who in shown.items()}
        rows.append(DotRow(language_name(code), {mark: share and 100 * share for mark, share in shares.items()}))
    return QuestionsSection(
        words=in_words(result),
        by_split=split_table(result),
        meanings=meanings([result]),
        by_language=language_table(result, sides),
        cells=" → ".join(map(result.title, sides)),
        chart=Dots("Answered exactly, by language", rows, legend),
        details=described(result.how),
    )


def _split_cells(result: Result, subject: str) -> tuple[str, ...]:
    return (
        *(result.shown("exact_match", subject, "by_split", split) for split in _splits(result)),
        result.shown("exact_match", subject, "overall"),
        result.shown("in_language", subject, "overall"),
        result.shown("chrf", subject, "overall", form=".1f", scale=1),
        result.shown("bits_per_byte", subject, "overall", form=".2f", scale=1),
    )
