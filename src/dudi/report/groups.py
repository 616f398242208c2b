"""Runs that differ by their seed alone belong together: one method, one colour, one row of a table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from dudi.distill.keys import DudiKeys
from dudi.report.charts import DASHES, Key
from dudi.report.run_folder import RunFolder
from dudi.training.keys import INHERITED, rules_of

_RULES = INHERITED | rules_of(DudiKeys)
_NOT_THE_METHOD = {"seed", "data_seed", *(name for name, rule in _RULES.items() if rule.resume == "free")}
"""Keys that change what a run draws, how it is called or how it is logged, and not what is trained."""
_NOT_THE_METHOD_SECTIONS = ("benchmark",)


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Runs of one method with the same values, by seed; the label tells them from other groups of their method."""

    label: str
    runs: tuple[RunFolder, ...]
    colour: int

    @property
    def seeds(self) -> list[str]:
        """What tells each run from the others of its group: the seed, else the folder's name."""
        seeds = [run.value("seed") for run in self.runs]
        known = [str(seed) for seed in seeds if seed is not None]
        return known if len(set(known)) == len(self.runs) else [run.name for run in self.runs]

    @property
    def described(self) -> str:
        """`dudi, seeds 0, 1 and 3`; a single run's label alone."""
        if len(self.runs) == 1:
            return self.label
        *others, final = self.seeds
        told = f"{', '.join(others)} and {final}"
        numbers = [int(seed) for seed in self.seeds if seed.isdecimal()]
        if len(numbers) == len(self.runs) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
            told = f"{numbers[0]} to {numbers[-1]}"
        return f"{self.label}, seeds {told}"

    def keys(self) -> list[Key]:
        """The legend of its runs, each with its pattern of line."""
        return [Key(seed, self.colour, place % DASHES) for place, seed in enumerate(self.seeds)]


def grouped(runs: Sequence[RunFolder]) -> list[Group]:
    """The groups of some runs, in the order in which they were named."""
    members: dict[str, list[RunFolder]] = {}
    for run in runs:
        # The same for runs that differ by their seed alone; a run whose recipe is lost stands alone.
        kept = {key: value for key, value in run.values.items() if _counts(str(key))}
        alike = json.dumps(kept, sort_keys=True, default=str) if run.values else f"folder {run.path.resolve()}"
        members.setdefault(alike, []).append(run)
    seeds = {run.name: run.value("seed") for run in runs}
    known = {name: seed if isinstance(seed, int) else float("inf") for name, seed in seeds.items()}
    ordered = [sorted(own, key=lambda run: (known[run.name], run.name)) for own in members.values()]
    labels = _labels([own[0] for own in ordered])
    return [Group(label, tuple(own), colour) for colour, (label, own) in enumerate(zip(labels, ordered, strict=True))]


def differing(runs: Sequence[RunFolder]) -> dict[str, list[str]]:
    """The settings that are not the same in all runs: key to the value in each, an empty text where it is missing.

    Seeds and names are left out.
    """
    values: dict[str, list[str]] = {}
    for place, run in enumerate(runs):
        for setting in run.settings:
            if _counts(setting.key):
                values.setdefault(setting.key, [""] * len(runs))[place] = setting.value
    return {key: own for key, own in values.items() if len(set(own)) > 1}


def _counts(key: str) -> bool:
    section = key.partition(".")[0]
    return section not in _NOT_THE_METHOD_SECTIONS and key not in _NOT_THE_METHOD


def _labels(runs: Sequence[RunFolder]) -> list[str]:
    """The method, or a stack's stage; where several groups share it, with the values in which they differ."""
    methods = [str(run.value("method") or run.value("stage") or "") for run in runs]
    labels = []
    for run, method in zip(runs, methods, strict=True):
        namesakes = [other for other, name in zip(runs, methods, strict=True) if name == method]
        place = namesakes.index(run)
        values = {key: row[place] for key, row in differing(namesakes).items()}
        # `alpha 0.2`: values that a person set stand before all others.
        given = {setting.key for setting in run.settings if setting.given}
        told = {key: value for key, value in values.items() if key in given} or values
        parts = [f"{key.rpartition('.')[2]} {value}" for key, value in told.items() if value][:3]
        labels.append(", ".join([method, *parts]) if method else run.name)
    return [label if labels.count(label) == 1 else run.name for label, run in zip(labels, runs, strict=True)]
