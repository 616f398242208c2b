"""Sampling that keeps a mix: quotas by largest remainder, and a choice that depends on ids and seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from typing import TypeVar

Cell = TypeVar("Cell", bound=Hashable)


def largest_remainder(counts: Mapping[Cell, int], total: int) -> dict[Cell, int]:
    """How many to take of each cell so that the shares of `counts` stay as nearly as whole numbers can.

    Every cell gets the whole part of its proportional share; what is left goes, one each, to the cells with the largest
    remainders. Ties go to the larger cell, then to the one whose name sorts lower. The arithmetic is in whole numbers,
    so that the result is the same everywhere.

    Args:
        counts: How many there are of each cell, at least 0.
        total: How many to take; where there are fewer, all are taken.

    Returns:
        A quota for each cell, never above its count, in the order of `counts`; they sum to
        `min(total, sum of counts)`.

    Raises:
        ValueError: a count or `total` is negative.
    """
    if total < 0 or any(count < 0 for count in counts.values()):
        raise ValueError("counts and total must be at least 0")
    available = sum(counts.values())
    if total >= available:
        return dict(counts)
    quotas: dict[Cell, int] = {}
    remainders: dict[Cell, int] = {}
    for cell, count in counts.items():
        quotas[cell], remainders[cell] = divmod(count * total, available)
    order = sorted(counts, key=lambda cell: (-remainders[cell], -counts[cell], str(cell)))
    for cell in order[: total - sum(quotas.values())]:
        quotas[cell] += 1
    return quotas


def hash_rank(seed: int, *parts: str | bytes) -> int:
    """A place in a random order that depends on nothing but the seed and what is ranked.

    Args:
        seed: Another seed gives another order.
        parts: What is ranked: an id, or an id and its content.

    Returns:
        A signed 64-bit number; the smallest are taken.
    """
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)  # the length keeps ("a", "bc") apart from ("ab", "c")
    return int.from_bytes(digest.digest(), "big", signed=True)


def total_variation(before: Mapping[Cell, int], after: Mapping[Cell, int]) -> float:
    """Half the summed difference of two mixes' shares: 0 when they are the same, 1 when they share nothing.

    Args:
        before: Counts of the one mix.
        after: Counts of the other.
    """
    all_before, all_after = sum(before.values()), sum(after.values())
    if not all_before or not all_after:
        return 0.0 if all_before == all_after else 1.0
    cells = before.keys() | after.keys()
    return sum(abs(before.get(c, 0) / all_before - after.get(c, 0) / all_after) for c in cells) / 2
