"""The bootstrap over items: its interval has the coverage that it says, and a lead that few items carry is none."""

import numpy as np
import pytest

from dudi.comparison.bootstrap import FEWEST_ITEMS, AnswerScore, lead
from dudi.comparison.significance import aso
from dudi.errors import ConfigError


def run(values, groups=1, name="all"):
    """A run's answers: values (items,) or (items, groups)."""
    table = np.asarray(values, dtype=float).reshape(len(values), -1)
    return [
        AnswerScore(item, group, table[item, group]) for item in range(len(table)) for group in range(table.shape[1])
    ]


def test_the_difference_is_that_of_the_means_and_the_interval_holds_it():
    first, second = run([1, 1, 0, 1, 1, 1, 0, 1]), run([1, 0, 0, 1, 0, 1, 0, 1])
    found = lead([first], [second])
    assert found.difference == pytest.approx(2 / 8)
    assert found.low <= found.difference <= found.high
    assert (found.items, found.runs) == (8, (1, 1))
    back = lead([second], [first])
    assert (back.difference, back.low, back.high) == pytest.approx((-found.difference, -found.high, -found.low))


def test_the_interval_agrees_with_the_exact_one_of_a_paired_mean():
    """Of one run a side the difference is a mean of paired differences: normal theory knows its interval."""
    generator = np.random.default_rng(1)
    a, b = generator.normal(0.6, 0.2, 400), generator.normal(0.5, 0.2, 400)
    found = lead([run(a)], [run(b)])
    spread = (a - b).std() / np.sqrt(400)
    assert found.low == pytest.approx((a - b).mean() - 1.96 * spread, abs=0.1 * spread)
    assert found.high == pytest.approx((a - b).mean() + 1.96 * spread, abs=0.1 * spread)


@pytest.mark.parametrize("runs", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_equal_sides_are_seldom_called_different(runs):
    """Two-sided: 5 % of 200 draws of equal sides; four standard errors are 6 points."""
    generator = np.random.default_rng(7)
    called = 0
    for _ in range(200):
        hard = generator.uniform(0.2, 0.9, 60)
        sides = [[run(generator.random(60) < hard) for _ in range(runs)] for _ in range(2)]
        found = lead(*sides, samples=1000)
        called += found.carried or found.high < 0
    assert called / 200 < 0.11


def test_a_lead_over_few_items_is_none_however_many_seeds_repeat_it():
    """What a table of ours once called better: 14 items, a constant rival, four seeds that all lie above it."""
    generator = np.random.default_rng(0)
    rival = np.array([1, 0] * 7)
    base = np.array([1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0])
    seeds = []
    for _ in range(4):
        own = base.copy()
        own[generator.integers(0, 14)] ^= 1
        seeds.append(own)
    means = [own.mean() for own in seeds]
    assert aso(means, [rival.mean()] * 4) == 0  # all four lie above it
    found = lead([run(own) for own in seeds], [run(rival)] * 4)
    assert found.difference > 0
    assert found.low < 0
    assert not found.carried


@pytest.mark.parametrize(("items", "carried"), [(2, False), (FEWEST_ITEMS - 1, False), (FEWEST_ITEMS, True)])
def test_few_items_carry_no_lead_even_where_each_of_them_shows_it(items, carried):
    """Of two items that are both won every sample is won: the interval is far from 0, and says nothing."""
    found = lead([run([1] * items)] * 3, [run([0] * items)] * 3)
    assert (found.difference, found.low, found.high) == (1, 1, 1)
    assert found.carried is carried
    assert found.few is not carried


@pytest.mark.slow
@pytest.mark.parametrize(("items", "share"), [(2, 0.5), (10, 0.1), (20, 0.07)])
def test_how_often_equal_sides_are_called_different_is_as_the_table_says(items, share):
    """300 pairs: four standard errors are 0.12 at a half, 0.07 at a tenth."""
    generator = np.random.default_rng(4)
    called = 0
    for _ in range(300):
        found = lead([run(generator.normal(size=items))], [run(generator.normal(size=items))], samples=1000)
        called += found.low > 0 or found.high < 0
    assert called / 300 == pytest.approx(share, abs=4 * (share * (1 - share) / 300) ** 0.5)


def test_seeds_are_resampled_too():
    """Runs that differ much widen the interval, though every item is answered alike by a run."""
    steady = lead([run([0.7] * 50)] * 4, [run([0.5] * 50)] * 4)
    shaky = lead([run([value] * 50) for value in (0.4, 1.0, 0.5, 0.9)], [run([0.5] * 50)] * 4)
    assert steady.high - steady.low == pytest.approx(0, abs=1e-12)
    assert steady.carried
    assert shaky.difference == pytest.approx(steady.difference)
    assert shaky.high - shaky.low > 0.2


def test_an_item_is_drawn_with_all_its_languages():
    """Eight languages of one sentence are one item: taken for eight, the interval would be far too narrow."""
    generator = np.random.default_rng(3)
    hard = generator.random(30) < 0.5
    first = np.repeat(hard[:, None], 8, axis=1)
    second = np.repeat((generator.random(30) < 0.5)[:, None], 8, axis=1)
    together = lead([run(first)], [run(second)])
    alone = lead([run(first[:, :1])], [run(second[:, :1])])
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.05)
    apart = [
        [AnswerScore((one.item, one.group), one.group, one.value) for one in run(side)] for side in (first, second)
    ]
    wrong = lead([apart[0]], [apart[1]])
    assert wrong.high - wrong.low < 0.5 * (together.high - together.low)


