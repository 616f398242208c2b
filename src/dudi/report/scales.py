"""Numbers on axes: round ticks, short texts, and long lines made shorter."""

from __future__ import annotations

import math
from collections.abc import Sequence

MOST_POINTS = 240
"""More points than this are averaged in neighbouring groups: a screen shows no more."""


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, in steps of 1, 2 or 5 times a power of ten."""
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-280):  # below that, steps would drown in rounding
        pad = abs(low) * 0.1 if abs(low) > 1e-280 else 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if rough <= m * power * 1.0001)
    first, final = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, final + 1)]


def whole_ticks(low: float, high: float) -> list[float]:
    """Whole numbers within `low` and `high`: ticks of optimizer steps."""
    if low == high:
        return [low]
    return [tick for tick in nice_ticks(low, high, 4) if tick == int(tick) and low <= tick <= high] or [low, high]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten within `low` and `high`, both positive; the ends where there are none."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside = [m * 10.0**p for p in powers for m in (1, 2, 5) if low * 0.999 <= m * 10.0**p <= high * 1.001]
    return inside or [low, high]


def short(value: float) -> str:
    """A number for an axis or a tooltip: four significant digits, k, M and G above ten thousand."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and (unit != "k" or abs(value) >= 1e4):
            return f"{value / size:.4g}{unit}"
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:.4g}"


def thinned(values: Sequence[tuple[float, ...]], most: int = MOST_POINTS) -> list[tuple[float, ...]]:
    """Means of neighbouring points, so that at most `most` are left; their count is in the caption's hands."""
    group = math.ceil(len(values) / most)
    if group <= 1:
        return list(values)
    parts = [values[i : i + group] for i in range(0, len(values), group)]
    means = []
    for part in parts:
        means.append(tuple(sum(column) / len(part) for column in zip(*part, strict=True)))
    return means
