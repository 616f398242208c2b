"""Answers that are written once for every row: the teacher's targets, and the opponent's of SPIN."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object

from dudi import checkpoints
from dudi.data.chat import Tokens
from dudi.data.examples import ExampleSet, digest_of, with_completion
from dudi.generation import teacher_engine
from dudi.rollouts import Engine, NoiseKey, Request, Rollout
from dudi.stages.shared import fetch, hash_of, share, stands, teacher_hash, train_set

if TYPE_CHECKING:
    from dudi.trainer import DudiTrainer


def write_targets(trainer: DudiTrainer) -> None:
    """SeqKD: let the teacher answer every row once, and train on that."""
    examples = train_set(trainer)
    key = hash_of(
        {
            "data": examples.digest,
            "teacher": teacher_hash(trainer),
            "template": trainer.setup.teacher_format.digest,
            "seed": trainer.args.seed,
            "temperature": trainer.args.temperature,
            "max_new_tokens": trainer.args.max_new_tokens,
        }
    )
    folder = trainer.args.folder / "stages" / "targets"
    if not stands(trainer, folder / "answers", key) and not fetch(trainer, "targets", key, folder, "answers"):
        engine = teacher_engine(trainer)
        prompts = [example.teacher_prompt for example in examples.examples]
        write_answers(trainer, engine, prompts, "teacher", 0, folder / "answers", {"key": key})
        share(trainer, "targets", key, folder, "answers")
    answers = read_answers(folder / "answers")
    replaced = [
        with_completion(example, answers[example.row.id].ids, answers[example.row.id].ended, trainer.args.max_length)
        for example in examples.examples
    ]
    trainer.use_examples(ExampleSet(replaced, examples.truncated, digest_of(replaced)))


def write_answers(
    trainer: DudiTrainer,
    engine: Engine,
    prompts: Sequence[Tokens],
    kind: str,
    epoch: int,
    folder: Path,
    about: Mapping[str, Any],
) -> None:
    """Answer every training row, each rank its share, and seal the answers in row order."""
    args, examples = trainer.args, train_set(trainer).examples
    own = range(args.process_index, len(examples), args.world_size)
    requests = [Request(prompts[i], NoiseKey(args.seed, examples[i].row.id, epoch, kind)) for i in own]
    written = [(i, r.ids, r.ended) for i, r in zip(own, engine.generate(requests), strict=True)]
    lines = [
        json.dumps({"id": examples[i].row.id, "ids": ids, "ended": ended}, ensure_ascii=False)
        for i, ids, ended in sorted(gather_object(written))
    ]

    def fill(partial: Path) -> None:
        (partial / "answers.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")

    trainer.write_once(lambda: checkpoints.seal(folder, fill, about))


def read_answers(folder: Path) -> dict[str, Rollout]:
    """The sealed answers by row id."""
    text = (folder / "answers.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in text.split("\n") if line]
    return {r["id"]: Rollout(r["ids"], r["ended"]) for r in records}
