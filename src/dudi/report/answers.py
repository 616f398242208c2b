"""The answers of a report: some questions of each language, before and after training, chosen by a rule."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dudi.report.results import SUBJECTS, Result, asks, result_of
from dudi.report.run_folder import RunFolder
from dudi.report.wording import in_order

PER_LANGUAGE = 6
LEARNED, STILL_RIGHT = "wrong before, right after", "right before and after"
STILL_WRONG, LOST = "wrong before and after", "right before, wrong after"
QUOTA = {LEARNED: 3, STILL_RIGHT: 1, STILL_WRONG: 1, LOST: 1}
"""How many questions of each kind a language gets, where it has them."""
_FILL = (STILL_WRONG, STILL_RIGHT, LOST, LEARNED)
"""Who gets the places that stay free: gains last, they have the most already."""
_CHANGES = {
    (False, True): LEARNED,
    (True, True): STILL_RIGHT,
    (False, False): STILL_WRONG,
    (True, False): LOST,
}

Record = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What one subject answered.

    Attributes:
        subject: As in `answers.jsonl`.
        title: What the page calls it.
        text: The answer.
        right: Whether it is the reference, after normalisation.
    """

    subject: str
    title: str
    text: str
    right: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """One question with everybody's answers; `change` is what training did to the student's."""

    id: str
    language: str
    split: str
    change: str
    question: str
    reference: str
    answers: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """The section of the page.

    Attributes:
        cards: The chosen questions, by language.
        languages: Their languages, in the order of the paper's tables.
        first: The language that is shown first: English, which most readers of the page can read, or else the first.
        before: What the page calls the student before its method.
        counts: (change, number of questions), over all questions.
        total: How many questions there are.
        turned: How many cards of a language show a question that turned right, where there are as many.
    """

    cards: tuple[Card, ...]
    languages: tuple[str, ...]
    first: str
    before: str
    counts: tuple[tuple[str, int], ...]
    total: int
    turned: int = QUOTA[LEARNED]


def choose(run: RunFolder) -> Answers | None:
    """The section of a run; None when nobody recorded answers of a student before and after."""
    by_id: dict[str, dict[str, Record]] = {}
    for record in run.answers:
        by_id.setdefault(_said(record, "id"), {})[_said(record, "subject")] = record
    before = _before(by_id.values())
    if before is None:
        return None
    result = result_of(run) or Result(run, {}, {}, str(run.value("method") or ""))
    cards = [_card(result, before, own) for own in by_id.values() if before in own and "student" in own]
    counts = Counter(card.change for card in cards)
    languages = in_order(card.language for card in cards)
    chosen = [card for code in languages for card in _of_language([card for card in cards if card.language == code])]
    return Answers(
        cards=tuple(chosen),
        languages=tuple(languages),
        first="en" if "en" in languages else languages[0],
        before=result.title(before),
        counts=tuple((change, counts[change]) for change in QUOTA),
        total=len(cards),
    )


def are_missing(run: RunFolder) -> bool:
    """Whether the benchmark was asked for, or has scores, and no answers are there."""
    return not run.answers and (asks(run) or result_of(run) is not None)


def _before(questions: Iterable[Mapping[str, Record]]) -> str | None:
    """The cold start, or else the base, of those who answered what the student answered."""
    answered = [own for own in questions if "student" in own]
    return next((name for name in ("cold_start", "base") if any(name in own for own in answered)), None)


def _card(result: Result, before: str, own: Mapping[str, Record]) -> Card:
    record = own["student"]
    subjects = [name for name in SUBJECTS if name in own]
    return Card(
        id=_said(record, "id"),
        language=_said(record, "language"),
        split=_said(record, "split"),
        change=_CHANGES[_right(own[before]), _right(record)],
        question=_said(record, "question"),
        reference=_said(record, "reference"),
        answers=tuple(
            Answer(name, result.title(name), _said(own[name], "answer"), _right(own[name])) for name in subjects
        ),
    )


def _of_language(cards: Sequence[Card]) -> list[Card]:
    """At most `PER_LANGUAGE` of one language's questions: the quota, then whatever is left."""
    chosen: list[Card] = []
    for change, count in QUOTA.items():
        _take(chosen, (card for card in cards if card.change == change), count)
    for change in _FILL:
        _take(chosen, (card for card in cards if card.change == change), PER_LANGUAGE - len(chosen))
    places = list(QUOTA)
    return sorted(chosen, key=lambda card: places.index(card.change))


def _take(chosen: list[Card], cards: Iterable[Card], count: int) -> None:
    """Move up to `count` cards over, always of the split that has the fewest so far, then by a hash of the id."""
    left = sorted((card for card in cards if card not in chosen), key=_order)
    for _ in range(min(count, len(left))):
        splits = [card.split for card in chosen]
        counts = [splits.count(card.split) for card in left]
        chosen.append(left.pop(counts.index(min(counts))))


def _order(card: Card) -> str:
    return hashlib.sha256(card.id.encode("utf-8", "replace")).hexdigest()


def _right(record: Record) -> bool:
    return record.get("exact") is True


def _said(record: Record, key: str) -> str:
    value = record.get(key)
    return "" if value is None else str(value)
