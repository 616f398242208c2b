"""Several evaluations side by side, as data: means, the best and second best, and whether a lead is one.

A lead over seeds is tested with Almost Stochastic Order (`dudi.comparison.significance`), that of one single model over
another question by question, or item by item where questions share one (`dudi.comparison.paired`). The best and the
second best of each column are marked, and a diamond says that the best is significantly better than the next. In
Tables 2 and 3 of the paper (arXiv 2606.04694) all diamonds belong to one method, and its rival is the best other one
overall: `candidate`. That a method is better than each of several is more than one test: `rivals`.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dudi.comparison.bootstrap import FEWEST_ITEMS
from dudi.comparison.columns import column_errors, column_questions, column_scores, find_columns, find_metric
from dudi.comparison.items import has_answers, resampled
from dudi.comparison.paired import Paired
from dudi.comparison.same import check_comparable
from dudi.comparison.significance import TAU, aso
from dudi.comparison.single import tested_by_question
from dudi.errors import ConfigError, did_you_mean
from dudi.evaluation.metrics import OVERALL, Metric
from dudi.evaluation.records import Evaluation


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One method in one column.

    Attributes:
        mean: Over the runs, in the metric's shown unit; None where it was not measured.
        std: Standard deviation over the runs (ddof = 1), in the same unit; None for fewer than two.
        n: How many runs have a score here.
        best: Whether no other mean is better; several are where they tie.
        second: Whether only the best are better.
        eps: eps_min of this method; None where it was not tested. Of several tests, against rivals, the largest: all
            must be beaten. So are the next four of that test.
        against: The other side of it: the next best, or the candidate's rival.
        significant: Whether every test that was made of the method here says that it is better.
        p: Of a test over questions; None where there was none.
        test: Which one: `McNemar`, `paired permutation` or `paired permutation over items`.
        error: Standard error over questions, of one run that brings it; None for several.
    """

    mean: float | None
    std: float | None
    n: int
    best: bool = False
    second: bool = False
    eps: float | None = None
    against: str | None = None
    significant: bool = False
    p: float | None = None
    test: str | None = None
    error: float | None = None


class Drawn(enum.Enum):
    """What the items say of a lead that the seeds' scores show, or of single models a test over questions."""

    CARRIED = "carried"
    LOST = "lost"
    NOT_DRAWN = "not drawn"
    """Answers are kept, and do not tell the metric of the same questions: the lead does not count."""
    FEW = "few"
    """They are fewer than `FEWEST_ITEMS`: the lead does not count, and would not by any test."""
    NO_ANSWERS = "no answers"
    """None are kept: the lead rests on the seeds alone."""


@dataclasses.dataclass(frozen=True, slots=True)
class Duel:
    """One test: whether a method is better than another in a column.

    Attributes:
        column: Where.
        name: Who is tested.
        against: Whom it must beat: the next best, or one rival of the candidate's. Several, joined by commas, where the
            next best tie: all must be beaten, so the largest eps or p counts.
        difference: Of the means, in the metric's shown unit.
        eps: eps_min of Almost Stochastic Order over the seeds; None for single models.
        p: Of the test over questions of single models, two-sided; None over seeds.
        test: Which one, as in a cell; None over seeds.
        significant: Whether eps is below tau and, where answers are kept, a bootstrap over items carries the lead; or
            whether p is below what the tests of the table together leave each, in the favour of who is tested. Over
            fewer than `FEWEST_ITEMS` items none is.
        drawn: What that bootstrap says; None where eps is not below tau. Of single models `FEW` where p is below its
            bound over too few items, else None.
    """

    column: str
    name: str
    against: str
    difference: float
    eps: float | None = None
    p: float | None = None
    test: str | None = None
    significant: bool = False
    drawn: Drawn | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ComparedRow:
    """One method.

    Attributes:
        name: As its evaluation says.
        cells: One per column.
        runs: How many seeds it has.
        delta: Its overall mean less the baseline's; None for the baseline itself and where there is none.
        percent: The same in percent of the baseline's mean.
        reference: Whether it is only shown: not ranked, not tested.
    """

    name: str
    cells: tuple[Cell, ...]
    runs: int
    delta: float | None = None
    percent: float | None = None
    reference: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """A table of methods by languages, splits, tasks or competencies.

    Attributes:
        by: What the columns are.
        metric: What the numbers are.
        columns: Keys of the columns; the last is `overall`.
        rows: One per evaluation, in their order.
        benchmark: What was asked, of the first.
        duels: Every test that was made; the Bonferroni correction is for as many.
        confidence: Of all tests together.
        tau: Below it a lead counts as one.
        baseline: The row that `delta` is against.
        candidate: The row that was tested; None where the best of a column was against the next best.
        rivals: Against whom the candidate was tested; empty: the best other overall.
        differs: In what the evaluations are not the same, and were allowed to differ.
        notes: What else a reader must know: what could not be tested, where runs are missing.
    """

    by: str
    metric: Metric
    columns: tuple[str, ...]
    rows: tuple[ComparedRow, ...]
    benchmark: Mapping[str, Any]
    duels: tuple[Duel, ...]
    confidence: float
    tau: float
    baseline: str | None
    candidate: str | None
    rivals: tuple[str, ...]
    differs: tuple[str, ...]
    notes: tuple[str, ...]

    def cell(self, name: str, column: str) -> Cell:
        """The cell of a method and a column."""
        row = next(row for row in self.rows if row.name == name)
        return row.cells[self.columns.index(column)]


