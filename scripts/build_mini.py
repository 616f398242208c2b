"""Make `dudi-mini` from nothing: a tokenizer, a teacher that knows CLDR's facts, base students that know its names.

    python scripts/build_mini.py --output src/dudi/mini

Two models are trained at a time, each on one thread, so that the same machine gives the same bits. `small` is half of
`base`, and `llama` is of its size in another architecture: both read what `base` reads, in the same order.
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
from mini.corpus import reads_as, samples, texts
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
    "small": Shape(hidden=96, layers=4, heads=3, kv_heads=1, intermediate=256, steps=3200, learning_rate=8e-3),
    "llama": Shape(
        hidden=160, layers=4, heads=5, kv_heads=1, intermediate=432, steps=3200, learning_rate=8e-3, family="llama"
    ),
}


def build(role: str, folder: Path, seed: int, steps: int | None) -> None:
    """Train one of the models; its weights are stored in bf16."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    shape = SHAPES[role] if steps is None else Shape(**{**vars(SHAPES[role]), "steps": steps})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = chat_format(tokenizer, {}, role)
    model = make_model(shape, tokenizer, seed)
    started = time.perf_counter()
    losses = train(model, samples(reads_as(role), seed), chat, shape, seed)
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
    """Make the tokenizer, then the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for a folder of each model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=None, help="fewer steps, for a trial")
    parser.add_argument("--only", nargs="+", choices=tuple(SHAPES), default=list(SHAPES), help="train these alone")
    asked = parser.parse_args()
    tokenizer = make_tokenizer(texts(asked.seed, TEXTS))
    for role in asked.only:
        tokenizer.save_pretrained(asked.output / role)
    jobs = [(role, asked.output / role, asked.seed, asked.steps) for role in asked.only]
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        pool.starmap(build, jobs, chunksize=1)
    for role in asked.only:
        write_card(role, asked.output / role, COMMAND)


if __name__ == "__main__":
    main()
