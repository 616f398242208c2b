"""One seed of the contest: MT-LLM and its rivals learn the same tasks in English and are asked in eight languages."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from dudi.data.cldr.speaker import LANGUAGES
from dudi.stacking import (
    LoraSettings,
    MTLLMModel,
    StackArguments,
    StackRow,
    align,
    build_stack,
    distill,
    evaluate,
    finetune,
    probe,
    translate,
    vectors,
    with_head,
)
from dudi.stacking.arguments import ConnectorStart
from dudi.stacking.miniature import english, models
from dudi.stacking.miniature.tasks import TASKS, asked_rows, country_of, training_rows, was_in_parallel
from dudi.stacking.modeling import MTLLMPreTrainedModel

SYSTEMS = {
    "llm": "LLM, zero-shot",
    "translate": "translate-test",
    "encoder": "encoder alone",
    "stage2": "Stage 2 only",
    "direct": "Stage 1, then fine-tuned",
    "mtllm": "MT-LLM",
}

LONGEST = 1024
"""Tokens: an LLM that has read English alone spells Burmese in bytes."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long each part learns. The demo's values; tests take less.

    Attributes:
        align_steps: Steps of Stage 1, of `align_batch` English texts each.
        task_steps: Steps of everything that learns a task, of `task_batch` rows each.
        align_rate: Learning rate of Stage 1 (Muon).
        state_repeat: Share of the encoder's states that Stage 1 doubles.
        state_drop: Share of the encoder's states that Stage 1 leaves out.
        task_rate: Learning rate of the tasks.
        start: Where the connector starts: `least_squares` or `random`.
        merge: Whether the adapter of Stage 1 is merged, and Stage 2 gets one of its own.
        trained: Training rows of each task at most; None takes all.
        tests: Test rows of each language and task at most; None takes all.
        beams: Of translate-test.
    """

    align_steps: int = 1500
    align_batch: int = 64
    align_rate: float = 1e-2
    state_repeat: float = 0.15
    state_drop: float = 0.15
    task_steps: int = 600
    task_batch: int = 16
    task_rate: float = 1e-3
    start: ConnectorStart = "least_squares"
    merge: bool = True
    trained: int | None = None
    tests: int | None = None
    beams: int = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """Right answers of one system on the test rows of a language, about countries of one side.

    Attributes:
        countries: Of each country its right answers and its rows: what hangs together is resampled together.
    """

    system: str
    attention: str
    task: str
    language: str
    parallel: bool
    seed: int
    right: int
    rows: int
    countries: dict[str, tuple[int, int]]


@functools.cache
def tests(task: str, budget: Budget) -> list[StackRow]:
    """The test rows of a task, all languages; made once."""
    return [row for language in LANGUAGES for row in _thinned(asked_rows(task, language), budget.tests)]


def _thinned(rows: Sequence[StackRow], most: int | None) -> Sequence[StackRow]:
    """At most so many rows, evenly from all: no country loses all of its rows to another."""
    if most is None or len(rows) <= most:
        return rows
    return [rows[place * len(rows) // most] for place in range(most)]


def translations(budget: Budget) -> dict[tuple[str, str], str]:
    """Every text of the tests in English, by language and text: beam search with the translator's own decoder."""
    wanted = dict.fromkeys(
        (row.language, row.text) for task in TASKS for row in tests(task, budget) if row.language != "en"
    )
    texts, languages = [text for _, text in wanted], [language for language, _ in wanted]
    found = translate(
        models.translator(),
        models.source(),
        texts,
        languages,
        "en",
        num_beams=budget.beams,
        batch_size=64,
        max_new_tokens=64,
    )
    return dict(zip(wanted, found, strict=True))


def translated(row: StackRow, english_of: Mapping[tuple[str, str], str]) -> StackRow:
    """A row as the translator puts it into English."""
    if row.language == "en":
        return row
    return dataclasses.replace(row, text=english_of[row.language, row.text] or "-", language="en")


