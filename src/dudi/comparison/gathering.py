"""From the words of a command line to evaluations: run folders, `evaluation.json`, several joined under one name.

Only JSON and YAML are read: comparing needs no torch.
"""

from __future__ import annotations

import dataclasses
import glob
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dudi.comparison.comparability import differences
from dudi.errors import ConfigError, DataError, did_you_mean
from dudi.evaluation.records import FILE, Evaluation, Run, read_evaluation

RESULT, RECIPE = "benchmark.json", "resolved.yaml"
STUDENT = "student"
_SUBJECT = "run_subject"
_MODELS = {STUDENT: "model", "cold_start": "stages/cold_start/model"}
_WILD = frozenset("*?[")


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """An evaluation and the words that named it."""

    place: str
    evaluation: Evaluation
    named: bool = False


def gather(words: Sequence[str]) -> list[Evaluation]:
    """Read what a command line names.

    Args:
        words: Each a run folder, `RUN:SUBJECT`, an `evaluation.json` or its folder, or `NAME=` and several of these
            with commas between them; patterns such as `'runs/dudi-*'` stand for several. Runs of several seeds under
            one word become the runs of one evaluation.

    Returns:
        One evaluation a word, in their order. Its name is NAME, or what its file says; where two files say the same,
        the folder's name.

    Raises:
        ConfigError: nothing is there, a subject is not in the run, or what shall be joined does not go together.
        DataError: a file is broken.
    """
    found = [_one(word) for word in words]
    names = [one.evaluation.name for one in found]
    twice = {name for name in names if names.count(name) > 1}
    evaluations = [_by_folder(one) if one.evaluation.name in twice and not one.named else one for one in found]
    _check_names([(one.evaluation.name, one.place) for one in evaluations])
    return [one.evaluation for one in evaluations]


def _by_folder(found: _Found) -> _Found:
    path, _, subject = found.place.partition(":")
    place = Path(path)
    folder = place.parent if place.suffix == ".json" else place
    name = folder.resolve().name + (f":{subject}" if subject else "")
    return dataclasses.replace(found, evaluation=dataclasses.replace(found.evaluation, name=name))


