"""From the rows of an optimizer step to the sequences that are scored: verbalize, roll out, line up."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from dudi.data.chat import ChatFormat, Tokens
from dudi.data.examples import Example
from dudi.distill.arguments import DudiConfig
from dudi.distill.batch import MicroBatch, Scored
from dudi.distill.metrics import RolloutHealth
from dudi.distill.teachers import Teachers
from dudi.distill.verbalizer import Verbalizer
from dudi.objective.signals import Kind, Signal
from dudi.rollouts import Engine, NoiseKey, Request, Rollout


@dataclasses.dataclass(frozen=True, slots=True)
class Prompted:
    """A prompt that the student will answer, and what the teacher reads in its place."""

    kind: Kind
    example: Example
    prompt: Tokens
    teacher_prompt: Tokens
    language: str


@dataclasses.dataclass(slots=True)
class Collected:
    """Everything that one optimizer step trains on, on this rank.

    Attributes:
        batches: One for each micro-batch.
        health: Counts over the rollouts.
        samples: Some rollouts as text, for `samples.jsonl`.
        spoken: For each known language, rollouts whose language could be told, and those of them in a wrong one.
        without_example: Verbalized prompts that were too long for the teacher and lost their example.
        with_pivot: Verbalized prompts that show the example in the language of the pivot too.
    """

    batches: list[MicroBatch]
    health: RolloutHealth
    samples: list[dict[str, Any]]
    spoken: list[list[int]]
    without_example: int = 0
    with_pivot: int = 0


class Collector:
    """Asks the signals what they read, and gets it: gold sequences from the rows, the others from the engine.

    Args:
        args: The run's config.
        verbalizer: Writes z and p_z.
        student: The student's chat format.
        teacher: The teacher's chat format (the student's own for SDFT); with several, the default one's.
        engine: Writes rollouts.
        known_languages: Candidates when a rollout's language is detected.
        teachers: The second models, and who of them judges what.
    """

    def __init__(
        self,
        args: DudiConfig,
        verbalizer: Verbalizer,
        student: ChatFormat,
        teacher: ChatFormat,
        engine: Engine,
        known_languages: Sequence[str],
        teachers: Teachers | None = None,
    ) -> None:
        self.args, self.verbalizer, self.engine = args, verbalizer, engine
        self.student, self.teacher = student, teacher
        self.known_languages, self.teachers = tuple(known_languages), teachers or Teachers({})
        self.pool: Mapping[str, Rollout] | None = None
        """SPIN: the answers that an earlier iterate wrote, by row id, instead of the live student's."""

    def collect(
        self,
        micro_batches: Sequence[Sequence[Example]],
        signals: Mapping[str, Signal],
        epoch: int,
        purpose: str = "train",
    ) -> Collected:
        """Roll out for all micro-batches at once and line the sequences up.

        Args:
            micro_batches: The rows of each micro-batch of the optimizer step.
            signals: Those that run in this step.
            epoch: Changes targets and noise from pass to pass.
            purpose: `train` or `eval`: evaluation draws from noise of its own.
        """
        kinds = sorted({kind for signal in signals.values() for kind in signal.reads})
        collected = Collected([], RolloutHealth(), [], [[0, 0] for _ in self.known_languages])
        read_twice = {kind for signal in signals.values() for kind in signal.teacher_reads}
        drawn = [kind for kind in kinds if kind != "gold"]
        prompted: list[list[Prompted]] = []
        for examples in micro_batches:
            pairs = itertools.product(drawn, examples)
            prompted.append([self._prompt(kind, example, epoch, collected) for kind, example in pairs])
        answers = iter(self._answers(list(itertools.chain.from_iterable(prompted)), epoch, purpose))
        for examples, items in zip(micro_batches, prompted, strict=True):
            sequences: dict[Kind, list[Scored]] = {}
            if "gold" in kinds:
                sequences["gold"] = [self._gold(example) for example in examples]
            for item in items:
                sequences.setdefault(item.kind, []).append(self._rolled_out(item, next(answers), collected))
            for kind in read_twice if self.teachers.members else ():
                sequences[kind] = [self._taught(scored) for scored in sequences[kind]]
            collected.batches.append(MicroBatch(sequences, per_sequence=self.args.loss_average == "sequence"))
        return collected

    def _prompt(self, kind: Kind, example: Example, epoch: int, collected: Collected) -> Prompted:
        row = example.row
        if kind == "plain" or self.args.verbalizer == "none":
            return Prompted(kind, example, example.prompt, self._plain(example), row.language)
        said = self.verbalizer.verbalize(row, epoch=epoch)
        judge = self.teachers.of(row, said.target_language)
        reader = self.teacher if judge is None else judge.chat
        z = reader.prompt_ids(said.teacher_messages)
        if self.verbalizer.pivot_of(row) is not None:
            if len(z) <= self.args.teacher_max_length:
                collected.with_pivot += 1
            else:
                z = reader.prompt_ids(self.verbalizer.verbalize(row, epoch=epoch, with_pivot=False).teacher_messages)
        if len(z) > self.args.teacher_max_length:
            collected.without_example += 1
            said_less = self.verbalizer.verbalize(row, epoch=epoch, with_answer=False, with_pivot=False)
            z = reader.prompt_ids(said_less.teacher_messages)
        return Prompted(kind, example, self.student.prompt_ids(said.student_messages), z, said.target_language)

    def _plain(self, example: Example) -> Tokens:
        """X as the teacher of its row and language reads it."""
        return self.teachers.prompt(self.teachers.of(example.row, example.row.language), example)

    def gold(self, example: Example) -> Scored:
        """A row's target as its teacher reads it."""
        return self._taught(self._gold(example))

    def _taught(self, scored: Scored) -> Scored:
        """The sequence with the name of its teacher, and with that one's tokens where they are its own."""
        judge = self.teachers.of(scored.example.row, scored.language)
        if judge is not None and self.teachers.several:
            scored = dataclasses.replace(scored, teacher=judge.name)
        if judge is None or judge.events is None:
            return scored
        events = judge.events.events
        theirs = events.encode(scored.completion)
        return dataclasses.replace(scored, teacher_completion=theirs, alignment=events.align(scored.completion, theirs))

    def _answers(self, items: Sequence[Prompted], epoch: int, purpose: str) -> list[Rollout]:
        if self.pool is not None:
            return [self.pool[item.example.row.id] for item in items]
        prefix = "" if purpose == "train" else f"{purpose}-"
        requests = [
            Request(item.prompt, NoiseKey(self.args.seed, item.example.row.id, epoch, prefix + item.kind))
            for item in items
        ]
        return self.engine.generate(requests)

    def _gold(self, example: Example) -> Scored:
        return Scored(
            "gold",
            example,
            example.prompt,
            example.completion,
            self._plain(example),
            example.row.language,
            example.ended,
        )

    def _rolled_out(self, item: Prompted, rollout: Rollout, collected: Collected) -> Scored:
        text = self.student.text(rollout.ids)
        found = collected.health.add(rollout.ids, rollout.ended, text, item.language, self.known_languages)
        if found != "und" and item.language in self.known_languages:
            counts = collected.spoken[self.known_languages.index(item.language)]
            counts[0] += 1
            counts[1] += found != item.language
        if len(collected.samples) < self.args.samples_per_step:
            collected.samples.append(
                {
                    "kind": item.kind,
                    "id": item.example.row.id,
                    "language": item.example.row.language,
                    "target_language": item.language,
                    "detected_language": found,
                    "prompt": self.student.text(item.prompt, special_tokens=True),
                    "rollout": text,
                    "ended": rollout.ended,
                    "gold": item.example.row.completion,
                }
            )
        skip = self.args.skip_completion_tokens
        trained = skip if item.kind == self.args.on_policy_kind else 0
        return Scored(
            item.kind,
            item.example,
            item.prompt,
            rollout.ids,
            item.teacher_prompt,
            item.language,
            rollout.ended,
            trained,
        )
