"""Two single models on the same questions: from the answers beside their scores to a paired test."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.comparison.paired import Paired, paired_test
from dudi.evaluation.metrics import Metric
from dudi.evaluation.question_scores import question_scores, weights_of
from dudi.evaluation.records import Evaluation
from dudi.training.runlog import read_jsonl


def tested_by_question(one: Evaluation, other: Evaluation, metric: Metric, by: str, column: str) -> Paired | None:
    """The paired test of one single model against another in one column.

    Args:
        one: An evaluation of one run, read from a file beside its `answers.jsonl`.
        other: Another.
        metric: What is compared; where less is better, the test takes the negated scores.
        by: What the columns are.
        column: Which one.

    Returns:
        The test; None where one has several runs or no answers, or they did not answer the same questions.
    """
    if len(one.runs) != 1 or len(other.runs) != 1:
        return None
    own, theirs = (question_scores(_lines(each), metric.name, by, column) for each in (one, other))
    if not own or set(own) != set(theirs):
        return None
    scores, rivals = list(own.values()), [theirs[name] for name in own]
    a, b = ([metric.better * score.value for score in side] for side in (scores, rivals))
    return paired_test(a, b, weights_of(scores))


def _lines(evaluation: Evaluation) -> Sequence[Mapping[str, Any]]:
    """The lines of a single model on its benchmark, of its one seed."""
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
