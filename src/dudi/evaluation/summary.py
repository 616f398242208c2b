"""From single answers to scores: overall, and per split, language and task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dudi.evaluation.benchmark import Answered

FLOOR = "floor"
"""The subject that guesses: always shown beside the others."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """Means over some questions.

    Attributes:
        questions: How many.
        exact_match: Share answered exactly, 0 to 1.
        chrf: Mean chrF, 0 to 100; None for the floor.
        in_language: Share answered in the question's language; None for the floor.
        bits_per_byte: Bits that the references cost per byte of UTF-8: fair across tokenizers; None for the floor.
    """

    questions: int
    exact_match: float
    chrf: float | None
    in_language: float | None
    bits_per_byte: float | None


def scores(answered: Sequence[Answered]) -> Scores:
    """The scores of some answers; at least one."""
    count = len(answered)
    return Scores(
        questions=count,
        exact_match=sum(one.exact for one in answered) / count,
        chrf=sum(one.chrf for one in answered) / count,
        in_language=sum(one.in_language for one in answered) / count,
        bits_per_byte=sum(one.bits for one in answered) / sum(one.bytes for one in answered),
    )


def floor(answered: Sequence[Answered]) -> Scores:
    """What guessing reaches on the same questions."""
    return Scores(len(answered), sum(one.guess for one in answered) / len(answered), None, None, None)


def summarise(answered: Sequence[Answered]) -> dict[str, dict[str, Any]]:
    """Scores of every subject and of the floor.

    Returns:
        By subject: `overall`, `by_split`, `by_language`, `by_task` and `by_language_and_split` (language, then split),
        each leaf the fields of `Scores`.
    """
    by_subject = _grouped(answered, lambda one: one.subject)
    summary = {subject: _table(own, scores) for subject, own in by_subject.items()}
    return {FLOOR: _table(next(iter(by_subject.values())), floor), **summary} if by_subject else {}


def _table(answered: Sequence[Answered], judge: Callable[[Sequence[Answered]], Scores]) -> dict[str, Any]:
    def by(key: Callable[[Answered], str], some: Sequence[Answered] = answered) -> dict[str, Any]:
        return {name: dataclasses.asdict(judge(own)) for name, own in _grouped(some, key).items()}

    return {
        "overall": dataclasses.asdict(judge(answered)),
        "by_split": by(lambda one: one.split),
        "by_language": by(lambda one: one.language),
        "by_task": by(lambda one: one.task),
        "by_language_and_split": {
            language: by(lambda one: one.split, own)
            for language, own in _grouped(answered, lambda one: one.language).items()
        },
    }


def _grouped(answered: Iterable[Answered], key: Callable[[Answered], str]) -> Mapping[str, list[Answered]]:
    groups: dict[str, list[Answered]] = {}
    for one in answered:
        groups.setdefault(key(one), []).append(one)
    return groups
