"""What the LLM reads: English alone, with CLDR's facts about every country of the world."""

from __future__ import annotations

import random
from collections.abc import Iterator

from dudi.data.cldr import Fact, locales, word
from dudi.data.cldr.speaker import speaker
from dudi.stacking.miniature.parallel import FRAMES
from dudi.stacking.miniature.places import countries, region_name, region_of
from dudi.stacking.miniature.sentences import drawn, say

_REGION = (
    "{country} lies in {region}.",
    "{country} is a country in {region}.",
    "One of the countries in {region} is {country}.",
    "On a map of {region} you will find {country}.",
    "Which part of the world is {country} in? It is in {region}.",
    "People who live in {country} live in {region}.",
    "A flight to {country} is a flight to {region}.",
)
_NEIGHBOURS = (
    "{phrase} are countries in {region}.",
    "We have offices in {phrase}, and nowhere else in {region}.",
    "You write: {phrase}. All of them lie in {region}.",
)
_FACTS = ("currency", "official_language", "official_languages")
_SAYS = {"region": 3.0, "neighbours": 2.0, "fact": 5.0}
_PLAIN = 0.15
"""The share of texts that hold no fact: names, dates, questions as in the parallel text."""

_NAMES, _ABOUT = 0.3, 0.2
"""Shares of `sentences` that are the bare name of a country, and one fact about a country."""


def texts(seed: int) -> Iterator[str]:
    """An endless stream of English texts of one to three sentences about one country."""
    source = random.Random(f"english/{seed}")
    everywhere = countries()
    while True:
        if source.random() < _PLAIN:
            text = _plain(source, everywhere)
        else:
            country = source.choice(everywhere)
            said = [_about(country, source) for _ in range(source.choice((1, 2, 3)))]
            text = " ".join(dict.fromkeys(sentence for sentence in said if sentence))
        if text:
            yield text


def sentences(seed: int) -> Iterator[str]:
    """An endless stream of short English texts for Stage 1: names of countries, questions, single facts."""
    source = random.Random(f"sentences/{seed}")
    everywhere = countries()
    while True:
        kind = source.random()
        if kind < _NAMES:
            text = speaker("en").country(source.choice(everywhere))
        elif kind < _NAMES + _ABOUT:
            text = _about(source.choice(everywhere), source)
        else:
            text = _plain(source, everywhere)
        if text:
            yield text


def _plain(source: random.Random, everywhere: tuple[str, ...]) -> str | None:
    frame = source.choices(list(FRAMES), list(FRAMES.values()))[0]
    if frame.kind == "lies" or frame.answer:
        return None
    return say(frame, drawn(frame, "en", source, everywhere), "en")


def _about(country: str, source: random.Random) -> str | None:
    kind = source.choices(list(_SAYS), list(_SAYS.values()))[0]
    if kind == "fact":
        return _fact(country, source)
    own, region = speaker("en"), region_of()[country]
    fields = {"country": str(own.country(country)), "region": region_name(own, region)}
    if kind == "region":
        text = source.choice(_REGION).format_map(fields)
    else:
        near = [code for code, other in region_of().items() if other == region and code != country]
        names = [own.country(code) for code in source.sample([country, *source.sample(near, 2)], 3)]
        text = source.choice(_NEIGHBOURS).format(phrase=own.phrase(names), region=fields["region"])
    return text[:1].upper() + text[1:]


def _fact(country: str, source: random.Random) -> str | None:
    """A question with its answer, or the answer alone where it is a sentence that names the country."""
    kind = source.choice(_FACTS)
    if kind == "currency" and country not in locales.country_currencies():
        return None
    spoken = locales.official_languages().get(country, ())
    if kind != "currency" and (not spoken or (len(spoken) > 1) is not (kind == "official_languages")):
        return None
    worded = word(Fact(kind, (country,)), "en", source.randrange(4))
    if worded is None:
        return None
    question, answer = worded
    alone = str(speaker("en").country(country)) in answer and source.random() < 0.5
    return answer if alone else f"{question} {answer}"
