"""What CLDR says, through `babel`: names, formats and the records of countries. No wording of ours, no clock."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import re
from collections.abc import Mapping

from babel import Locale, dates, languages, lists, numbers, units
from babel.core import get_global

AS_OF = datetime.date(2025, 6, 1)
"""The day on which 'the current currency' is read, so that rows do not change with the calendar."""

# A territory with a two-letter code is taken for a country when it is a member of the United Nations or the Vatican.
_NOT_COUNTRIES = (
    "AC AI AQ AS AW AX BL BM BQ BV CC CK CP CQ CW CX DG EA EH EU EZ FK FO GF GG GI GL GP GS GU HK HM IC IM IO JE KY "
    "MF MO MP MQ MS NC NF NU PF PM PN PR PS QO RE SH SJ SX TA TC TF TK TW UM UN VG VI WF XA XB XK YT ZZ"
)
# Where CLDR 47 is partial or behind the law of the country: a row would teach something false.
_STALE_OFFICIAL_LANGUAGES = "BF BO BW DZ EC ER ET IL IQ KM ME MG MK ML MW NE NG NO PE RW SC TN ZA ZW"
_STALE_CURRENCY = frozenset({"BG"})
_NOT_LANGUAGES = frozenset({"no", "sh", "tl"})
"""Macrolanguages and codes that CLDR keeps for old data only."""

_DIGITS = {"mymr": str.maketrans("0123456789", "၀၁၂၃၄၅၆၇၈၉")}
_LATIN = re.compile(r"[A-Za-z]")
_UNSURE = re.compile(r"[\[\](0-9]")


@functools.cache
def countries() -> tuple[str, ...]:
    """ISO 3166 codes of the countries, sorted."""
    codes = Locale.parse("en").territories
    return tuple(
        sorted(code for code in codes if len(code) == 2 and code.isalpha() and code not in _NOT_COUNTRIES.split())
    )


@functools.cache
def country_currencies() -> dict[str, str]:
    """The currency of each country that had exactly one as legal tender on `AS_OF`, by country code."""
    tender = {country: _tender(country) for country in countries() if country not in _STALE_CURRENCY}
    return {country: codes[0] for country, codes in tender.items() if len(codes) == 1}


@functools.cache
def currencies() -> tuple[str, ...]:
    """ISO 4217 codes of the currencies that some country uses, sorted."""
    return tuple(sorted({code for country in countries() for code in _tender(country)}))


def _tender(country: str) -> list[str]:
    return list(numbers.get_territory_currencies(country, start_date=AS_OF, end_date=AS_OF))


@functools.cache
def official_languages() -> dict[str, tuple[str, ...]]:
    """The official languages of each country, most spoken first, where CLDR's record is whole."""
    found: dict[str, tuple[str, ...]] = {}
    for country in countries():
        by_law = languages.get_official_languages(country)
        # An official language beside one that is official in practice only: the shorter list would mislead.
        if not by_law or by_law != languages.get_official_languages(country, de_facto=True):
            continue
        if country not in _STALE_OFFICIAL_LANGUAGES.split():
            found[country] = tuple(dict.fromkeys(code.partition("_")[0] for code in by_law))
    return found


@functools.cache
def language_codes() -> tuple[str, ...]:
    """ISO 639-1 codes of the languages that CLDR names in English, sorted."""
    aliases = get_global("language_aliases")
    names = Locale.parse("en").languages
    return tuple(sorted(c for c in names if len(c) == 2 and c not in aliases and c not in _NOT_LANGUAGES))


@dataclasses.dataclass(frozen=True)
class CldrLocale:
    """What CLDR holds for one locale. A name that it lacks is None: never a code, never an English stand-in.

    Attributes:
        locale: babel's, by CLDR's own identifier (`fil`, where this package says `tl`).
    """

    locale: Locale
    _currencies: dict[str, str | None] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    @functools.cached_property
    def _latin(self) -> bool:
        return bool(_LATIN.search(self.locale.get_language_name() or ""))

    def _name(self, names: Mapping[str, str], code: str) -> str | None:
        # babel inherits names from CLDR's root, which has none, and never from English: what is missing is missing.
        name = names.get(code)
        if name is None or name == code:
            return None
        return name if self._latin or not _LATIN.search(name) else None

    def country(self, code: str) -> str | None:
        return self._name(self.locale.territories, code)

    def language(self, code: str) -> str | None:
        name = self._name(self.locale.languages, code)
        return None if name is None or _UNSURE.search(name) else name

    def currency(self, code: str) -> str | None:
        """Name of a currency, as it stands inside a sentence (`Thai baht`, `đô la Mỹ`)."""
        if code not in self._currencies:  # multiple choice asks for all names again and again
            self._currencies[code] = self._currency(code)
        return self._currencies[code]

    def _currency(self, code: str) -> str | None:
        name = self._name(self.locale.currencies, code)
        if name is None:
            return None
        inside: str = numbers.get_currency_name(code, count=1, locale=self.locale)
        if _UNSURE.search(inside) or (not self._latin and _LATIN.search(inside)):
            return None
        return inside

    def date(self, day: datetime.date) -> str:
        """The day in the locale's long form."""
        return self.shape(dates.format_date(day, "long", locale=self.locale))

    def number(self, value: int | float) -> str:
        """A number with the locale's separators and digits."""
        return self.shape(numbers.format_decimal(value, locale=self.locale, numbering_system="default"))

    def percent(self, permille: int) -> str:
        """Thousandths as a percentage, with at most one decimal."""
        share = permille / 1000
        text = numbers.format_percent(share, locale=self.locale, decimal_quantization=False, numbering_system="default")
        return self.shape(text)

    def compact(self, value: int) -> str:
        """A number with a number word, such as `1.2 million`; `value` has at most two significant digits."""
        text = numbers.format_compact_decimal(
            value, format_type="long", locale=self.locale, fraction_digits=1, numbering_system="default"
        )
        return self.shape(text)

    def money(self, amount: int, code: str) -> str | None:
        """A whole amount with the currency's name, or None where CLDR has no name."""
        if self.currency(code) is None:
            return None
        text = numbers.format_currency(
            amount, code, locale=self.locale, format_type="name", currency_digits=False, numbering_system="default"
        )
        return self.shape(text)

    def unit(self, amount: int, unit: str, length: str) -> str | None:
        """An amount of a unit, `short` or `long`, or None where CLDR has no pattern of that length."""
        text = units.format_unit(amount, unit, length, locale=self.locale, numbering_system="default")
        # babel falls back to the unit's identifier.
        return None if unit in text else self.shape(text)

    def join(self, items: list[str]) -> str:
        """The items as one phrase with the locale's commas and 'and'."""
        return str(lists.format_list(items, style="standard", locale=self.locale))

    def shape(self, text: str) -> str:
        """`text` in the digits of the locale's default numbering system.

        babel takes the separators from that system and leaves the digits ASCII; CLDR's default for Burmese is `mymr`.
        """
        return text.translate(_DIGITS.get(self.locale.default_numbering_system, {}))
