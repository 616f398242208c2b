"""Almost Stochastic Order: what must hold of it, the definition done by hand, and another implementation's numbers."""

import itertools
import json
import math
import statistics
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dudi.comparison.significance import TAU, _quantiles, aso, violation_ratio
from dudi.errors import ConfigError

A = [53.2, 49.6, 46.8, 53.4]  # overlap: A is better in all but the lowest score
B = [49.4, 49.2, 47.1, 51.0]
REFERENCES = json.loads((Path(__file__).parents[1] / "references" / "aso_deepsig.json").read_text(encoding="utf-8"))
PAIRS = [(one["scores_a"], one["scores_b"]) for one in REFERENCES["pairs"]]

numbers = st.integers(-50, 50).map(float)
score_sets = st.lists(numbers, min_size=1, max_size=9)


class TestWhatMustHold:
    def test_dominance_is_0_and_the_reverse_is_1(self):
        better, worse = [0.71, 0.74, 0.72], [0.55, 0.60, 0.58, 0.59]
        assert aso(better, worse) == 0.0
        assert aso(worse, better) == 1.0

    @given(score_sets, st.integers(0, 3))
    @settings(max_examples=25, deadline=None)
    def test_equal_sets_are_a_half_in_any_order(self, scores, seed):
        assert aso(scores, sorted(scores, reverse=True), seed=seed, bootstraps=10) == 0.5
        assert aso(scores, scores + scores, bootstraps=10) == 0.5  # the same distribution

    def test_one_seed_one_value_and_nothing_global(self):
        np.random.seed(5)  # noqa: NPY002  # what a caller may rely on
        before = np.random.get_state()[1].tolist()  # noqa: NPY002
        values = [aso(A, B, seed=seed) for seed in (0, 0, 1, 2)]
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
        assert values[0] == values[1]
        assert len(set(values)) == 3
        assert isinstance(values[0], float) and not isinstance(values[0], np.floating)

    @given(st.permutations(A), st.permutations(B))
    @settings(max_examples=10, deadline=None)
    def test_the_order_of_scores_is_irrelevant(self, a, b):
        assert aso(a, b, bootstraps=50) == aso(A, B, bootstraps=50)

    @pytest.mark.parametrize("pair", PAIRS[::4])
    def test_more_separation_is_not_more_epsilon(self, pair):
        a, b = (np.array(scores) for scores in pair)
        moved = [aso(a + shift, b, bootstraps=300) for shift in (-30, -4, -2, 0, 2, 4, 30)]
        assert moved == sorted(moved, reverse=True)
        assert (moved[0], moved[-1]) == (1.0, 0.0)

    @pytest.mark.parametrize("pair", PAIRS[::4])
    def test_bonferroni_is_not_less_epsilon(self, pair):
        corrected = [aso(*pair, comparisons=count) for count in (1, 2, 7, 70)]
        assert corrected == sorted(corrected)
        assert corrected[0] < corrected[1]

    def test_bonferroni_divides_what_confidence_leaves(self):
        assert aso(A, B, comparisons=10) == pytest.approx(aso(A, B, confidence=0.995), abs=1e-9)
        assert aso(A, B, comparisons=10**17) == 1.0  # 1 - 5e-19 is 1.0 in float64, and the bound still holds

    @given(score_sets, score_sets, st.sampled_from([2.0**-900, 0.25, 1024.0, 2.0**900]))
    @settings(max_examples=25, deadline=None)
    def test_the_unit_is_irrelevant(self, a, b, unit):
        scaled = aso([unit * x for x in a], [unit * x for x in b], bootstraps=20)
        assert scaled == aso(a, b, bootstraps=20)
        assert 0 <= scaled <= 1

    def test_confidence_of_a_half_leaves_the_plain_ratio(self):
        assert aso([1, 3, 5, 7], [2, 3, 4, 6], confidence=0.5) == pytest.approx(1 / 3)  # -1, 0, 1, 1
        assert aso([1, 3, 5, 7], [2, 3, 4, 6]) > aso([1, 3, 5, 7], [2, 3, 4, 6], confidence=0.8) > 1 / 3

    def test_arrays_of_any_number_type(self):
        assert aso(np.array([3, 1, 2]), np.array([2, 0, 2], dtype=np.float32)) == aso([3, 1, 2], [2, 0, 2])


