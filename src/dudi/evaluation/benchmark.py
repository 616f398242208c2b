"""A model's answers to the built-in benchmark, question by question."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import babel
from transformers import PreTrainedModel

from dudi.data.chat import ChatFormat
from dudi.data.cldr.benchmark import NAME, Question, guess_rate
from dudi.data.cldr.locales import cldr_version
from dudi.data.cldr.speaker import LANGUAGES
from dudi.evaluation.asking import answers, reference_nats
from dudi.evaluation.scores import chrf, exact_match, in_language


@dataclasses.dataclass(frozen=True, slots=True)
class Answered:
    """One question with what a model made of it; a line of `answers.jsonl`.

    Attributes:
        subject: Who answered: `base`, `cold_start`, `student`, `teacher`, or any name.
        id: The question's row id.
        language: Its language.
        task: Its task.
        kind: Its kind within the task.
        split: `seen`, `transfer` or `unseen`.
        question: The last user turn.
        reference: What is right.
        answer: What the model wrote.
        exact: Whether both are the same after normalisation.
        chrf: 0 to 100.
        in_language: Whether the answer is in the question's language.
        bits: What the reference costs the model, the end of turn included.
        bytes: Length of the reference in UTF-8.
        guess: The chance that one who knows the habits of this kind, and no fact, is right.
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
    in_language: bool
    bits: float
    bytes: int
    guess: float


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
    ordered = sorted(questions, key=lambda question: (len(question.row.prompt[-1]["content"]), question.row.id))
    by_id: dict[str, Answered] = {}
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        rows = [question.row for question in batch]
        written = answers(model, chat, rows, max_new_tokens=max_new_tokens, batch_size=batch_size)
        for question, answer, nats in zip(batch, written, reference_nats(model, chat, rows), strict=True):
            by_id[question.row.id] = _judged(subject, question, answer, nats)
        done(len(batch))
    return [by_id[question.row.id] for question in questions]


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
        "decoding": {"temperature": 0.0, "max_new_tokens": max_new_tokens},
        "cldr_version": cldr_version(),
        "babel_version": babel.__version__,
    }


def _judged(subject: str, question: Question, answer: str, nats: float) -> Answered:
    reference, language = question.row.completion, question.row.language
    return Answered(
        subject=subject,
        id=question.row.id,
        language=language,
        task=question.task,
        kind=question.fact.kind,
        split=question.split,
        question=question.row.prompt[-1]["content"],
        reference=reference,
        answer=answer,
        exact=exact_match(answer, reference),
        chrf=chrf(answer, reference),
        in_language=in_language(answer, reference, language, LANGUAGES),  # all, whichever were asked
        bits=nats / math.log(2),
        bytes=len(reference.encode("utf-8")),
        guess=guess_rate(question.fact, language),
    )
