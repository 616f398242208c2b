"""Two tasks that English alone teaches: where a country lies, and which of four answers is right."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from dudi.data.cldr import locales
from dudi.data.cldr.speaker import speaker
from dudi.data.cldr.tasks import _languages_elsewhere
from dudi.stacking.miniature.places import REGIONS, countries, in_parallel, region_of
from dudi.stacking.miniature.sentences import Frame, say
from dudi.stacking.rows import StackRow, Task

TASKS = {
    "region": Task("classification", ("Africa", "the Americas", "Asia", "Europe", "Oceania")),
    "choice": Task("choice"),
}
"""`region`: in which part of the world does the story play? `choice`: money, language and place of countries."""

_ASKS = (
    *(Frame("currency", number) for number in range(4)),
    *(Frame("official_language", number) for number in range(3)),
    *(Frame("official_languages", number) for number in range(3)),
)
"""Sentences that name a country and say nothing about where it is."""
_PER_COUNTRY = 3
_CHOICES = 4


def training_rows(task: str, seed: int = 0) -> list[StackRow]:
    """The English training rows of a task, in an order that the seed draws: of the countries `in_training`."""
    rows = list(_rows(task, countries(training=True), "en", per_country=2 * _PER_COUNTRY))
    random.Random(seed).shuffle(rows)
    return rows


def asked_rows(task: str, language: str, *, parallel: bool | None = None) -> list[StackRow]:
    """The test rows of a task in one language: of countries that no training row is about.

    Args:
        task: One of `TASKS`.
        language: A built-in language.
        parallel: Only rows whose countries the parallel text names, or only rows of which it names none.
    """
    sides = (True, False) if parallel is None else (parallel,)
    return [
        row
        for side in sides
        for row in _rows(task, countries(training=False, parallel=side), language, per_country=_PER_COUNTRY)
    ]


def was_in_parallel(row: StackRow) -> bool:
    """Whether the MT model has read the name of the country that a row is about."""
    return in_parallel(row.id.split("/")[1])


def _rows(task: str, chosen: Sequence[str], language: str, per_country: int) -> Iterator[StackRow]:
    for country in chosen:
        source = random.Random(f"{task}/{country}/{per_country}")
        made = (
            _region(country, per_country, source) if task == "region" else _choice(country, per_country, source, chosen)
        )
        for number, (frame, country_of, options, label) in enumerate(made):
            yield from _said(f"{task}/{country}/{number}", frame, country_of, options, label, language)


_Made = tuple[Frame, dict[str, str], list[str], int]


def _region(country: str, count: int, source: random.Random) -> Iterator[_Made]:
    for frame in source.sample(_ASKS, count):
        yield frame, {"country": country}, [], REGIONS.index(region_of()[country])


def _choice(country: str, count: int, source: random.Random, chosen: Sequence[str]) -> Iterator[_Made]:
    """Questions about money, language and place in turn, each with its answers as codes."""
    for number in range(count):
        kind = ("place", "money", "language")[number % 3]
        if kind == "money":
            right = locales.country_currencies().get(country)
            others = [code for code in locales.currencies() if code != right]
            frame, fill = Frame("currency", source.choice((0, 1, 3))), {"country": country}
        elif kind == "language":
            spoken = locales.official_languages().get(country, ())
            right = spoken[0] if len(spoken) == 1 else None
            others = list(_languages_elsewhere(country))
            frame, fill = Frame("official_language", source.choice((0, 1))), {"country": country}
        else:
            right, region = country, region_of()[country]
            others = [code for code in chosen if region_of()[code] != region]
            frame, fill = Frame("which"), {"region": region}
        if right is None:
            continue
        place = source.randrange(_CHOICES)
        wrong = source.sample(others, _CHOICES - 1)
        yield frame, fill, [*wrong[:place], right, *wrong[place:]], place


def _said(
    name: str, frame: Frame, fill: dict[str, str], options: list[str], label: int, language: str
) -> Iterator[StackRow]:
    """The row in one language, with its English; nothing where CLDR lacks a name."""
    listed = {"which": "country", "currency": "currency", "official_language": "language"}.get(frame.kind, "")
    text, english = say(frame, fill, language), say(frame, fill, "en")
    answers, own = ([_answer(listed, code, code_of) for code in options] for code_of in ("en", language))
    if text is None or english is None or None in (*answers, *own):
        return
    if min(len(set(answers)), len(set(own))) < len(options):
        return
    choices = tuple(str(answer) for answer in own)
    yield StackRow(text=text, language=language, label=label, choices=choices, english=english, id=name)


def _answer(listed: str, code: str, language: str) -> str | None:
    own = speaker(language)
    match listed:
        case "country":
            return own.country(code)
        case "currency":
            return own.currency(code)
    return own.language(code)
