"""The answers of runs as items that can be drawn again: from lines of `answers.jsonl` to `bootstrap.lead`."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.comparison.bootstrap import AnswerScore, Lead, lead
from dudi.comparison.packed import unpacked
from dudi.evaluation.metrics import MACRO_F1, OVERALL, Metric
from dudi.evaluation.question_scores import QuestionScore, class_scores, in_column, question_score
from dudi.evaluation.records import Evaluation
from dudi.training.runlog import read_jsonl


def answers_by_run(
    lines: Iterable[Mapping[str, Any]], metric: str, by: str = OVERALL, column: str = OVERALL
) -> dict[int, list[AnswerScore]]:
    """What each answer of each run is worth in one column of a table.

    Args:
        lines: Lines of `answers.jsonl`, of one model and benchmark; a line's `seed` says which run it is of.
        metric: Such as `accuracy`, `exact_match` or `bits_per_byte`. `macro_f1`, which no single answer has, is made of
            labels and answers, where the lines have both.
        by: `language`, `split`, `task`: what a line must say.
        column: What it must say there; `overall` takes every line. Only those that count in the column are taken.

    Returns:
        By seed. An item is a line's `item`, what it has in common with the same question in other languages, else its
        `id`; a group is the cell that the benchmark averages, where it averages cells.
    """
    runs: dict[int, list[AnswerScore]] = {}
    for line in in_column(lines, by, column):
        for part, score in _parts(line, metric).items():
            own = AnswerScore(score.item, score.cell, score.value * score.weight, score.weight, part)
            runs.setdefault(int(line.get("seed") or 0), []).append(own)
    return runs


def _parts(line: Mapping[str, Any], metric: str) -> dict[Hashable, QuestionScore]:
    if metric == MACRO_F1:
        return class_scores(line)
    score = question_score(line, metric)
    return {} if score is None else {None: score}


def lines_of(evaluation: Evaluation) -> Sequence[Mapping[str, Any]]:
    """The lines of `answers.jsonl` that are a single model's on its benchmark, of its one seed; none where none are.

    An evaluation that brings its answers packed (`comparison.packed`, one metric or a list of them) needs no file.
    """
    if packed := evaluation.about.get("answers"):
        return [line for one in ([packed] if isinstance(packed, Mapping) else packed) for line in unpacked(one)]
    if evaluation.answers is None or not evaluation.answers[0].is_file():
        return []
    file, subject = evaluation.answers
    seed, benchmark = evaluation.runs[0].seed, str(evaluation.benchmark.get("name"))
    own = [
        line
        for line in _read(file, file.stat().st_mtime_ns)
        if (line.get("benchmark"), line.get("subject")) == (benchmark, subject)
    ]
    # Greedy answers of a run say 0, the seed that they did not need, and its scores that of the training.
    by_seed = [line for line in own if line.get("seed") == seed]
    return by_seed or (own if len({line.get("seed") for line in own}) == 1 else [])


@functools.lru_cache(maxsize=16)
def _read(file: Path, changed: int) -> list[dict[str, Any]]:
    return read_jsonl(file)  # once for all columns of a table


def resampled(
    one: Evaluation, other: Evaluation, metric: Metric, by: str, column: str, *, confidence: float, comparisons: int
) -> Lead | None:
    """The lead of one model over another in one column, with an interval from drawing questions and runs again.

    Args:
        one: Read from files beside their `answers.jsonl`, over one or several runs.
        other: Another.
        metric: What is compared; where less is better, the lead is that of the negated scores.
        by: What the columns are.
        column: Which one.
        confidence: Of all intervals of the table together.
        comparisons: How many these are.

    Returns:
        None where the answers of a run are missing or do not have the metric, or the runs did not answer the same
        questions.
    """
    sides = []
    for each in (one, other):
        answers = _answers(each, metric, by, column)
        if not answers:
            return None
        sides.append(answers)
    asked = set()
    for run in itertools.chain(*sides):
        asked.add(frozenset((own.item, own.group) for own in run))
    if len(asked) != 1 or not all(asked):
        return None
    return lead(*sides, confidence=confidence, comparisons=comparisons)


def has_answers(evaluation: Evaluation) -> bool:
    """Whether the answers of every run are kept, whatever they say."""
    return all(lines_of(run) for run in _single(evaluation))


def _single(evaluation: Evaluation) -> list[Evaluation]:
    parts = evaluation.parts or (evaluation,)
    return [dataclasses.replace(part, runs=(run,)) for part in parts for run in part.runs]


def _answers(evaluation: Evaluation, metric: Metric, by: str, column: str) -> list[list[AnswerScore]]:
    """The answers of each run; nothing where those of one are missing."""
    found: list[list[AnswerScore]] = []
    for run in _single(evaluation):
        answers = [own for each in answers_by_run(lines_of(run), metric.name, by, column).values() for own in each]
        if not answers:
            return []
        if metric.better < 0:
            answers = [dataclasses.replace(own, value=-own.value) for own in answers]
        found.append(answers)
    return found
