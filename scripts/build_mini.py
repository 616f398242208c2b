"""Make `dudi-mini` from nothing: a tokenizer, a teacher that knows CLDR's facts, a base student that knows its names.

    python scripts/build_mini.py --output src/dudi/mini

Both models are trained at the same time, each on one thread, so that the same machine gives the same bits.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # sums in another order would be other weights
sys.path.insert(0, str(Path(__file__).parent))

import torch
from mini.cards import write_card
from mini.corpus import samples, texts
from mini.pretrain import Shape, make_model, train
from mini.tokenizer import make_tokenizer
from transformers import AutoTokenizer

from dudi.data.chat import chat_format

COMMAND = "python scripts/build_mini.py --output src/dudi/mini"
TEXTS = 40_000
"""Questions and answers that the tokenizer is made from."""

SHAPES = {
    "teacher": Shape(hidden=256, layers=4, heads=8, kv_heads=4, intermediate=704, steps=2800, learning_rate=8e-3),
    "base": Shape(hidden=160, layers=4, heads=5, kv_heads=1, intermediate=432, steps=3200, learning_rate=8e-3),
}


def build(role: str, folder: Path, seed: int, steps: int | None) -> None:
    """Train one of the two models; its weights are stored in bf16."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    shape = SHAPES[role] if steps is None else Shape(**{**vars(SHAPES[role]), "steps": steps})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = chat_format(tokenizer, {}, role)
    model = make_model(shape, tokenizer, seed)
    started = time.perf_counter()
    losses = train(model, samples(role, seed), chat, shape, seed)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.to(torch.bfloat16).save_pretrained(folder)
    record: dict[str, Any] = {
        "role": role,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "shape": vars(shape),
        "samples": shape.steps * shape.batch,
        "final_loss": round(sum(losses[-100:]) / len(losses[-100:]), 4),
        "minutes": round((time.perf_counter() - started) / 60, 1),
    }
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Make the tokenizer, then both models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for `teacher/` and `base/`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=None, help="fewer steps, for a trial")
    parser.add_argument("--only", choices=tuple(SHAPES), default=None, help="train one of the two")
    asked = parser.parse_args()
    roles = [asked.only] if asked.only else list(SHAPES)
    tokenizer = make_tokenizer(texts(asked.seed, TEXTS))
    for role in roles:
        tokenizer.save_pretrained(asked.output / role)
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=build, args=(role, asked.output / role, asked.seed, asked.steps), name=role)
        for role in roles
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("training failed")
    for role in roles:
        write_card(role, asked.output / role, COMMAND)


if __name__ == "__main__":
    main()
