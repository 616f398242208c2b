"""Countries, their regions, and who reads about which: the splits that every number of the miniature rests on."""

from __future__ import annotations

import functools
import hashlib
import tomllib
from importlib import resources
from typing import Any

from dudi.data.cldr import locales
from dudi.data.cldr.speaker import LANGUAGES, Speaker

REGIONS = ("002", "019", "142", "150", "009")
"""CLDR's codes of Africa, the Americas, Asia, Europe and Oceania: the classes of the task `region`, in this order."""

OTHERS = tuple(code for code in LANGUAGES if code != "en")
"""The languages in which nothing but the MT model has read anything."""

_HIDDEN_FROM_MT = 0.25
_TRAINED = 0.5
"""Share of the countries that the tasks' English training rows are about. Tests are about the others."""


@functools.cache
def table() -> dict[str, Any]:
    """`places.toml`."""
    return tomllib.loads((resources.files("dudi.stacking.miniature") / "places.toml").read_text(encoding="utf-8"))


@functools.cache
def region_of() -> dict[str, str]:
    """The region of each country, by country code."""
    found = {country: region for region, members in table()["regions"].items() for country in members.split()}
    return {country: found[country] for country in locales.countries()}


def region_name(own: Speaker, region: str) -> str:
    """What a language calls a region, inside a sentence."""
    forms = table()[own.code].get("forms", {})
    return str(forms.get(region) or own.bare_country(region))


def in_parallel(country: str) -> bool:
    """Whether the parallel text names this country: three in four. Of the others the MT model reads nothing."""
    return _draw("parallel", country) >= _HIDDEN_FROM_MT


def countries(*, training: bool | None = None, parallel: bool | None = None) -> tuple[str, ...]:
    """The countries of a part of the splits; None takes both sides."""
    return tuple(
        code
        for code in locales.countries()
        if training in (None, _draw("training", code) < _TRAINED) and parallel in (None, in_parallel(code))
    )


def _draw(split: str, country: str) -> float:
    digest = hashlib.sha256(f"dudi-stack/{split}/{country}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
