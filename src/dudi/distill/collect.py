"""From the rows of an optimizer step to the sequences that are scored: verbalize, roll out, line up."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from dudi.data.examples import Example
from dudi.distill.arguments import DudiConfig
from dudi.distill.batch import MicroBatch, Scored
from dudi.distill.metrics import RolloutHealth
from dudi.distill.setup import Setup
from dudi.objective.signals import Kind, Signal
from dudi.rollouts import Engine, NoiseKey, Request, Rollout


@dataclasses.dataclass(slots=True)
class Collected:
    """Everything that one optimizer step trains on, on this rank.

    Attributes:
        batches: One for each micro-batch.
        samples: Some rollouts as text, for `samples.jsonl`.
        spoken: For each known language, rollouts whose language could be told, and those of them in a wrong one.
        without_example: Verbalized prompts that were too long for the teacher and lost their example.
        with_pivot: Verbalized prompts that show the example in the language of the pivot too.
    """

    batches: list[MicroBatch] = dataclasses.field(default_factory=list)
    health: RolloutHealth = dataclasses.field(default_factory=RolloutHealth)
    samples: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    spoken: list[list[int]] = dataclasses.field(default_factory=list)
    without_example: int = 0
    with_pivot: int = 0


@dataclasses.dataclass(eq=False)
class Collector:
    """Asks the signals what they read, and gets it: gold sequences from the rows, the others from the engine."""

    args: DudiConfig
    setup: Setup
    engine: Engine
    pool: Mapping[str, Rollout] | None = None
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
        read_twice = {kind for signal in signals.values() for kind in signal.teacher_reads}
        drawn = [kind for kind in kinds if kind != "gold"]
        collected = Collected(spoken=[[0, 0] for _ in self.setup.languages])
        asked: list[list[Scored]] = []
        for examples in micro_batches:
            pairs = itertools.product(drawn, examples)
            asked.append([self._ask(kind, example, epoch, collected) for kind, example in pairs])
        answers = iter(self._answers(list(itertools.chain.from_iterable(asked)), epoch, purpose))
        for examples, items in zip(micro_batches, asked, strict=True):
            sequences: dict[Kind, list[Scored]] = {}
            if "gold" in kinds:
                sequences["gold"] = [self._gold(example) for example in examples]
            for item in items:
                sequences.setdefault(item.kind, []).append(self._answered(item, next(answers), collected))
            for kind in read_twice if self.setup.teachers.members else ():
                sequences[kind] = [self._taught(scored) for scored in sequences[kind]]
            collected.batches.append(MicroBatch(sequences, per_sequence=self.args.loss_average == "sequence"))
        return collected

    def gold(self, example: Example) -> Scored:
        """A row's target as its teacher reads it."""
        return self._taught(self._gold(example))

    def _gold(self, example: Example) -> Scored:
        scored = self._unanswered("gold", example)
        return dataclasses.replace(scored, completion=example.completion, ended=example.ended)

    def _unanswered(self, kind: Kind, example: Example) -> Scored:
        """The plain prompt, as the student and the teacher of its row and language read it."""
        teachers, row = self.setup.teachers, example.row
        x = teachers.prompt(teachers.of(row, row.language), example)
        return Scored(kind, example, example.prompt, (), x, row.language)

    def _ask(self, kind: Kind, example: Example, epoch: int, collected: Collected) -> Scored:
        """What the student is asked, and what the teacher reads in its place."""
        if kind == "plain" or self.args.verbalizer == "none":
            return self._unanswered(kind, example)
        row, verbalizer, longest = example.row, self.setup.verbalizer, self.args.teacher_max_length
        said = verbalizer.verbalize(row, epoch=epoch)
        judge = self.setup.teachers.of(row, said.target_language)
        reader = self.setup.teacher_format if judge is None else judge.chat
        z = reader.prompt_ids(said.teacher_messages)
        if verbalizer.pivot_of(row) is not None:
            if len(z) <= longest:
                collected.with_pivot += 1
            else:
                z = reader.prompt_ids(verbalizer.verbalize(row, epoch=epoch, with_pivot=False).teacher_messages)
        if len(z) > longest:
            collected.without_example += 1
            said_less = verbalizer.verbalize(row, epoch=epoch, with_answer=False, with_pivot=False)
            z = reader.prompt_ids(said_less.teacher_messages)
        prompt = self.setup.student_format.prompt_ids(said.student_messages)
        return Scored(kind, example, prompt, (), z, said.target_language)

    def _answers(self, asked: Sequence[Scored], epoch: int, purpose: str) -> list[Rollout]:
        if self.pool is not None:
            return [self.pool[one.example.row.id] for one in asked]
        prefix, seed = "" if purpose == "train" else f"{purpose}-", self.args.seed
        keys = [NoiseKey(seed, one.example.row.id, epoch, prefix + one.kind) for one in asked]
        return self.engine.generate([Request(one.prompt, key) for one, key in zip(asked, keys, strict=True)])

    def _answered(self, asked: Scored, rollout: Rollout, collected: Collected) -> Scored:
        """The prompt with its rollout, which is counted and perhaps kept as a sample."""
        student, known, row = self.setup.student_format, self.setup.languages, asked.example.row
        text = student.text(rollout.ids)
        found = collected.health.add(rollout.ids, rollout.ended, text, asked.language, known)
        if found != "und" and asked.language in known:
            counts = collected.spoken[known.index(asked.language)]
            counts[0] += 1
            counts[1] += found != asked.language
        if len(collected.samples) < self.args.samples_per_step:
            collected.samples.append(
                {
                    "kind": asked.kind,
                    "id": row.id,
                    "language": row.language,
                    "target_language": asked.language,
                    "detected_language": found,
                    "prompt": student.text(asked.prompt, special_tokens=True),
                    "rollout": text,
                    "ended": rollout.ended,
                    "gold": row.completion,
                }
            )
        trained = self.args.skip_completion_tokens if asked.kind == self.args.on_policy_kind else 0
        return dataclasses.replace(asked, completion=rollout.ids, ended=rollout.ended, trained=trained)

    def _taught(self, scored: Scored) -> Scored:
        """The sequence with the name of its teacher, and with that one's tokens where they are its own."""
        judge = self.setup.teachers.of(scored.example.row, scored.language)
        if judge is not None and self.setup.teachers.several:
            scored = dataclasses.replace(scored, teacher=judge.name)
        if judge is None or judge.events is None:
            return scored
        events = judge.events.events
        theirs = events.encode(scored.completion)
        return dataclasses.replace(scored, teacher_completion=theirs, alignment=events.align(scored.completion, theirs))