class Contest:
    """All that one seed and one kind of attention decide.

    Args:
        attention: `causal` or `bidirectional`.
        seed: Of new weights and of the order of rows.
        budget: How long each part learns.
        folder: For what the trainers write.
    """

    def __init__(self, attention: str, seed: int, budget: Budget, folder: Path) -> None:
        self.attention, self.seed, self.budget, self.folder = attention, seed, budget, folder
        self.stack = build_stack(models.translator(), models.reader(attention), attention=attention, seed=seed)
        self.aligned: MTLLMModel | None = None

    def align(self) -> dict[str, dict[str, float]]:
        """Stage 1; returns FVU and cosine to the LLM's own reading of the English, per language."""
        budget = self.budget
        texts = itertools.islice(english.sentences(1000 + self.seed), budget.align_steps * budget.align_batch)
        args = dataclasses.replace(
            self.arguments("align", budget.align_steps, budget.align_batch, budget.align_rate),
            muon=True,
            train_sampling_strategy="group_by_length",
            state_repeat=budget.state_repeat,
            state_drop=budget.state_drop,
        )
        rows = [StackRow(text, "en") for text in texts]
        stack = copy.deepcopy(self.stack)
        # The whole LLM: an adapter of this size learns no country in this time (docs/mtllm.md).
        self.aligned = align(stack, models.source(), models.reader_source(), rows, args, None)
        return self.probe(self.aligned)

    def probe(self, stack: MTLLMModel) -> dict[str, dict[str, float]]:
        """FVU and cosine on the test sentences of `region`, per language, against the LLM as it was before Stage 1."""
        rows = tests("region", self.budget)
        return probe(stack, models.source(), models.reader_source(), rows, teacher=self.stack)

    def arguments(self, name: str, steps: int, batch: int, rate: float) -> StackArguments:
        """The keys of one training."""
        return StackArguments(
            output_dir=str(self.folder / f"{self.attention}-{self.seed}" / name),
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=rate,
            warmup_steps=0.1,
            seed=self.seed,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            connector_start=self.budget.start,
            merge_lora=self.budget.merge,
        )

    def learn(self, name: str) -> StackArguments:
        """The keys of a training of a task."""
        return self.arguments(name, self.budget.task_steps, self.budget.task_batch, self.budget.task_rate)

    def rows(self, task: str) -> list[StackRow]:
        """The English training rows of a task."""
        return training_rows(task, self.seed)[: self.budget.trained]

    def teacher(self, task: str) -> MTLLMPreTrainedModel:
        """The LLM alone, tuned on English labels."""
        alone = build_stack(None, models.reader(self.attention), attention=self.attention, seed=self.seed)
        return self.tuned(alone, task, f"{task}-teacher", of_llm=True)

    def tuned(self, model: MTLLMModel, task: str, name: str, *, of_llm: bool = False) -> MTLLMPreTrainedModel:
        """A model tuned on English labels, in place."""
        own = models.reader_source() if of_llm else models.source()
        headed = with_head(model, TASKS[task], seed=self.seed)
        return finetune(headed, own, self.rows(task), TASKS[task], self.learn(name), LoraSettings())

    def distilled(
        self, model: MTLLMModel, task: str, name: str, taught: list[Tensor], head: Tensor
    ) -> MTLLMPreTrainedModel:
        """A stack that learned the vectors of a tuned teacher, in place."""
        own, rows = models.source(), self.rows(task)
        return distill(model, own, rows, TASKS[task], taught, head, self.learn(name), LoraSettings())

    def scores(
        self, system: str, task: str, model: MTLLMPreTrainedModel, rows: Sequence[StackRow], *, of_llm: bool = False
    ) -> Iterator[Score]:
        """Right answers per language, and by whether the parallel text names the country."""
        given = tests(task, self.budget)
        read_by = models.reader_source() if of_llm else models.source()
        answers = evaluate(model, read_by, rows, batch_size=64, max_length=LONGEST).predictions
        hits: dict[tuple[str, bool], dict[str, list[bool]]] = {}
        for row, answer in zip(given, answers, strict=True):
            side = hits.setdefault((row.language, was_in_parallel(row)), {})
            side.setdefault(country_of(row), []).append(answer == row.label)
        attention = "" if system == "encoder" else self.attention
        for (language, parallel), own in hits.items():
            found = {country: (sum(right), len(right)) for country, right in own.items()}
            right, count = (sum(values) for values in zip(*found.values(), strict=True))
            yield Score(system, attention, task, language, parallel, self.seed, right, count, found)

    def run(self, task: str, english_of: Mapping[tuple[str, str], str]) -> Iterator[Score]:
        """Every system that has an LLM, on one task. Stage 1 must have been run."""
        assert self.aligned is not None
        rows, teacher = tests(task, self.budget), self.teacher(task)
        yield from self.scores("llm", task, teacher, rows, of_llm=True)
        yield from self.scores("translate", task, teacher, [translated(row, english_of) for row in rows], of_llm=True)
        taught = vectors(teacher, models.reader_source(), self.rows(task))
        head = teacher.get_parameter("score.weight").detach()
        for system, stack in (("stage2", self.stack), ("mtllm", self.aligned)):
            own = self.distilled(copy.deepcopy(stack), task, f"{task}-{system}", taught, head)
            yield from self.scores(system, task, own, rows)
        yield from self.scores("direct", task, self.tuned(copy.deepcopy(self.aligned), task, f"{task}-direct"), rows)

    def run_encoder(self, task: str) -> Iterator[Score]:
        """The encoder alone, tuned on English labels."""
        alone = build_stack(models.translator(), None, seed=self.seed)
        yield from self.scores("encoder", task, self.tuned(alone, task, f"{task}-encoder"), tests(task, self.budget))
