"""Two single models on the same questions: from the answers beside their scores to a paired test."""

from __future__ import annotations

from dudi.comparison.items import lines_of
from dudi.comparison.paired import Paired, paired_test
from dudi.evaluation.metrics import Metric
from dudi.evaluation.question_scores import question_scores, weights_of
from dudi.evaluation.records import Evaluation


def tested_by_question(one: Evaluation, other: Evaluation, metric: Metric, by: str, column: str) -> Paired | None:
    """The paired test of one single model against another in one column.

    Args:
        one: An evaluation of one run, read from a file beside its `answers.jsonl`.
        other: Another.
        metric: What is compared; where less is better, the test takes the negated scores.
        by: What the columns are.
        column: Which one.

    Returns:
        The test, over items where several questions share one; None where one has several runs or no answers, or they
        did not answer the same questions.
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