_Scores = Mapping[str, Mapping[str, list[float]]]
"""By column, then method: one value per run, in the shown unit."""
_Test = tuple[str, str, tuple[str, ...]]
"""A column, who is tested, and against whom: several where the next best tie."""


def compare(
    evaluations: Sequence[Evaluation],
    *,
    by: str = "language",
    metric: str | None = None,
    confidence: float = 0.95,
    tau: float = TAU,
    baseline: str | None = None,
    candidate: str | None = None,
    rivals: Sequence[str] = (),
    references: Collection[str] = (),
    allow_different: Collection[str] = (),
) -> Comparison:
    """Put evaluations side by side.

    Args:
        evaluations: One per method, each with its runs.
        by: What the columns are: `language`, `split`, `task`, `competency` or any other `by_...` of the scores;
            `overall` for no column but the last.
        metric: A metric of the scores; None takes `score` or `exact_match`, whichever there is.
        confidence: Of all tests together (Bonferroni).
        tau: A lead counts as one where eps_min is below it.
        baseline: Name of the method that the others' overall mean is held against.
        candidate: Name of the one method whose diamonds are wanted, each against the best other overall; None tests
            the best of each column against its next best.
        rivals: Names of methods that the candidate is tested against in the place of the best other, one by one.
        references: Names of methods that are shown and neither ranked nor tested, such as the teacher. Their seeds may
            differ from the others'.
        allow_different: Keys in which the evaluations may differ; the table then says so.

    Raises:
        ConfigError: the evaluations do not compare; unknown names, metrics or columns.
        DataError: a score is not a finite number.
    """
    _check_options(confidence, tau)
    _check_names(evaluations, baseline, candidate, rivals, references)
    differs = check_comparable(evaluations, references=references, allow=allow_different)
    chosen = find_metric(evaluations, by, metric)
    scores = {
        column: column_scores(evaluations, by, column, chosen) for column in [*find_columns(evaluations, by), OVERALL]
    }
    contestants = [one.name for one in evaluations if one.name not in references]
    ranks = {column: _ranked(own, contestants, chosen) for column, own in scores.items()}
    planned = _planned(ranks, contestants, scores, chosen, candidate, rivals)
    by_name = {one.name: one for one in evaluations}
    over_seeds: list[_Test] = []
    paired: dict[_Test, Paired] = {}
    for test in planned:
        column, name, against = test
        if min(len(scores[column][one]) for one in (name, *against)) >= 2:
            over_seeds.append(test)
        elif (found := _paired(by_name, test, chosen, by)) is not None:
            paired[test] = found
    count = len(over_seeds) + len(paired)
    eps = {test: _eps(scores, test, chosen, confidence, count) for test in over_seeds}
    leads = [test for test in over_seeds if eps[test] < tau]
    drawn = {test: _drawn(by_name, test, chosen, by, confidence, count) for test in leads}
    level = (1 - confidence) / max(1, count)
    made = [test for test in planned if test in eps or test in paired]
    duels = [_duel(scores, test, eps.get(test), drawn.get(test), paired.get(test), level) for test in made]
    errors = {column: column_errors(evaluations, by, column, chosen) for column in scores}
    rows = [_row(one, scores, errors, ranks, duels, one.name in references) for one in evaluations]
    untested = _pairs([test for test in planned if test not in made])
    notes = [
        *_of_luck(dict(zip(made, duels, strict=True)), chosen),
        *(f"Not tested, since a test needs 2 scores a side: {pair}" for pair in untested),
        *_fewer(evaluations, scores),
    ]
    return Comparison(
        by=by,
        metric=chosen,
        columns=tuple(scores),
        rows=tuple(_with_delta(row, rows, baseline) for row in rows),
        benchmark=evaluations[0].benchmark,
        duels=tuple(duels),
        confidence=confidence,
        tau=tau,
        baseline=baseline,
        candidate=candidate,
        rivals=tuple(rivals),
        differs=tuple(differs),
        notes=tuple(notes),
    )


