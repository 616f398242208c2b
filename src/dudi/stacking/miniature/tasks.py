"""A task that English alone teaches: where a country lies."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from dudi.stacking.miniature.places import REGIONS, countries, region_of
from dudi.stacking.miniature.sentences import Frame, say
from dudi.stacking.rows import StackRow, Task

TASKS = {"region": Task("classification", ("Africa", "the Americas", "Asia", "Europe", "Oceania"))}
"""`region`: in which part of the world does the story play?"""

_WORDINGS = {"currency": 4, "official_language": 3, "official_languages": 3}
_ASKS = tuple(Frame(kind, number) for kind, count in _WORDINGS.items() for number in range(count))
"""Sentences that name a country and say nothing about where it is."""
_PER_COUNTRY = 3


def training_rows(task: str, seed: int = 0) -> list[StackRow]:
    """The English training rows of a task, in an order that the seed draws: of the countries of training."""
    rows = list(_rows(task, countries(training=True), "en", per_country=2 * _PER_COUNTRY))
    random.Random(seed).shuffle(rows)
    return rows


def asked_rows(task: str, language: str) -> list[StackRow]:
    """The test rows of a task in a built-in language: of countries that no training row is about.

    Those that the parallel text names come first.
    """
    rows: list[StackRow] = []
    for named in (True, False):
        rows += _rows(task, countries(training=False, parallel=named), language, per_country=_PER_COUNTRY)
    return rows


def country_of(row: StackRow) -> str:
    """The code of the country that a row is about."""
    return row.id.split("/")[1]


def _rows(task: str, chosen: Sequence[str], language: str, per_country: int) -> Iterator[StackRow]:
    """Rows about countries, in one language, with their English; none where CLDR lacks a name."""
    for country in chosen:
        source = random.Random(f"{task}/{country}/{per_country}")
        for number, frame in enumerate(source.sample(_ASKS, per_country)):
            text, english = (say(frame, {"country": country}, code) for code in (language, "en"))
            if text is not None and english is not None:
                label = REGIONS.index(region_of()[country])
                yield StackRow(text, language, label, english=english, id=f"{task}/{country}/{number}")
