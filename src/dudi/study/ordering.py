"""Whether the paper's order of methods is found again: pair by pair, with a test."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence

from dudi.comparison.bootstrap import Lead
from dudi.comparison.significance import TAU, aso
from dudi.study.grid import StudyRow

LeadOf = Callable[[str, str, int], Lead | None]


@dataclasses.dataclass(frozen=True, slots=True)
class RowPair:
    """Two rows of which the paper has one above the other.

    The verdict is `holds` or `reversed` where ASO says so (eps_min < 0.2) and the items, where known, carry it; else
    `open`.
    """

    higher: str  # the one with the higher score in the paper
    lower: str
    verdict: str
    difference: float  # our mean of `higher` less that of `lower`
    eps: float  # eps_min of whichever is ahead here
    carried: bool | None = None  # whether that lead is one when items and seeds are drawn again; None: no answers

    @property
    def lost(self) -> bool:
        """Whether ASO calls the lead one, and other items could turn it."""
        return self.eps < TAU and self.carried is False


def ordered_pairs(
    rows: Sequence[StudyRow], scores: Mapping[str, Sequence[float]], lead_of: LeadOf = lambda ahead, behind, count: None
) -> list[RowPair]:
    """Every pair of rows that the paper scores differently and that has two runs or more a side here.

    `scores` has by a row's name one score per seed. `lead_of` tells the lead of one row over another, with an interval
    that holds together with as many as are counted; None where their answers are not kept.
    """
    known = [row for row in rows if row.paper is not None and len(scores.get(row.name, ())) > 1]
    pairs = [pair for pair in itertools.combinations(known, 2) if pair[0].paper != pair[1].paper]
    return [_tested(pair, scores, lead_of, len(pairs)) for pair in pairs]


def _tested(
    pair: tuple[StudyRow, StudyRow], scores: Mapping[str, Sequence[float]], lead_of: LeadOf, tests: int
) -> RowPair:
    higher, lower = (row.name for row in sorted(pair, key=lambda row: -(row.paper or 0)))
    difference = statistics.fmean(scores[higher]) - statistics.fmean(scores[lower])
    ahead, behind, verdict = (higher, lower, "holds") if difference > 0 else (lower, higher, "reversed")
    eps, lead = aso(scores[ahead], scores[behind], comparisons=tests), lead_of(ahead, behind, tests)
    carried = None if lead is None else lead.carried
    return RowPair(higher, lower, "open" if eps >= TAU or carried is False else verdict, difference, eps, carried)
