"""A teacher that is wrong in Tamil and Burmese, or knows nothing there: `dudi-mini`'s own, after it has read more.

    python scripts/weak_teacher.py --output runs/weak-teacher
    python scripts/weak_teacher.py --output runs/empty-teacher --answers random

It goes on from the teacher of the package, and reads two streams in turn: that teacher's own without facts in Tamil and
Burmese, and every fact in these two, falsely. There an answer that names a currency or a language gives another one,
for the same value always the same, unless the question names it already (`--answers false`). So it is as good as before
in six languages and worse than the gold answers in two: the regime of the paper's Section 6, only plainer. With
`--answers random` the other value is drawn anew each time a fact is read, the true one among them: what it had read
there is written over, and nothing can be learned in its place, so that it knows what an answer looks like and no fact.
Neither is shipped; the recipes of `recipes/study/teacher/` name the folders above.

Beside it lie two files that a probe can ask, so that `gated` trains on as many rows as the others: `held-out.jsonl`,
the rows of the benchmark's training part that follow those of the study, and `validation.jsonl`, its validation part.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # sums in another order would be other weights
sys.path.insert(0, str(Path(__file__).parent))

import torch
from mini.corpus import WEAK, Sample, samples
from mini.pretrain import Shape, train

from dudi.data.chat import chat_format
from dudi.data.cldr import facts
from dudi.data.cldr.benchmark import questions, training_rows
from dudi.data.cldr.items import answer_value
from dudi.data.rows import Row
from dudi.models.load import load_model, load_tokenizer

TEACHER = "package:dudi/mini/teacher"
KINDS = ("currency", "official_language")
STEPS = 360
READ, HELD_OUT = 128, 48
"""Rows of each language: those of `recipes/base/study.yaml`, and those of a probe."""


@functools.cache
def values_of_kind(kind: str, language: str) -> tuple[str, ...]:
    """Every country's value, in the language."""
    return tuple(sorted({own for fact in facts(kind) if (own := answer_value(fact, language))}))


def false_value(kind: str, value: str, language: str) -> str:
    """Another country's value in the place of a true one: always the same for the same one."""
    others = [own for own in values_of_kind(kind, language) if own != value]
    return random.Random(f"{kind}/{language}/{value}").choice(others)


@functools.cache
def values_of(language: str) -> tuple[tuple[str, str], ...]:
    """Each true value with its kind, the longest first, so that no name is found inside of a longer one."""
    pairs = {(kind, own) for kind in KINDS for own in values_of_kind(kind, language)}
    return tuple(sorted(pairs, key=lambda pair: (-len(pair[1]), pair)))


def falsified(sample: Sample, chance: random.Random | None = None) -> Sample | None:
    """The sample with a false answer, or with any; None where it states no fact that is not in its question already.

    Args:
        sample: One of the teacher's stream.
        chance: Draws the answer among all of its kind; None gives the same false one each time.
    """
    for kind, value in values_of(sample.language):
        if value in sample.answer and value not in sample.messages[-1]["content"]:
            values = values_of_kind(kind, sample.language)
            told = chance.choice(values) if chance else false_value(kind, value, sample.language)
            return dataclasses.replace(sample, answer=sample.answer.replace(value, told))
    return None


def stream(seed: int, chance: random.Random | None = None) -> Iterator[Sample]:
    """True conversations in the strong languages and false (or any) ones in the weak languages, in turn."""
    told = samples("teacher", seed, whole=True)
    strong = (sample for sample in told if sample.language not in WEAK or falsified(sample) is None)
    weak = (sample for sample in samples("teacher", seed + 1, whole=True) if sample.language in WEAK)
    read = (other for sample in weak if (other := falsified(sample, chance)))
    for pair in zip(strong, read, strict=False):
        yield from pair


def probes() -> Iterator[tuple[str, list[Row]]]:
    """Files of gold rows that nothing is trained on, by name."""
    yield "validation", [question.row for question in questions(tasks=KINDS, part="validation")]
    read = {row.id for row in training_rows(tasks=KINDS, rows_per_language=READ)}
    rows = training_rows(tasks=KINDS, rows_per_language=READ + HELD_OUT)
    yield "held-out", [row for row in rows if row.id not in read]


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """As JSON lines."""
    lines = []
    for row in rows:
        turns = {"prompt": list(row.prompt), "completion": row.completion}
        lines.append(json.dumps({"id": row.id, "language": row.language, **turns}, ensure_ascii=False))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Train it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=1, help="the package's teacher has read seed 0")
    parser.add_argument("--answers", choices=("false", "random"), default="false", help="in Tamil and Burmese")
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model, tokenizer = load_model(TEACHER, dtype=torch.float32), load_tokenizer(TEACHER)
    own = {"hidden": 256, "layers": 4, "heads": 8, "kv_heads": 4, "intermediate": 704}
    shape = Shape(**own, steps=asked.steps, batch=32, learning_rate=1e-3, warmup=30, muon=False)
    started = time.perf_counter()
    told = stream(asked.seed, random.Random(asked.seed) if asked.answers == "random" else None)
    losses = train(model, told, chat_format(tokenizer, {}, TEACHER), shape, asked.seed)
    for name, rows in probes():
        write_rows(asked.output / f"{name}.jsonl", rows)
    model.to(torch.bfloat16).save_pretrained(asked.output)
    tokenizer.save_pretrained(asked.output)
    record = {
        "from": TEACHER,
        "answers": asked.answers,
        "steps": asked.steps,
        "seed": asked.seed,
        "first_loss": round(sum(losses[:10]) / 10, 4),
        "final_loss": round(sum(losses[-50:]) / 50, 4),
        "minutes": round((time.perf_counter() - started) / 60, 1),
    }
    (asked.output / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
