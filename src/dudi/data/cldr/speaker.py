"""A speaker: CLDR's names, numbers and dates, through `babel`, as one language puts them into a sentence."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import re
from collections.abc import Mapping

from babel import Locale, dates, lists, numbers, units

from dudi.data.cldr.wording import WordingFile, wording
from dudi.languages.registry import BUILT_IN

LANGUAGES = BUILT_IN
"""The languages that have a wording file, in the order of `dudi ls languages`."""

_DIGITS = {"mymr": str.maketrans("0123456789", "၀၁၂၃၄၅၆၇၈၉")}
_LATIN = re.compile(r"[A-Za-z]")
_UNSURE = re.compile(r"[\[\](0-9]")


@functools.cache
def speaker(code: str) -> Speaker:
    """The speaker of a built-in language.

    Raises:
        ConfigError: its wording file is malformed.
    """
    words = wording(code)
    return Speaker(code, words, Locale.parse(words.locale))


@dataclasses.dataclass(frozen=True, eq=False)
class Speaker:
    """One language's names in sentences. One that CLDR lacks is None: never a code, never an English stand-in.

    Attributes:
        code: The language's code in this package.
        words: Its wording file; a name that it skips is None too.
        locale: babel's, by CLDR's own identifier (`fil`, where this package says `tl`).
    """

    code: str
    words: WordingFile
    locale: Locale
    _currencies: dict[str, str | None] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @functools.cached_property
    def _latin(self) -> bool:
        return bool(_LATIN.search(self.locale.get_language_name() or ""))

    def _name(self, kind: str, names: Mapping[str, str], code: str) -> str | None:
        # babel inherits names from CLDR's root, which has none, and never from English: what is missing is missing.
        name = names.get(code)
        if name is None or name == code or code in self.words.skip[kind]:
            return None
        return name if self._latin or not _LATIN.search(name) else None

    def _form(self, kind: str, name: str) -> str:
        return self.words.forms[kind].format(name=name, lower=name[:1].lower() + name[1:])

    def bare_country(self, code: str) -> str | None:
        """The name of a country or region as CLDR lists it."""
        return self._name("country", self.locale.territories, code)

    def country(self, code: str) -> str | None:
        name = self.bare_country(code)
        if name is None or code in self.words.country_forms:
            return name and self.words.country_forms[code]
        return self._form("country", name)

    def bare_language(self, code: str) -> str | None:
        """A language's name as CLDR lists it."""
        # Filipino is what CLDR calls the language that this package codes `tl`.
        name = self._name("language", self.locale.languages, "fil" if code == "tl" else code)
        return None if name is None or _UNSURE.search(name) else name

    def language(self, code: str) -> str | None:
        name = self.bare_language(code)
        return name and self._form("language", name)

    def currency(self, code: str) -> str | None:
        """Name of a currency, as it stands inside a sentence (`Thai baht`, `đô la Mỹ`)."""
        if code not in self._currencies:  # multiple choice asks for all names again and again
            inside = None
            if self._name("currency", self.locale.currencies, code) is not None:
                inside = numbers.get_currency_name(code, count=1, locale=self.locale)
                if _UNSURE.search(inside) or (not self._latin and _LATIN.search(inside)):
                    inside = None
            self._currencies[code] = inside
        return self._currencies[code]

    def weekday(self, index: int) -> str:
        """A day of the week inside a sentence; 0 is Monday."""
        return self._form("weekday", self.locale.days["stand-alone"]["wide"][index])

    def month(self, number: int) -> str:
        """A month inside a sentence, 1 to 12."""
        return self._form("month", self.locale.months["format"]["wide"][number])

    def count(self, number: int) -> str:
        """A number as it stands before a noun."""
        form = self.words.count_forms.get(self.locale.plural_form(number), "{name}")
        return form.format(name=self.number(number))

    def verdict(self, true: bool) -> str:
        """The word that says whether a claim is true."""
        return self.words.verdicts["yes" if true else "no"]

    def phrase(self, names: list[str | None]) -> str | None:
        """Names joined by the language's commas and 'and'; None if one is missing or the list is too long."""
        known = [name for name in names if name is not None]
        if len(known) < len(names) or len(known) not in self.words.list_sizes:
            return None
        return str(lists.format_list(known, style="standard", locale=self.locale))

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
        """A whole amount with the currency's name."""
        if self.currency(code) is None:
            return None
        text = numbers.format_currency(
            amount, code, locale=self.locale, format_type="name", currency_digits=False, numbering_system="default"
        )
        return self.shape(text)

    def unit(self, amount: int, unit: str, length: str) -> str | None:
        """An amount of a unit, `short` or `long`; None where CLDR has no pattern of that length."""
        text = units.format_unit(amount, unit, length, locale=self.locale, numbering_system="default")
        # babel falls back to the unit's identifier.
        return None if unit in self.words.skip["unit"] or unit in text else self.shape(text)

    def shape(self, text: str) -> str:
        """`text` in the digits of the locale's default numbering system.

        babel takes the separators from that system and leaves the digits ASCII; CLDR's default for Burmese is `mymr`.
        """
        return text.translate(_DIGITS.get(self.locale.default_numbering_system, {}))