def _check_options(confidence: float, tau: float) -> None:
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must be between 0 and 1, such as 0.95; got {confidence}")
    if not 0 < tau <= 1:
        raise ConfigError(f"tau must be above 0 and at most 1, such as {TAU}; got {tau}")


def _check_names(
    evaluations: Sequence[Evaluation],
    baseline: str | None,
    candidate: str | None,
    rivals: Sequence[str],
    references: Collection[str],
) -> None:
    if not evaluations:
        raise ConfigError("compare: name at least one evaluation")
    names = [one.name for one in evaluations]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"compare: two evaluations are called '{twice[0]}'; give each a name of its own")
    asked = [("baseline", baseline), ("candidate", candidate), *(("reference", name) for name in references)]
    for role, name in [*asked, *(("rival", name) for name in rivals)]:
        if name is not None and name not in names:
            hint = did_you_mean(name, names) or f"; there is {', '.join(names)}"
            raise ConfigError(f"{role}: no evaluation is called '{name}'{hint}")
    if candidate in references:
        raise ConfigError(f"candidate: '{candidate}' is a reference, which is not tested")
    if rivals and candidate is None:
        raise ConfigError("rivals: of whom? Name the candidate too")
    for name in rivals:
        if name == candidate or name in references:
            what = "the candidate itself" if name == candidate else "a reference, which is not tested"
            raise ConfigError(f"rivals: '{name}' is {what}")


def _ranked(scores: Mapping[str, list[float]], names: Sequence[str], metric: Metric) -> tuple[list[str], list[str]]:
    """The best and the second best; equal means share a place. Nobody, where there is nothing to be better than."""
    means = {name: metric.better * statistics.fmean(scores[name]) for name in names if scores[name]}
    if not metric.better or len(means) < 2:
        return [], []
    best = _top(means)
    return best, _top({name: mean for name, mean in means.items() if name not in best})


def _top(means: Mapping[str, float]) -> list[str]:
    most = max(means.values(), default=0.0)
    return [name for name, mean in means.items() if math.isclose(mean, most, rel_tol=1e-9, abs_tol=1e-12)]


def _planned(
    ranks: Mapping[str, tuple[list[str], list[str]]],
    names: Sequence[str],
    scores: _Scores,
    metric: Metric,
    candidate: str | None,
    rivals: Sequence[str],
) -> list[_Test]:
    """Who should be tested against whom: a method that shares the first place leads nobody."""
    if candidate is None:
        return [(column, best[0], tuple(second)) for column, (best, second) in ranks.items() if len(best) == 1]
    others = [name for name in names if name != candidate]
    best = _top({name: metric.better * statistics.fmean(own) for name in others if (own := scores[OVERALL][name])})
    if not metric.better:
        return []
    return [
        (column, candidate, (rival,))
        for column, own in scores.items()
        for rival in dict.fromkeys(rivals or best[:1])
        if own[candidate] and own[rival]
    ]


def _eps(scores: _Scores, test: _Test, metric: Metric, confidence: float, tests: int) -> float:
    """eps_min; against several the largest, since all must be beaten."""
    column, name, rivals = test
    own, *others = ([metric.better * value for value in scores[column][one]] for one in (name, *rivals))
    return max(aso(own, other, confidence, comparisons=tests) for other in others)


def _paired(by_name: Mapping[str, Evaluation], test: _Test, metric: Metric, by: str) -> Paired | None:
    """The test over questions; against several the largest p, since all must be beaten."""
    column, name, rivals = test
    found = [tested_by_question(by_name[name], by_name[rival], metric, by, column) for rival in rivals]
    known = [one for one in found if one is not None]
    return max(known, key=lambda one: one.p) if known and len(known) == len(found) else None


def _drawn(
    by_name: Mapping[str, Evaluation], test: _Test, metric: Metric, by: str, confidence: float, tests: int
) -> Drawn:
    """What drawing the items again says; against several all must be beaten."""
    column, name, rivals = test
    keys: dict[str, Any] = {"confidence": confidence, "comparisons": tests}
    leads = [resampled(by_name[name], by_name[rival], metric, by, column, **keys) for rival in rivals]
    if any(found.few if found is not None else _few_questions(by_name[name], by, column) for found in leads):
        return Drawn.FEW
    if any(found is not None and not found.carried for found in leads):
        return Drawn.LOST
    if None not in leads:
        return Drawn.CARRIED
    return Drawn.NOT_DRAWN if all(has_answers(by_name[one]) for one in (name, *rivals)) else Drawn.NO_ANSWERS


