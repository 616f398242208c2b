"""Sentences that can be said in every language: a frame of the wording files, filled by codes instead of words."""

from __future__ import annotations

import dataclasses
import datetime
import random
import string
from collections.abc import Callable, Mapping

from dudi.data.cldr import locales
from dudi.data.cldr.speaker import Speaker, speaker
from dudi.stacking.miniature.places import REGIONS, region_name, table

Fill = Mapping[str, str]
"""Placeholder to a code: `country` to `TH`, `languages` to `km lo`, `n` to `12`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """One way to say something, in whichever language.

    Attributes:
        kind: A kind of question of the wording files, a key of `places.toml` or `OPTIONS`, or `name_` + placeholder.
        paraphrase: Which of its wordings; the same number says the same in every language.
        answer: Whether the answer is meant and not the question.
    """

    kind: str
    paraphrase: int = 0
    answer: bool = False

    def template(self, own: Speaker) -> str | None:
        """The template in one language; None where it has fewer wordings."""
        if self.kind in PLACES:
            return str(table()[own.code][self.kind])
        if self.kind.startswith(NAME):
            return f"{{{self.kind.removeprefix(NAME)}}}"
        if self.kind in OPTIONS:
            question = Frame(OPTIONS[self.kind], self.paraphrase).template(own)
            return question and question + _LISTED
        pairs = own.words.questions[self.kind]
        return pairs[self.paraphrase][self.answer] if self.paraphrase < len(pairs) else None


PLACES = ("lies", "which")
NAME = "name_"
"""Before a placeholder: the bare name is all that is said."""

OPTIONS = {"country_options": "which", "currency_options": "currency", "language_options": "official_language"}
"""Questions with four answers behind them, a line each, as multiple choice is written: what is asked."""
_LISTED = "\n1 {a}\n2 {b}\n3 {c}\n4 {d}"


def fields_of(template: str) -> set[str]:
    """The placeholders of a template."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def say(frame: Frame, fill: Fill, language: str) -> str | None:
    """A frame as a sentence with a capital letter; None where CLDR lacks a name or the wording file a paraphrase."""
    own = speaker(language)
    template = frame.template(own)
    if template is None:
        return None
    words = {name: _SAID[name](own, fill[name]) for name in fields_of(template)}
    if any(word is None for word in words.values()):
        return None
    text = template.format_map(words)
    return text[:1].upper() + text[1:]


def _amount(own: Speaker, code: str) -> str | None:
    number, currency = code.split()
    return own.money(int(number), currency)


def _measure(own: Speaker, code: str) -> str | None:
    number, unit = code.split()
    return own.unit(int(number), unit, "long")


def _option(own: Speaker, code: str) -> str | None:
    name, _, rest = code.partition(" ")
    return _SAID[name](own, rest)


_SAID: dict[str, Callable[[Speaker, str], str | None]] = {
    "country": lambda own, code: own.country(code),
    "language": lambda own, code: own.language(code),
    "currency": lambda own, code: own.currency(code),
    "claimed": lambda own, code: own.currency(code) if code.isupper() else own.language(code),
    "region": region_name,
    "languages": lambda own, codes: own.phrase([own.language(code) for code in codes.split()]),
    "phrase": lambda own, codes: own.phrase([own.bare_country(code) for code in codes.split()]),
    "day": lambda own, index: own.weekday(int(index)),
    "month": lambda own, number: own.month(int(number)),
    "n": lambda own, number: own.count(int(number)),
    "number": lambda own, number: own.number(int(number)),
    "date": lambda own, iso: own.date(datetime.date.fromisoformat(iso)),
    "amount": _amount,
    "measure": _measure,
    **dict.fromkeys("abcd", _option),
}

_UNITS = (
    "length-kilometer length-meter mass-kilogram mass-gram volume-liter area-hectare duration-minute duration-second"
)


_DRAWN: dict[str, Callable[[random.Random, tuple[str, ...]], str]] = {
    "country": lambda source, countries: source.choice(countries),
    "language": lambda source, _: source.choice(locales.language_codes()),
    "currency": lambda source, _: source.choice(locales.currencies()),
    "region": lambda source, _: source.choice(REGIONS),
    "languages": lambda source, _: " ".join(source.sample(locales.language_codes(), 2)),
    "phrase": lambda source, countries: " ".join(source.sample(countries, source.choice((2, 3)))),
    "day": lambda source, _: str(source.randrange(7)),
    "month": lambda source, _: str(source.randrange(1, 13)),
    "n": lambda source, _: str(source.randrange(2, 61)),
    "number": lambda source, _: str(source.randrange(1000, 1_000_000)),
    "date": lambda source, _: (datetime.date(1990, 1, 1) + datetime.timedelta(source.randrange(14_000))).isoformat(),
    "amount": lambda source, _: f"{source.randrange(2, 200) * 5} {source.choice(locales.currencies())}",
    "measure": lambda source, _: f"{source.randrange(2, 100)} {source.choice(_UNITS.split())}",
}
"""How a code is drawn, of the countries that may be named."""


def drawn(frame: Frame, language: str, source: random.Random, countries: tuple[str, ...]) -> Fill:
    """A code for each placeholder that a frame has in a language; none where the language has no such wording."""
    names = sorted(fields_of(frame.template(speaker(language)) or ""))
    return {name: _draw(name, frame.kind, source, countries) for name in names}


def _draw(name: str, kind: str, source: random.Random, countries: tuple[str, ...]) -> str:
    """A code for a placeholder, drawn without regard to the other placeholders: no fact can be learned from it."""
    if name == "claimed":
        name = "currency" if kind.startswith("currency") else "language"
    if name in "abcd":
        listed = kind.removesuffix("_options")
        return f"{listed} {_draw(listed, kind, source, countries)}"
    return _DRAWN[name](source, countries)