def test_groups_count_alike_whatever_their_sizes():
    answers = [AnswerScore(n, "en", 1.0) for n in range(90)] + [AnswerScore(n, "my", 0.0) for n in range(10)]
    other = [AnswerScore(n, "en", 0.0) for n in range(90)] + [AnswerScore(n, "my", 0.0) for n in range(10)]
    assert lead([answers], [other]).difference == pytest.approx(0.5)


def test_a_ratio_is_one_of_sums():
    """Bits per byte: long items weigh more."""
    first = [AnswerScore(0, "all", 10.0, 10.0), AnswerScore(1, "all", 90.0, 30.0)]
    second = [AnswerScore(0, "all", 20.0, 10.0), AnswerScore(1, "all", 60.0, 30.0)]
    assert lead([first], [second]).difference == pytest.approx(100 / 40 - 80 / 40)


def test_more_comparisons_widen_the_interval_and_a_seed_gives_the_same():
    generator = np.random.default_rng(2)
    first, second = run(generator.normal(0.7, 0.4, 80)), run(generator.normal(0.6, 0.4, 80))
    one, many = lead([first], [second]), lead([first], [second], comparisons=10)
    assert many.high - many.low > 1.2 * (one.high - one.low)
    assert lead([first], [second]) == one
    assert lead([first], [second], seed=1) != one


@pytest.mark.parametrize(
    ("first", "second", "keys", "told"),
    [
        ([], [run([1])], {}, "at least one run"),
        ([run([1])], [], {}, "at least one run"),
        ([[]], [[]], {}, "at least one item"),
        ([run([1, 0])], [run([1])], {}, "the same items of every run"),
        ([run([1, float("nan")])], [run([1, 0])], {}, "finite"),
        ([run([1])], [run([1])], {"confidence": 1.0}, "confidence"),
        ([run([1])], [run([1])], {"samples": 2}, "samples"),
    ],
)
def test_what_cannot_be_compared_says_why(first, second, keys, told):
    with pytest.raises(ConfigError, match=told):
        lead(first, second, **keys)


def test_large_tables_are_drawn_in_portions():
    generator = np.random.default_rng(5)
    first, second = run(generator.random(6000) < 0.7), run(generator.random(6000) < 0.6)
    found = lead([first], [second], samples=2000)
    assert found.carried
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt((0.21 + 0.24) / 6000), rel=0.1)