def _few_questions(evaluation: Evaluation, by: str, column: str) -> bool:
    """Whether the scores alone tell that there are too few items: no more than there are questions."""
    count = column_questions(evaluation, by, column)
    return count is not None and count < FEWEST_ITEMS


def _duel(
    scores: _Scores, test: _Test, eps: float | None, drawn: Drawn | None, paired: Paired | None, level: float
) -> Duel:
    """A test over the seeds, or of single models over questions; p has to be below `level`."""
    column, name, rivals = test
    # Several rivals tie, so that any of them will do.
    difference = statistics.fmean(scores[column][name]) - statistics.fmean(scores[column][rivals[0]])
    duel = Duel(column, name, ", ".join(rivals), difference)
    if paired is None:
        significant = drawn in (Drawn.CARRIED, Drawn.NO_ANSWERS)
        return dataclasses.replace(duel, eps=eps, significant=significant, drawn=drawn)
    ahead, few = paired.p < level and paired.difference > 0, paired.items < FEWEST_ITEMS
    drawn = Drawn.FEW if ahead and few else None
    return dataclasses.replace(duel, p=paired.p, test=paired.test, significant=ahead and not few, drawn=drawn)


def _row(
    evaluation: Evaluation,
    scores: _Scores,
    errors: Mapping[str, Mapping[str, float]],
    ranks: Mapping[str, tuple[list[str], list[str]]],
    duels: Sequence[Duel],
    reference: bool,
) -> ComparedRow:
    name = evaluation.name
    cells = []
    for column, own in scores.items():
        (best, second), values = ranks[column], own[name]
        tested = [one for one in duels if (one.name, one.column) == (name, column)]
        cells.append(
            Cell(
                mean=statistics.fmean(values) if values else None,
                std=statistics.stdev(values) if len(values) > 1 else None,
                n=len(values),
                best=name in best,
                second=name in second,
                error=errors[column].get(name) if values else None,
                **_hardest(tested),
            )
        )
    return ComparedRow(name, tuple(cells), len(evaluation.runs), reference=reference)


def _hardest(tested: Sequence[Duel]) -> dict[str, Any]:
    """What a cell keeps of its tests: the one that says least for the method, and whether all speak for it."""
    if not tested:
        return {}
    # One of single models is no lead if it is in the other's favour, however small p is.
    hardest = max(tested, key=lambda one: (not one.significant, max(one.eps or 0.0, one.p or 0.0)))
    kept = {name: getattr(hardest, name) for name in ("eps", "p", "test", "against")}
    return {**kept, "significant": all(one.significant for one in tested)}


def _with_delta(row: ComparedRow, rows: Sequence[ComparedRow], baseline: str | None) -> ComparedRow:
    base = next((one.cells[-1].mean for one in rows if one.name == baseline), None)
    mean = row.cells[-1].mean
    if base is None or mean is None or row.name == baseline:
        return row
    delta = mean - base
    return dataclasses.replace(row, delta=delta, percent=100 * delta / base if base else None)


def _of_luck(duels: Mapping[_Test, Duel], metric: Metric) -> list[str]:
    """One line for each pair whose test shows a lead that the items do not carry, or could not be asked to."""
    why = {
        Drawn.LOST: "other questions could turn",
        Drawn.NOT_DRAWN: f"not held against other items, since the answers do not tell {metric.name} of the same "
        "questions:",
        Drawn.FEW: f"fewer than {FEWEST_ITEMS} items carry none:",
    }
    lines = []
    for (verdict, told), measure in itertools.product(why.items(), ("eps_min", "p")):
        own = [test for test, duel in duels.items() if duel.drawn is verdict and (duel.p is None) == (measure != "p")]
        pairs = _pairs(sorted(own))
        lines += [f"No lead, though {measure} says so: {told} {pair}" for pair in pairs]
    return lines


def _pairs(tests: Sequence[_Test]) -> list[str]:
    """Who is tested against whom, and in which columns."""
    pairs: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for test in tests:
        pairs.setdefault(test[1:], []).append(test[0])
    return [f"{name} against {', '.join(rivals)} ({', '.join(columns)})" for (name, rivals), columns in pairs.items()]


def _fewer(evaluations: Sequence[Evaluation], scores: _Scores) -> list[str]:
    """One line for each method that some seeds have no score of."""
    lines = []
    for one in evaluations:
        counts = {column: len(own[one.name]) for column, own in scores.items()}
        short = [f"{column} {count}" for column, count in counts.items() if 0 < count < len(one.runs)]
        if short:
            lines.append(f"{one.name}: of {len(one.runs)} seeds, scores are there for {', '.join(short)}")
    return lines
