"""A folder of evaluations, as `dudi eval` and `dudi stack eval` leave it: who was asked, and a section a benchmark."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from dudi.evaluation.records import FILE, FLOOR, Evaluation, read_evaluations
from dudi.evaluation.tables import TITLES
from dudi.report.benchmark import Benchmark
from dudi.report.compared import side_by_side
from dudi.report.run_folder import FILES, number
from dudi.report.wording import lasted, said
from dudi.tables import Grid, grid_of


def evaluations_alone(folder: Path) -> list[Evaluation]:
    """The evaluations of a folder that is no run's; none where it is one, or holds none.

    Raises:
        DataError: the file cannot be read.
    """
    if any((folder / name).is_file() for name in FILES) or not (folder / FILE).is_file():
        return []
    return read_evaluations(folder / FILE)


def asked_sections(evaluations: Sequence[Evaluation]) -> list[Benchmark]:
    """A section for each benchmark: everybody side by side, as `dudi compare` has it."""
    names = list(dict.fromkeys(str(one.benchmark.get("name")) for one in evaluations))
    everybody = dict.fromkeys(one.name for one in evaluations)
    colours = {name: colour for colour, name in enumerate(everybody)}
    sections = []
    for name in names:
        own = [one for one in evaluations if str(one.benchmark.get("name")) == name]
        guessing = own[0].guessing()
        floor = [] if guessing is None else [dataclasses.replace(guessing, name=TITLES[FLOOR])]
        found = side_by_side(own, floor, (), colours)
        sections.append(
            Benchmark(
                name=name,
                words=found.words,
                compared=found.tables,
                colours=found.colours,
                chart=found.chart,
                details=_details(own[0]),
            )
        )
    return sections


def asked_grid(evaluations: Sequence[Evaluation]) -> Grid:
    """Who was asked what: the models, their seeds, and how long it took."""
    rows = []
    for one in evaluations:
        seeds = ", ".join(map(str, one.seeds))
        spent = lasted(number(one.about.get("seconds")))
        rows.append((one.name, (said(one.benchmark.get("name")), one.model, seeds, spent)))
    return grid_of(("benchmark", "model", "seeds", "time"), rows)


def _details(one: Evaluation) -> tuple[tuple[str, str], ...]:
    told = [("split", "split"), ("questions", "questions"), ("learned in", "source_language")]
    known = [(name, said(one.benchmark[key])) for name, key in told if key in one.benchmark]
    return (*known, ("fingerprint (SHA-256, short)", said(one.benchmark.get("fingerprint"))[:12]))
