"""The kinds of question: which facts there are, and what each one puts into a question and its answer."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import random
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from babel import languages

from dudi.data.cldr import locales
from dudi.data.cldr.speaker import LANGUAGES, Speaker, speaker
from dudi.errors import ConfigError, did_you_mean

Key = tuple[str | int, ...]
Fields = dict[str, str]
_Keys = Callable[[], Iterable[Key | str | int]]
_Fields = Callable[..., Fields | None]

_UNITS = (
    "length-kilometer length-meter length-centimeter length-millimeter mass-kilogram mass-gram volume-liter "
    "volume-milliliter area-square-meter area-square-kilometer area-hectare temperature-celsius "
    "speed-kilometer-per-hour duration-minute duration-second power-kilowatt digital-megabyte digital-gigabyte "
    "frequency-hertz energy-kilocalorie"
)

OPTION_LETTERS = "ABCD"
"""How multiple-choice questions mark their options."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    """Something that CLDR says, before anybody has worded it.

    Attributes:
        kind: A member of `KINDS`.
        key: What the fact is about, as codes and numbers: `("TH",)`, `("DE", "vi")`, `(0, 12)`.
    """

    kind: str
    key: Key

    def __str__(self) -> str:
        return "/".join((self.kind, *map(str, self.key)))


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One kind of question.

    Attributes:
        name: What wording files and row ids call it.
        given: The placeholders that every question of this kind holds.
        answer: The placeholder that every answer holds, then those that it may hold.
        all_keys: All keys of this kind, in a fixed order; a key of one code or number may stand without its tuple.
        fields: What a speaker puts into the placeholders for one key; None where CLDR has no such name.
    """

    name: str
    given: tuple[str, ...]
    answer: tuple[str, ...]
    all_keys: _Keys
    fields: _Fields


KINDS: dict[str, Kind] = {}


def _kind(given: str, answer: str, keys: _Keys, name: str = "") -> Callable[[_Fields], _Fields]:
    """Put a function's kind into `KINDS`, under the function's name where it is given none."""

    def register(fields: _Fields) -> _Fields:
        called = name or fields.__name__.lstrip("_")
        KINDS[called] = Kind(called, tuple(given.split()), tuple(answer.split()), keys, fields)
        return fields

    return register


def _known(**fields: str | None) -> Fields | None:
    """The fields, or None when CLDR lacks one of them."""
    known = {name: value for name, value in fields.items() if value is not None}
    return known if len(known) == len(fields) else None


def _other_name(own: Speaker, code: str, other: str, listed: Callable[[Speaker, str], str | None]) -> str | None:
    """How another language lists something; None where it is no other name: that would make an empty question."""
    name, here = listed(speaker(other), code), listed(own, code)
    if other == own.code or name is None or here is None or name.casefold() == here.casefold():
        return None
    return name


@_kind("country target", "name", lambda: product(locales.countries(), LANGUAGES))
def _country_name(own: Speaker, code: str, target: str) -> Fields | None:
    name = _other_name(own, code, target, Speaker.bare_country)
    return _known(country=own.country(code), target=own.language(target), name=name)


@_kind("name source", "country", lambda: product(locales.countries(), LANGUAGES))
def _country_from_name(own: Speaker, code: str, source: str) -> Fields | None:
    name = _other_name(own, code, source, Speaker.bare_country)
    return _known(country=own.country(code), source=own.language(source), name=name)


@_kind("language target", "name", lambda: product((*locales.language_codes(), "fil"), LANGUAGES))
def _language_name(own: Speaker, code: str, target: str) -> Fields | None:
    name = _other_name(own, code, target, Speaker.bare_language) and speaker(target).language(code)
    return _known(language=own.language(code), target=own.language(target), name=name)


@_kind("currency target", "name", lambda: product(locales.currencies(), LANGUAGES))
def _currency_name(own: Speaker, code: str, target: str) -> Fields | None:
    name = _other_name(own, code, target, Speaker.currency)
    return _known(currency=own.currency(code), target=own.language(target), name=name)


