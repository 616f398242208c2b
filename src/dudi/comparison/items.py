"""From lines of `answers.jsonl` to tests: runs as items that can be drawn again, single models question by question."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.comparison.bootstrap import AnswerScore, Lead, lead
from dudi.comparison.packed import unpacked
from dudi.comparison.paired import Paired, paired_test
from dudi.evaluation.metrics import MACRO_F1, OVERALL, Metric
from dudi.evaluation.question_scores import (
    class_scores,
    in_column,
    question_score,
    question_scores,
    weights_of,
)
from dudi.evaluation.records import Evaluation
from dudi.training.runlog import read_jsonl


def answers_by_run(
    lines: Iterable[Mapping[str, Any]], metric: str, by: str = OVERALL, column: str = OVERALL
) -> dict[int, list[AnswerScore]]:
    """What each answer of each run is worth in one column of a table.

    Args:
        lines: Lines of `answers.jsonl`, of one model and benchmark; a line's `seed` says which run it is of.
        metric: Such as `accuracy` or `bits_per_byte`. `macro_f1`, which no single answer has, is made of labels and
            answers, where the lines have both.
        by: `language`, `split`, `task`: what a line must say.
        column: What it must say there; `overall` takes every line. Only those that count in the column are taken.

    Returns:
        By seed. An item is a line's `item`, what it has in common with the same question in other languages, else its
        `id`; a group is the cell that the benchmark averages, where it averages cells.
    """
    runs: dict[int, list[AnswerScore]] = {}
    for line in in_column(lines, by, column):
        parts = class_scores(line) if metric == MACRO_F1 else {None: question_score(line, metric)}
        for part, score in parts.items():
            if score is not None:
                own = AnswerScore(score.item, score.cell, score.value * score.weight, score.weight, part)
                runs.setdefault(int(line.get("seed") or 0), []).append(own)
    return runs


def lines_of(evaluation: Evaluation) -> Sequence[Mapping[str, Any]]:
    """The lines of `answers.jsonl` that are a single model's on its benchmark, of its one seed; none where none are.

    An evaluation that brings its answers packed (`comparison.packed`, one metric or a list of them) needs no file.
    """
    if packed := evaluation.about.get("answers"):
        return [line for one in ([packed] if isinstance(packed, Mapping) else packed) for line in unpacked(one)]
    if evaluation.answers is None or not evaluation.answers[0].is_file():
        return []
    file, subject = evaluation.answers
    name = (str(evaluation.benchmark.get("name")), subject)
    lines = _read(file, file.stat().st_mtime_ns)
    own = [line for line in lines if (line.get("benchmark"), line.get("subject")) == name]
    # Greedy answers of a run say 0, the seed that they did not need, and its scores that of the training.
    by_seed = [line for line in own if line.get("seed") == evaluation.runs[0].seed]
    return by_seed or (own if len({line.get("seed") for line in own}) == 1 else [])


@functools.lru_cache(maxsize=16)
def _read(file: Path, changed: int) -> list[dict[str, Any]]:
    return read_jsonl(file)  # once for all columns of a table


def resampled(
    one: Evaluation, other: Evaluation, metric: Metric, by: str, column: str, *, confidence: float, comparisons: int
) -> Lead | None:
    """The lead of one model over another in one column, with an interval from drawing questions and runs again.

    Both were read from files beside their `answers.jsonl`. Where less is better, the lead is that of the negated
    scores. `confidence` is that of all `comparisons` intervals of the table together.

    Returns:
        None where the answers of a run are missing or do not have the metric, or the runs did not answer the same
        questions.
    """
    sides: list[list[list[AnswerScore]]] = []
    asked = set()
    for side in (one, other):
        sides.append([])
        for run in _single(side):
            by_run = answers_by_run(lines_of(run), metric.name, by, column)
            answers = list(itertools.chain(*by_run.values()))
            if metric.better < 0:
                answers = [dataclasses.replace(own, value=-own.value) for own in answers]
            asked.add(frozenset((own.item, own.group) for own in answers))
            sides[-1].append(answers)
    if len(asked) != 1 or not all(asked):
        return None
    return lead(*sides, confidence=confidence, comparisons=comparisons)


def tested_by_question(one: Evaluation, other: Evaluation, metric: Metric, by: str, column: str) -> Paired | None:
    """The paired test of one single model against another in one column, over items where several questions share one.

    Both were read from files beside their `answers.jsonl`. Where less is better, the test takes the negated scores.

    Returns:
        None where one has several runs or no answers, or they did not answer the same questions.
    """
    if len(one.runs) != 1 or len(other.runs) != 1:
        return None
    own, theirs = (question_scores(lines_of(each), metric.name, by, column) for each in (one, other))
    if not own or set(own) != set(theirs):
        return None
    scores, rivals = list(own.values()), [theirs[name] for name in own]
    items = [score.item for score in scores]
    if items != [score.item for score in rivals]:
        return None
    a = [metric.better * score.value for score in scores]
    b = [metric.better * score.value for score in rivals]
    return paired_test(a, b, weights_of(scores), items=items)


def has_answers(evaluation: Evaluation) -> bool:
    """Whether the answers of every run are kept, whatever they say."""
    return all(lines_of(run) for run in _single(evaluation))


def _single(evaluation: Evaluation) -> list[Evaluation]:
    parts = evaluation.parts or (evaluation,)
    return [dataclasses.replace(part, runs=(run,)) for part in parts for run in part.runs]
