"""What the report says about the benchmark: a few words, tables by split and language, a chart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dudi.evaluation.benchmarks import find
from dudi.evaluation.metrics import STANDARD_ERROR
from dudi.evaluation.records import FLOOR, STUDENT
from dudi.evaluation.tables import groups_grid, language_name, languages_grid, splits_of, tasks_grid
from dudi.report import accuracy
from dudi.report.compared import QuestionsSection, compared
from dudi.report.dots import DotRow, Dots
from dudi.report.groups import Group
from dudi.report.results import SUBJECTS, Result, benchmarks_of, described, in_words, result_of
from dudi.tables import Grid, grid_of

_FURTHER = ("all", "in language", "chrF", "bits per byte")


def benchmark_sections(groups: Sequence[Group]) -> list[QuestionsSection]:
    """A section for each benchmark; nothing when no run has a result and no recipe asks for one."""
    runs = [run for group in groups for run in group.runs]
    missing = tuple(run.name for run in runs if result_of(run) is None and run.value("benchmark"))
    sections = []
    names = benchmarks_of(runs)
    for name in names:
        known = [result for run in runs if (result := result_of(run, name)) is not None]
        if known:
            if len(runs) == 1:
                section = _single(known[0])
            else:
                details = accuracy.asked(known[0].evaluations[STUDENT])
                section = dataclasses.replace(compared(groups, name), meanings=meanings(known), details=details)
            sections.append(dataclasses.replace(section, name=name if len(names) > 1 else "", missing=missing))
    return sections or ([QuestionsSection(missing=missing)] if missing else [])


def split_table(result: Result) -> Grid:
    """Everybody who answered, by split and overall."""
    splits = splits_of(*result.evaluations.values())
    rows = []
    for subject in dict.fromkeys((*SUBJECTS, *result.evaluations)):
        if subject in result.evaluations:
            cells = [result.shown("exact_match", subject, "by_split", split) for split in splits]
            cells.append(result.shown("exact_match", subject, "overall"))
            cells.append(result.shown("in_language", subject, "overall"))
            cells.append(result.shown("chrf", subject, "overall", form=".1f", scale=1))
            cells.append(result.shown("bits_per_byte", subject, "overall", form=".2f", scale=1))
            rows.append((result.title(subject), cells))
    kinds = {result.title(STUDENT): "strong", result.title(FLOOR): "faint"}
    return grid_of((*splits, *_FURTHER), rows, kinds=kinds)


def language_table(result: Result, sides: Sequence[str]) -> Grid:
    """Of `sides`, before and after, each language by split, and of the teacher all splits."""
    splits = splits_of(*result.evaluations.values())
    taught = ["teacher (all)"] if "teacher" in result.evaluations else []
    rows = []
    for code in result.languages:
        cells = []
        for place in (*(("by_language_and_split", code, split) for split in splits), ("by_language", code)):
            cells.append(" → ".join(result.shown("exact_match", who, *place) for who in sides))
        cells += [result.shown("exact_match", "teacher", "by_language", code) for _ in taught]
        rows.append((language_name(code), cells))
    return grid_of((*splits, "all", *taught), rows)


def meanings(results: Sequence[Result]) -> tuple[tuple[str, str], ...]:
    """(split, what it means) of a benchmark that says it, with the number of questions when it is one result's."""
    known = find(results[0].name).meanings
    counts = {split: results[0].value("questions", STUDENT, "by_split", split) for split in known}
    numbers = {split: f" ({count:.0f} questions)" for split, count in counts.items() if count is not None}
    return tuple((split, known[split] + (numbers.get(split, "") if len(results) == 1 else "")) for split in known)


def _single(result: Result) -> QuestionsSection:
    if result.has_cells:
        by_task, by_language = tasks_grid(result.evaluations), languages_grid(result.evaluations)
        by_group = groups_grid(result.evaluations)
        entries = [entry for line in (*by_task.lines, *by_language.lines) for entry in line.entries]
        errors = [("±", STANDARD_ERROR)] if any("±" in entry.text for entry in entries) else []
        return QuestionsSection(
            words=in_words(result),
            by_split=by_task,
            by_language=by_language,
            by_group=by_group if by_group.lines else None,
            details=(*described(result.how), *errors),
            heading="By task",
            exact=False,
            note="Tasks of lm-evaluation-harness; bits per byte and perplexities: less is better.",
        )
    if accuracy.is_chosen(result.evaluations[STUDENT]):
        return accuracy.accuracy_section(result)
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
