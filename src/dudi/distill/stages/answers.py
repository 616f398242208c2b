"""Answers that are written once for every row: the teacher's targets, and the opponent's of SPIN."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from accelerate.utils import gather_object

from dudi.data.chat import ChatFormat, Tokens
from dudi.data.examples import Example, ExampleSet, digest_of, with_completion
from dudi.distill.engines import teacher_engine
from dudi.distill.setup import Setup
from dudi.distill.stages.cache import fetch, hash_of, seal_stage, share, stands, teacher_hash
from dudi.distill.state import Run
from dudi.rollouts import Engine, NoiseKey, Request, Rollout


def write_targets(run: Run) -> ExampleSet:
    """SeqKD: the same rows with the teacher's answers as their targets, each written once."""
    examples, teachers = run.rows, run.setup.teachers
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
    writers = [teachers.of(example.row, example.row.language) for example in examples.examples]
    if not stands(folder / "answers", key) and not fetch(run, "targets", key, folder, "answers"):
        prompts = [teachers.prompt(own, example) for own, example in zip(writers, examples.examples, strict=True)]
        engines = {name: teacher_engine(run, one, run.args.temperature) for name, one in teachers.members.items()}
        whose = [engines[own.name] for own in writers if own is not None]
        write_answers(run, whose, prompts, "teacher", 0, folder / "answers", key)
        share(run, "targets", key, folder, "answers")
    answers = read_answers(folder / "answers")
    for own, example in zip(writers, examples.examples, strict=True):
        if own is not None and own.own_tokens:
            answers[example.row.id] = _in_students_tokens(run.setup, own.chat, answers[example.row.id])
    replaced: list[Example] = []
    for example in examples.examples:
        answer = answers[example.row.id]
        replaced.append(with_completion(example, answer.ids, answer.ended, run.args.max_length))
    return ExampleSet(replaced, examples.truncated, digest_of(replaced))


def _in_students_tokens(setup: Setup, writer: ChatFormat, answer: Rollout) -> Rollout:
    """An answer of a teacher with another tokenizer, taken over as text without anybody's special tokens."""
    text = setup.student_format.special.sub("", writer.text(answer.ids))
    if not answer.ended:
        text = text.rstrip("\ufffd")  # it was cut inside a character
    ids = setup.student_format.answer_ids(text)
    return Rollout(ids if answer.ended or len(ids) == 1 else ids[:-1], answer.ended)


def write_answers(
    run: Run, engines: Sequence[Engine], prompts: Sequence[Tokens], kind: str, epoch: int, folder: Path, key: str
) -> None:
    """Let every training row's engine answer it, and seal the answers in row order."""
    examples, lines = run.rows.examples, []
    for example, one in zip(examples, answers_of(run, engines, prompts, examples, kind, epoch), strict=True):
        line = {"id": example.row.id, "ids": one.ids, "ended": one.ended}
        lines.append(json.dumps(line, ensure_ascii=False))
    content = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
    seal_stage(run, folder, key, lambda partial: (partial / "answers.jsonl").write_bytes(content))


def answers_of(
    run: Run, engines: Sequence[Engine], prompts: Sequence[Tokens], rows: Sequence[Example], kind: str, epoch: int
) -> list[Rollout]:
    """Each row's answer by its engine; each rank writes its share, and all have the whole."""
    args, written = run.args, []
    ranks = range(args.process_index, len(rows), args.world_size)
    for engine in dict.fromkeys(engines):
        own = [i for i in ranks if engines[i] is engine]
        requests = [Request(prompts[i], NoiseKey(args.seed, rows[i].row.id, epoch, kind)) for i in own]
        written += [(i, r.ids, r.ended) for i, r in zip(own, engine.generate(requests), strict=True)]
    return [Rollout(ids, ended) for _, ids, ended in sorted(gather_object(written))]


def read_answers(folder: Path) -> dict[str, Rollout]:
    """The sealed answers by row id."""
    text = (folder / "answers.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in text.split("\n") if line]
    return {r["id"]: Rollout(r["ids"], r["ended"]) for r in records}
