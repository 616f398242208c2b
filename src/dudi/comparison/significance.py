"""Almost Stochastic Order: whether the scores of one model are better than those of another.

A is stochastically larger than B when each quantile of A's scores is at least that of B's. Few pairs of models are so
clear, hence the almost: how much of the squared distance between the two quantile functions speaks against it. From
del Barrio, Cuesta-Albertos and Matrán 2018, "An optimal transportation approach for assessing almost stochastic
order", and Dror, Shlomov and Reichart 2019, "Deep Dominance", which brought it to scores of neural models.

Few runs cannot show much, and 0.5, the bound of the papers, is too lax for them. How often A is called better than B,
400 pairs of Gaussian score sets each, confidence 0.95 (standard error 0.02 or less, 0.025 near a half):

    runs   means apart by     eps_min < 0.5   eps_min < 0.2
    4      0 (wrongly so)     0.200           0.065
    4      1 sd               0.725           0.428
    4      2 sd               0.983           0.868
    8      0 (wrongly so)     0.208           0.048
    8      1 sd               0.860           0.555
    8      2 sd               1.000           0.970

So a reader of 4 seeds takes `TAU` = 0.2, and looks at eps_min and the scores beside it: four scores that all lie above
the four others give 0 however small the gap, which chance alone does once in 70 times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from dudi.errors import ConfigError

TAU = 0.2
"""A is called better than B when `aso` is below this; the measurements above say why it is not 0.5."""

EQUAL = 0.5
"""The violation ratio of two equal distributions, where the definition is 0 / 0: neither is the better one."""

_LARGEST = 1e300
"""Scores beyond this could differ by more than a float64 holds."""

_Floats = NDArray[np.float64]


def aso(
    scores_a: Sequence[float] | _Floats,
    scores_b: Sequence[float] | _Floats,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    comparisons: int = 1,
    bootstraps: int = 1000,
    step: float = 0.005,
) -> float:
    """The smallest epsilon for which "A is almost stochastically larger than B" can be claimed (Dror et al. 2019).

    With F and G the distributions of n scores of A and m scores of B (higher is better),

        eps     = int over {t: F^-1(t) < G^-1(t)} of (F^-1 - G^-1)^2 dt  /  int of (F^-1 - G^-1)^2 dt
        eps_min = eps - sqrt((n + m) / (n m)) sigma Phi^-1(1 - confidence),    kept within 0 and 1,

    where sigma is the standard deviation of sqrt(n m / (n + m)) (eps* - eps) over bootstrap samples of both score sets
    (del Barrio et al. 2018). eps_min is thus an upper bound of eps that holds with the given confidence.

    Args:
        scores_a: Scores of A, one per run (n,), in any order.
        scores_b: Scores of B, (m,), in the same unit.
        confidence: Of the bound, between 0 and 1.
        seed: Of the bootstrap; the same seed gives the same value.
        comparisons: How many such tests are read together. Bonferroni: the confidence of each becomes
            1 - (1 - confidence) / comparisons, so that all bounds hold at once with `confidence`.
        bootstraps: How many bootstrap samples; memory grows with bootstraps * (n + m).
        step: Width of the cells of (0, 1) on whose middles the integrals are taken.

    Returns:
        eps_min: 0 when A dominates B, below 0.5 when it almost does, 1 when B dominates A, 0.5 for equal score sets.
        Below `TAU` A is called better. With a single score on both sides the bootstrap has nothing to vary, and the
        answer is 0, 0.5 or 1 whatever the scores are worth: give two or more.

    Raises:
        ConfigError: A score set that is empty, not a list of numbers or not finite; an option out of its range.
    """
    check_confidence(confidence)
    if seed < 0:
        raise ConfigError(f"seed must not be negative, got {seed}")
    if comparisons < 1:
        raise ConfigError(f"comparisons must be at least 1, got {comparisons}")
    if bootstraps < 2:
        raise ConfigError(f"bootstraps must be at least 2, such as 1000; got {bootstraps}")
    if not 0 < step < 1:
        raise ConfigError(f"step must be between 0 and 1, such as 0.005; got {step}")
    a, b = _sorted(scores_a, "scores_a"), _sorted(scores_b, "scores_b")
    cells = math.ceil(1 / step)
    quantiles_a, quantiles_b = _quantiles(a, cells), _quantiles(b, cells)
    if np.array_equal(quantiles_a, quantiles_b):
        return EQUAL
    generator = np.random.default_rng(seed)
    drawn = (np.sort(generator.choice(scores, size=(bootstraps, len(scores))), axis=-1) for scores in (a, b))
    # sqrt(n m / (n + m)) enters sigma and leaves eps_min again: the plain standard deviation remains.
    spread = violation_ratio(*(_quantiles(own, cells) for own in drawn)).std()
    bound = violation_ratio(quantiles_a, quantiles_b) - spread * NormalDist().inv_cdf((1 - confidence) / comparisons)
    return float(np.clip(bound, 0.0, 1.0))


def violation_ratio(quantiles_a: _Floats, quantiles_b: _Floats) -> _Floats:
    """The share of the squared distance between two quantile functions that lies where A is below B.

    Quantiles are at the same evenly spaced t, (..., cells).

    Returns:
        Ratios (...), 0 to 1; `EQUAL` where the two do not differ.
    """
    difference = quantiles_a - quantiles_b
    largest = np.abs(difference).max(axis=-1, keepdims=True)
    squared = (difference / np.where(largest > 0, largest, 1.0)) ** 2  # scaled, so that no square under- or overflows
    against = np.where(difference < 0, squared, 0.0).sum(axis=-1)
    total = squared.sum(axis=-1)
    return np.where(total > 0, against / np.where(total > 0, total, 1.0), EQUAL)


def _quantiles(scores: _Floats, cells: int) -> _Floats:
    """The empirical quantile function of sorted scores (..., n) at the middle of each cell, (..., cells).

    F^-1(t) is the smallest score whose share of scores at or below it reaches t: the ceil(n t)-th, counted from 1.
    """
    doubled = 2 * np.arange(cells, dtype=np.int64) + 1  # t = doubled / (2 cells): whole numbers, so no rounding at n t
    return scores[..., (scores.shape[-1] * doubled - 1) // (2 * cells)]


def _sorted(scores: Sequence[float] | _Floats, name: str) -> _Floats:
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: expected a list of numbers, one score per run") from error
    if values.ndim != 1:
        raise ConfigError(f"{name}: expected a list of numbers, one score per run, got {values.ndim} dimensions")
    if not len(values):
        raise ConfigError(f"{name} is empty: give at least one score")
    wrong = np.flatnonzero(~(np.abs(values) < _LARGEST))  # NaN is not below anything
    if len(wrong):
        raise ConfigError(f"{name}[{wrong[0]}] is {values[wrong[0]]}: leave out the runs without a finite score")
    return np.sort(values)


def check_confidence(confidence: float) -> None:
    """Raise a `ConfigError` for what is not between 0 and 1."""
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must be between 0 and 1, such as 0.95; got {confidence}")
