"""From single answers to scores, overall and per split, language and task; from scores over seeds to tables."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from dudi.evaluation.metrics import METRICS, Metric
from dudi.evaluation.records import Evaluation
from dudi.languages.registry import LANGUAGES

if TYPE_CHECKING:
    from dudi.evaluation.benchmark import Answered

WIDTH = 79
MOST_SPLITS = 4
"""More splits than these do not fit beside each other."""

FLOOR = "floor"
"""The subject that guesses: always shown beside the others."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """Means over some questions.

    Attributes:
        questions: How many.
        exact_match: Share answered exactly, 0 to 1.
        chrf: Mean chrF, 0 to 100; None for the floor.
        in_language: Share answered in the question's language, Indonesian and Malay counted as one; None for the floor.
        bits_per_byte: Bits that the references cost per byte of UTF-8: fair across tokenizers; None for the floor.
        in_language_strict: As `in_language`, with Indonesian and Malay told apart.
        token_f1: Mean F1 of tokens, 0 to 1.
        repetition: Mean share of repeated 4-grams, 0 to 1.
        length: Mean length of the answers in the model's own tokens.
        ended: Share of answers that the model ended by itself: the end-of-turn rate.
        empty: Share of answers that hold nothing but space.

    A metric that is None was not measured.
    """

    questions: int
    exact_match: float
    chrf: float | None = None
    in_language: float | None = None
    bits_per_byte: float | None = None
    in_language_strict: float | None = None
    token_f1: float | None = None
    repetition: float | None = None
    length: float | None = None
    ended: float | None = None
    empty: float | None = None


def scores(answered: Sequence[Answered]) -> Scores:
    """The scores of some answers; at least one."""
    return Scores(
        questions=len(answered),
        exact_match=sum(one.exact for one in answered) / len(answered),
        chrf=_mean(one.chrf for one in answered),
        in_language=_mean(one.in_language for one in answered),
        bits_per_byte=sum(one.bits for one in answered) / sum(one.bytes for one in answered),
        in_language_strict=_mean(one.in_language_strict for one in answered),
        token_f1=_mean(one.token_f1 for one in answered),
        repetition=_mean(one.repetition for one in answered),
        length=_mean(one.length for one in answered),
        ended=_mean(one.ended for one in answered),
        empty=_mean(not one.answer.strip() for one in answered),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that were measured; None when none was."""
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None


def floor(answered: Sequence[Answered]) -> Scores:
    """What guessing reaches on the same questions."""
    return Scores(len(answered), sum(one.guess or 0.0 for one in answered) / len(answered))


def summarise(answered: Sequence[Answered]) -> dict[str, dict[str, Any]]:
    """Scores of every subject, and of the floor where it is known.

    Returns:
        By subject: `overall`, `by_split`, `by_language`, `by_task` and `by_language_and_split` (language, then split),
        each leaf the fields of `Scores`. Questions without a split or task are in none of its groups.
    """
    by_subject = _grouped(answered, lambda one: one.subject)
    summary = {subject: _table(own, scores) for subject, own in by_subject.items()}
    if not by_subject or any(one.guess is None for one in answered):
        return summary
    return {FLOOR: _table(next(iter(by_subject.values())), floor), **summary}


def scores_by(
    answered: Iterable[Answered], key: Callable[[Answered], str], judge: Callable[[Sequence[Answered]], Scores] = scores
) -> dict[str, Any]:
    """The fields of `Scores` for each group of answers; those without a group are in none."""
    return {name: dataclasses.asdict(judge(own)) for name, own in _grouped(answered, key).items() if name}


def _table(answered: Sequence[Answered], judge: Callable[[Sequence[Answered]], Scores]) -> dict[str, Any]:
    return {
        "overall": dataclasses.asdict(judge(answered)),
        "by_split": scores_by(answered, lambda one: one.split, judge),
        "by_language": scores_by(answered, lambda one: one.language, judge),
        "by_task": scores_by(answered, lambda one: one.task, judge),
        "by_language_and_split": {
            language: scores_by(own, lambda one: one.split, judge)
            for language, own in _grouped(answered, lambda one: one.language).items()
        },
    }


def _grouped(answered: Iterable[Answered], key: Callable[[Answered], str]) -> Mapping[str, list[Answered]]:
    groups: dict[str, list[Answered]] = {}
    for one in answered:
        groups.setdefault(key(one), []).append(one)
    return groups