class TestDefinition:
    @given(score_sets, score_sets)
    @settings(max_examples=50, deadline=None)
    def test_the_ratio_is_the_integral(self, a, b):
        cells = 2 * math.lcm(len(a), len(b))  # each cell lies inside one step of both functions
        exact = integrated(sorted(a), sorted(b))
        found = violation_ratio(_quantiles(np.sort(a), cells), _quantiles(np.sort(b), cells))
        assert float(found) == pytest.approx(float(exact), abs=1e-12)

    @given(st.integers(1, 40), st.integers(1, 300))
    def test_a_quantile_is_the_first_score_that_reaches_t(self, n, cells):
        scores = np.arange(n, dtype=np.float64)
        for found, cell in zip(_quantiles(scores, cells), range(cells), strict=True):
            t = Fraction(2 * cell + 1, 2 * cells)
            assert found == next(x for x in range(n) if Fraction(x + 1, n) >= t)

    def test_the_bound_by_every_bootstrap_sample(self):
        """With 3 and 2 scores the 3^3 * 2^2 equally likely samples can all be written down."""
        a, b = [1.0, 4.0, 6.0], [0.0, 5.0]
        samples = itertools.product(itertools.product(a, repeat=3), itertools.product(b, repeat=2))
        ratios = [float(integrated(sorted(one), sorted(other))) for one, other in samples]
        for confidence in (0.6, 0.7):
            z = statistics.NormalDist().inv_cdf(confidence)
            exact = float(integrated(a, b)) + z * statistics.pstdev(ratios)
            assert 0 < exact < 1
            assert aso(a, b, confidence, bootstraps=20_000, step=1 / 6) == pytest.approx(exact, abs=0.005)


class TestDeepsig:
    """Numbers of deepsig 1.2.8 on 28 pairs of overlapping sets.

    Both sides draw: over seeds one value has a standard deviation of 0.002 to 0.02, on either side, so a difference of
    two means over seeds one of up to 0.01. The integrals are taken at other points, which adds up to 0.013. Measured:
    0.021 at most, -0.0001 on average.
    """

    @pytest.fixture(scope="class")
    def differences(self):
        return [
            statistics.fmean(aso(*pair, seed=s) for s in range(5)) - one["mean"]
            for pair, one in zip(PAIRS, REFERENCES["pairs"], strict=True)
        ]

    def test_the_pairs_are_worth_comparing(self):
        assert len(PAIRS) >= 20
        assert all(0 < one["mean"] < 1 for one in REFERENCES["pairs"])
        assert all(max(b) > min(a) and max(a) > min(b) for a, b in PAIRS)

    def test_each_agrees_within_bootstrap_error(self, differences):
        assert max(map(abs, differences)) < 0.03

    def test_none_is_off_on_average(self, differences):
        assert abs(statistics.fmean(differences)) < 0.01


class TestWrongInput:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ([], r"scores_b is empty"),
            ([0.5, math.nan], r"scores_b\[1\] is nan"),
            ([math.inf], r"scores_b\[0\] is inf"),
            ([[0.1, 0.2]], r"scores_b: .* got 2 dimensions"),
            (0.5, r"scores_b: .* got 0 dimensions"),
            (["much"], r"scores_b: expected a list of numbers"),
            ({"seed 1": 0.5}, r"scores_b: expected a list of numbers"),
        ],
    )
    def test_scores(self, wrong, message):
        with pytest.raises(ConfigError, match=message):
            aso(A, wrong)
        with pytest.raises(ConfigError, match=message.replace("scores_b", "scores_a")):
            aso(wrong, B)

    @pytest.mark.parametrize(
        "option",
        [
            {"confidence": 0.0},
            {"confidence": 1.0},
            {"confidence": 95},
            {"confidence": math.nan},
            {"seed": -1},
            {"comparisons": 0},
            {"bootstraps": 1},
            {"step": 0.0},
            {"step": 1.0},
        ],
    )
    def test_options(self, option):
        with pytest.raises(ConfigError, match=next(iter(option))):
            aso(A, B, **option)


def test_the_import_is_light():
    code = "import sys; from dudi import aso; aso([1], [0]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(ImportError, match="anova"):
        from dudi.evaluation import anova  # noqa: F401


@pytest.mark.parametrize(("runs", "at_tau", "at_half"), [(4, 0.065, 0.20), (8, 0.045, 0.20)])
def test_how_often_equal_models_seem_different(runs, at_tau, at_half):
    """The rates of the module's docstring, with coarser settings: 1 / step a multiple of `runs` loses nothing."""
    generator = np.random.default_rng(runs)
    pairs = [generator.normal(size=(2, runs)) for _ in range(400)]
    found = np.array([aso(*pair, seed=trial, bootstraps=100, step=1 / 24) for trial, pair in enumerate(pairs)])
    assert (found < TAU).mean() == pytest.approx(at_tau, abs=0.035)
    assert (found < 0.5).mean() == pytest.approx(at_half, abs=0.06)


def integrated(a, b):
    """The violation ratio of two sorted lists in exact fractions, step by step between the jumps of either."""
    jumps = sorted({Fraction(i, len(a)) for i in range(len(a) + 1)} | {Fraction(i, len(b)) for i in range(len(b) + 1)})
    against = total = Fraction(0)
    for left, right in itertools.pairwise(jumps):
        middle = (left + right) / 2
        gap = Fraction(a[int(middle * len(a))]) - Fraction(b[int(middle * len(b))])
        total += (right - left) * gap**2
        against += (right - left) * gap**2 * (gap < 0)
    return against / total if total else Fraction(1, 2)
