"""Tests over questions for two single models: held against scipy, against all signs, and against chance."""

import itertools

import numpy as np
import pytest

from dudi.comparison.paired import DRAWS, EXACT, MCNEMAR, PERMUTATION, mcnemar, paired_permutation, paired_test
from dudi.errors import ConfigError

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize(
    ("only_a", "only_b"), [(0, 0), (1, 0), (5, 0), (9, 2), (2, 9), (40, 25), (300, 310), (1000, 1200)]
)
def test_mcnemar_as_scipys_binomial_test(only_a, only_b):
    expected = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_few_differences_are_gone_through(count):
    values = np.random.default_rng(count).normal(0.3, 1, count)
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, values, strict=True)))
        for signs in itertools.product((1, -1), repeat=count)
    ]
    expected = np.mean(np.array(sums) >= abs(values.sum()) - 1e-12)
    assert paired_permutation(values) == pytest.approx(expected)


def test_as_scipys_permutation_test():
    generator = np.random.default_rng(1)
    a, b = generator.normal(0.2, 1, 60), generator.normal(0, 1, 60)
    theirs = stats.permutation_test(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        n_resamples=20_000,
        vectorized=True,
        rng=2,
    )
    ours = paired_test(a, b)
    assert ours.test == PERMUTATION and ours.p == pytest.approx(theirs.pvalue, abs=0.015)
    assert ours.difference == pytest.approx((a - b).mean()) and ours.questions == 60


def test_draws_and_all_signs_agree_where_both_can_be():
    values = np.random.default_rng(5).normal(0.4, 1, EXACT)
    exact = paired_permutation(values)
    drawn = paired_permutation(np.append(values, [1e-15, -1e-15]))  # two more, that change no sum
    assert drawn == pytest.approx(exact, abs=0.015) and drawn == paired_permutation(np.append(values, [1e-15, -1e-15]))


def test_right_or_wrong_is_mcnemars_and_the_permutation_test_agrees():
    generator = np.random.default_rng(3)
    a, b = (generator.random(12) < 0.7).astype(float), (generator.random(12) < 0.5).astype(float)
    found = paired_test(a, b)
    assert found.test == MCNEMAR
    assert paired_permutation(a - b) == pytest.approx(found.p)  # signs of ones are coins


def test_weights_make_a_permutation_test_of_the_weighted_mean():
    found = paired_test([1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 5.0, 1.0])
    assert (found.test, found.p) == (PERMUTATION, 1.0) and found.difference == pytest.approx(-3 / 7)  # 3 is the least
    assert paired_test([1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 5.0, 1.0]).p == pytest.approx(2 / 8)  # 7 and -7


def test_no_difference_is_no_evidence():
    assert paired_test([1, 0, 1], [1, 0, 1]).p == 1.0
    assert paired_test([0.5, 0.2], [0.5, 0.2]).p == 1.0
    assert paired_permutation([]) == 1.0


def test_p_is_never_zero():
    assert paired_permutation(np.ones(500)) == pytest.approx(1 / (DRAWS + 1))


def test_false_alarms_are_as_many_as_they_should_be():
    """Two models that are alike: p below 0.05 in about one of twenty."""
    generator = np.random.default_rng(0)
    alarms = [paired_permutation(generator.normal(0, 1, 40), draws=500) < 0.05 for _ in range(400)]
    assert 0.02 < np.mean(alarms) < 0.09


def test_what_is_refused():
    with pytest.raises(ConfigError, match="the same questions on both sides, got 2 and 1"):
        paired_test([1, 0], [1])
    with pytest.raises(ConfigError, match="got 0 and 0"):
        paired_test([], [])
