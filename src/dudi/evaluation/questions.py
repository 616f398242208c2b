"""Questions with references: put to a model, judged, and summed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from dudi.data.chat import ChatFormat
from dudi.data.rejections import Rejections
from dudi.data.rows import Row
from dudi.evaluation.entry import Outcome, Preview
from dudi.evaluation.generate import Decoding, Generated, generate, reference_bits
from dudi.evaluation.records import SeedScores
from dudi.evaluation.scores import chrf, exact_match, in_language, repetition, token_f1
from dudi.evaluation.summary import Answered, floor, scores, tabulate
from dudi.languages.registry import LANGUAGES


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


def ask(
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
    """Put questions to a model.

    Args:
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
        written = generate(model, chat, rows, decoding, seed=seed, batch_size=batch_size)
        costs = reference_bits(model, chat, rows) if bits is None else [bits[row.id] for row in rows]
        for item, one, cost in zip(batch, written, costs, strict=True):
            by_id[item.row.id] = judge(item, one, cost, candidates, seed)
        done(len(batch))
    return [by_id[item.row.id] for item in items]


def judge(item: Item, written: Generated, bits: float, candidates: Sequence[str], seed: int = 0) -> Answered:
    """An answer against its references; arguments as of `ask`."""
    row, answer, references = item.row, written.text, item.references
    inside: dict[bool, bool | None] = {}
    for merged in (True, False):
        tests = (in_language(answer, one, row.language, candidates, merge_malay=merged) for one in references)
        inside[merged] = any(tests) if row.language in candidates else None
    exact = any(exact_match(answer, reference) for reference in references)
    best_chrf = max(chrf(answer, reference) for reference in references)
    return Answered(
        id=row.id,
        language=row.language,
        task=item.task,
        kind=item.kind,
        split=item.split,
        question=row.prompt[-1]["content"],
        reference=row.completion,
        answer=answer,
        exact=exact,
        chrf=best_chrf,
        in_language=inside[True],
        bits=bits,
        bytes=len(row.completion.encode("utf-8")),
        guess=item.guess,
        in_language_strict=inside[False],
        token_f1=max(token_f1(answer, reference) for reference in references),
        repetition=repetition(answer),
        length=written.length,
        ended=written.ended,
        alternatives=item.alternatives,
        seed=seed,
    )


@dataclasses.dataclass(frozen=True)
class ChosenQuestions:
    """Chosen questions, ready for any model: `dudi.evaluation.entry.Asked`.

    Attributes:
        items: The questions, their ids unique.
        about: What they are, for the record; the decoding is added.
        decoding: How answers are decoded.
        candidates: The languages that an answer can be in.
        batch_size: Questions that are decoded together.
        rows: Rows read from a file, good and bad.
        rejections: The bad ones.
    """

    items: Sequence[Item]
    about: Mapping[str, Any]
    decoding: Decoding
    candidates: Sequence[str] = tuple(LANGUAGES)
    batch_size: int = 64
    rows: int = 0
    rejections: Rejections = dataclasses.field(default_factory=Rejections)

    @property
    def benchmark(self) -> Mapping[str, Any]:
        """What is asked and how."""
        return {**self.about, "decoding": self.decoding.described()}

    @property
    def total(self) -> int:
        """How many questions one seed asks."""
        return len(self.items)

    def check_seeds(self, seeds: Sequence[int]) -> None:
        """As `Decoding.check_seeds`."""
        self.decoding.check_seeds(seeds)

    def settle(self, file: Path, max_share: float) -> list[str]:
        """Write the rejected rows, or take away those of an earlier attempt; returns a line a reason."""
        self.rejections.settle(file)
        self.rejections.check_share(self.rows, max_share)
        return self.rejections.summary()

    def prompts(self) -> Iterator[str]:
        """The last turn of every question."""
        return (item.row.prompt[-1]["content"] for item in self.items)

    def previews(self, chat: ChatFormat, seed: int) -> Iterator[Preview]:
        """The first question of each task and language, through the chat template."""
        first: dict[str, Item] = {}
        for item in self.items:
            first.setdefault(" ".join(filter(None, (item.task, item.row.language))), item)
        for name, item in first.items():
            yield Preview(name, chat.render(item.row.prompt), item.row.completion)

    @property
    def configuration(self) -> Mapping[str, Any]:
        return self.benchmark

    def ask(
        self, model: PreTrainedModel, chat: ChatFormat, seeds: Sequence[int], done: Callable[[int], None]
    ) -> Outcome:
        """Ask everything once for each seed, seeds ascending; what references cost is found out once."""
        self.check_seeds(seeds)
        runs: list[SeedScores] = []
        every: list[Answered] = []
        bits: dict[str, float] | None = None
        for seed in sorted(seeds):
            answered = ask(
                model,
                chat,
                self.items,
                self.decoding,
                seed=seed,
                candidates=self.candidates,
                batch_size=self.batch_size,
                bits=bits,
                done=done,
            )
            bits = {one.id: one.bits for one in answered}
            runs.append(SeedScores(seed, tabulate(answered, scores)))
            every += answered
        about: dict[str, Any] = {"rejected": dict(self.rejections.counts)} if len(self.rejections) else {}
        if all(item.guess is not None for item in self.items):
            about["guessing"] = tabulate(every[: self.total], floor)
        return Outcome(tuple(runs), [dataclasses.asdict(one) for one in every], about)