@_kind("country", "currency", locales.country_currencies)
def _currency(own: Speaker, code: str) -> Fields | None:
    return _known(country=own.country(code), currency=own.currency(locales.country_currencies()[code]))


def _of_code(own: Speaker, code: str, what: str, name: Callable[[Speaker, str], str | None]) -> Fields | None:
    return _known(code=code, **{what: name(own, code)})


for _what, _codes, _name in (
    ("currency", locales.currencies, Speaker.currency),
    ("country", locales.countries, Speaker.country),
    ("language", locales.language_codes, Speaker.language),
):
    _kind("code", _what, _codes, f"{_what}_code")(functools.partial(_of_code, what=_what, name=_name))


def _official(many: bool) -> list[str]:
    """The countries with one official language, or those with several."""
    return [country for country, codes in locales.official_languages().items() if (len(codes) > 1) is many]


@_kind("country", "language", lambda: _official(many=False))
def _official_language(own: Speaker, code: str) -> Fields | None:
    return _known(country=own.country(code), language=own.language(locales.official_languages()[code][0]))


@_kind("country", "languages", lambda: _official(many=True))
def _official_languages(own: Speaker, code: str) -> Fields | None:
    names = [own.language(language) for language in locales.official_languages()[code]]
    return _known(country=own.country(code), languages=own.phrase(names))


def _later(own: Speaker, start: int, steps: int, given: str, sign: int) -> Fields:
    """So many days or months after one, or before it."""
    name, first, size = (own.weekday, 0, 7) if given == "day" else (own.month, 1, 12)
    return {given: name(start), "n": own.count(steps), "result": name((start - first + sign * steps) % size + first)}


for _what, _given, _starts, _steps in (("weekday", "day", range(7), 61), ("month", "month", range(1, 13), 37)):
    for _way, _sign in (("after", 1), ("before", -1)):
        _step = _kind(f"{_given} n", "result", functools.partial(product, _starts, range(2, _steps)), f"{_what}_{_way}")
        _step(functools.partial(_later, given=_given, sign=_sign))


@_kind("date", "result", lambda: _dates("weekday_of_date"))
def _weekday_of_date(own: Speaker, iso: str) -> Fields | None:
    day = datetime.date.fromisoformat(iso)
    return {"date": own.date(day), "result": own.weekday(day.weekday())}


@_kind("iso", "date", lambda: _dates("date"))
def _date(own: Speaker, iso: str) -> Fields | None:
    return {"iso": iso, "date": own.date(datetime.date.fromisoformat(iso))}


def _dates(name: str) -> Iterable[str]:
    first = datetime.date(1950, 1, 1)
    offsets = random.Random(name).sample(range(36500), 2000)
    return ((first + datetime.timedelta(days=offset)).isoformat() for offset in offsets)


def _whole_numbers() -> Iterable[int]:
    source = random.Random("number")
    return (source.randrange(10 ** (size - 1), 10**size) for _ in range(200) for size in range(5, 10))


@_kind("raw", "number", _whole_numbers)
def _number(own: Speaker, value: int) -> Fields | None:
    return {"raw": own.shape(str(value)), "number": own.number(value)}


@_kind("ratio", "percent", lambda: range(1, 1000))
def _percent(own: Speaker, permille: int) -> Fields | None:
    return {"ratio": own.number(permille / 1000), "percent": own.percent(permille)}


@_kind("number", "words", lambda: (tenths * 10**power for power in range(3, 9) for tenths in range(11, 100)))
def _compact(own: Speaker, value: int) -> Fields | None:
    return {"number": own.number(value), "words": own.compact(value)}


def _amounts() -> Iterable[Key]:
    source = random.Random("money")
    return ((code, source.randrange(2, 2000) * 5) for code in locales.currencies() for _ in range(8))


@_kind("number code", "amount", _amounts)
def _money(own: Speaker, code: str, amount: int) -> Fields | None:
    return _known(number=own.number(amount), code=code, amount=own.money(amount, code))


