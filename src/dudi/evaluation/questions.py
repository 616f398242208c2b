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

    @property
    def question(self) -> str:
        """The last turn of the prompt."""
        return self.row.prompt[-1]["content"]


@dataclasses.dataclass(frozen=True)
class ChosenQuestions:
    """Chosen questions, ready for any model: `dudi.evaluation.entry.Asked`.

    Attributes:
        items: The questions, their ids unique.
        decoding: How answers are decoded.
        about: What they are, for the record; the decoding is added.
        candidates: The languages that an answer can be in: all that dudi knows, whichever are asked.
        batch_size: Questions that are decoded together; answers do not depend on it.
        rows: Rows read from a file, good and bad.
        rejections: The bad ones.
    """

    items: Sequence[Item]
    decoding: Decoding
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    candidates: Sequence[str] = tuple(LANGUAGES)
    batch_size: int = 64
    rows: int = 0
    rejections: Rejections = dataclasses.field(default_factory=Rejections)

    @property
    def benchmark(self) -> Mapping[str, Any]:
        return {**self.about, "decoding": self.decoding.described()}

    configuration = benchmark

    @property
    def total(self) -> int:
        return len(self.items)

    def check_seeds(self, seeds: Sequence[int]) -> None:
        self.decoding.check_seeds(seeds)

    def settle(self, file: Path, max_share: float) -> list[str]:
        self.rejections.settle(file)
        self.rejections.check_share(self.rows, max_share)
        return self.rejections.summary()

    def prompts(self) -> Iterator[str]:
        return (item.question for item in self.items)

    def previews(self, chat: ChatFormat, seed: int) -> Iterator[Preview]:
        first: dict[str, Item] = {}
        for item in self.items:
            first.setdefault(" ".join(filter(None, (item.task, item.row.language))), item)
        for name, item in first.items():
            yield Preview(name, chat.render(item.row.prompt), item.row.completion)

    def ask(
        self, model: PreTrainedModel, chat: ChatFormat, seeds: Sequence[int], done: Callable[[int], None]
    ) -> Outcome:
        """As `Asked` has it; what references cost is found out once."""
        runs: list[SeedScores] = []
        every: list[Answered] = []
        bits: dict[str, float] = {}
        for seed in sorted(seeds):
            answered = self.answers(model, chat, seed, bits, done)
            bits = {one.id: one.bits for one in answered}
            runs.append(SeedScores(seed, tabulate(answered, scores)))
            every += answered
        about: dict[str, Any] = {"rejected": dict(self.rejections.counts)} if len(self.rejections) else {}
        if all(item.guess is not None for item in self.items):
            about["guessing"] = tabulate(every[: self.total], floor)
        return Outcome(tuple(runs), [dataclasses.asdict(one) for one in every], about)

    def answers(
        self,
        model: PreTrainedModel,
        chat: ChatFormat,
        seed: int = 0,
        bits: Mapping[str, float] | None = None,
        done: Callable[[int], None] = lambda count: None,
    ) -> list[Answered]:
        """A model's answers under one seed, judged, in the order of the questions.

        Args:
            model: Any causal language model.
            chat: Its chat format.
            seed: Of the sampling.
            bits: What each reference costs, by row id, where another seed has found it out.
            done: Told how many more are through, batch by batch.
        """
        ordered = sorted(self.items, key=lambda item: (len(item.question), item.row.id))
        by_id: dict[str, Answered] = {}
        for start in range(0, len(ordered), self.batch_size):
            batch = ordered[start : start + self.batch_size]
            rows = [item.row for item in batch]
            written = generate(model, chat, rows, self.decoding, seed=seed, batch_size=self.batch_size)
            costs = [bits[row.id] for row in rows] if bits else reference_bits(model, chat, rows)
            for item, one, cost in zip(batch, written, costs, strict=True):
                by_id[item.row.id] = self._judged(item, one, cost, seed)
            done(len(batch))
        return [by_id[item.row.id] for item in self.items]

    def _judged(self, item: Item, written: Generated, bits: float, seed: int) -> Answered:
        """An answer against its references."""
        row, answer, references = item.row, written.text, item.references
        exact = any(exact_match(answer, reference) for reference in references)
        best_chrf = max(chrf(answer, reference) for reference in references)
        best_f1 = max(token_f1(answer, reference) for reference in references)
        inside: dict[bool, bool | None] = {}
        for merged in (True, False):
            tests = (in_language(answer, one, row.language, self.candidates, merge_malay=merged) for one in references)
            inside[merged] = any(tests) if row.language in self.candidates else None
        return Answered(
            id=row.id,
            language=row.language,
            task=item.task,
            kind=item.kind,
            split=item.split,
            question=item.question,
            reference=row.completion,
            answer=answer,
            exact=exact,
            chrf=best_chrf,
            in_language=inside[True],
            bits=bits,
            bytes=len(row.completion.encode("utf-8")),
            guess=item.guess,
            in_language_strict=inside[False],
            token_f1=best_f1,
            repetition=repetition(answer),
            length=written.length,
            ended=written.ended,
            alternatives=item.alternatives,
            seed=seed,
        )
