"""`evaluation.json`: one model's scores on one benchmark, over one or several seeds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError, DataError

FORMAT = "dudi-evaluation-1"
FILE = "evaluation.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """The scores of one seed.

    Attributes:
        seed: Of the answers that were sampled, or of the training.
        scores: `overall` (metric to value), `by_language`, `by_split`, `by_task` and the like (key, then metric), and
            `by_language_and_split` (two keys). A metric that is missing, or None, was not measured.
    """

    seed: int
    scores: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """One model, asked in one way.

    Attributes:
        name: What tables call it.
        model: Its folder or hub name.
        benchmark: What was asked and how; two evaluations compare only where this is the same.
        runs: One per seed, seeds ascending.
        about: Versions and other facts that do not decide whether two evaluations compare.
    """

    name: str
    model: str
    benchmark: Mapping[str, Any]
    runs: tuple[Run, ...]
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """The seeds, ascending."""
        return [run.seed for run in self.runs]

    def values(self, metric: str, *keys: str) -> list[float]:
        """A metric over the seeds.

        Args:
            metric: Such as `exact_match`.
            keys: Where it stands: `"overall"`, or `"by_language", "th"`.

        Returns:
            One value per seed that has it: fewer than `seeds`, or none, where it is missing.
        """
        found = []
        for run in self.runs:
            place: Any = run.scores
            for key in keys:
                place = place.get(key) if isinstance(place, Mapping) else None
            value = place.get(metric) if isinstance(place, Mapping) else None
            if value is not None:
                found.append(float(value))
        return found


def write_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Write `evaluation.json` into a folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    content = {"format": FORMAT, **dataclasses.asdict(evaluation)}
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return file


def read_evaluation(file: Path) -> Evaluation:
    """Read an `evaluation.json`.

    Raises:
        ConfigError: there is no such file.
        DataError: it is not one that this version reads.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{file}: is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{file}: is not an evaluation of format {FORMAT}")
    try:
        runs = tuple(sorted((Run(**run) for run in content["runs"]), key=lambda run: run.seed))
        return Evaluation(content["name"], content["model"], content["benchmark"], runs, content.get("about", {}))
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: is not a whole evaluation: {error}") from error
