"""From judged answers to scores: overall, and by split, language, task and kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Answered:
    """One question with what a model made of it; with `benchmark` and `subject`, a line of `answers.jsonl`.

    Attributes:
        id: The question's row id.
        kind: Its kind within the task.
        split: What its benchmark or its file says; or empty.
        question: The last user turn.
        exact: Whether the answer and a reference are the same after normalisation.
        chrf: 0 to 100, against the best reference.
        in_language: Whether the answer is in the question's language, Indonesian and Malay counted as one; None where
            dudi does not know the language.
        bits: What the (first) reference costs the model, the end of turn included.
        bytes: Length of that reference in UTF-8.
        guess: The chance that one who knows the habits of this kind, and no fact, is right.
        in_language_strict: As `in_language`, with Indonesian and Malay told apart.
        token_f1: 0 to 1, against the best reference.
        repetition: Share of repeated 4-grams, 0 to 1.
        length: Tokens of the answer, its end not counted.
        ended: Whether the model ended it by itself.
        alternatives: Further references.
    """

    id: str
    language: str
    task: str
    kind: str
    split: str
    question: str
    reference: str
    answer: str
    exact: bool
    chrf: float
    in_language: bool | None
    bits: float
    bytes: int
    guess: float | None
    in_language_strict: bool | None = None
    token_f1: float | None = None
    repetition: float | None = None
    length: int | None = None
    ended: bool | None = None
    alternatives: tuple[str, ...] = ()
    seed: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """Means over some questions of what `Answered` has of each, in its units; None was not measured.

    Attributes:
        questions: How many.
        exact_match: Share answered exactly, 0 to 1.
        bits_per_byte: Bits that the references cost per byte of UTF-8: fair across tokenizers.
        length: In the model's own tokens.
        ended: The end-of-turn rate, 0 to 1.
        empty: Share of answers that hold nothing but space.
    """

    questions: int
    exact_match: float
    chrf: float | None = None
    in_language: float | None = None
    bits_per_byte: float | None = None
    in_language_strict: float | None = None
    token_f1: float | None = None
    repetition: float | None = None
    length: float | None = None
    ended: float | None = None
    empty: float | None = None


_MEANS = ("chrf", "in_language", "in_language_strict", "token_f1", "repetition", "length", "ended")


def scores(answered: Sequence[Answered]) -> Scores:
    """The scores of some answers; at least one."""
    count = len(answered)
    exact = sum(one.exact for one in answered)
    empty = sum(not one.answer.strip() for one in answered)
    bits = sum(one.bits for one in answered)
    size = sum(one.bytes for one in answered)
    means: dict[str, float] = {}
    for name in _MEANS:
        if measured := [value for one in answered if (value := getattr(one, name)) is not None]:
            means[name] = sum(measured) / len(measured)
    return Scores(count, exact / count, bits_per_byte=bits / size, empty=empty / count, **means)


def floor(answered: Sequence[Answered]) -> Scores:
    """What guessing reaches on the same questions."""
    return Scores(len(answered), sum(one.guess or 0.0 for one in answered) / len(answered))


def tabulate(answered: Sequence[Answered], judge: Callable[[Sequence[Answered]], Scores]) -> dict[str, Any]:
    """The scores of some answers, at least one, as `SeedScores` has them: by `scores`, or by `floor`.

    Returns:
        `overall`, `by_split`, `by_language`, `by_task`, `by_kind` (finer than tasks) and `by_language_and_split`
        (language, then split), each leaf the fields of `Scores`. Questions without a split, task or kind are in none of
        its groups.
    """
    tables: dict[str, Any] = {"overall": dataclasses.asdict(judge(answered))}
    tables |= {f"by_{key}": _by(key, answered, judge) for key in ("split", "language", "task", "kind")}
    both: dict[str, Any] = {}
    for language in tables["by_language"]:
        own = [one for one in answered if one.language == language]
        both[language] = _by("split", own, judge)
    return tables | {"by_language_and_split": both}


def _by(
    key: str, answered: Sequence[Answered], judge: Callable[[Sequence[Answered]], Scores]
) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Answered]] = {}
    for one in answered:
        groups.setdefault(getattr(one, key), []).append(one)
    return {name: dataclasses.asdict(judge(own)) for name, own in groups.items() if name}