def _check_names(named: Iterable[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for name, place in named:
        if name in seen:
            raise ConfigError(f"{seen[name]} and {place} are both called '{name}'; call one NAME={place}")
        seen[name] = place


def _one(word: str) -> _Found:
    name, places = None, _places(word)
    if places is None and "=" in word:
        name, _, rest = word.partition("=")
        if not name.strip():
            raise ConfigError(f"{word}: write the name before '='")
        places = _places(rest)
        word = rest
    if places is None:
        raise ConfigError(f"{word}: there is no such run folder or evaluation")
    parts = [(_said(path, subject), _read(path, subject)) for path, subject in places]
    evaluation = _joined(name.strip() if name else None, parts)
    return _Found(parts[0][0] if len(parts) == 1 else word, evaluation, name is not None)


def _said(path: Path, subject: str | None) -> str:
    return f"{path}:{subject}" if subject else str(path)


def _places(text: str) -> list[tuple[Path, str | None]] | None:
    """The paths behind a word, each with its subject; None when one of them is not there."""
    if text and (whole := _matches(text)):
        return whole
    parts = [_matches(part) for part in text.split(",") if part] if "," in text else []
    return [place for part in parts if part for place in part] if parts and all(parts) else None


def _matches(text: str) -> list[tuple[Path, str | None]]:
    path, colon, subject = text.rpartition(":")
    if paths := _paths(text):
        return [(one, None) for one in paths]
    return [(one, subject) for one in _paths(path)] if colon and path else []


def _paths(text: str) -> list[Path]:
    if Path(text).exists():
        return [Path(text)]
    return [Path(one) for one in sorted(glob.glob(text, recursive=True))] if _WILD & set(text) else []


def _read(path: Path, subject: str | None) -> Evaluation:
    file = _file(path, subject) if path.is_dir() else path
    if file.name == RESULT:
        return _of_run(file, subject or STUDENT)
    if subject:
        raise ConfigError(f"{path}:{subject}: only the {RESULT} of a run folder has subjects")
    return _checked(read_evaluation(file), file)


def _file(folder: Path, subject: str | None) -> Path:
    files = [folder / name for name in (FILE, RESULT) if (folder / name).is_file()]
    if subject:
        files = [file for file in files if file.name == RESULT]
    if not files:
        wanted = RESULT if subject else f"neither {FILE} nor {RESULT}"
        raise ConfigError(
            f"{folder}: holds {'no ' if subject else ''}{wanted}; a run whose recipe has a section benchmark, or "
            "`dudi eval`, writes it"
        )
    if len(files) > 1:
        raise ConfigError(f"{folder}: holds {FILE} and {RESULT}; name the file that you mean")
    return files[0]


def _checked(evaluation: Evaluation, file: Path) -> Evaluation:
    """An evaluation whose parts are of the kinds that they should be.

    Raises:
        DataError: they are not.
    """
    if not isinstance(evaluation.name, str) or not evaluation.name.strip() or not evaluation.name.isprintable():
        raise DataError(f"{file}: its name is not a line of text")
    wrong = [key for key in ("benchmark", "about") if not isinstance(getattr(evaluation, key), Mapping)]
    wrong += ["scores" for run in evaluation.runs if not isinstance(run.scores, Mapping)][:1]
    if wrong:
        raise DataError(f"{file}: {wrong[0]} is not a mapping")
    if not evaluation.runs:
        raise DataError(f"{file}: holds no run")
    if any(isinstance(seed, bool) or not isinstance(seed, int) for seed in evaluation.seeds):
        raise DataError(f"{file}: a seed is not a whole number")
    return evaluation


def _of_run(file: Path, subject: str) -> Evaluation:
    """One subject of a run folder; its seed is the training's."""
    folder = file.parent
    content = _mapping(file, json.loads)
    scores, benchmark = content.get("scores"), content.get("benchmark")
    if not isinstance(scores, Mapping) or not isinstance(benchmark, Mapping):
        raise DataError(f"{file}: has no scores or no benchmark; was it written by a run?")
    if subject not in scores:
        hint = did_you_mean(subject, scores) or f"; it has {', '.join(map(str, scores))}"
        raise ConfigError(f"{file}: there is no subject '{subject}'{hint}")
    recipe = _mapping(folder / RECIPE, yaml.safe_load)
    method = str(content.get("method") or recipe.get("method") or folder.resolve().name)
    evaluation = Evaluation(
        name=method if subject == STUDENT else subject.replace("_", " "),
        model=_model(folder, recipe, subject),
        benchmark=benchmark,
        runs=(Run(recipe.get("seed"), scores[subject]),),  # type: ignore[arg-type]  # _checked refuses the others
        about={"method": method, _SUBJECT: subject},
    )
    return _checked(evaluation, file if "seed" in recipe else folder / RECIPE)


def _model(folder: Path, recipe: Mapping[str, Any], subject: str) -> str:
    if subject in _MODELS:
        return str(folder / _MODELS[subject])
    section = recipe.get(STUDENT if subject == "base" else subject)
    return str(section.get("model")) if isinstance(section, Mapping) else subject


def _mapping(file: Path, parse: Any) -> Mapping[str, Any]:
    try:
        content = parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}; is {file.parent} a whole run folder?") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        what = str(error).partition("\n")[0]
        raise DataError(f"{file}: cannot be understood: {what}") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{file}: is not a mapping of keys to values")
    return content


def _joined(name: str | None, parts: Sequence[tuple[str, Evaluation]]) -> Evaluation:
    """Several evaluations of one method as one, a run per seed."""
    (place, first), *others = parts
    if not others:
        return dataclasses.replace(first, name=name or first.name)
    for other_place, other in others:
        _check_joins(place, first, other_place, other, name)
    if _shared_seed(parts) and all(len(part.runs) == 1 for _, part in parts):
        parts = [(place, _by_training_seed(place, part)) for place, part in parts]
    if shared := _shared_seed(parts):
        raise ConfigError(shared)
    runs = sorted((run for _, part in parts for run in part.runs), key=lambda run: run.seed)
    models = dict.fromkeys(part.model for _, part in parts)
    return Evaluation(name or first.name, ", ".join(models), first.benchmark, tuple(runs), first.about)


def _check_joins(place: str, first: Evaluation, other_place: str, other: Evaluation, name: str | None) -> None:
    for key in ("method", _SUBJECT):
        one, two = first.about.get(key), other.about.get(key)
        if one and two and one != two:
            raise ConfigError(
                f"{place} and {other_place} are not seeds of one method: one is of {one}, the other of {two}"
            )
    if name is None and first.name != other.name:
        raise ConfigError(f"{place} and {other_place} have different names; write NAME=PATH,PATH to join them")
    renamed = [dataclasses.replace(one, name=where) for where, one in ((place, first), (other_place, other))]
    if found := differences(renamed[0], renamed[1], seeds=False):
        raise ConfigError(f"{found[0].text}: they cannot be the seeds of one evaluation")


def _shared_seed(parts: Iterable[tuple[str, Evaluation]]) -> str:
    """Which two have a seed in common; empty when none have."""
    seen: dict[int, str] = {}
    for place, part in parts:
        for seed in part.seeds:
            if seed in seen:
                return f"{seen[seed]} and {place} both have seed {seed}; join runs of different seeds"
            seen[seed] = place
    return ""


def _by_training_seed(place: str, part: Evaluation) -> Evaluation:
    """An evaluation whose one run is known by the seed that its model was trained with, where that can be found.

    Greedy answers to several models all have the same seed, the one of the sampling that was not done.
    """
    recipe = Path(part.model).parent / RECIPE
    if _SUBJECT in part.about or not recipe.is_file():
        return part
    seed: Any = _mapping(recipe, yaml.safe_load).get("seed")
    run = dataclasses.replace(part.runs[0], seed=seed)
    return _checked(dataclasses.replace(part, runs=(run,)), recipe)
