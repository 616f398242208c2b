"""Is a lead more than luck in the questions? Items are drawn again, and seeds with them.

Almost Stochastic Order (`dudi.comparison.significance`) looks at the runs' scores alone. All runs are asked the same
questions, so that it cannot know how much of a lead hangs on which ones were asked: over 14 countries a lead of 15
points is well within chance, however many seeds repeat it. Here the items are resampled, and within each sample the
runs of both sides (Efron and Tibshirani 1993, chapters 8 and 13; for test sets Koehn 2004, "Statistical significance
tests for machine translation evaluation"). Both sides are scored on the same sample: what is hard for both cancels.

An item is whatever hangs together: the same sentence in eight languages is one, and all eight are drawn with it.

Few items cannot carry a lead, whatever is drawn from them: where one side is ahead on both of two items it is ahead in
every sample. How often one of two equal sides is called better, one run each, 2,000 pairs, confidence 0.95 (standard
error 0.01 or less):

            one test (0.05 is said)          nine tests (0.006 is said)
    items   Gaussian   right or wrong, 0.5   Gaussian   right or wrong, 0.5
    2       0.52       0.13                  0.52       0.13
    4       0.20       0.06                  0.12       0.01
    6       0.14       0.12                  0.08       0.04
    8       0.11       0.08                  0.05       0.02
    10      0.10       0.07                  0.03       0.02
    20      0.07       0.05                  0.02       0.01
    40      0.07       0.05                  0.01       0.01

So under `FEWEST_ITEMS` = 10 nothing is called a lead, in no table and by no test: from there on one interval errs at
most twice as often as it says. It errs more than it says up to 20 and beyond, of many tests before all. The exact tests
of single models (`dudi.comparison.paired`) could say something from 6 on; they keep to the same bound, so that more
seeds never take away what one seed has.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dudi.comparison.significance import check_confidence
from dudi.errors import ConfigError

FEWEST_ITEMS = 10
"""Over fewer items no lead is called one; the measurements above say why."""

_Floats = NDArray[np.float64]
_CELLS = 1 << 22
"""Most weights that are held at a time."""
_KEPT_CELLS = 1 << 25
"""Most of one table's draws that are kept for its other pairs, 128 MiB."""


@dataclasses.dataclass(frozen=True, slots=True)
class AnswerScore:
    """What one answer of one run is worth.

    Attributes:
        item: What it was asked; answers of the same item are drawn together.
        group: Where its score counts: groups are averaged, whatever their sizes. A language, or the same for all.
        value: Its score: 1 where it is right; of a ratio, the part above the line, such as bits.
        weight: How much it counts: 1; of a ratio, the part below, such as bytes.
        part: What is averaged to make a group's score: of macro F1 a class. None: a group is one part.
    """

    item: Hashable
    group: Hashable
    value: float
    weight: float = 1.0
    part: Hashable = None


@dataclasses.dataclass(frozen=True, slots=True)
class Lead:
    """How far one side is ahead of the other.

    Attributes:
        difference: Mean score of the first less that of the second, over all items and runs.
        low: Lower end of the interval that resampling gives.
        high: Its upper end.
        items: How many were resampled.
        runs: Of the first side and the second.
    """

    difference: float
    low: float
    high: float
    items: int
    runs: tuple[int, int]

    @property
    def few(self) -> bool:
        """Whether the items are too few for any lead, whatever the interval is."""
        return self.items < FEWEST_ITEMS

    @property
    def carried(self) -> bool:
        """Whether the first side is ahead in the whole interval, over items enough for that to mean something."""
        return self.low > 0 and not self.few


def lead(
    first: Sequence[Iterable[AnswerScore]],
    second: Sequence[Iterable[AnswerScore]],
    *,
    confidence: float = 0.95,
    comparisons: int = 1,
    samples: int = 10_000,
    seed: int = 0,
) -> Lead:
    """The lead of one side over another, with an interval from resampling items and runs.

    The score of a run is the mean over groups of the mean over parts of sum(value) / sum(weight); a side's is the mean
    over its runs. In each sample the items are drawn with replacement, once for both sides, and the runs of each side
    likewise; the interval is that of the percentiles. With one run a side the interval is over items alone.

    Args:
        first: Of each run of one side its answers; all runs answer the same items in the same groups.
        second: Of the other; the same items and groups.
        confidence: Of the interval, between 0 and 1.
        comparisons: How many such intervals are read together; the confidence of each becomes, after Bonferroni,
            1 - (1 - confidence) / comparisons.
        samples: How many are drawn.
        seed: Of the draw; the same seed and items give the same interval.

    Raises:
        ConfigError: a side is empty, the sides or runs were asked different items, or an option is out of its range.
    """
    check_confidence(confidence)
    if comparisons < 1 or samples < 100:
        raise ConfigError(f"comparisons must be at least 1 and samples at least 100; got {comparisons} and {samples}")
    items, values, weights, inside = _tables([*first, *second])
    count = len(first)
    if not count or len(values) == count:
        raise ConfigError("a lead needs at least one run on either side")
    whole = _scores(np.ones((1, len(items))), values, weights, inside)[0]
    draw = _kept_draws if len(items) * samples <= _KEPT_CELLS else _draws
    draws = draw(len(items), (count, len(values) - count), samples, seed)
    differences = [_differences(one, values, weights, inside) for one in draws]
    tail = (1 - confidence) / comparisons / 2
    low, high = np.quantile(np.concatenate(differences), (tail, 1 - tail))
    return Lead(
        difference=float(whole[:count].mean() - whole[count:].mean()),
        low=float(low),
        high=float(high),
        items=len(items),
        runs=(count, len(values) - count),
    )


