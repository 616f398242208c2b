"""What the mini models read: CLDR's facts as conversations, plain and in every wording of the verbalizer."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence

from dudi.data.cldr import LANGUAGES, Fact, facts, row_of, word
from dudi.data.cldr.benchmark import TASKS, benchmark_facts, knowledge
from dudi.data.rows import Message, Row
from dudi.distill.verbalizer import Verbalizer

MODES = ("multilingual", "cross_lingual", "english")
WEAK = ("ta", "my")
"""The languages in which the teacher knows less, as Qwen2.5-3B does in Tamil and Burmese (Section 6 of the paper)."""
WEAK_SHARE = 0.4
"""The share of facts that the teacher reads in them."""

TEACHER_WEIGHTS: Mapping[str, float] = {
    "currency": 5,
    "official_language": 3,
    "official_languages": 1.5,
    "currency_yes_no": 1,
    "currency_choice": 1.5,
    "official_language_yes_no": 1,
    "official_language_choice": 1.5,
    "country_name": 1.5,
    "country_from_name": 1,
    "language_name": 1,
    "currency_name": 1.5,
    "weekday_after": 1,
    "weekday_before": 1,
    "month_after": 1,
    "month_before": 1,
    "date": 0.7,
    "number": 0.4,
    "percent": 0.4,
    "list": 0.7,
    "unit": 0.7,
}
BASE_WEIGHTS: Mapping[str, float] = {"country_name": 2, "country_from_name": 2, "language_name": 1, "currency_name": 2}
"""Names alone: of what the benchmark counts as `transfer` or `unseen`, the base student reads nothing."""

SAID: Mapping[str, tuple[float, float, float]] = {"teacher": (0.4, 0.2, 0.4), "base": (0.4, 0.6, 0.0)}
"""Shares of samples: plain question, the verbalizer's wording for students (p_z), its wording for teachers (z)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One conversation to learn from: the loss is on the answer."""

    messages: list[Message]
    answer: str
    language: str


def reads_as(role: str) -> str:
    """Whose stream a model reads: every base student reads the same."""
    return "teacher" if role == "teacher" else "base"


def samples(role: str, seed: int, *, whole: bool = False) -> Iterator[Sample]:
    """An endless stream of conversations.

    Args:
        role: `teacher` or `base`.
        seed: Of every draw.
        whole: The teacher reads every fact in every language, in its weak ones too.
    """
    source = random.Random(f"{role}/{seed}")
    weights = TEACHER_WEIGHTS if role == "teacher" else BASE_WEIGHTS
    pools = {kind: _pool(kind) for kind in weights}
    speakers = {mode: Verbalizer(mode, LANGUAGES, seed) for mode in MODES}
    kinds, shares = list(weights), list(weights.values())
    turn = 0
    while True:
        turn += 1
        fact = source.choice(pools[source.choices(kinds, shares)[0]])
        language, paraphrase = source.choice(LANGUAGES), source.randrange(10)
        if role == "teacher" and not whole and not teacher_reads(fact, language):
            continue
        row = row_of(fact, language, paraphrase)
        if row is None:
            continue
        said = source.choices(("plain", "student", "teacher"), SAID[role])[0]
        if said == "plain":
            yield Sample(list(row.prompt), row.completion, language)
            continue
        sample = _verbalized(speakers[source.choices(MODES, (0.2, 0.65, 0.15))[0]], row, fact, paraphrase, turn, said)
        if sample is not None and (role == "base" or whole or teacher_reads(fact, sample.language)):
            yield sample


def teacher_reads(fact: Fact, language: str) -> bool:
    """Whether the teacher reads a fact in a language: all, but two in five in its weak languages. Names always."""
    if language not in WEAK or fact.kind in TASKS["names"]:
        return True
    digest = hashlib.sha256(f"dudi-mini/weak/{language}/{knowledge(fact)}".encode()).digest()
    return digest[0] / 256 < WEAK_SHARE


def texts(seed: int, count: int) -> Iterator[str]:
    """Questions and answers for the tokenizer: of the teacher's stream, since its wordings are everybody's."""
    for _, sample in zip(range(count), samples("teacher", seed), strict=False):
        yield sample.messages[-1]["content"]
        yield sample.answer


def _pool(kind: str) -> Sequence[Fact]:
    """Names and formats: all that CLDR has; of the others the benchmark's."""
    return benchmark_facts(kind) if kind in TASKS["calendar"] else facts(kind)


def _verbalized(speaker: Verbalizer, row: Row, fact: Fact, paraphrase: int, turn: int, said: str) -> Sample | None:
    made = speaker.verbalize(row, epoch=turn)
    worded = word(fact, made.target_language, paraphrase)
    if worded is None:
        return None
    messages = made.student_messages if said == "student" else made.teacher_messages
    return Sample(messages, worded[1], made.target_language)
