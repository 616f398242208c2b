"""What a run cost: seconds by phase, how far each is from what the machine can do, tokens a second, memory."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from dudi.report.bars import Bar
from dudi.report.groups import Group
from dudi.report.run_folder import RunFolder, number, numbers
from dudi.report.scales import short
from dudi.report.wording import gibibytes, lasted
from dudi.tables import DASH, Grid, grid_of

PHASES = ("rollout", "teacher", "reference", "student", "rest")
_TIMED = PHASES[:-1]


def phase_bars(groups: Sequence[Group]) -> list[Bar]:
    """Mean seconds a step by phase, one bar a group; nothing for groups without times."""
    bars = []
    for group in groups:
        timed = [(_times(run), len(run.stage(cold=False))) for run in group.runs]
        parts = []
        for phase in PHASES:
            means = [time / steps for times, steps in timed if steps and (time := times.get(phase)) is not None]
            parts += [(phase, statistics.fmean(means))] if means else []
        bars += [Bar(group.described, parts)] if parts else []
    return bars


def cost_table(groups: Sequence[Group]) -> Grid | None:
    """Whole times by phase, tokens a second and peak memory, a row a group; None when nobody measured them.

    Several runs of a group are shown as mean +- standard deviation (n - 1). The rest is what a step took beside its
    phases: data, the optimizer, logging. Time between steps (loading, checkpoints, the benchmark) is in none of them.
    A stage of a stack has neither a cold start nor phases: where there is nothing else, their columns are left out.
    """
    rows = [(group.described, _cells(group)) for group in groups]
    if all(cell == DASH for _, cells in rows for cell in cells):
        return None
    columns = ("cold start", *PHASES, "total", "tokens / s", "peak memory")
    first = columns.index("total") if _stacks(groups) else 0
    return grid_of(columns[first:], [(name, cells[first:]) for name, cells in rows])


def phase_table(groups: Sequence[Group]) -> Grid | None:
    """Where a step goes: a row for each group and phase; None when nobody measured it, and of stacks, which have none.

    Seconds and GFLOP are means over the steps, and over the runs of a group. GFLOP are counted from the sequences,
    without padding; the last column is their rate over what a matrix product reached on this machine before the run.
    """
    rows = []
    for group in groups:
        for phase in PHASES:
            if (cells := _phase_cells(group, phase)) is not None:
                rows.append((phase if len(groups) == 1 else f"{group.described}: {phase}", cells))
    columns = ("seconds a step", "share", "GFLOP a step", "GFLOP / s", "of the machine's products")
    return grid_of(columns, rows) if rows and not _stacks(groups) else None


def _stacks(groups: Sequence[Group]) -> bool:
    return all(run.is_stack for group in groups for run in group.runs)


def phase_lines(run: RunFolder) -> list[str]:
    """The same of one run for a terminal, as far as it was measured: shares, then rates beside a matrix product's."""
    phases = [phase for name in PHASES if (phase := _Phase.of(run, name)) is not None and phase.share >= 0.005]
    rated, product = [phase for phase in phases if phase.rate], _product_rate(run)
    lines = [f"time     {', '.join(f'{one.name} {one.share:.0%}' for one in phases)}"] if phases else []
    if rated and product:
        rates = ", ".join(f"{one.name} {one.rate / 1e9:,.0f}" for one in rated)
        lines.append(f"GFLOP/s  {rates}; a matrix product {product / 1e9:,.0f}")
    return lines


@dataclasses.dataclass(frozen=True, slots=True)
class _Phase:
    """A phase of a run's steps: seconds and FLOPs a step, and its share in the step's time."""

    name: str
    seconds: float
    share: float
    flops: float

    @classmethod
    def of(cls, run: RunFolder, name: str) -> _Phase | None:
        times, records = _times(run), run.stage(cold=False)
        seconds, whole = times.get(name), _seconds(records, "step")
        if seconds is None or not whole:
            return None
        flops = sum(numbers(records, f"flops/{name}"))
        return cls(name, seconds / len(records), seconds / whole, flops / len(records))

    @property
    def rate(self) -> float:
        """FLOPs a second; 0 where none are counted."""
        return self.flops / self.seconds if self.seconds else 0.0


def _phase_cells(group: Group, name: str) -> tuple[str, ...] | None:
    """The cells of `phase_table` for one phase."""
    known = [(phase, run) for run in group.runs if (phase := _Phase.of(run, name)) is not None]
    if not any(phase.seconds for phase, _ in known):
        return None
    seconds = statistics.fmean(phase.seconds for phase, _ in known)
    share = statistics.fmean(phase.share for phase, _ in known)
    flops = statistics.fmean(phase.flops for phase, _ in known)
    of_products = [phase.rate / rate for phase, run in known if (rate := _product_rate(run))]
    done = (f"{flops / 1e9:,.1f}", f"{flops / seconds / 1e9:,.1f}") if flops else (DASH, DASH)
    reached = f"{statistics.fmean(of_products):.0%}" if flops and of_products else DASH
    return (f"{seconds:.2f}", f"{share:.0%}", *done, reached)


def _product_rate(run: RunFolder) -> float | None:
    """FLOPs a second of matrix products on all of a run's devices, as it measured one before it began."""
    rate = number(run.environment.get("product_flops"))
    return None if rate is None else rate * (number(run.environment.get("processes")) or 1)


def total_seconds(run: RunFolder) -> float | None:
    """The summed time of all steps that were run here, the cold start's included unless it came from the cache."""
    return _seconds([record for record in run.metrics if not record.get("cached")], "step")


def _cells(group: Group) -> tuple[str, ...]:
    times = [_times(run) for run in group.runs]
    cells = []
    for name in ("cold_start", *PHASES):
        cells.append(_mean_time([time.get(name) for time in times]))
    if cells[0] == DASH and any(record.get("cached") for run in group.runs for record in run.stage(cold=True)):
        cells[0] = "cached"
    cells.append(_mean_time([total_seconds(run) for run in group.runs]))
    speeds = [own for run in group.runs if (own := numbers(run.stage(cold=False), "tokens_per_second"))]
    peaks = [peak for run in group.runs for peak in numbers(run.metrics, "memory/peak")]
    cells.append(short(round(statistics.fmean(sum(own) / len(own) for own in speeds))) if speeds else DASH)
    return (*cells, gibibytes(max(peaks)) if peaks else DASH)


def _times(run: RunFolder) -> dict[str, float | None]:
    """Whole seconds of the cold start and of each phase of the method."""
    records = run.stage(cold=False)
    times: dict[str, float | None] = {phase: _seconds(records, phase) for phase in _TIMED}
    times["cold_start"] = _seconds([record for record in run.stage(cold=True) if not record.get("cached")], "step")
    whole = _seconds(records, "step")
    if whole is not None:
        times["rest"] = max(whole - sum(times[phase] or 0.0 for phase in _TIMED), 0.0)
    return times


def _seconds(records: Sequence[Mapping[str, Any]], phase: str) -> float | None:
    known = numbers(records, f"time/{phase}")
    return sum(known) if known else None


def _mean_time(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return DASH
    shown = lasted(statistics.fmean(known))
    return shown if len(known) < 2 or shown == "0 s" else f"{shown} ± {lasted(statistics.stdev(known))}"
