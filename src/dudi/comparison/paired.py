"""Whether one model answers the same questions better than another: tests over questions, for two single models.

Where both are right or wrong on each question, McNemar's test looks at the questions on which they differ (McNemar
1947; the exact one, since these can be few). For any other score, bits or chrF, signs of the differences are drawn at
random: were the two models alike, each question could as well have gone the other way round (Fisher's randomisation
test; for scores of language models Dror et al. 2018, "The Hitchhiker's Guide to Testing Statistical Significance").

Questions that hang together are one item: the same sentence in eight languages goes the other way round as a whole.

Both say how surprising the difference on these questions would be by chance. They know nothing of how a method varies
from one training to the next: that is what seeds and `aso` are for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from dudi.errors import ConfigError

MCNEMAR, PERMUTATION = "McNemar", "paired permutation"
ITEM_PERMUTATION = f"{PERMUTATION} over items"
DRAWS = 20_000
"""Sign draws where there are too many to go through all: the smallest p is then 1 / 20,001."""
EXACT = 14
"""Up to so many questions that differ, all signs are gone through."""
_CHUNK = 1 << 22
"""Numbers of a chunk of draws: 32 MiB."""


@dataclasses.dataclass(frozen=True, slots=True)
class Paired:
    """What a test over questions found.

    Attributes:
        p: Two-sided.
        test: Which test: `MCNEMAR`, `PERMUTATION`, or `ITEM_PERMUTATION` where questions share items.
        questions: How many both answered.
        difference: Weighted mean of A's scores less B's.
        items: Of how many items the questions are; those that share none are one each.
    """

    p: float
    test: str
    questions: int
    difference: float
    items: int


def paired_test(
    scores_a: Sequence[float],
    scores_b: Sequence[float],
    weights: Sequence[float] | None = None,
    seed: int = 0,
    items: Sequence[Hashable] | None = None,
) -> Paired:
    """McNemar's test where all scores are 0 or 1 and weigh the same, else the permutation test.

    Where questions share an item it is the permutation test over items, whatever the scores are.

    Args:
        scores_a: A's score on each question, (n,).
        scores_b: B's on the same questions, (n,).
        weights: What each question weighs in the mean, (n,); None: all the same.
        seed: Of the permutation test.
        items: What each question is of, (n,): the signs of one item's are drawn together. None: each is its own.

    Raises:
        ConfigError: no question, or not as many of each.
    """
    a, b = np.asarray(scores_a, np.float64), np.asarray(scores_b, np.float64)
    w = np.ones(len(a)) if weights is None else np.asarray(weights, np.float64)
    if not len(a) or not len(a) == len(b) == len(w) == len(a if items is None else items):
        raise ConfigError(f"a paired test needs the same questions on both sides, got {len(a)} and {len(b)}")
    difference = float((w * (a - b)).sum() / w.sum())
    if items is not None and (count := len(set(items))) < len(items):
        p = paired_permutation(_by_item(w * (a - b), items), seed)
        return Paired(p, ITEM_PERMUTATION, len(a), difference, count)
    if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all() and np.ptp(w) <= 1e-12 * w.max():
        return Paired(mcnemar(int((a > b).sum()), int((a < b).sum())), MCNEMAR, len(a), difference, len(a))
    return Paired(paired_permutation(w * (a - b), seed), PERMUTATION, len(a), difference, len(a))


def _by_item(differences: NDArray[np.float64], items: Sequence[Hashable]) -> NDArray[np.float64]:
    """Sums of differences, one an item."""
    places = {item: place for place, item in enumerate(dict.fromkeys(items))}
    sums = np.zeros(len(places))
    np.add.at(sums, [places[item] for item in items], differences)
    # What cancels within an item is 0, and not the rest that adding leaves: it would count as an item that differs.
    sums[abs(sums) < 1e-12 * abs(differences).max()] = 0.0
    return sums


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact McNemar test: two-sided p of a fair coin that fell so unevenly.

    `only_a` and `only_b` are the questions that A alone, and B alone, has right.
    """
    total = only_a + only_b
    tail = sum(math.comb(total, count) for count in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**total)


def paired_permutation(differences: Sequence[float] | NDArray[np.float64], seed: int = 0, draws: int = DRAWS) -> float:
    """Two-sided p of the sum of paired differences under random signs.

    Args:
        differences: A's score less B's on each question, weighted, (n,). Those that are 0 change nothing.
        seed: Of the draws.
        draws: How many, where not all signs are gone through; p is then (1 + as extreme ones) / (1 + draws), which is
            never 0 and errs on the safe side (Phipson and Smyth 2010).
    """
    values = np.asarray(differences, np.float64)
    values = values[values != 0]
    if not len(values):
        return 1.0
    observed = abs(values.sum()) * (1 - 1e-12)  # a sum of the same numbers in another order is as extreme
    if len(values) <= EXACT:
        signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
        return float((abs(signs @ values) >= observed).mean())
    generator = np.random.default_rng(seed)
    extreme, left = 0, draws
    while left:
        count = min(left, max(1, _CHUNK // len(values)))
        signs = 1 - 2 * generator.integers(0, 2, (count, len(values)), dtype=np.int8)
        extreme += int((abs(signs.astype(np.float64) @ values) >= observed).sum())
        left -= count
    return (1 + extreme) / (1 + draws)
