"""Whether the paper's order of methods is found again: pair by pair, with a test."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Mapping, Sequence

from dudi.comparison.significance import TAU, aso
from dudi.study.grid import StudyRow


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Two rows of which the paper has one above the other.

    Attributes:
        higher: The one with the higher score in the paper.
        lower: The other.
        verdict: `holds` or `reversed` where ASO says so (eps_min < 0.2), `open` where it tells neither.
        difference: Our mean of `higher` less that of `lower`.
        eps: eps_min of whichever is ahead here.
    """

    higher: str
    lower: str
    verdict: str
    difference: float
    eps: float


def ordered_pairs(rows: Sequence[StudyRow], scores: Mapping[str, Sequence[float]]) -> list[Pair]:
    """Every pair of rows that the paper scores differently and that has two runs or more a side here.

    Args:
        rows: With the paper's scores.
        scores: By row name, one score per seed.
    """
    known = [row for row in rows if row.paper is not None and len(scores.get(row.name, ())) > 1]
    pairs = [pair for pair in itertools.combinations(known, 2) if pair[0].paper != pair[1].paper]
    return [_tested(pair, scores, len(pairs)) for pair in pairs]


def _tested(pair: tuple[StudyRow, StudyRow], scores: Mapping[str, Sequence[float]], tests: int) -> Pair:
    higher, lower = sorted(pair, key=lambda row: -(row.paper or 0))
    a, b = scores[higher.name], scores[lower.name]
    difference = statistics.fmean(a) - statistics.fmean(b)
    ahead, behind, verdict = (a, b, "holds") if difference > 0 else (b, a, "reversed")
    eps = aso(ahead, behind, comparisons=tests)
    return Pair(higher.name, lower.name, verdict if eps < TAU else "open", difference, eps)
