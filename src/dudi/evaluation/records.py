"""`evaluation.json`: the scores of models, each on one benchmark and over one or several seeds.

The one format for scores: `dudi eval`, the benchmark at the end of a run, studies and stacks write it, and `dudi
compare`, the report and the model card read it. No torch here.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError, DataError
from dudi.evaluation.metrics import Metric, metric_of
from dudi.files import json_text, write_json_lines, write_text
from dudi.training.runlog import read_jsonl

FORMAT, FIRST_FORMAT = "dudi-evaluation-2", "dudi-evaluation-1"
"""The first held a single evaluation."""
FILE, ANSWERS = "evaluation.json", "answers.jsonl"
FLOOR, STUDENT = "floor", "student"
"""Who guesses, and who was trained: two of the subjects of a run."""


@dataclasses.dataclass(frozen=True, slots=True)
class SeedScores:
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
        about: Versions and other facts that do not decide whether two evaluations compare. `guessing` holds what
            guessing reaches on the same questions, where that is known; `better` which way those metrics are better
            that only their tasks know (1 or -1).
        subject: Who it is in a run: `base`, `cold_start`, `student`, `teacher`, `teacher_my+ta`; else empty.
        answers: Where its single answers are, and how the lines name it; known of what was read, and not written.
        parts: The evaluations that this one was joined from, a run of each; not written either.
    """

    name: str
    model: str
    benchmark: Mapping[str, Any]
    runs: tuple[SeedScores, ...]
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    subject: str = ""
    answers: tuple[Path, str] | None = dataclasses.field(default=None, compare=False)
    parts: tuple[Evaluation, ...] = dataclasses.field(default=(), compare=False)

    @property
    def seeds(self) -> list[int]:
        """The seeds, ascending."""
        return [run.seed for run in self.runs]

    def values(self, metric: str, *keys: str) -> list[float]:
        """A metric such as `exact_match` of each seed that has it at a place: `"overall"`, or `"by_language", "th"`."""
        places = [part_of(run.scores, *keys) for run in self.runs]
        return [float(place[metric]) for place in places if place.get(metric) is not None]

    def error(self, metric: str, *keys: str) -> float | None:
        """The standard error over questions of what `values` gives; None over several seeds or where none is known."""
        if len(self.runs) != 1:
            return None
        value = part_of(self.runs[0].scores, *keys, "stderr").get(metric)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        return None

    def metric(self, name: str) -> Metric:
        """A metric of the scores, with the direction that the record has of it."""
        return metric_of(name, self.about.get("better"))

    def keys(self, by: str) -> list[str]:
        """What any run has under `by_...`, in the order in which it comes."""
        return list(dict.fromkeys(key for run in self.runs for key in part_of(run.scores, f"by_{by}")))

    def guessing(self) -> Evaluation | None:
        """What guessing reaches on the same questions; None where that is not known."""
        scores = self.about.get("guessing")
        if not isinstance(scores, Mapping):
            return None
        runs = tuple(SeedScores(run.seed, scores) for run in self.runs)
        return Evaluation(FLOOR, "", self.benchmark, runs, {}, FLOOR)


def part_of(scores: Any, *keys: str) -> Mapping[str, Any]:
    """What stands in scores, or in any tree of mappings, below some keys; empty where that is no mapping."""
    for key in keys:
        scores = scores.get(key) if isinstance(scores, Mapping) else None
    return scores if isinstance(scores, Mapping) else {}


def joined(parts: Sequence[Evaluation], name: str | None = None) -> Evaluation:
    """Evaluations of the seeds of one method, no two with one seed, as one; the rest is the first one's."""
    runs = sorted((run for part in parts for run in part.runs), key=lambda run: run.seed)
    models = ", ".join(dict.fromkeys(part.model for part in parts))
    named = dataclasses.replace(parts[0], name=name or parts[0].name, model=models)
    return dataclasses.replace(named, runs=tuple(runs), parts=tuple(parts))


