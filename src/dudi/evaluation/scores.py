"""Scores of one answer against its reference: exact match, chrF, token F1, its language, what it repeats."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Sequence

import regex

from dudi.languages.detect import UNDETERMINED, detect, same_language

_QUOTES = str.maketrans(dict.fromkeys("“”„«»‘’\"'", ""))
_ENDS = " .,!?;:။၊।…"
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad"))
"""Zero-width space, word joiner, BOM, soft hyphen. ZWJ and ZWNJ stay: Tamil and Burmese write with them."""

_UNSPACED = "".join(
    rf"\p{{Script={name}}}" for name in ("Thai", "Lao", "Myanmar", "Khmer", "Hiragana", "Katakana", "Han")
)
_PIECE = regex.compile(rf"[[{_UNSPACED}]--\p{{M}}][\p{{M}}\u200c\u200d]*|[^[{_UNSPACED}]--\p{{M}}]+", regex.V1)
"""A letter of a script that does not part words with spaces, with its marks; or a run of anything else."""
_EDGES = regex.compile(r"^\p{P}+|\p{P}+$")

NGRAM = 4
"""Length of the n-grams of `repetition`."""


def normalise(text: str) -> str:
    """A text as exact match compares it: NFC, one case, single spaces, without quotation marks or a final stop."""
    text = unicodedata.normalize("NFC", text.translate(_INVISIBLE).translate(_QUOTES))
    return " ".join(unicodedata.normalize("NFC", text.casefold()).split()).strip(_ENDS)


def tokens(text: str) -> list[str]:
    """The pieces that token F1 and repetition count.

    Words between spaces after `normalise`, without the punctuation at their ends. Where a script has no spaces between
    words (Thai, Lao, Burmese, Khmer, Chinese, Japanese) each letter with its marks is a piece, and what is written in
    other scripts beside it stays whole, as MLQA segments Chinese (Lewis et al. 2020).
    """
    bare = (_EDGES.sub("", piece) for word in normalise(text).split() for piece in _PIECE.findall(word))
    return [piece for piece in bare if piece]


def exact_match(answer: str, reference: str) -> bool:
    """Whether two texts are the same after `normalise`."""
    return normalise(answer) == normalise(reference)


def chrf(answer: str, reference: str) -> float:
    """The chrF of one answer, 0 to 100 (Popović 2015; sacrebleu's settings: six characters, beta 2, no words).

    Words stay out, since Thai and Burmese do not part them. Both texts are compared in NFC, as exact match has them:
    the same Burmese or Vietnamese, typed another way, is the same.
    """
    answer, reference = (unicodedata.normalize("NFC", text) for text in (answer, reference))
    return float(_metric().sentence_score(answer, [reference]).score)


@functools.cache
def _metric():  # type: ignore[no-untyped-def]  # noqa: ANN202  # sacrebleu is imported late: it brings lxml
    from sacrebleu.metrics import CHRF

    return CHRF(eps_smoothing=False)


def token_f1(answer: str, reference: str) -> float:
    """The F1 of an answer's tokens against the reference's, 0 to 1 (Rajpurkar et al. 2016, "SQuAD").

    2 o / (n + m) for n and m `tokens`, of which o are in both, counted as often as in both. SQuAD leaves out the
    English articles; here they count, as in every other language. 1 where neither text has a token, 0 where one has.
    """
    own, wanted = tokens(answer), tokens(reference)
    if not own or not wanted:
        return float(own == wanted)
    return 2 * (Counter(own) & Counter(wanted)).total() / (len(own) + len(wanted))


def repetition(answer: str) -> float:
    """The share of 4-grams of `tokens` that an answer has written before, 0 to 1.

    1 - (distinct n-grams) / (n-grams): `seq-rep-4` of Welleck et al. 2020, "Neural Text Generation with Unlikelihood
    Training". 0 for less than four tokens.
    """
    pieces = tokens(answer)
    grams = [tuple(pieces[start : start + NGRAM]) for start in range(len(pieces) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def in_language(
    answer: str, reference: str, language: str, candidates: Sequence[str], *, merge_malay: bool = True
) -> bool:
    """Whether an answer is in the language of its question.

    An answer that says what the reference says is, whatever a detector makes of a lone "Euro"; so is one whose
    language cannot be told when that of the reference cannot be told either.

    Args:
        answer: What a model wrote.
        reference: What is right.
        language: The code of the question's language.
        candidates: The codes of the languages that an answer can be in.
        merge_malay: Count Indonesian and Malay as one: in short answers they are often the same words.
    """
    if exact_match(answer, reference):
        return True
    told = detect(answer, candidates)
    if told == UNDETERMINED:
        return bool(answer.strip()) and detect(reference, candidates) == UNDETERMINED
    return same_language(told, language, merge_malay=merge_malay)
