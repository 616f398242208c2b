"""Groups of runs side by side on a benchmark: means over seeds, and which lead is one.

The statistics are those of `dudi compare` (`dudi.comparison.table`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dudi.errors import DudiError
from dudi.evaluation.metrics import METRICS, STANDARD_ERROR
from dudi.evaluation.records import FLOOR, STUDENT, Evaluation, SeedScores
from dudi.evaluation.tables import CELLS, main_metric
from dudi.report.dots import DotRow, Dots, method_mark
from dudi.report.groups import Group
from dudi.report.results import Result, result_of
from dudi.report.run_folder import number
from dudi.tables import DASH, Entry, Grid, Line

if TYPE_CHECKING:
    from dudi.comparison.table import Comparison

REFERENCES = (FLOOR, "base", "cold_start", "teacher")
_FURTHER = ("exact_match", "acc", "accuracy", "macro_f1", "in_language", "chrf", "chrf++", "bits_per_byte")
_MEANINGS = {
    "chrf": "ChrF: letters shared with the reference, 0 to 100",
    "bits_per_byte": "Bits per byte: less is better",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Compared:
    """One table, what its numbers are, the tests that were made, what the marks mean and what a reader must know."""

    heading: str
    about: str
    grid: Grid
    tests: Grid | None
    remarks: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class QuestionsSection:
    """A benchmark's section of the page.

    Attributes:
        name: The benchmark's, where there are several.
        words: The result of a single run in two sentences; of several, whether the numbers compare.
        by_split: A single run: a row for everybody who answered.
        meanings: (split, what it means).
        by_language: A single run: before and after by split.
        by_group: A single run: the scores of groups of tasks that a benchmark makes in its own way.
        tables: Of what no run made: the tables of one evaluation, of several each task in each language; by title.
        cells: What stands in the cells of `by_language`.
        compared: Several runs: by split, by language, and other metrics.
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
    chart: Dots | None = None
    details: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    heading: str = "Questions answered exactly, in %"
    exact: bool = True
    note: str = ""


def compared(groups: Sequence[Group], benchmark: str | None = None) -> QuestionsSection:
    """All groups that have results on a benchmark (None: each run's first), of which there is one at least."""
    evaluations = [one for group in groups if (one := evaluation_of(group, benchmark)) is not None]
    references = _references(groups, {one.name for one in evaluations}, benchmark)
    colours = {group.label: group.colour for group in groups}
    try:
        return side_by_side(evaluations, references, _notes(groups, benchmark), colours)
    except DudiError as error:  # scores that nobody can read cost the tables, and not the report
        return QuestionsSection(words=f"The runs cannot be compared: {error}")


def evaluation_of(group: Group, benchmark: str | None = None) -> Evaluation | None:
    """A group's students as one evaluation with a run per seed; None when no run of it has a result.

    A seed that is there twice counts once: a run and its copy are no two draws.
    """
    results = _by_seed(group, benchmark)
    if not results:
        return None
    runs = tuple(SeedScores(seed, _finite(result.scores(STUDENT))) for seed, result in results.items())
    first = next(iter(results.values()))
    about = {key: value for key, value in first.evaluations[STUDENT].about.items() if key == "better"}
    return Evaluation(group.label, str(first.run.path), first.how, runs, about)


def _by_seed(group: Group, benchmark: str | None) -> dict[int, Result]:
    found: dict[int, Result] = {}
    for place, run in enumerate(group.runs):
        seed, result = run.value("seed"), result_of(run, benchmark)
        if result is not None:
            found.setdefault(seed if isinstance(seed, int) else place, result)
    return found


def _finite(value: Any) -> Any:
    """Scores with nothing but finite numbers."""
    return {str(key): _finite(inside) for key, inside in value.items()} if isinstance(value, Mapping) else number(value)


