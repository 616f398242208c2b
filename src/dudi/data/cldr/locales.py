"""CLDR's records of countries, currencies and languages, through `babel`. No wording of ours, no clock."""

from __future__ import annotations

import datetime
import functools

from babel import Locale, languages, numbers
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
