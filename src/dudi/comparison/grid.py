"""A comparison as a table, before any format, and the words around it."""

from __future__ import annotations

import dataclasses

from dudi.comparison.paired import ITEM_PERMUTATION
from dudi.comparison.table import Cell, Comparison, Drawn, Duel
from dudi.errors import plain
from dudi.evaluation.metrics import STANDARD_ERROR
from dudi.languages.registry import LANGUAGES
from dudi.tables import DASH, DIAMOND, Entry, Grid, Line


def title(comparison: Comparison) -> str:
    """What the numbers are: metric, seeds, benchmark."""
    runs = {row.runs for row in comparison.rows if not row.reference}
    count = next(iter(runs), 0) if len(runs) == 1 else 0
    seeds = {0: "mean over seeds", 1: "one seed"}.get(count, f"mean of {count} seeds")
    less = ", lower is better" if comparison.metric.better < 0 else ""
    name, part = comparison.benchmark.get("name"), comparison.benchmark.get("part")
    where = ", ".join(str(one) for one in (name, part) if one)
    return plain(f"{comparison.metric.title}{less}; {seeds}{f'; {where}' if where else ''}")


def remarks(comparison: Comparison, best: str, second: str, below: Grid | None = None) -> list[str]:
    """What stands below a table: what the marks mean (the best may be `bold`), and what a reader must know.

    The table `below` which they stand may show nothing behind `±`; None: it shows what there is.
    """
    cells = [cell for row in comparison.rows for cell in row.cells]
    lines = [f"{best}: best; {second}: second best"] if any(cell.best for cell in cells) else []
    spread = below is None or any("±" in entry.text for line in below.lines for entry in line.entries)
    if spread and any(cell.error is not None for cell in cells):
        lines.append(f"±: {STANDARD_ERROR}")
    if comparison.duels:
        nowhere = "" if any(cell.significant for cell in cells) else ", in no column here"
        lines.append(f"{DIAMOND}{nowhere}: {_tested(comparison)}")
    if not comparison.metric.better:
        lines.append(f"Nothing is marked: neither more nor less {comparison.metric.name} is known to be better")
    if comparison.baseline:
        lines.append(f"Δ: overall, less that of {comparison.baseline}; in % of it")
    if shown := [row.name for row in comparison.rows if row.reference]:
        lines.append(f"For reference, not ranked: {', '.join(shown)}")
    lines += [*(f"Not the same: {told}" for told in comparison.differs), *comparison.notes]
    return [plain(line) for line in lines]


def _tested(comparison: Comparison) -> str:
    duels = comparison.duels
    drawn = {duel.drawn for duel in duels}
    used = []
    if any(duel.eps is not None for duel in duels):
        held = ", over the seeds alone" if Drawn.NO_ANSWERS in drawn else ""
        if Drawn.CARRIED in drawn or Drawn.LOST in drawn:
            where = " where answers are kept" if Drawn.NO_ANSWERS in drawn else ""
            held = f", and a bootstrap over items{where}"
        used.append(f"ASO, eps_min < {comparison.tau:g}{held}")
    level = (1 - comparison.confidence) / len(duels)
    for name in dict.fromkeys(duel.test for duel in duels if duel.test):
        units = "" if name == ITEM_PERMUTATION else " over questions"
        used.append(f"{name}{units}, p < {level:.2g}")
    tests = f"{len(duels)} tests" if len(duels) > 1 else "1 test"
    how = f"{', '.join(used)}, confidence {comparison.confidence:g} over {tests}"
    if comparison.candidate is None:
        return f"the best is better than the next best ({how})"
    if comparison.rivals:
        met = ", ".join(dict.fromkeys(duel.against for duel in duels))
        return f"{comparison.candidate} is better than each of {met} ({how})"
    return f"{comparison.candidate} is better than {duels[0].against}, the best other overall ({how})"


def column_title(by: str, column: str, *, long: bool = True) -> str:
    """A heading; languages by name where there is room."""
    return LANGUAGES[column].name if long and by == "language" and column in LANGUAGES else plain(column)


def grid(comparison: Comparison, *, std: bool = True, long: bool = True) -> Grid:
    """The main table.

    Cells have their standard deviation, of one run the standard error, where `std` is true and there is one; headings
    have room for names of languages where `long` is.
    """
    columns = [column_title(comparison.by, column, long=long) for column in comparison.columns]
    columns += ["Δ", "Δ %"] if comparison.baseline else []
    digits = comparison.metric.digits
    lines = []
    for row in comparison.rows:
        entries = [_entry(cell, digits, std) for cell in row.cells]
        if comparison.baseline:
            entries += [_signed(row.delta, digits, ""), _signed(row.percent, 1, "%")]
        lines.append(Line(plain(row.name), tuple(entries)))
    return Grid(tuple(columns), tuple(lines))


def eps_grid(comparison: Comparison) -> Grid:
    """Every test that was made: who, against whom, eps_min or p; of a candidate and its rivals a line a rival."""
    kinds = {duel.test is None for duel in comparison.duels}
    heading = "eps_min or p" if len(kinds) > 1 else "eps_min" if True in kinds else "p"
    if comparison.rivals:
        return _rivals_grid(comparison, heading)
    lines = []
    for duel in comparison.duels:
        entries = (Entry(plain(duel.name)), Entry(plain(duel.against)), _tested_entry(duel))
        lines.append(Line(column_title(comparison.by, duel.column), entries))
    return Grid(("tested", "against", heading), tuple(lines))


def _rivals_grid(comparison: Comparison, heading: str) -> Grid:
    """The candidate's lead over each rival, and the test of it."""
    known = {(duel.against, duel.column): duel for duel in comparison.duels}
    lines = []
    for rival in dict.fromkeys(duel.against for duel in comparison.duels):
        entries = []
        for column in comparison.columns:
            entry = Entry(DASH)
            if (duel := known.get((rival, column))) is not None:
                found, lead = _tested_entry(duel), _signed(duel.difference, comparison.metric.digits, "")
                entry = dataclasses.replace(found, text=f"{lead.text} ({found.text.split(' ')[0]})")
            entries.append(entry)
        lines.append(Line(plain(f"less {rival}"), tuple(entries)))
    titles = (column_title(comparison.by, column) for column in comparison.columns)
    return Grid(tuple(titles), tuple(lines), f"{plain(str(comparison.candidate))} ({heading})")


def _tested_entry(duel: Duel) -> Entry:
    found = duel.p if duel.eps is None else duel.eps
    text = f"{found:.3f}" if duel.test is None else f"{found:.2g} ({duel.test})"
    return Entry(text, diamond=duel.significant, value=found)


def _entry(cell: Cell, digits: int, std: bool) -> Entry:
    if cell.mean is None:
        return Entry(DASH)
    value = cell.error if cell.std is None else cell.std
    spread = f" ± {value:.{digits}f}" if std and value is not None else ""
    return Entry(f"{cell.mean:.{digits}f}{spread}", cell.best, cell.second, cell.significant, cell.mean)


def _signed(value: float | None, digits: int, unit: str) -> Entry:
    if value is None:
        return Entry(DASH)
    return Entry(f"{round(value, digits) + 0.0:+.{digits}f}{unit}", value=value)  # + 0.0: there is no -0.0
