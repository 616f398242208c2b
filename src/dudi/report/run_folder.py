"""A run directory as data: what is there, and what is missing. Nothing in it is trusted to be whole."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.config.yaml_tree import parse_yaml
from dudi.errors import ConfigError, DudiError
from dudi.evaluation.records import ANSWERS, FILE, Evaluation, part_of, read_evaluations
from dudi.report.settings import SettingLine, read_settings
from dudi.training.runlog import read_jsonl

COLD_START = "cold_start"
EVALUATIONS = "eval.jsonl"
PROBE = "stages/probe/probe.json"
STACK_PARTS = ("encoder", "llm")
FILES = ("resolved.yaml", "env.json", "data.json", "metrics.jsonl", "samples.jsonl")


@dataclasses.dataclass(frozen=True, slots=True)
class RunFolder:
    """What a run directory holds.

    Attributes:
        name: What charts and tables call the run.
        settings: The lines of `resolved.yaml`.
        values: The same as values, sections as mappings.
        environment: `env.json`.
        data: `data.json`.
        metrics: The objects of `metrics.jsonl`, in order; likewise of `samples.jsonl`, `answers.jsonl`, `eval.jsonl`.
        missing: Files that are not there or cannot be read.
        scores: `evaluation.json`; empty when the run has none that can be read.
        probe: What the probe of `teacher_weight: auto` found, by language; empty for a run without one.
    """

    name: str
    path: Path
    settings: tuple[SettingLine, ...]
    values: Mapping[str, Any]
    environment: Mapping[str, Any]
    data: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    samples: tuple[Mapping[str, Any], ...]
    missing: tuple[str, ...]
    scores: tuple[Evaluation, ...] = ()
    answers: tuple[Mapping[str, Any], ...] = ()
    evaluations: tuple[Mapping[str, Any], ...] = ()
    probe: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_stack(self) -> bool:
        """Whether `dudi stack` made this run."""
        return all(isinstance(self.values.get(key), dict) for key in STACK_PARTS)

    def stage(self, cold: bool) -> list[Mapping[str, Any]]:
        """The metrics of the cold start, or of everything else."""
        return [record for record in self.metrics if (record.get("stage") == COLD_START) is cold]

    def evaluated(self) -> list[Mapping[str, Any]]:
        """The evaluations of everything but the cold start."""
        return [record for record in self.evaluations if record.get("stage") != COLD_START]

    def value(self, key: str) -> Any:
        """A value of `resolved.yaml` by its dotted key; None when it is not there."""
        section, dot, name = key.partition(".")
        return part_of(self.values, section).get(name) if dot else self.values.get(section)


def read_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Read run directories; runs of the same name get their parent's in front.

    Raises:
        ConfigError: a folder is not there, or holds nothing of a run.
    """
    if not folders:
        raise ConfigError("report: name at least one run directory")
    runs = [read_run(Path(folder)) for folder in folders]
    names = [run.name for run in runs]
    found = []
    for run in runs:
        name = f"{run.path.resolve().parent.name}/{run.name}" if names.count(run.name) > 1 else run.name
        found.append(dataclasses.replace(run, name=name))
    return found


def read_run(folder: Path) -> RunFolder:
    """Read one run directory.

    Raises:
        ConfigError: as `read_runs`.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such run directory")
    missing: list[str] = []
    values = read_object(folder, "resolved.yaml", missing, lambda text: parse_yaml(text, "resolved.yaml").plain())
    environment, data = read_object(folder, "env.json", missing), read_object(folder, "data.json", missing)
    metrics, samples = _lines(folder, "metrics.jsonl", missing), _lines(folder, "samples.jsonl", missing)
    if len(missing) == len(FILES):
        raise ConfigError(f"{folder}: holds none of {', '.join(FILES)}; is it a run directory?")
    try:
        scores = read_evaluations(folder / FILE)
    except DudiError:  # a run without a benchmark misses nothing
        scores = []
    settings = read_settings(_text(folder / "resolved.yaml"), environment.get("command")) if values else []
    return RunFolder(
        name=folder.resolve().name,
        path=folder,
        settings=tuple(settings),
        values=values,
        environment=environment,
        data=data,
        metrics=metrics,
        samples=samples,
        missing=tuple(missing),
        scores=tuple(scores),
        answers=_lines(folder, ANSWERS, []),
        evaluations=_lines(folder, EVALUATIONS, []),
        probe=read_object(folder, PROBE, []),
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def read_object(
    folder: Path, name: str, missing: list[str], parse: Callable[[str], Any] = json.loads
) -> Mapping[str, Any]:
    """The mapping that a file of a run holds; empty, and its name among `missing`, where there is none."""
    text = _text(folder / name)
    try:
        values = parse(text) if text else None
    except (ConfigError, ValueError, RecursionError):
        values = None
    if isinstance(values, dict):
        return values
    missing.append(name)
    return {}


def _lines(folder: Path, name: str, missing: list[str]) -> tuple[Mapping[str, Any], ...]:
    try:
        records = tuple(read_jsonl(folder / name))
    except OSError:
        records = ()
    if not records:
        missing.append(name)
    return records


def number(value: Any) -> float | None:
    """A finite number, or None: for missing keys, text, NaN and infinities alike."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def text_of(record: Mapping[str, Any], key: str) -> str:
    """A value as text; empty for none."""
    value = record.get(key)
    return "" if value is None else str(value)


def last(records: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """The last finite value of a key."""
    return next((found for record in reversed(records) if (found := number(record.get(key))) is not None), None)


def numbers(records: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """All finite values of a key."""
    return [found for record in records if (found := number(record.get(key))) is not None]


def points(records: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) of the records that have both."""
    pairs = ((number(record.get("step")), number(record.get(key))) for record in records)
    return [(step, value) for step, value in pairs if step is not None and value is not None]


def overlap_key(records: Sequence[Mapping[str, Any]]) -> str | None:
    """`overlap@16`, whatever k the run used; None when it was not measured."""
    return next((key for record in records for key in record if str(key).startswith("overlap@")), None)
