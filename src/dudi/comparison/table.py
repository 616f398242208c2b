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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dudi.comparison.bootstrap import FEWEST_ITEMS
from dudi.comparison.columns import column_place, column_questions, column_scores, find_columns, find_metric
from dudi.comparison.items import has_answers, resampled, tested_by_question
from dudi.comparison.paired import Paired
from dudi.comparison.same import check_comparable
from dudi.comparison.significance import TAU, aso, check_confidence
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
            must be beaten. So are `against`, `p` and `test`, which are as in a `Duel`.
        significant: Whether every test that was made of the method here says that it is better.
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
        name: Who is tested.
        against: Whom it must beat: the next best, or one rival of the candidate's. Several, joined by commas, where the
            next best tie: all must be beaten, so the largest eps or p counts.
        difference: Of the means, in the metric's shown unit.
        eps: eps_min of Almost Stochastic Order over the seeds; None for single models.
        p: Of the test over questions of single models, two-sided; None over seeds.
        test: Which one: `McNemar`, `paired permutation` or `paired permutation over items`; None over seeds.
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


class _Test(NamedTuple):
    """Who is tested in a column, and against whom: several where the next best tie."""

    column: str
    name: str
    rivals: tuple[str, ...]


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
    check_confidence(confidence)
    if not 0 < tau <= 1:
        raise ConfigError(f"tau must be above 0 and at most 1, such as {TAU}; got {tau}")
    _check_names(evaluations, baseline, candidate, rivals, references)
    differs = check_comparable(evaluations, references=references, allow=allow_different)
    chosen = find_metric(evaluations, by, metric)
    values = {}
    for column in find_columns(evaluations, by):
        values[column] = column_scores(evaluations, column_place(by, column), chosen)
    scores = _Scores(
        by_name={one.name: one for one in evaluations},
        by=by,
        metric=chosen,
        values=values,
        contestants=[one.name for one in evaluations if one.name not in references],
        confidence=confidence,
        tau=tau,
    )
    planned = scores.planned(candidate, rivals)
    made: dict[_Test, Paired | None] = {}
    for test in planned:
        if min(len(scores.values[test.column][one]) for one in (test.name, *test.rivals)) >= 2:
            made[test] = None  # over the seeds
        elif (paired := scores.paired(test)) is not None:
            made[test] = paired
    duels = [scores.duel(test, paired, len(made)) for test, paired in made.items()]
    untested = [(test.column, test.name, ", ".join(test.rivals)) for test in planned if test not in made]
    notes = [
        *_of_luck(duels, chosen),
        *(f"Not tested, since a test needs 2 scores a side: {pair}" for pair in _pairs(untested)),
        *scores.fewer(),
    ]
    return Comparison(
        by=by,
        metric=chosen,
        columns=tuple(scores.values),
        rows=tuple(scores.rows(duels, baseline)),
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


@dataclasses.dataclass(frozen=True, slots=True)
class _Scores:
    """Everybody's scores, and what is tested of them.

    Attributes:
        values: By column, then name: one value per run, in the shown unit.
        contestants: Who is ranked and tested.
    """

    by_name: Mapping[str, Evaluation]
    by: str
    metric: Metric
    values: Mapping[str, Mapping[str, list[float]]]
    contestants: Sequence[str]
    confidence: float
    tau: float

    def ranked(self, column: str) -> tuple[list[str], list[str]]:
        """The best and the second best; equal means share a place. Nobody, where there is nothing to be better than."""
        scores = self.values[column]
        means = {name: self.metric.better * statistics.fmean(scores[name]) for name in self.contestants if scores[name]}
        if not self.metric.better or len(means) < 2:
            return [], []
        best = _top(means)
        return best, _top({name: mean for name, mean in means.items() if name not in best})

    def planned(self, candidate: str | None, rivals: Sequence[str]) -> list[_Test]:
        """Who should be tested against whom: a method that shares the first place leads nobody."""
        tests = []
        if candidate is None:
            for column in self.values:
                best, second = self.ranked(column)
                tests += [_Test(column, best[0], tuple(second))] if len(best) == 1 else []
            return tests
        if not self.metric.better:
            return []
        overall = {name: own for name, own in self.values[OVERALL].items() if name in self.contestants and own}
        means = {name: self.metric.better * statistics.fmean(own) for name, own in overall.items() if name != candidate}
        against = list(dict.fromkeys(rivals)) or _top(means)[:1]
        for column, own in self.values.items():
            tests += [_Test(column, candidate, (rival,)) for rival in against if own[candidate] and own[rival]]
        return tests

    def paired(self, test: _Test) -> Paired | None:
        """The test over questions; against several the largest p, since all must be beaten."""
        found = []
        for rival in test.rivals:
            one, other = self.by_name[test.name], self.by_name[rival]
            found.append(tested_by_question(one, other, self.metric, self.by, test.column))
        known = [one for one in found if one is not None]
        return max(known, key=lambda one: one.p) if known and len(known) == len(found) else None

    def duel(self, test: _Test, paired: Paired | None, tests: int) -> Duel:
        """A test over the seeds, or over questions; one of so many tests."""
        # Several rivals tie, so that any of them will do.
        own, *others = (self.values[test.column][name] for name in (test.name, *test.rivals))
        duel = Duel(test.column, test.name, ", ".join(test.rivals), statistics.fmean(own) - statistics.fmean(others[0]))
        if paired is None:
            first, *seconds = (self.metric.better * np.asarray(side) for side in (own, *others))
            eps = max(aso(first, second, self.confidence, comparisons=tests) for second in seconds)
            drawn = self._drawn(test, tests) if eps < self.tau else None
            significant = drawn in (Drawn.CARRIED, Drawn.NO_ANSWERS)
            return dataclasses.replace(duel, eps=eps, significant=significant, drawn=drawn)
        ahead = paired.p < (1 - self.confidence) / tests and paired.difference > 0
        few = paired.items < FEWEST_ITEMS
        drawn = Drawn.FEW if ahead and few else None
        return dataclasses.replace(duel, p=paired.p, test=paired.test, significant=ahead and not few, drawn=drawn)

    def _drawn(self, test: _Test, tests: int) -> Drawn:
        """What drawing the items again says; against several all must be beaten."""
        one, rivals = self.by_name[test.name], [self.by_name[rival] for rival in test.rivals]
        leads = []
        for rival in rivals:
            column = (self.metric, self.by, test.column)
            leads.append(resampled(one, rival, *column, confidence=self.confidence, comparisons=tests))
        known = [found for found in leads if found is not None]
        missing = len(known) < len(leads)
        # Where nothing is drawn, the scores alone may tell that there are too few items: no more than questions.
        few = missing and column_questions(one, column_place(self.by, test.column)) < FEWEST_ITEMS
        if few or any(found.few for found in known):
            return Drawn.FEW
        if not all(found.carried for found in known):
            return Drawn.LOST
        if not missing:
            return Drawn.CARRIED
        return Drawn.NOT_DRAWN if all(map(has_answers, (one, *rivals))) else Drawn.NO_ANSWERS

    def rows(self, duels: Sequence[Duel], baseline: str | None) -> Iterator[ComparedRow]:
        """A row for everybody, with what the tests say."""
        ranks = {column: self.ranked(column) for column in self.values}
        base = None if baseline is None else self.values[OVERALL][baseline]
        for name, one in self.by_name.items():
            cells = []
            for column, scores in self.values.items():
                values, (best, second) = scores[name], ranks[column]
                error = one.error(self.metric.name, *column_place(self.by, column)) if values else None
                cells.append(
                    Cell(
                        mean=statistics.fmean(values) if values else None,
                        std=statistics.stdev(values) if len(values) > 1 else None,
                        n=len(values),
                        best=name in best,
                        second=name in second,
                        error=None if error is None else self.metric.scale * error,
                        **_hardest([duel for duel in duels if (duel.name, duel.column) == (name, column)]),
                    )
                )
            row = ComparedRow(name, tuple(cells), len(one.runs), reference=name not in self.contestants)
            if base and cells[-1].mean is not None and name != baseline:
                mean = statistics.fmean(base)
                delta = cells[-1].mean - mean
                row = dataclasses.replace(row, delta=delta, percent=100 * delta / mean if mean else None)
            yield row

    def fewer(self) -> Iterator[str]:
        """One line for each method that some seeds have no score of."""
        for name, one in self.by_name.items():
            counts = {column: len(scores[name]) for column, scores in self.values.items()}
            short = [f"{column} {count}" for column, count in counts.items() if 0 < count < len(one.runs)]
            if short:
                yield f"{name}: of {len(one.runs)} seeds, scores are there for {', '.join(short)}"


def _top(means: Mapping[str, float]) -> list[str]:
    most = max(means.values(), default=0.0)
    return [name for name, mean in means.items() if math.isclose(mean, most, rel_tol=1e-9, abs_tol=1e-12)]


def _hardest(tested: Sequence[Duel]) -> dict[str, Any]:
    """What a cell keeps of its tests: the one that says least for the method, and whether all speak for it."""
    if not tested:
        return {}
    # One of single models is no lead if it is in the other's favour, however small p is.
    hardest = max(tested, key=lambda one: (not one.significant, max(one.eps or 0.0, one.p or 0.0)))
    kept = {name: getattr(hardest, name) for name in ("eps", "p", "test", "against")}
    return {**kept, "significant": all(one.significant for one in tested)}


def _of_luck(duels: Sequence[Duel], metric: Metric) -> Iterator[str]:
    """One line for each pair whose test shows a lead that the items do not carry, or could not be asked to."""
    why = {
        Drawn.LOST: "other questions could turn",
        Drawn.NOT_DRAWN: f"not held against other items, since the answers do not tell {metric.name} of the same "
        "questions:",
        Drawn.FEW: f"fewer than {FEWEST_ITEMS} items carry none:",
    }
    for (verdict, told), measure in itertools.product(why.items(), ("eps_min", "p")):
        own = [duel for duel in duels if duel.drawn is verdict and (duel.p is None) == (measure != "p")]
        for pair in _pairs(sorted((duel.column, duel.name, duel.against) for duel in own)):
            yield f"No lead, though {measure} says so: {told} {pair}"


def _pairs(tests: Iterable[tuple[str, str, str]]) -> list[str]:
    """Who is tested against whom, and in which columns."""
    pairs: dict[str, list[str]] = {}
    for column, name, against in tests:
        pairs.setdefault(f"{name} against {against}", []).append(column)
    return [f"{pair} ({', '.join(columns)})" for pair, columns in pairs.items()]
