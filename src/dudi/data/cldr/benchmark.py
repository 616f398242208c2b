"""`cldr-qa-1`: which facts of CLDR a student reads in which language, and which it is asked about.

Every fact belongs to a piece of knowledge (`knowledge`), and that piece is trained in three of the eight languages, or
in none. So each question has a split that says how its answer can have reached a student: `seen`, `transfer`, `unseen`.
Everything here is decided by hashes of names: no seed, no state, the same on every machine.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import babel
from babel.core import get_cldr_version

from dudi.data.cldr.items import answer_value, row_of
from dudi.data.cldr.speaker import LANGUAGES
from dudi.data.cldr.tasks import OPTION_LETTERS, Fact, facts
from dudi.data.cldr.wording import wording
from dudi.data.rows import Row
from dudi.errors import ConfigError, DataError, did_you_mean

NAME = "cldr-qa-1"
CLDR = "47"
"""The version of CLDR that the benchmark is made of: another one has other names, which make other questions."""
Split = Literal["seen", "transfer", "unseen"]
Part = Literal["test", "validation"]
SPLITS: tuple[Split, ...] = ("seen", "transfer", "unseen")
PARTS: tuple[Part, ...] = ("test", "validation")

TASKS: dict[str, tuple[str, ...]] = {
    "names": ("country_name", "country_from_name", "language_name", "currency_name"),
    "currency": ("currency",),
    "official_language": ("official_language", "official_languages"),
    "yes_no": ("currency_yes_no", "official_language_yes_no"),
    "choice": ("currency_choice", "official_language_choice"),
    "calendar": ("weekday_after", "weekday_before", "month_after", "month_before"),
    "formats": ("date", "number", "percent", "list"),
    "units": ("unit",),
}
"""Tasks, and the kinds of question that each one holds."""

LANGUAGES_PER_FACT = 3
UNSEEN_SHARE = 0.15
VALIDATION_SHARE = 0.2
FACTS_PER_OPEN_KIND = 160
"""Of kinds with thousands of facts (names, formats, units) this many are asked."""

_OPEN_KINDS = (*TASKS["names"], *TASKS["formats"], *TASKS["units"])
_MOST_STEPS = {"weekday_after": 14, "weekday_before": 14, "month_after": 12, "month_before": 12}


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """One question of the benchmark: as a prompt with its reference as the completion; `task` is a key of `TASKS`."""

    row: Row
    fact: Fact
    task: str
    split: Split


def knowledge(fact: Fact) -> str:
    """The piece of knowledge behind a fact; two facts that give each other away share one.

    A yes/no question gives away what the open question asks for, and 'three days before Thursday' is 'three days after
    Monday' from the other end.
    """
    kind, key = fact.kind, fact.key
    if kind in ("weekday_before", "month_before"):
        size, first = (7, 0) if kind == "weekday_before" else (12, 1)
        result = (int(key[0]) - first - int(key[1])) % size + first
        return f"{kind.partition('_')[0]}_after/{result}/{key[1]}"
    if kind == "country_from_name":
        return "/".join(("country_name", *map(str, key)))
    for open_kind in ("currency", "official_language"):
        if kind in (f"{open_kind}_yes_no", f"{open_kind}_choice", f"{open_kind}s"):
            return f"{open_kind}/{key[0]}"
    return str(fact)


@functools.cache
def trained_languages(piece: str) -> frozenset[str]:
    """The languages in which a student reads a piece of knowledge; none for about 15 % of all pieces.

    Names are read in every language: the base student of `dudi-mini` was pretrained on them.
    """
    if piece.partition("/")[0] in TASKS["names"]:
        return frozenset(LANGUAGES)
    if _share("unseen", piece) < UNSEEN_SHARE:
        return frozenset()
    ranked = sorted(LANGUAGES, key=lambda language: _share(f"language/{language}", piece))
    return frozenset(ranked[:LANGUAGES_PER_FACT])


def split_of(fact: Fact, language: str, languages: Sequence[str] = LANGUAGES) -> Split:
    """How a student trained on `training_rows(languages)` can know a fact that it is asked in a language.

    Returns:
        `seen`: trained in this language, in other words. `transfer`: trained in other languages only.
        `unseen`: trained in none.
    """
    trained = trained_languages(knowledge(fact)) & set(languages)
    if language in trained:
        return "seen"
    # CLDR may lack a name, and then there is no row.
    return "transfer" if any(answer_value(fact, other) is not None for other in trained) else "unseen"


def part_of(fact: Fact) -> Part:
    """Whether a fact is asked in the test or in the validation part; whole pieces of knowledge go to one of them."""
    return "validation" if _share("part", knowledge(fact)) < VALIDATION_SHARE else "test"


@functools.cache
def benchmark_facts(kind: str) -> tuple[Fact, ...]:
    """The facts of a kind that the benchmark holds, always in the same order."""
    chosen = facts(kind)
    if kind in _MOST_STEPS:
        return tuple(fact for fact in chosen if int(fact.key[1]) <= _MOST_STEPS[kind])
    if kind not in _OPEN_KINDS:
        return chosen
    return tuple(sorted(chosen, key=lambda fact: _share("fact", knowledge(fact)))[:FACTS_PER_OPEN_KIND])


def test_wording(fact: Fact, language: str) -> int:
    """Which paraphrase asks a fact in a language; training leaves this one out."""
    return int(_share(f"wording/{language}", str(fact)) * len(wording(language).questions[fact.kind]))


@functools.cache
def usual_answer(kind: str, language: str) -> str | None:
    """What a student that knows nothing but the habits of a kind would say: its most frequent answer in training.

    The answer's placeholder alone, such as "Euro"; None where the kind is not trained in the language.
    """
    trained = (fact for fact in benchmark_facts(kind) if language in trained_languages(knowledge(fact)))
    values = Counter(value for fact in trained if (value := answer_value(fact, language)) is not None)
    return values.most_common(1)[0][0] if values else None


def guess_rate(fact: Fact, language: str) -> float:
    """The chance that someone is right who knows how a kind is answered, and no fact.

    One of four options by chance; everywhere else the kind's most frequent answer, which is right or not.
    """
    if fact.kind.endswith("_choice"):
        return 1 / len(OPTION_LETTERS)
    return float(usual_answer(fact.kind, language) == answer_value(fact, language))


def training_rows(
    languages: Sequence[str] = LANGUAGES, tasks: Sequence[str] = tuple(TASKS), rows_per_language: int | None = None
) -> list[Row]:
    """What a student may read: each piece of knowledge in its languages, in every wording but the one of the test.

    Languages alternate row by row; every fact comes once before any comes again in other words. Without
    `rows_per_language` there are as many as can be made.

    Raises:
        ConfigError: an unknown language or task.
        DataError: more rows than there are, or so few that a fact would stay out which the benchmark counts as `seen`.
    """
    _check_cldr()
    asked, chosen = check_names("language", languages), check_names("task", tasks)
    drawn = [_training_rows(language, chosen) for language in asked]
    fewest = max(known for known, _ in drawn)
    most = min(len(rows) for _, rows in drawn)
    if rows_per_language is not None and not fewest <= rows_per_language <= most:
        raise DataError(
            f"{NAME}: rows_per_language must lie between {fewest} (each fact once) and {most} for these tasks and "
            f"languages, got {rows_per_language}"
        )
    turns = itertools.zip_longest(*(rows[:rows_per_language] for _, rows in drawn))  # the longer ones go on alone
    return [row for turn in turns for row in turn if row is not None]


def source(
    languages: Sequence[str], tasks: Sequence[str] | None, rows_per_language: int | None, seed: int
) -> list[Row]:
    """The training rows, as `dudi.data.built_in` asks for them: no seed takes part."""
    return training_rows(languages, tuple(TASKS) if tasks is None else tasks, rows_per_language)


def questions(
    languages: Sequence[str] = LANGUAGES,
    tasks: Sequence[str] = tuple(TASKS),
    *,
    part: Part = "test",
    per_split: int | None = None,
    trained: Sequence[str] | None = None,
) -> list[Question]:
    """What a student is asked.

    Args:
        languages: Those of the questions.
        tasks: Keys of `TASKS`.
        part: `test`, or `validation` for choosing hyperparameters.
        per_split: At most this many questions of each language and split, kinds in turn; all when None.
        trained: The languages that the student is trained in; `languages` when None.

    Returns:
        The questions, by language, split and place in the benchmark.

    Raises:
        ConfigError: an unknown language, task or part.
    """
    if part not in PARTS:
        raise ConfigError(f"{NAME}: no part '{part}'{did_you_mean(part, PARTS)}; there are {', '.join(PARTS)}")
    _check_cldr()
    asked = check_names("language", languages)
    known = check_names("language", trained) if trained is not None else asked
    chosen = check_names("task", tasks)
    return [
        question
        for language in asked
        for split in SPLITS
        for question in itertools.islice(_questions(language, chosen, part, split, known), per_split)
    ]


@functools.cache
def _check_cldr() -> None:
    """Say once that the installed Babel makes another benchmark under this name; its fingerprint differs too."""
    if (version := get_cldr_version()) != CLDR:
        warnings.warn(
            f"{NAME} is made of CLDR {CLDR}, and the installed babel {babel.__version__} brings CLDR {version}: "
            "questions differ, and results do not compare with those of others. pip install 'babel>=2.18,<2.19'",
            stacklevel=3,
        )


def check_names(what: Literal["language", "task"], given: Sequence[str]) -> tuple[str, ...]:
    """The languages or tasks that are given, when the benchmark has them all.

    Raises:
        ConfigError: an unknown one, or none.
    """
    names, lacking = (LANGUAGES, "questions in") if what == "language" else (tuple(TASKS), "task")
    for one in given:
        if one not in names:
            raise ConfigError(f"{NAME}: no {lacking} '{one}'{did_you_mean(one, names)}; there are {', '.join(names)}")
    if not given:
        raise ConfigError(f"{NAME}: name at least one {what} of {', '.join(names)}")
    return tuple(dict.fromkeys(given))


def _training_rows(language: str, tasks: Sequence[str]) -> tuple[int, list[Row]]:
    """How many facts are trained in a language, and their rows: each fact once before any comes again."""
    rounds: dict[tuple[int, int, str], Row] = {}
    for kind in (kind for task in tasks for kind in TASKS[task]):
        trained = (fact for fact in benchmark_facts(kind) if language in trained_languages(knowledge(fact)))
        for place, rows in enumerate(filter(None, (_other_wordings(fact, language) for fact in trained))):
            for turn, row in enumerate(rows):
                rounds[turn, place, kind] = row
    once = sum(turn == 0 for turn, _, _ in rounds)
    return once, [rounds[key] for key in sorted(rounds, key=lambda key: key[:2])]


def _other_wordings(fact: Fact, language: str) -> list[Row]:
    """A fact in each wording but the one of the test, beginning with another one for each fact."""
    total, kept = len(wording(language).questions[fact.kind]), test_wording(fact, language)
    rows = (row_of(fact, language, (kept + step) % total) for step in range(1, total))
    return [row for row in rows if row is not None]


def _questions(
    language: str, tasks: Sequence[str], part: Part, split: Split, trained: Sequence[str]
) -> Iterator[Question]:
    """Kinds in turn."""

    def asked(kind: str, task: str) -> Iterator[Question]:
        for fact in sorted(benchmark_facts(kind), key=lambda fact: _share("order", str(fact))):
            if part_of(fact) == part and split_of(fact, language, trained) == split:
                row = row_of(fact, language, test_wording(fact, language))
                if row is not None:
                    yield Question(row, fact, task, split)

    streams = [asked(kind, task) for task in tasks for kind in TASKS[task]]
    for turn in itertools.zip_longest(*streams):
        yield from filter(None, turn)


def _share(what: str, name: str) -> float:
    """A number in [0, 1) that depends on nothing but the two texts."""
    digest = hashlib.sha256(f"{NAME}/{what}/{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