def write_evaluations(evaluations: Iterable[Evaluation], file: Path, *, a_line_each: bool = False) -> Path:
    """Write an `evaluation.json` whole or not at all; returns its path.

    With `a_line_each` a difference in a repository shows which evaluation is another.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    contents = []
    for one in evaluations:
        content = dataclasses.asdict(one)
        del content["answers"], content["parts"]
        contents.append(content)
    if not a_line_each:
        return write_text(file, json_text({"format": FORMAT, "evaluations": contents}))
    lines = ",\n".join(json.dumps(content, ensure_ascii=False) for content in contents)
    return write_text(file, f'{{"format": "{FORMAT}", "evaluations": [\n{lines}\n]}}\n')


def keep_evaluations(
    new: Sequence[Evaluation],
    answers: Iterable[Mapping[str, Any]],
    folder: Path,
    stays: Callable[[Evaluation], bool] = lambda old: True,
) -> Path:
    """Put evaluations and their answers into a folder, beside what it holds of others; returns `evaluation.json`.

    An evaluation takes the place of the one of the same subject on the benchmark of the same name, and of no other.

    Args:
        new: The evaluations.
        answers: Lines of `answers.jsonl`, each with its `benchmark` and its `subject`.
        folder: It is made.
        stays: Whether one of the others that are there may stay.

    Raises:
        DataError: the folder holds an `evaluation.json` that cannot be read.
        EnvironmentFault: a file cannot be written.
    """
    places = {place_of(one) for one in new}
    others = [one for one in evaluations_in(folder) if place_of(one) not in places and stays(one)]
    kept, lines = {place_of(one) for one in others}, read_jsonl(folder / ANSWERS)
    old = [line for line in lines if (str(line.get("benchmark")), str(line.get("subject"))) in kept]
    write_json_lines(folder / ANSWERS, [*old, *answers])
    return write_evaluations([*others, *new], folder / FILE)  # last: a folder with scores is whole


def place_of(evaluation: Evaluation) -> tuple[str, str]:
    """The benchmark's name, and who was asked: one folder holds one evaluation of each."""
    return str(evaluation.benchmark.get("name")), evaluation.subject or evaluation.name


def evaluations_in(folder: Path) -> list[Evaluation]:
    """What a folder holds already; errors as of `read_evaluations`."""
    return read_evaluations(folder / FILE) if (folder / FILE).is_file() else []


def read_evaluations(file: Path) -> list[Evaluation]:
    """Read an `evaluation.json`.

    Raises:
        ConfigError: there is no such file.
        DataError: it is not one that this version reads, or not whole.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not JSON: {error}") from error
    kind = content.get("format") if isinstance(content, dict) else None
    if kind not in (FORMAT, FIRST_FORMAT):
        raise DataError(f"{file}: is not of the format {FORMAT}")
    found = content.get("evaluations") if kind == FORMAT else [content]
    if not isinstance(found, list):
        raise DataError(f"{file}: evaluations: expected a list")
    return [_evaluation(one, file) for one in found]


def _evaluation(content: Any, file: Path) -> Evaluation:
    """One evaluation whose parts are of the kinds that they should be."""
    try:
        runs = tuple(sorted((SeedScores(**run) for run in content["runs"]), key=lambda run: run.seed))
        name, model, subject = names = content["name"], content["model"], content.get("subject", "")
        answers = (file.with_name(ANSWERS), str(subject or name))
        one = Evaluation(name, model, content["benchmark"], runs, content.get("about", {}), subject, answers)
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{file}: is not a whole evaluation: {type(error).__name__}: {error}") from error
    if not all(isinstance(name, str) and name.isprintable() for name in names) or not one.name.strip():
        raise DataError(f"{file}: a name is not a line of text")
    wrong = [key for key in ("benchmark", "about") if not isinstance(getattr(one, key), Mapping)]
    wrong += ["scores" for run in runs if not isinstance(run.scores, Mapping)]
    if wrong:
        raise DataError(f"{file}: {wrong[0]} is not a mapping")
    if not runs or any(isinstance(run.seed, bool) or not isinstance(run.seed, int) for run in runs):
        raise DataError(f"{file}: {one.name}: a run has no whole number as its seed, or there is none")
    return one
