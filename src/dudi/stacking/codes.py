"""One table of language codes: what data sets and tokenizers call a language, and which code of NLLB-200 reads it."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_REGIONAL = re.compile(r"([a-z]{2,3})[_-][A-Z]{2}")
"""mBART's `id_ID`, a locale's `pt-BR`."""
_WRITTEN = re.compile(r"([a-z]{2,3})[_-]([A-Z][a-z]{3})")
"""A language in a script: `zh-Hant`, `kaz_Cyrl`."""


@dataclasses.dataclass(frozen=True, slots=True)
class LanguageCodes:
    """What the table knows of a language.

    Attributes:
        code: Its name here, as in FLORES-200: `kaz_Cyrl`.
        nllb: The code of NLLB-200 that reads it; None where there is none.
        stand_in: Why that code is another than `code`: "Hindi in Latin letters"; empty where it is the same.
    """

    code: str
    nllb: str | None
    stand_in: str = ""


@functools.cache
def _table() -> Mapping[str, Any]:
    return tomllib.loads(Path(__file__).with_name("languages.toml").read_text(encoding="utf-8"))


@functools.cache
def nllb_codes() -> tuple[str, ...]:
    """The 202 source languages of NLLB-200, sorted."""
    return tuple(_table()["nllb"].split())


@functools.cache
def find_language(name: str) -> LanguageCodes | None:
    """The language that a code of a data set or of a tokenizer means: `kaz_Cyrl`, `kk`, `kaz`, `zh-Hant`, `kk_KZ` ...

    None where the table does not know it, or where it may be one of several: `kas` is written in two scripts.
    """
    codes, elsewhere, names = nllb_codes(), _table()["elsewhere"], _table()["names"]
    if name in codes:
        return LanguageCodes(name, name)
    if name in elsewhere:
        return LanguageCodes(name, elsewhere[name].get("as"), elsewhere[name]["why"])
    if name in names:
        return find_language(names[name])
    if written := _WRITTEN.fullmatch(name):
        wanted = f"{names.get(written[1], written[1])[:3]}_{written[2]}"
        return find_language(wanted) if wanted in codes or wanted in elsewhere else None
    if regional := _REGIONAL.fullmatch(name):
        return find_language(regional[1])
    for known in (codes, elsewhere):
        begun = [code for code in known if code[:3] == name]
        if begun:
            return find_language(begun[0]) if len(begun) == 1 else None  # `ace` begins two
    return None


def same_language(one: str, other: str) -> bool:
    """Whether two codes mean one language in one script."""
    first, second = find_language(one), find_language(other)
    return one == other or (first is not None and first == second)


def languages_of(name: str) -> dict[str, LanguageCodes]:
    """The languages of a data set of `dudi stack prepare` (`sib200`, `nusax` ...), by the set's own codes."""
    listed = _table()["sets"][name]
    if not isinstance(listed, str):
        kept = set(_table()[listed["like"]].split()) - set(listed["without"].split())
        listed = " ".join(sorted(kept | set(listed["and"].split())))
    found: dict[str, LanguageCodes] = {}
    for word in listed.split():
        code, _, meant = word.partition("=")
        language = find_language(meant or code)
        if language is None:
            raise ValueError(f"languages.toml: sets.{name}: {word} is in no table")
        found[code] = language
    return found


def by_language(codes: Iterable[str]) -> dict[str, str]:
    """A tokenizer's codes by the languages they mean, where the table knows them: {"ind_Latn": "id"} of M2M100."""
    found: dict[str, str] = {}
    for code in codes:
        language = find_language(code.strip("_"))  # Seamless writes `__eng__`
        if language is not None:
            found.setdefault(language.code, code)
    return found


def names_of(code: str) -> list[str]:
    """What a language is called in codes of two and three letters: `en` and `eng` of `eng_Latn`; and `code` itself."""
    meant = find_language(code)
    if meant is None:
        return [code]
    short = [name for name, target in _table()["names"].items() if target == meant.code]
    return list(dict.fromkeys([*short, meant.code[:3], meant.code, code]))


def nearest_code(name: str, known: Iterable[str]) -> str | None:
    """The code of a tokenizer, which has at least one, that somebody who wrote `name` most likely means.

    The same language as the table knows it; else the same language in another script; else the nearest spelling.
    None for a language of the table that the tokenizer has in no script: what is spelled alike is another one.
    """
    codes = list(known)
    named, meant = by_language(codes), find_language(name)
    for code in () if meant is None else (meant.code, meant.nllb):
        if code in named:
            return named[code]
    begin = (name if meant is None else meant.code).lower()[:3]
    same = [code for language, code in named.items() if language.startswith(f"{begin}_")]
    if same or meant is not None:
        return same[0] if same else None
    return difflib.get_close_matches(name, codes, n=1, cutoff=0.0)[0]
