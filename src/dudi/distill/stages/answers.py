"""Answers that are written once for every row: the teacher's targets, and the opponent's of SPIN."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from dudi.data.chat import Tokens
from dudi.data.examples import ExampleSet, digest_of, with_completion
from dudi.distill.engines import teacher_engine
from dudi.distill.setup import Setup
from dudi.distill.stages.cache import fetch, hash_of, share, stands, teacher_hash
from dudi.distill.state import Run
from dudi.rollouts import Engine, NoiseKey, Request, Rollout
from dudi.training import checkpoints


def write_targets(run: Run) -> ExampleSet:
    """SeqKD: let the teacher answer every row once.

    Returns:
        The same rows with the teacher's answers as their targets.
    """
    examples = run.rows
    key = hash_of(
        {
            "data": examples.digest,
            "teacher": teacher_hash(run),
            "template": run.setup.teacher_format.digest,
            "seed": run.args.seed,
            "temperature": run.args.temperature,
            "max_new_tokens": run.args.max_new_tokens,
        }
    )
    folder = run.args.folder / "stages" / "targets"
    if not stands(folder / "answers", key) and not fetch(run, "targets", key, folder, "answers"):
        engine = teacher_engine(run)
        prompts = [example.teacher_prompt for example in examples.examples]
        write_answers(run, engine, prompts, "teacher", 0, folder / "answers", {"key": key})
        share(run, "targets", key, folder, "answers")
    answers = read_answers(folder / "answers")
    if run.setup.own_tokens:
        answers = {row: _in_students_tokens(run.setup, answer) for row, answer in answers.items()}
    replaced = [
        with_completion(example, answers[example.row.id].ids, answers[example.row.id].ended, run.args.max_length)
        for example in examples.examples
    ]
    return ExampleSet(replaced, examples.truncated, digest_of(replaced))


def _in_students_tokens(setup: Setup, answer: Rollout) -> Rollout:
    """An answer of a teacher with another tokenizer, taken over as text without anybody's special tokens."""
    text = setup.student_format.special.sub("", setup.teacher_format.text(answer.ids))
    if not answer.ended:
        text = text.rstrip("\ufffd")  # it was cut inside a character
    ids = setup.student_format.answer_ids(text)
    return Rollout(ids if answer.ended or len(ids) == 1 else ids[:-1], answer.ended)


def write_answers(
    run: Run,
    engine: Engine,
    prompts: Sequence[Tokens],
    kind: str,
    epoch: int,
    folder: Path,
    about: Mapping[str, Any],
) -> None:
    """Answer every training row, each rank its share, and seal the answers in row order."""
    args, examples = run.args, run.rows.examples
    own = range(args.process_index, len(examples), args.world_size)
    requests = [Request(prompts[i], NoiseKey(args.seed, examples[i].row.id, epoch, kind)) for i in own]
    written = [(i, r.ids, r.ended) for i, r in zip(own, engine.generate(requests), strict=True)]
    lines = [
        json.dumps({"id": examples[i].row.id, "ids": ids, "ended": ended}, ensure_ascii=False)
        for i, ids, ended in sorted(gather_object(written))
    ]

    def fill(partial: Path) -> None:
        (partial / "answers.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")

    run.write_once(lambda: checkpoints.seal(folder, fill, about))


def read_answers(folder: Path) -> dict[str, Rollout]:
    """The sealed answers by row id."""
    text = (folder / "answers.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in text.split("\n") if line]
    return {r["id"]: Rollout(r["ids"], r["ended"]) for r in records}
