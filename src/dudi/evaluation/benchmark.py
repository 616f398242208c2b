"""A model's answers, question by question: to the built-in benchmark, and to any other questions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import babel
from transformers import PreTrainedModel

from dudi.data.chat import ChatFormat
from dudi.data.cldr.benchmark import NAME, Question, guess_rate
from dudi.data.cldr.locales import cldr_version
from dudi.data.cldr.speaker import LANGUAGES
from dudi.data.rows import Row
from dudi.evaluation.asking import Decoding, Written, reference_nats, write
from dudi.evaluation.scores import chrf, exact_match, in_language, repetition, token_f1


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """A question as it is asked and judged.

    Attributes:
        row: The question as a prompt, its reference as the completion.
        alternatives: Further references: an answer's score is its best against any of them.
        task: Its task; empty where there is none.
        kind: Its kind within the task, likewise.
        split: Its split, likewise.
        guess: The chance that one who knows the habits of this kind, and no fact, is right; None: not known.
    """

    row: Row
    alternatives: tuple[str, ...] = ()
    task: str = ""
    kind: str = ""
    split: str = ""
    guess: float | None = None

    @property
    def references(self) -> tuple[str, ...]:
        """Every reference."""
        return (self.row.completion, *self.alternatives)


@dataclasses.dataclass(frozen=True, slots=True)
class Answered:
    """One question with what a model made of it; a line of `answers.jsonl`.

    Attributes:
        subject: Who answered: `base`, `cold_start`, `student`, `teacher`, or any name.
        id: The question's row id.
        language: Its language.
        task: Its task.
        kind: Its kind within the task.
        split: `seen`, `transfer` or `unseen`; what a file says; or empty.
        question: The last user turn.
        reference: What is right.
        answer: What the model wrote.
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
        seed: Of the sampling.
    """

    subject: str
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


def ask(
    subject: str,
    model: PreTrainedModel,
    chat: ChatFormat,
    questions: Sequence[Question],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    done: Callable[[int], None] = lambda count: None,
) -> list[Answered]:
    """Put the benchmark's questions to a model; answers are greedy.

    Args:
        subject: Who answers, for the records.
        model: Any causal language model.
        chat: Its chat format.
        questions: What is asked.
        max_new_tokens: Longest answer; the rest is cut and then wrong.
        batch_size: Questions that are decoded together.
        done: Told how many more are through, batch by batch.
    """
    items, decoding = [item_of(question) for question in questions], Decoding(max_new_tokens)
    return put(subject, model, chat, items, decoding, batch_size=batch_size, done=done)


def put(
    subject: str,
    model: PreTrainedModel,
    chat: ChatFormat,
    items: Sequence[Item],
    decoding: Decoding,
    *,
    seed: int = 0,
    candidates: Sequence[str] = tuple(LANGUAGES),
    batch_size: int = 64,
    bits: Mapping[str, float] | None = None,
    done: Callable[[int], None] = lambda count: None,
) -> list[Answered]:
    """Put any questions to a model.

    Args:
        subject: Who answers, for the records.
        model: Any causal language model.
        chat: Its chat format.
        items: What is asked.
        decoding: How answers are decoded.
        seed: Of the sampling.
        candidates: The languages that an answer can be in: all that dudi knows, whichever are asked.
        batch_size: Questions that are decoded together; answers do not depend on it.
        bits: What each reference costs, by row id, where another seed has found it out.
        done: Told how many more are through, batch by batch.

    Returns:
        The answers, in the order of the questions.
    """
    ordered = sorted(items, key=lambda item: (len(item.row.prompt[-1]["content"]), item.row.id))
    by_id: dict[str, Answered] = {}
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        rows = [item.row for item in batch]
        written = write(model, chat, rows, decoding, seed=seed, batch_size=batch_size)
        costs = _costs(model, chat, rows) if bits is None else [bits[row.id] for row in rows]
        for item, one, cost in zip(batch, written, costs, strict=True):
            by_id[item.row.id] = dataclasses.replace(_judged(subject, item, one, cost, candidates), seed=seed)
        done(len(batch))
    return [by_id[item.row.id] for item in items]


def item_of(question: Question) -> Item:
    """A question of the built-in benchmark as an item."""
    guess = guess_rate(question.fact, question.row.language)
    return Item(question.row, (), question.task, question.fact.kind, question.split, guess)


def fingerprint(questions: Sequence[Question]) -> str:
    """SHA-256 over questions, references and splits: two results compare only where it is the same."""
    lines = [[q.row.id, q.split, q.row.prompt[-1]["content"], q.row.completion] for q in questions]
    return hashlib.sha256(json.dumps(lines, ensure_ascii=False).encode()).hexdigest()


def described(questions: Sequence[Question], *, part: str, max_new_tokens: int) -> dict[str, Any]:
    """What was asked and how, so that results can be told apart."""
    return {
        "name": NAME,
        "part": part,
        "questions": len(questions),
        "languages": list(dict.fromkeys(question.row.language for question in questions)),
        "tasks": list(dict.fromkeys(question.task for question in questions)),
        "fingerprint": fingerprint(questions),
        "decoding": Decoding(max_new_tokens).described(),
        "cldr_version": cldr_version(),
        "babel_version": babel.__version__,
    }


def _costs(model: PreTrainedModel, chat: ChatFormat, rows: Sequence[Row]) -> list[float]:
    """What each row's completion costs in bits."""
    return [nats / math.log(2) for nats in reference_nats(model, chat, rows)]


def _judged(subject: str, item: Item, written: Written, bits: float, candidates: Sequence[str]) -> Answered:
    row, answer = item.row, written.text
    return Answered(
        subject=subject,
        id=row.id,
        language=row.language,
        task=item.task,
        kind=item.kind,
        split=item.split,
        question=row.prompt[-1]["content"],
        reference=row.completion,
        answer=answer,
        exact=any(exact_match(answer, reference) for reference in item.references),
        chrf=max(chrf(answer, reference) for reference in item.references),
        in_language=_in_language(item, answer, candidates, merge_malay=True),
        bits=bits,
        bytes=len(row.completion.encode("utf-8")),
        guess=item.guess,
        in_language_strict=_in_language(item, answer, candidates, merge_malay=False),
        token_f1=max(token_f1(answer, reference) for reference in item.references),
        repetition=repetition(answer),
        length=written.length,
        ended=written.ended,
        alternatives=item.alternatives,
    )


def _in_language(item: Item, answer: str, candidates: Sequence[str], *, merge_malay: bool) -> bool | None:
    language = item.row.language
    if language not in candidates:
        return None
    return any(in_language(answer, right, language, candidates, merge_malay=merge_malay) for right in item.references)