def side_by_side(
    evaluations: Sequence[Evaluation],
    references: Sequence[Evaluation],
    notes: Sequence[str],
    colours: Mapping[str, int],
    who: str = "runs",
) -> QuestionsSection:
    """Evaluations on one benchmark: tables by split, task, group and language, other metrics, a chart.

    `evaluations` are ranked and tested, in their `colours` by name; `references` are shown beside them. The `notes`
    stand below the first table; `who` is what the evaluations are of, in words.

    Raises:
        DudiError: scores that nobody can read.
    """
    from dudi.comparison.same import differences
    from dudi.comparison.table import compare

    # What was asked must be the same, or nothing may be marked; seeds may differ, and the table says so.
    first, names = evaluations[0], [one.name for one in references]
    other = [found[0].text for one in evaluations[1:] if (found := differences(first, one, seeds=False))]
    everybody = [*evaluations, *references]
    shown_only = [one.name for one in everybody] if other else names
    allowed = ["all"] if other else ["seeds"]
    columns: list[str] = []
    for key in ("split", "language", "task", "group"):
        if any(one.keys(key) for one in everybody) and not (key == "task" and "split" in columns):
            columns.append(key)
    made = {by: compare(everybody, by=by, references=shown_only, allow_different=allowed) for by in columns}
    words = f"The {who} were not asked the same: {other[0]}. Their numbers do not compare." if other else ""
    tables = [_table(f"By {by}", table, notes if by == next(iter(made)) else ()) for by, table in made.items()]
    for metric in _of_tasks(first, made):
        for by in ("language", "task"):
            table = compare(everybody, by=by, metric=metric, references=shown_only, allow_different=allowed)
            tables.append(_table(f"By {by}: {table.metric.title}", table, ()))
    tables.append(_further(everybody, shown_only))
    tables = [dataclasses.replace(one, grid=_coloured(one.grid, colours)) for one in tables]
    chart = _chart(made["language"], colours) if "language" in made else None
    return QuestionsSection(words=words, compared=tuple(tables), chart=chart)


def _of_tasks(evaluation: Evaluation, made: Mapping[str, Comparison]) -> list[str]:
    """Metrics that stand for some tasks, beside the one that the tables have."""
    if not evaluation.keys(CELLS) or not made:
        return []
    found = dict.fromkeys(main_metric(evaluation, "by_task", task).name for task in evaluation.keys("task"))
    return [name for name in found if name != next(iter(made.values())).metric.name]


def _coloured(grid: Grid, colours: Mapping[str, int]) -> Grid:
    """The lines of groups in their colours, those that are there for reference faint."""
    lines = []
    for line in grid.lines:
        kind = "" if line.label in colours else "faint"
        lines.append(dataclasses.replace(line, colour=colours.get(line.label), kind=kind))
    return dataclasses.replace(grid, lines=tuple(lines))


def _table(heading: str, comparison: Comparison, notes: Sequence[str]) -> Compared:
    from dudi.comparison.grid import eps_grid, grid, remarks, title

    contestants = [row for row in comparison.rows if not row.reference]
    if len(contestants) > 1 and not comparison.duels and not comparison.notes:
        notes = [*notes, "No diamond: nobody leads alone"]
    return Compared(
        heading,
        title(comparison),
        _measured(grid(comparison)),
        eps_grid(comparison) if comparison.duels else None,
        (*remarks(comparison, "Bold", "underlined"), *notes),
    )


def _measured(table: Grid) -> Grid:
    """A table without columns that nobody has a number in: a task has a metric of its own."""
    kept: list[int] = []
    for place in range(len(table.columns)):
        if any(line.entries[place].text != DASH for line in table.lines):
            kept.append(place)
    lines = []
    for line in table.lines:
        lines.append(dataclasses.replace(line, entries=tuple(line.entries[place] for place in kept)))
    return dataclasses.replace(table, columns=tuple(table.columns[place] for place in kept), lines=tuple(lines))


