"""The built-in benchmark `cldr-qa-1` as an entry of the registry (docs/benchmark.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import babel
from babel.core import get_cldr_version

from dudi.data.cldr.benchmark import NAME, TASKS, Question, check_names, guess_rate, questions
from dudi.data.cldr.speaker import LANGUAGES
from dudi.errors import ConfigError
from dudi.evaluation.entry import Trained, Wanted
from dudi.evaluation.generate import Decoding
from dudi.evaluation.questions import ChosenQuestions, Item

MAX_NEW_TOKENS = 64


def choose(name: str, wanted: Wanted) -> ChosenQuestions:
    """The questions that are wanted.

    Languages and tasks that nobody names are those that the student was trained in, and so are the splits; of a model
    that was trained on other rows, the splits are those of a student that was trained in all languages.

    Raises:
        ConfigError: an unknown language, task or part, nothing left to ask, or (of a run) rows that are not all of the
            benchmark's: `seen` and `transfer` would say what is not so.
    """
    if wanted.language is not None:
        raise ConfigError(f"--language is for the rows of a file; {NAME} takes --languages")
    trained, part = wanted.trained, wanted.part or "test"
    if wanted.in_run and trained is not None:
        _check_run(trained, wanted.tasks)
    if trained is None or trained.source != NAME:
        trained = Trained(source=NAME, languages=LANGUAGES)
    found = questions(
        wanted.languages or trained.languages,
        wanted.tasks or trained.tasks or list(TASKS),
        part=part,  # type: ignore[arg-type]  # `questions` refuses any other
        per_split=wanted.per_split,
        trained=trained.languages,
    )
    if not found:
        raise ConfigError(f"{NAME}: no question is left in the {part} part; name other tasks or languages")
    decoding = Decoding.of(wanted, MAX_NEW_TOKENS)
    return ChosenQuestions(items_of(found), decoding, described(found, part), list(LANGUAGES), wanted.batch_size)


def _check_run(trained: Trained, tasks: Sequence[str] | None) -> None:
    if trained.source != NAME or not trained.whole:
        raise ConfigError(
            f"benchmark: its splits say what was trained from {NAME}, and data.train is {trained.source}"
            f"{'' if trained.whole else ' with max_rows'}; set benchmark=null"
        )
    known = list(TASKS) if trained.tasks is None else trained.tasks
    check_names("task", tasks or known)
    if other := [task for task in tasks or () if task not in (*known, "names")]:  # names: the base student read them
        raise ConfigError(f"benchmark.tasks: {', '.join(other)} would be asked and not trained; add to data.tasks")


def items_of(found: Iterable[Question]) -> list[Item]:
    """Questions of the benchmark as items."""
    return [Item(q.row, (), q.task, q.fact.kind, q.split, guess_rate(q.fact, q.row.language)) for q in found]


def fingerprint(found: Sequence[Question]) -> str:
    """SHA-256 over questions, references and splits: two results compare only where it is the same."""
    lines = [[q.row.id, q.split, q.row.prompt[-1]["content"], q.row.completion] for q in found]
    return hashlib.sha256(json.dumps(lines, ensure_ascii=False).encode()).hexdigest()


def described(found: Sequence[Question], part: str) -> dict[str, Any]:
    """What is asked, so that results can be told apart."""
    languages = dict.fromkeys(question.row.language for question in found)
    return {
        "name": NAME,
        "part": part,
        "questions": len(found),
        "languages": list(languages),
        "tasks": list(dict.fromkeys(question.task for question in found)),
        "fingerprint": fingerprint(found),
        "cldr_version": get_cldr_version(),
        "babel_version": babel.__version__,
    }
