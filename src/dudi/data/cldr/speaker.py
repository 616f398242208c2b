"""A speaker: CLDR's names as one language puts them into a sentence."""

from __future__ import annotations

import dataclasses
import functools

from babel import Locale

from dudi.data.cldr.locales import CldrLocale
from dudi.data.cldr.wording import WordingFile, wording

LANGUAGES = ("id", "vi", "th", "ta", "tl", "ms", "my", "en")
"""The languages that have a wording file, in the order of `dudi ls languages`."""


@functools.cache
def speaker(code: str) -> Speaker:
    """The speaker of a built-in language.

    Raises:
        ConfigError: its wording file is malformed.
    """
    words = wording(code)
    return Speaker(code, words, CldrLocale(Locale.parse(words.locale)))


@dataclasses.dataclass(frozen=True, eq=False)
class Speaker:
    """One language's names in sentences; None where CLDR lacks a name or the wording file skips it.

    Attributes:
        code: The language's code in this package.
        words: Its wording file.
        cldr: What CLDR holds for it.
    """

    code: str
    words: WordingFile
    cldr: CldrLocale

    def bare_country(self, code: str) -> str | None:
        """A country's name as CLDR lists it."""
        return None if code in self.words.skip["country"] else self.cldr.country(code)

    def bare_language(self, code: str) -> str | None:
        """A language's name as CLDR lists it."""
        # Filipino is what CLDR calls the language that this package codes `tl`.
        code = "fil" if code == "tl" else code
        return None if code in self.words.skip["language"] else self.cldr.language(code)

    def country(self, code: str) -> str | None:
        name = self.bare_country(code)
        if name is None or code in self.words.country_forms:
            return name and self.words.country_forms[code]
        return self._form("country", name)

    def language(self, code: str) -> str | None:
        name = self.bare_language(code)
        return name and self._form("language", name)

    def currency(self, code: str) -> str | None:
        return None if code in self.words.skip["currency"] else self.cldr.currency(code)

    def weekday(self, index: int) -> str:
        """A day of the week inside a sentence; 0 is Monday."""
        return self._form("weekday", self.cldr.locale.days["stand-alone"]["wide"][index])

    def month(self, number: int) -> str:
        """A month inside a sentence, 1 to 12."""
        return self._form("month", self.cldr.locale.months["format"]["wide"][number])

    def count(self, number: int) -> str:
        form = self.words.count_forms.get(self.cldr.locale.plural_form(number), "{name}")
        return form.format(name=self.cldr.number(number))

    def verdict(self, true: bool) -> str:
        """The word that says whether a claim is true."""
        return self.words.verdicts["yes" if true else "no"]

    def unit(self, amount: int, unit: str, length: str) -> str | None:
        """An amount of a unit, `short` or `long`."""
        return None if unit in self.words.skip["unit"] else self.cldr.unit(amount, unit, length)

    def phrase(self, names: list[str | None]) -> str | None:
        """Names joined by the language's commas and 'and'; None if one is missing or the list is too long."""
        known = [name for name in names if name is not None]
        if len(known) < len(names) or len(known) not in self.words.list_sizes:
            return None
        return self.cldr.join(known)

    def _form(self, kind: str, name: str) -> str:
        return self.words.forms[kind].format(name=name, lower=name[:1].lower() + name[1:])