def _tables(runs: Sequence[Iterable[AnswerScore]]) -> tuple[list[Hashable], _Floats, _Floats, _Floats]:
    """Items, sums of values and of weights (runs, parts, items), and which part is in which group (parts, groups)."""
    read = [list(run) for run in runs]
    items = list(dict.fromkeys(one.item for run in read for one in run))
    groups = list(dict.fromkeys(one.group for run in read for one in run))
    if not items:
        raise ConfigError("a lead needs at least one item")
    parts = list(dict.fromkeys((one.group, one.part) for run in read for one in run))
    place_of_item = {item: place for place, item in enumerate(items)}
    place_of_part = {part: place for place, part in enumerate(parts)}
    values = np.zeros((len(read), len(parts), len(items)))
    weights = np.zeros_like(values)
    for number, run in enumerate(read):
        for one in run:
            where = number, place_of_part[one.group, one.part], place_of_item[one.item]
            values[where] += one.value
            weights[where] += one.weight
    inside = np.zeros((len(parts), len(groups)))
    for (group, _), place in place_of_part.items():
        inside[place, groups.index(group)] = 1.0
    asked = np.einsum("rpi,pg->rgi", weights, inside) > 0  # which parts an answer is of may be the run's own
    if not bool((asked == asked[:1]).all()):
        raise ConfigError("a lead needs the same items of every run: some were answered by one and not by another")
    if not np.isfinite(values).all():
        raise ConfigError("a lead needs finite scores")
    return items, values, weights, inside


def _scores(drawn: _Floats, values: _Floats, weights: _Floats, inside: _Floats) -> _Floats:
    """Scores (samples, runs) of items drawn so many times (samples, items)."""
    sums = np.einsum("si,rpi->srp", drawn, values, optimize=True)
    totals = np.einsum("si,rpi->srp", drawn, weights, optimize=True)
    parts = totals > 0  # a small part or group may be missing from a sample
    ratios = np.divide(sums, totals, out=np.zeros_like(sums), where=parts)
    counts = parts @ inside
    present = counts > 0
    means = np.divide(ratios @ inside, counts, out=np.zeros_like(counts), where=present)
    return means.sum(axis=-1) / present.sum(axis=-1)


_Draw = tuple[NDArray[np.uint32], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""How often each item (samples, items), and each run of either side (samples, runs), is in each of some samples."""


def _draws(items: int, runs: tuple[int, int], samples: int, seed: int) -> Iterator[_Draw]:
    """All samples, as many at a time as fit into `_CELLS`."""
    generator = np.random.default_rng(seed)
    most = max(1, _CELLS // items)
    for begin in range(0, samples, most):
        size = min(most, samples - begin)
        drawn = generator.multinomial(items, np.full(items, 1 / items), size=size)
        first, second = (generator.multinomial(count, np.full(count, 1 / count), size=size) for count in runs)
        yield drawn.astype(np.uint32), (first, second)


@functools.lru_cache(maxsize=2)
def _kept_draws(items: int, runs: tuple[int, int], samples: int, seed: int) -> tuple[_Draw, ...]:
    """The same, kept: the pairs of a table are of as many items, and to draw these takes most of the time."""
    return tuple(_draws(items, runs, samples, seed))


def _differences(draw: _Draw, values: _Floats, weights: _Floats, inside: _Floats) -> _Floats:
    """Differences (samples,) between two sides whose items and runs are drawn again."""
    items, (first, second) = draw
    scores = _scores(items.astype(np.float64), values, weights, inside)
    own, other = np.split(scores, [first.shape[1]], axis=1)
    return (own * first).sum(axis=1) / own.shape[1] - (other * second).sum(axis=1) / other.shape[1]
