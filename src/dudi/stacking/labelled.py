"""Labelled rows as what a tuned stack is asked, in the one loop that asks: `dudi.evaluation.entry.Questions`."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedModel

from dudi.errors import ConfigError
from dudi.evaluation.entry import Outcome
from dudi.evaluation.metrics import ACCURACY
from dudi.evaluation.records import SeedScores
from dudi.stacking.evaluation import evaluate, judged
from dudi.stacking.modeling import MTLLMPreTrainedModel
from dudi.stacking.rows import StackRow, Task, fingerprint
from dudi.stacking.scores import by_split, scores_of, transferred
from dudi.stacking.tokens import Source
from dudi.stacking.translation import Translated

LENGTH = 256
"""Tokens of a row that are read where the model does not say what it was trained with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """Labelled rows, ready for any model with a head for their task.

    Attributes:
        name: What they are called.
        rows: The rows, each with a label.
        task: What is asked about each.
        split: Of the source that they were read from.
        source_language: What was learned in: its rows do not count overall.
        translated: The same rows as they are read by an LLM that knows one language; None: they are read as they are.
        batch_size: Rows at a time; answers do not depend on it.
        max_length: Tokens of a row that are read; None: as many as in training.
    """

    name: str
    rows: Sequence[StackRow]
    task: Task
    split: str
    source_language: str
    translated: Translated | None = None
    batch_size: int = 32
    max_length: int | None = None

    @functools.cached_property
    def benchmark(self) -> dict[str, Any]:
        """What is asked; how it is read is the system's affair."""
        return {
            "name": self.name,
            "split": self.split,
            "task": self.task.kind,
            "questions": len(self.rows),
            "languages": list(dict.fromkeys(row.language for row in self.rows)),
            "source_language": self.source_language,
            "fingerprint": fingerprint(self.rows),
        }

    @property
    def total(self) -> int:
        """How many rows one seed is asked about."""
        return len(self.rows)

    def check_seeds(self, seeds: Sequence[int]) -> None:
        """Refuse all but one seed, that of the model's training: nothing is drawn for an answer."""
        if len(seeds) != 1:
            raise ConfigError(f"a model with a head answers the same whatever the seed: give one, got {len(seeds)}")

    def ask(self, model: PreTrainedModel, reads: Source, seeds: Sequence[int], done: Callable[[int], None]) -> Outcome:
        """Ask about every row once; answers to translations are judged in the rows' own languages."""
        assert isinstance(model, MTLLMPreTrainedModel)
        (seed,) = seeds
        read, translating = self.rows, 0.0
        if self.translated is not None:
            read, translating = self.translated.rows, self.translated.seconds
        length = self.max_length or model.config.max_row_length or LENGTH
        found = evaluate(model, reads, read, batch_size=self.batch_size, max_length=length, done=done)
        scores = scores_of(judged(self.rows, found.predictions, 0.0).per_language, self.source_language)
        scores |= by_split(self.rows, found.predictions, self.source_language)
        about = {
            "stage": model.config.stage,
            "parts": model.config.parts,
            "max_length": length,
            "mean_of": transferred((row.language for row in self.rows), self.source_language),
            "shortened": found.shortened,
            "stand_ins": dict(reads.stand_ins),
            "seconds_per_row": {"reading": found.seconds_per_row, "translating": translating},
        }
        return Outcome((SeedScores(seed, scores),), self.lines(seed, found.predictions), about)

    def lines(self, seed: int, predictions: Sequence[int]) -> list[dict[str, Any]]:
        """A line of `answers.jsonl` for each row: what was asked, right and answered, and what was read instead."""
        names = self.task.labels or range(max((len(row.choices) for row in self.rows), default=0))
        others = transferred([row.language for row in self.rows], self.source_language)
        read = self.rows if self.translated is None else self.translated.rows
        lines = []
        for row, seen, item, answer in zip(self.rows, read, items_of(self.rows), predictions, strict=True):
            line: dict[str, Any] = {
                "seed": seed,
                "id": f"{row.language}/{row.id or item}",
                "item": item,
                "language": row.language,
                "task": self.task.kind,
                "question": "\n".join(row.texts),
                "label": None if row.label is None else names[row.label],
                "answer": names[answer],
                "right": row.label == answer,
                "scores": {ACCURACY: float(row.label == answer)},
            }
            if row.split is not None:
                line["split"] = row.split
            if row.language not in others:
                line["overall"] = False
            if seen is not row:
                line["read"] = seen.texts
            lines.append(line)
        return lines


def items_of(rows: Sequence[StackRow]) -> list[str]:
    """What each row is of when items are drawn again: its `item`, else its `id`, else its number in its language.

    Where languages are parallel and rows have no id, the n-th of each is the same question, and to take these for
    independent would make every interval too narrow. Where they are not, rows that have nothing to do with each other
    are drawn together, which makes none narrower.
    """
    counts, items = Counter[str](), []
    for row in rows:
        counts[row.language] += 1
        own = row.id if row.has_id else f"row {counts[row.language]}"
        items.append(own if row.item is None else row.item)
    return items
