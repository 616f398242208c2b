"""The answers of a report: some questions of each language, before and after training, chosen by a rule.

Several methods stand beside each other, each with its first run that has answers.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dudi.evaluation.tables import before_method
from dudi.report.groups import Group
from dudi.report.results import SUBJECTS, Result, benchmarks_of, result_of
from dudi.report.run_folder import RunFolder, text_of
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
        right: Whether it is the reference, after normalisation.
        colour: Of the method that trained a student, where several stand side by side.
    """

    subject: str
    title: str
    text: str
    right: bool
    colour: int | None = None


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
class AnswersSection:
    """The section of the page.

    Attributes:
        cards: The chosen questions, by language.
        languages: Of these, in the order of the paper's tables.
        first: The language that is shown first: English, which most readers of the page can read, or else the first.
        before: What the page calls the student before its method.
        counts: (change, number of questions), over all `total` questions.
        runs: Whose answers they are; the first run's decide which questions are shown.
        turned: How many cards of a language show a question that turned right, where there are as many.
    """

    cards: tuple[Card, ...]
    languages: tuple[str, ...]
    first: str
    before: str
    counts: tuple[tuple[str, int], ...]
    total: int
    runs: tuple[str, ...]
    turned: int = QUOTA[LEARNED]


def choose(groups: Sequence[Group]) -> AnswersSection | None:
    """The section; None when nobody recorded answers of a student before and after."""
    sources = []
    for group in groups:
        if run := next((run for run in group.runs if run.answers), None):
            sources.append((group, run, _by_id(run)))
    if not sources:
        return None
    _, run, by_id = sources[0]
    before = before_method(name for own in by_id.values() if "student" in own for name in own)
    if before is None:
        return None
    result = result_of(run) or Result(run, {}, str(run.value("method") or ""))
    cards = []
    for name, own in by_id.items():
        if before in own and "student" in own:
            cards.append(_card(result, before, own, [(group, table.get(name, {})) for group, _, table in sources]))
    counts = Counter(card.change for card in cards)
    languages = in_order(card.language for card in cards)
    chosen: list[Card] = []
    for code in languages:
        chosen += _of_language([card for card in cards if card.language == code])
    return AnswersSection(
        cards=tuple(chosen),
        languages=tuple(languages),
        first="en" if "en" in languages else languages[0],
        before=result.title(before),
        counts=tuple((change, counts[change]) for change in QUOTA),
        total=len(cards),
        runs=tuple(run.name for _, run, _ in sources),
    )


def _by_id(run: RunFolder) -> dict[str, dict[str, Record]]:
    found: dict[str, dict[str, Record]] = {}
    first = next(iter(benchmarks_of([run])), None)
    for record in run.answers:
        other = first is not None and record.get("benchmark", first) != first
        judged = "scores" not in record or "exact" in record  # there are tasks in which nothing is right or wrong
        if judged and not other:
            found.setdefault(text_of(record, "id"), {})[text_of(record, "subject")] = record
    return found


def _card(
    result: Result, before: str, own: Mapping[str, Record], methods: Sequence[tuple[Group, Mapping[str, Record]]]
) -> Card:
    """One question: all answers of a single run, or those before, of each method's student, and of the teacher."""
    record = own["student"]
    shown = []
    for name in (subject for subject in SUBJECTS if subject in own):
        if len(methods) == 1 or name in (before, "teacher"):
            shown.append(_answer(name, result.title(name), own[name]))
        elif name == "student":
            for group, table in methods:
                if name in table:
                    shown.append(_answer(name, group.label, table[name], group.colour))
    return Card(
        id=text_of(record, "id"),
        language=text_of(record, "language"),
        split=text_of(record, "split"),
        change=_CHANGES[own[before].get("exact") is True, record.get("exact") is True],
        question=text_of(record, "question"),
        reference=text_of(record, "reference"),
        answers=tuple(shown),
    )


def _answer(subject: str, title: str, record: Record, colour: int | None = None) -> Answer:
    return Answer(subject, title, text_of(record, "answer"), record.get("exact") is True, colour)


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
    left = [card for card in cards if card not in chosen]
    left.sort(key=lambda card: hashlib.sha256(card.id.encode("utf-8", "replace")).hexdigest())
    for _ in range(min(count, len(left))):
        splits = [card.split for card in chosen]
        counts = [splits.count(card.split) for card in left]
        chosen.append(left.pop(counts.index(min(counts))))
