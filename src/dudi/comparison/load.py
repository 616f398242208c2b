"""From the words of a command line to evaluations: run folders, `evaluation.json`, several joined under one name.

Only JSON and YAML are read: comparing needs no torch.
"""

from __future__ import annotations

import dataclasses
import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dudi.comparison.same import differences
from dudi.config.yaml_tree import read_yaml
from dudi.errors import ConfigError, DataError, DudiError, did_you_mean
from dudi.evaluation.records import FILE, FLOOR, STUDENT, Evaluation, joined, read_evaluations

RECIPE = "resolved.yaml"
_WILD = frozenset("*?[")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where an evaluation is read from: a file or its folder, and which of those in it (`RUN:SUBJECT`)."""

    path: Path
    subject: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.subject}" if self.subject else str(self.path)


def load_evaluations(words: Sequence[str], benchmark: str | None = None) -> list[Evaluation]:
    """Read what a command line names.

    Args:
        words: Each a run folder, `RUN:SUBJECT`, an `evaluation.json` or its folder, or `NAME=` and several of these
            with commas between them; patterns such as `'runs/dudi-*'` stand for several. Runs of several seeds under
            one word become the runs of one evaluation.
        benchmark: Whose scores, of files that hold several benchmarks'.

    Returns:
        One evaluation a word, in their order. Its name is NAME, or what its file says; where two files say the same,
        the folder's name.

    Raises:
        ConfigError: nothing is there, a subject is not in the run, or what shall be joined does not go together.
        DataError: a file is broken.
    """
    found: list[tuple[str, Evaluation, bool]] = []
    for word in words:
        name, places = _places_of(word)
        parts = [(place, _read(place, benchmark)) for place in places]
        said = str(places[0]) if len(places) == 1 else word
        found.append((said, _joined(name, parts), name is not None))
    taken = Counter(one.name for _, one, _ in found)
    evaluations: dict[str, tuple[str, Evaluation]] = {}
    for said, one, named in found:
        if taken[one.name] > 1 and not named:
            path, colon, subject = said.partition(":")
            folder = Path(path).parent if path.endswith(".json") else Path(path)
            one = dataclasses.replace(one, name=folder.resolve().name + colon + subject)
        if one.name in evaluations:
            raise ConfigError(
                f"{evaluations[one.name][0]} and {said} are both called '{one.name}'; call one NAME={said}"
            )
        evaluations[one.name] = said, one
    return [one for _, one in evaluations.values()]


def _places_of(word: str) -> tuple[str | None, list[Place]]:
    """`NAME=PATH,PATH`: the name, where there is one, and the places."""
    if (places := _places(word)) is not None:
        return None, places
    name, equals, rest = word.partition("=")
    if equals and not name.strip():
        raise ConfigError(f"{word}: write the name before '='")
    if equals and (places := _places(rest)) is not None:
        return name.strip(), places
    raise ConfigError(f"{rest if equals else word}: there is no such run folder or evaluation")


def _places(text: str) -> list[Place] | None:
    """The places behind a text; None when one of them is not there."""
    if text and (whole := _matches(text)):
        return whole
    parts = [_matches(part) for part in text.split(",") if part] if "," in text else []
    return [place for part in parts for place in part] if parts and all(parts) else None


def _matches(text: str) -> list[Place]:
    parts = text.split(":")
    for count in range(len(parts), 0, -1):  # a subject may have a colon in its name, and so may a folder
        path = ":".join(parts[:count])
        found = [path] if path and Path(path).exists() else []
        if not found and _WILD & set(path):
            found = sorted(glob.glob(path, recursive=True))
        if found:
            return [Place(Path(one), ":".join(parts[count:])) for one in found]
    return []


def _read(place: Place, benchmark: str | None) -> Evaluation:
    """The evaluation of a place: of a run the student's, unless another subject is named."""
    file = place.path / FILE if place.path.is_dir() else place.path
    if not file.is_file():
        raise ConfigError(
            f"{place.path}: holds no {FILE}; a run whose recipe has a section benchmark, `dudi eval` or (with --card, "
            "into a run) `dudi stack eval` writes it"
        )
    found = read_evaluations(file)
    names = list(dict.fromkeys(str(one.benchmark.get("name")) for one in found))
    wanted = benchmark if benchmark is not None else names[0] if len(names) == 1 else None
    if wanted not in names:
        hint = "" if benchmark is None else did_you_mean(benchmark, names)
        raise ConfigError(f"{file}: holds {', '.join(names) or 'nothing'}; choose with --benchmark NAME{hint}")
    found = [one for one in found if str(one.benchmark.get("name")) == wanted]
    by_subject = {one.subject or one.name: one for one in found}
    if (guessing := found[0].guessing()) is not None:
        by_subject.setdefault(FLOOR, guessing)
    if place.subject:
        if place.subject not in by_subject:
            hint = did_you_mean(place.subject, by_subject) or f"; it has {', '.join(by_subject)}"
            raise ConfigError(f"{file}: there is no subject '{place.subject}'{hint}")
        return by_subject[place.subject]
    one = by_subject.get(STUDENT) or (found[0] if len(found) == 1 else None)
    if one is None:
        raise ConfigError(f"{file}: holds several models; write {place.path}:NAME, of {', '.join(by_subject)}")
    return one


def _joined(name: str | None, parts: Sequence[tuple[Place, Evaluation]]) -> Evaluation:
    """Several evaluations of one method as one, a run per seed."""
    (place, first), *others = parts
    if not others:
        return dataclasses.replace(first, name=name or first.name)
    for other_place, other in others:
        both = f"{place} and {other_place}"
        for one, two in ((first.about.get("method"), other.about.get("method")), (first.subject, other.subject)):
            if one and two and one != two:
                raise ConfigError(f"{both} are not seeds of one method: one is of {one}, the other of {two}")
        if name is None and first.name != other.name:
            raise ConfigError(f"{both} have different names; write NAME=PATH,PATH to join them")
        renamed = [dataclasses.replace(first, name=str(place)), dataclasses.replace(other, name=str(other_place))]
        if found := differences(*renamed, seeds=False):
            raise ConfigError(f"{found[0].text}: they cannot be the seeds of one evaluation")
    if _shared_seed(parts) and all(len(part.runs) == 1 for _, part in parts):
        parts = [(place, _by_training_seed(part)) for place, part in parts]
    if shared := _shared_seed(parts):
        raise ConfigError(shared)
    return joined([part for _, part in parts], name)


def _shared_seed(parts: Sequence[tuple[Place, Evaluation]]) -> str:
    """Which two have a seed in common; empty when none have."""
    seen: dict[int, Place] = {}
    for place, seed in ((place, seed) for place, part in parts for seed in part.seeds):
        if seed in seen:
            return f"{seen[seed]} and {place} both have seed {seed}; join runs of different seeds"
        seen[seed] = place
    return ""


def _by_training_seed(part: Evaluation) -> Evaluation:
    """An evaluation whose one run is known by the seed that its model was trained with, where that can be found.

    Greedy answers to several models all have the same seed, the one of the sampling that was not done.
    """
    recipe = Path(part.model).parent / RECIPE
    if part.subject or not recipe.is_file():
        return part
    try:
        content: Any = read_yaml(recipe).plain()
    except DudiError as error:
        raise DataError(str(error)) from error
    seed = content.get("seed") if isinstance(content, dict) else None
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise DataError(f"{recipe}: has no seed that is a whole number")
    return dataclasses.replace(part, runs=(dataclasses.replace(part.runs[0], seed=seed),))
