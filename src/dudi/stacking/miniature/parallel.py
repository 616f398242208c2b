"""The parallel text of the MT model: names and sentences of CLDR in two languages, without a fact about the world."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator

from dudi.data.cldr.speaker import LANGUAGES, speaker
from dudi.stacking.miniature.places import OTHERS, countries
from dudi.stacking.miniature.sentences import Frame, draw, fields_of, say

FRAMES: dict[Frame, float] = {
    Frame("name_country"): 4,
    Frame("name_language"): 2,
    Frame("name_currency"): 2,
    Frame("name_region"): 0.3,
    Frame("name_day"): 0.2,
    Frame("name_month"): 0.2,
    Frame("name_date"): 0.3,
    Frame("name_number"): 0.1,
    Frame("name_amount"): 0.3,
    Frame("name_measure"): 0.3,
    Frame("name_phrase"): 1,
    Frame("list", 1, True): 1,
    Frame("list", 2, True): 1,
    Frame("lies"): 1,
    Frame("which"): 0.3,
    **{Frame("currency", number): 1 for number in range(4)},
    **{Frame("currency", number, True): 0.5 for number in range(4)},
    **{Frame("official_language", number): 1 for number in range(3)},
    **{Frame("official_language", number, True): 0.5 for number in range(2)},
    **{Frame("official_languages", number): 1 for number in range(3)},
    **{Frame("official_languages", number, True): 0.3 for number in range(2)},
    **{Frame("currency_yes_no", number): 0.5 for number in range(4)},
    **{Frame("official_language_yes_no", number): 0.5 for number in range(3)},
    Frame("country_options"): 0.8,
    **{Frame("currency_options", number): 0.25 for number in (0, 1, 3)},
    **{Frame("language_options", number): 0.2 for number in (0, 1)},
    **{Frame("weekday_after", number): 0.2 for number in range(4)},
    **{Frame("month_after", number): 0.2 for number in range(3)},
}
"""How often each frame is drawn."""

DIRECTIONS = {"to English": 0.5, "from English": 0.3, "neither": 0.2}


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """The same said twice."""

    source_language: str
    target_language: str
    source: str
    target: str


def pairs(seed: int) -> Iterator[Pair]:
    """An endless stream of parallel text.

    What a sentence is filled with is drawn independently (`people in Peru use the Thai baht`), so that a translator
    learns names and grammar from it and nothing about the world. A quarter of the countries never appears.

    Args:
        seed: Of every draw.
    """
    source = random.Random(f"parallel/{seed}")
    known = countries(parallel=True)
    frames, weights = list(FRAMES), list(FRAMES.values())
    while True:
        frame = source.choices(frames, weights)[0]
        one, other = _direction(source)
        pair = _said(frame, one, other, source, known)
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


def _said(frame: Frame, one: str, other: str, source: random.Random, known: tuple[str, ...]) -> Pair | None:
    """The frame filled and said in both languages; None where the two would not say the same."""
    templates = [frame.template(speaker(language)) for language in (one, other)]
    if None in templates or fields_of(str(templates[0])) != fields_of(str(templates[1])):
        return None
    fill = {name: draw(name, frame.kind, source, known) for name in sorted(fields_of(str(templates[0])))}
    texts = [say(frame, fill, language) for language in (one, other)]
    return None if None in texts else Pair(one, other, str(texts[0]), str(texts[1]))


def texts(seed: int, count: int) -> Iterator[str]:
    """Sentences of all eight languages alike, for the tokenizer."""
    source = random.Random(f"tokenizer/{seed}")
    known = countries(parallel=True)
    frames, weights = list(FRAMES), list(FRAMES.values())
    for turn in range(count):
        language = LANGUAGES[turn % len(LANGUAGES)]
        frame = source.choices(frames, weights)[0]
        template = frame.template(speaker(language))
        if template is None:
            continue
        fill = {name: draw(name, frame.kind, source, known) for name in sorted(fields_of(template))}
        text = say(frame, fill, language)
        if text is not None:
            yield text