@_kind(
    "short", "long", lambda: product(_UNITS.split(), (*range(2, 30), *range(30, 100, 5), 120, 150, 200, 250, 500, 750))
)
def _unit(own: Speaker, unit: str, amount: int) -> Fields | None:
    short, long = own.unit(amount, unit, "short"), own.unit(amount, unit, "long")
    return _known(short=short, long=long) if short != long else None


def _country_lists() -> Iterable[Key]:
    source = random.Random("list")
    sizes = (2, 3, 4)
    return (tuple(source.sample(locales.countries(), sizes[turn % 3])) for turn in range(3000))


@_kind("items", "phrase", _country_lists)
def _list(own: Speaker, *codes: str) -> Fields | None:
    names = [own.bare_country(code) for code in codes]
    return _known(items="; ".join(name for name in names if name), phrase=own.phrase(names))


def _others(own: Speaker, what: str, country: str, right: str, source: random.Random) -> list[str]:
    """Wrong answers in an order that `source` draws, each once and none like `right`."""
    by_language = what == "language"
    codes, name = (_languages_elsewhere(country), own.language) if by_language else (locales.currencies(), own.currency)
    shuffled = list(codes)
    source.shuffle(shuffled)
    names = {known.casefold(): known for known in map(name, shuffled) if known is not None}
    return [known for folded, known in names.items() if folded != right.casefold()]


@functools.cache
def _languages_elsewhere(country: str) -> tuple[str, ...]:
    """Codes of the languages that are official in some country, but not in this one, not even in a region of it."""
    here = languages.get_official_languages(country, regional=True, de_facto=True)
    barred = {code.partition("_")[0] for code in here}
    known = {code for codes in locales.official_languages().values() for code in codes}
    return tuple(sorted(known - barred))


def _claims(kind: str) -> Iterable[Any]:
    return product(KINDS[kind].all_keys(), (1, 0))


def _yes_no(own: Speaker, code: str, true: int, kind: str, what: str) -> Fields | None:
    known = KINDS[kind].fields(own, code)
    if known is None:
        return None
    right, source = known[what], random.Random(f"{kind}_yes_no/{code}")
    claimed = right if true else _others(own, what, code, right, source)[0]
    return {**known, "claimed": claimed, "verdict": own.verdict(bool(true))}


def _choice(own: Speaker, code: str, kind: str, what: str) -> Fields | None:
    """Four names as one line, the right one at a place that is drawn."""
    known = KINDS[kind].fields(own, code)
    if known is None:
        return None
    right, source = known[what], random.Random(f"{kind}_choice/{code}")
    others = _others(own, what, code, right, source)
    place = source.randrange(len(OPTION_LETTERS))
    names = [*others[:place], right, *others[place:3]]
    options = [f"{letter}) {name}" for letter, name in zip(OPTION_LETTERS, names, strict=True)]
    return {"country": known["country"], "options": " ".join(options), "choice": options[place]}


_OF_COUNTRIES = {"currency": "currency", "official_language": "language"}
for _open, _what in _OF_COUNTRIES.items():
    _claimed = _kind("country claimed", f"verdict {_what}", functools.partial(_claims, _open), f"{_open}_yes_no")
    _claimed(functools.partial(_yes_no, kind=_open, what=_what))
for _open, _what in _OF_COUNTRIES.items():
    _offered = _kind("country options", "choice", KINDS[_open].all_keys, f"{_open}_choice")
    _offered(functools.partial(_choice, kind=_open, what=_what))


@functools.cache
def facts(kind: str) -> tuple[Fact, ...]:
    """All facts of a kind, distinct and always in the same order.

    Raises:
        ConfigError: no such kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"cldr: no kind '{kind}'{did_you_mean(kind, KINDS)}; there are {', '.join(KINDS)}")
    keys = (key if isinstance(key, tuple) else (key,) for key in KINDS[kind].all_keys())
    return tuple(Fact(kind, key) for key in dict.fromkeys(keys))
