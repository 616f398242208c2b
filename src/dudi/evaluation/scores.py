"""Scores of one answer against its reference: exact match, chrF, the language it is in."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence

from dudi.langid import UNDETERMINED, detect, same_language

_QUOTES = str.maketrans(dict.fromkeys("“”„«»‘’\"'", ""))
_ENDS = " .,!?;:။၊।…"
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad"))
"""Zero-width space, word joiner, BOM, soft hyphen. ZWJ and ZWNJ stay: Tamil and Burmese write with them."""


def normalise(text: str) -> str:
    """A text as exact match compares it: NFC, one case, single spaces, without quotation marks or a final stop."""
    text = unicodedata.normalize("NFC", text).translate(_INVISIBLE).translate(_QUOTES)
    return " ".join(text.casefold().split()).strip(_ENDS)


def exact_match(answer: str, reference: str) -> bool:
    """Whether two texts are the same after `normalise`."""
    return normalise(answer) == normalise(reference)


def chrf(answer: str, reference: str) -> float:
    """The chrF of one answer, 0 to 100 (Popović 2015; sacrebleu's settings: six characters, beta 2, no words).

    Words stay out, since Thai and Burmese do not part them.
    """
    return float(_metric().sentence_score(answer, [reference]).score)


@functools.cache
def _metric():  # type: ignore[no-untyped-def]  # noqa: ANN202  # sacrebleu is imported late: it brings lxml
    from sacrebleu.metrics import CHRF

    return CHRF(eps_smoothing=False)


def in_language(answer: str, reference: str, language: str, candidates: Sequence[str]) -> bool:
    """Whether an answer is in the language of its question.

    An answer that says what the reference says is, whatever a detector makes of a lone "Euro"; so is one whose
    language cannot be told when that of the reference cannot be told either. Indonesian and Malay count as one:
    in short answers they are often the same words.

    Args:
        answer: What a model wrote.
        reference: What is right.
        language: The code of the question's language.
        candidates: The codes of all languages in the benchmark.
    """
    if exact_match(answer, reference):
        return True
    told = detect(answer, candidates)
    if told == UNDETERMINED:
        return bool(answer.strip()) and detect(reference, candidates) == UNDETERMINED
    return same_language(told, language, merge_malay=True)