def _further(everybody: Sequence[Evaluation], shown_only: Sequence[str]) -> Compared:
    """Every metric over all questions; leads are marked and not tested, since tests would add up."""
    from dudi.comparison.grid import grid
    from dudi.comparison.table import compare

    columns: list[str] = []
    lines: dict[str, list[Entry]] = {one.name: [] for one in everybody}
    errors = False
    for name in (name for name in _FURTHER if any(one.values(name, "overall") for one in everybody)):
        made = compare(everybody, by="overall", metric=name, references=shown_only, allow_different=["all"])
        columns.append(METRICS[name].title)
        errors = errors or any(cell.error is not None for row in made.rows for cell in row.cells)
        for line in grid(made).lines:
            lines[line.label].append(dataclasses.replace(line.entries[-1], diamond=False))
    table = Grid(tuple(columns), tuple(Line(label, tuple(entries)) for label, entries in lines.items()))
    remarks = (
        *(meaning for name, meaning in _MEANINGS.items() if METRICS[name].title in columns),
        "No lead is tested here",
        *((f"±: {STANDARD_ERROR}",) if errors else ()),
    )
    return Compared("All questions", "", table, None, remarks)


def _references(groups: Sequence[Group], taken: set[str], benchmark: str | None) -> list[Evaluation]:
    """Those who are the same in every run, once: guessing, the base, the cold start over its seeds, the teacher."""
    found: dict[str, Evaluation] = {}
    for subject in REFERENCES:
        seen: set[str] = set()
        for group in groups:
            results = _by_seed(group, benchmark)
            own = [SeedScores(seed, _finite(result.scores(subject))) for seed, result in results.items()]
            known = [run for run in own if run.scores]
            kept = known if subject == "cold_start" else known[:1]
            text = json.dumps([run.scores for run in kept], sort_keys=True)
            if not kept or text in seen:
                continue
            first = next(iter(results.values()))
            name = f"{first.title(subject)} of {group.label}" if seen else first.title(subject)
            while name in taken or name in found:
                name += " *"
            seen.add(text)
            found[name] = Evaluation(name, subject, first.how, tuple(kept))
    return list(found.values())


def _notes(groups: Sequence[Group], benchmark: str | None) -> list[str]:
    """Which runs have no result, and which seeds are there twice."""
    without = [run for group in groups for run in group.runs if result_of(run, benchmark) is None]
    missing = ", ".join(run.name for run in without if not run.value("benchmark"))
    notes = [f"No benchmark was asked for in {missing}"] if missing else []
    for group in groups:
        seeds = [run.value("seed") for run in group.runs if result_of(run) is not None]
        again = sorted({seed for seed in seeds if isinstance(seed, int) and seeds.count(seed) > 1})
        if again:
            notes.append(f"{group.label}: seed {', '.join(map(str, again))} is there more than once and counts once")
    return notes


def _chart(comparison: Comparison, colours: Mapping[str, int]) -> Dots | None:
    """Means by language of those who have a colour, with the standard deviation, of one run the standard error."""
    from dudi.comparison.grid import column_title

    if comparison.metric.scale != 100:
        return None
    marks = {name: method_mark(colour) for name, colour in colours.items()}
    own = [(marks[row.name], row) for row in comparison.rows if row.name in marks]
    rows = []
    for place, column in enumerate(comparison.columns):
        cells = {mark: row.cells[place] for mark, row in own}
        spreads = {mark: cell.error if cell.std is None else cell.std for mark, cell in cells.items()}
        known = {mark: spread for mark, spread in spreads.items() if spread is not None}
        name = "all" if column == "overall" else column_title("language", column)
        rows.append(DotRow(name, {mark: cell.mean for mark, cell in cells.items()}, known))
    exact = comparison.metric.name == "exact_match"
    shown = "Answered exactly" if exact else comparison.metric.title.removesuffix(" in %")
    return Dots(f"{shown}, by language", rows, {mark: row.name for mark, row in own})
