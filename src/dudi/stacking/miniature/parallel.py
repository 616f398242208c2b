"""The parallel text of the MT model: names and sentences of CLDR in two languages, without a fact about the world."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence

from dudi.data.cldr.speaker import LANGUAGES, speaker
from dudi.stacking.miniature.places import OTHERS, countries
from dudi.stacking.miniature.sentences import Frame, drawn, fields_of, say

_DRAWN: tuple[tuple[str, Sequence[int], bool, float], ...] = (
    ("name_country", (0,), False, 4),
    ("name_language", (0,), False, 2),
    ("name_currency", (0,), False, 2),
    ("name_region", (0,), False, 0.3),
    ("name_day", (0,), False, 0.2),
    ("name_month", (0,), False, 0.2),
    ("name_date", (0,), False, 0.3),
    ("name_number", (0,), False, 0.1),
    ("name_amount", (0,), False, 0.3),
    ("name_measure", (0,), False, 0.3),
    ("name_phrase", (0,), False, 1),
    ("list", (1, 2), True, 1),
    ("lies", (0,), False, 1),
    ("which", (0,), False, 0.3),
    ("currency", range(4), False, 1),
    ("currency", range(4), True, 0.5),
    ("official_language", range(3), False, 1),
    ("official_language", range(2), True, 0.5),
    ("official_languages", range(3), False, 1),
    ("official_languages", range(2), True, 0.3),
    ("currency_yes_no", range(4), False, 0.5),
    ("official_language_yes_no", range(3), False, 0.5),
    ("country_options", (0,), False, 0.8),
    ("currency_options", (0, 1, 3), False, 0.25),
    ("language_options", (0, 1), False, 0.2),
    ("weekday_after", range(4), False, 0.2),
    ("month_after", range(3), False, 0.2),
)
"""Kind, paraphrases, whether the answer is meant, and how often each of these is drawn."""

FRAMES = {Frame(kind, number, answer): weight for kind, numbers, answer, weight in _DRAWN for number in numbers}
"""How often each frame is drawn."""

DIRECTIONS = {"to English": 0.5, "from English": 0.3, "neither": 0.2}


@dataclasses.dataclass(frozen=True, slots=True)
class Paraphrase:
    """The same said twice."""

    source_language: str
    target_language: str
    source: str
    target: str


def pairs(seed: int) -> Iterator[Paraphrase]:
    """An endless stream of parallel text.

    What a sentence is filled with is drawn independently (`people in Peru use the Thai baht`), so that a translator
    learns names and grammar from it and nothing about the world. A quarter of the countries never appears.
    """
    source = random.Random(f"parallel/{seed}")
    known = countries(parallel=True)
    frames, weights = list(FRAMES), list(FRAMES.values())
    while True:
        frame = source.choices(frames, weights)[0]
        pair = _said(frame, *_direction(source), source, known)
        if pair is not None:
            yield pair


def _direction(source: random.Random) -> tuple[str, str]:
    way = source.choices(list(DIRECTIONS), list(DIRECTIONS.values()))[0]
    if way == "to English":
        return source.choice(OTHERS), "en"
    if way == "from English":
        return "en", source.choice(OTHERS)
    one, other = source.sample(OTHERS, 2)
    return one, other


def _said(frame: Frame, one: str, other: str, source: random.Random, known: tuple[str, ...]) -> Paraphrase | None:
    """The frame filled and said in both languages; None where the two would not say the same."""
    templates = [frame.template(speaker(language)) for language in (one, other)]
    if None in templates or fields_of(str(templates[0])) != fields_of(str(templates[1])):
        return None
    fill = drawn(frame, one, source, known)
    texts = [say(frame, fill, language) for language in (one, other)]
    return None if None in texts else Paraphrase(one, other, str(texts[0]), str(texts[1]))


def texts(seed: int, count: int) -> Iterator[str]:
    """Sentences of all eight languages alike, for the tokenizer."""
    source = random.Random(f"tokenizer/{seed}")
    known = countries(parallel=True)
    frames, weights = list(FRAMES), list(FRAMES.values())
    for turn in range(count):
        language = LANGUAGES[turn % len(LANGUAGES)]
        frame = source.choices(frames, weights)[0]
        text = say(frame, drawn(frame, language, source, known), language)
        if text is not None:
            yield text
