"""Which language a text is in: its script settles it where it can, py3langid where it cannot.

Used for the wrong-language rate of rollouts and by `dudi prepare convert`. No network: the model is part of py3langid.
"""

from __future__ import annotations

import functools
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence

import regex
from py3langid.langid import MODEL_FILE, RAW_FLOOR, LanguageIdentifier

from dudi.languages.registry import Language, check_codes, load_languages

UNDETERMINED = "und"
"""The code of ISO 639 for a text whose language cannot be told."""

MIN_LETTERS = 3
SCRIPT_SHARE = 0.3
"""A script other than Latin that has this share of the letters settles it: Thai answers quote English names and code,
English ones hardly ever quote a third of Thai."""

FOREIGN_SHARE = 0.5
MAX_CHARACTERS = 4000
"""Longer texts are judged by their beginning."""

_LATIN = "Latin"
_MODEL_LABELS = {"fil": "tl"}
_NO_LANGUAGE = "zxx"
_LETTER = regex.compile(r"[[\p{L}\p{M}]--[\p{Script=Common}\p{Script=Inherited}]]", regex.V1)
"""Marks count: vowels and tones of Thai, Tamil and Burmese are marks. Accents and formulas' letters have no script."""


def detect(text: str, candidates: Sequence[str], languages: Mapping[str, Language] | None = None) -> str:
    """The language of a text, among the candidates.

    A candidate whose script no other one shares is settled by its script (30% of the letters; for Latin, what is left
    over). Candidates that share a script are told apart by py3langid, restricted to them; one that py3langid does not
    know can be found by its script alone, and is never named where others share it. A text that is mostly in a script
    of no candidate gets py3langid's own guess among all other languages, so that an answer in Chinese is `zh`
    and not the nearest of the candidates.

    Lone surrogates and control characters are read as spaces. The known languages are `load_languages()`, unless they
    are given.

    Returns:
        One of the candidates; another language's code (ISO 639) for a foreign script; or `und` when there are fewer
        than three letters or nothing that could be told.

    Raises:
        ConfigError: a candidate is not a known language.
    """
    known = load_languages() if languages is None else languages
    check_codes(candidates, known, "candidates")
    # Composed, so that a Vietnamese letter written as base and accents is one Latin letter.
    cleaned = regex.sub(r"\p{C}", " ", unicodedata.normalize("NFC", text[:MAX_CHARACTERS]))
    letters = "".join(_LETTER.findall(cleaned))
    if len(letters) < MIN_LETTERS:
        return UNDETERMINED
    groups: dict[str, list[str]] = defaultdict(list)
    for code in sorted(set(candidates)):
        groups[known[code].script].append(code)
    script = _deciding_script({script: _share(letters, script) for script in groups})
    group = sorted(set(candidates)) if script is None else groups[script]
    if script is not None and len(group) == 1:
        return group[0]
    bases = {code.partition("-")[0]: code for code in group}
    codes = {_MODEL_LABELS.get(base, base): code for base, code in bases.items()}
    labels = frozenset(_model().labels) - {_NO_LANGUAGE}
    if script is None:
        return _classify(cleaned, labels.difference(codes))
    return codes.get(_classify(cleaned, labels.intersection(codes)), UNDETERMINED)


def same_language(detected: str, wanted: str, merge_malay: bool = False) -> bool:
    """Whether a detected language counts as the wanted one.

    `merge_malay` takes Indonesian and Malay for one: short texts in them are often the same words, so a strict rate
    charges the model with the detector's confusion. Reports show both rates.
    """
    return detected == wanted or (merge_malay and {detected, wanted} == {"id", "ms"})


def _share(letters: str, script: str) -> float:
    """The share of letters that are of a script; of none where Unicode knows no such script."""
    try:
        return len(regex.findall(rf"\p{{Script={script}}}", letters)) / len(letters)
    except regex.error:
        return 0.0


def _deciding_script(shares: Mapping[str, float]) -> str | None:
    """The candidates' script that the text is in; None where it is mostly in a script of none of them."""
    distinctive = {script: share for script, share in shares.items() if script != _LATIN and share >= SCRIPT_SHARE}
    if distinctive:
        return max(distinctive, key=lambda script: distinctive[script])
    if 1.0 - sum(shares.values()) >= FOREIGN_SHARE or not any(shares.values()):
        return None
    return max(shares, key=lambda script: shares[script])


# The whole model: half a second to read, about 30 MB.
_model = functools.cache(functools.partial(LanguageIdentifier.from_model_file, MODEL_FILE))


def _classify(text: str, labels: frozenset[str]) -> str:
    """py3langid's answer among `labels`, or `und` where it has none."""
    if not labels:
        return UNDETERMINED
    label, score = _restricted(labels).classify(text)
    return UNDETERMINED if score <= RAW_FLOOR else str(label)


@functools.lru_cache(maxsize=16)
def _restricted(labels: frozenset[str]) -> LanguageIdentifier:
    whole = _model()
    identifier = LanguageIdentifier(
        whole.nb_ptc, whole.nb_pc, whole.nb_classes, whole.tk_nextmove, whole.tk_output, tk_row=whole.tk_row
    )
    identifier.set_languages(labels)
    return identifier