HEADINGS = {
    "exact_match": "exact, %",
    "chrf": "chrF",
    "token_f1": "token F1, %",
    "in_language": "in language, %",
    "bits_per_byte": "bits per byte",
}
"""Metrics of a row, and their short titles."""
_OVERALL = (*HEADINGS, "in_language_strict", "repetition", "length", "ended", "empty")


def evaluation_tables(evaluation: Evaluation, *, colour: bool = False) -> str:
    """Mean and standard deviation (n - 1) over seeds, for a terminal of 80 columns; a dash is what was not measured.

    Args:
        evaluation: Of the built-in benchmark or of a file.
        colour: Whether to write escape codes for a terminal.
    """
    text = StringIO()
    console = Console(file=text, force_terminal=colour, width=WIDTH, highlight=False)
    scores = evaluation.runs[0].scores
    languages, splits = list(scores.get("by_language", {})), list(scores.get("by_split", {}))
    columns = splits if len(splits) <= MOST_SPLITS else []
    console.print(_headline(evaluation), markup=False)
    console.print()
    console.print(_exact_table(evaluation, languages, columns))
    console.print()
    console.print(_rows_table(evaluation, "By language", "by_language", {code: _name(code) for code in languages}))
    if len(splits) > MOST_SPLITS:
        console.print()
        console.print(_rows_table(evaluation, "By split", "by_split", {split: split for split in splits}))
    console.print()
    console.print(_overall_table(evaluation))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def shown(values: Sequence[float], metric: Metric) -> tuple[str, str]:
    """Mean and standard deviation (n - 1) of a metric over seeds; a dash where there is none."""
    scaled = [metric.scale * value for value in values]
    mean = f"{statistics.fmean(scaled):.{metric.digits}f}" if scaled else "-"
    return mean, f"{statistics.stdev(scaled):.{metric.digits}f}" if len(scaled) > 1 else "-"


def _headline(evaluation: Evaluation) -> str:
    how = evaluation.benchmark
    decoding = how.get("decoding", {})
    drawn = "greedy" if not decoding.get("temperature") else f"temperature {decoding['temperature']:g}"
    seeds = f"{len(evaluation.seeds)} seeds" if len(evaluation.seeds) > 1 else f"seed {evaluation.seeds[0]}"
    part = f", {how['part']}" if "part" in how else ""
    return f"{evaluation.name} on {how.get('name')}{part}: {how.get('questions')} questions, {drawn}, {seeds}"


def _exact_table(evaluation: Evaluation, languages: Sequence[str], splits: Sequence[str]) -> Table:
    table = _titled("Exact match, in %", [*splits, "all"])

    def cells(by_split: Sequence[str], overall: Sequence[str]) -> list[str]:
        places = [*([*by_split, split] for split in splits), list(overall)]
        return [_cell(evaluation, "exact_match", place) for place in places]

    for code in languages:
        table.add_row(_name(code), *cells(["by_language_and_split", code], ["by_language", code]))
    table.add_row("all", *cells(["by_split"], ["overall"]), style="bold")
    guessing = evaluation.about.get("guessing")
    if guessing:
        shares = [*(guessing["by_split"].get(split, {}) for split in splits), guessing["overall"]]
        table.add_row("guessing", *(_share(share.get("exact_match")) for share in shares), style="dim")
    return table


def _rows_table(evaluation: Evaluation, title: str, place: str, names: Mapping[str, str]) -> Table:
    metrics = [metric for metric in HEADINGS if place != "by_language" or metric != "exact_match"]  # it has its own
    table = _titled(title, [HEADINGS[metric] for metric in metrics])
    for key, name in names.items():
        table.add_row(name, *(_cell(evaluation, metric, [place, key]) for metric in metrics))
    return table


def _overall_table(evaluation: Evaluation) -> Table:
    table = _titled("Over all questions", ["mean", "std"])
    for key in _OVERALL:
        table.add_row(METRICS[key].title, *shown(evaluation.values(key, "overall"), METRICS[key]))
    return table


def _titled(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, box=None, title_justify="left", pad_edge=False)
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _cell(evaluation: Evaluation, metric: str, place: Sequence[str]) -> str:
    mean, std = shown(evaluation.values(metric, *place), METRICS[metric])
    return mean if std == "-" else f"{mean} ±{std}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _name(code: str) -> str:
    return LANGUAGES[code].name if code in LANGUAGES else code
