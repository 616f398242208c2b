"""Make the stacking miniature from nothing: a translator from parallel text, an LLM from English text alone.

    python scripts/build_stack_mini.py --output src/dudi/stacking/miniature/models

Each model is trained on one thread, so that the same machine gives the same bits.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # sums in another order would be other weights
sys.path.insert(0, str(Path(__file__).parent))

import torch
from stack_mini import reader, translator
from stack_mini.cards import write_card
from stack_mini.neutral import NeutralLoss
from stack_mini.optimise import train
from stack_mini.vocabularies import llm_tokenizer, mt_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, NllbTokenizer, PreTrainedModel

from dudi.stacking import LoraSettings, Source, StackArguments, StackRow, adapt
from dudi.stacking.miniature import english, parallel

COMMAND = "python scripts/build_stack_mini.py --output src/dudi/stacking/miniature/models"
TEXTS = 40_000
"""Sentences that a tokenizer is made from."""


def build_translator(folder: Path, seed: int, steps: int | None) -> None:
    """The MT model; its weights are stored in bf16."""
    tokenizer = mt_tokenizer(parallel.texts(seed, TEXTS))
    assert isinstance(tokenizer, NllbTokenizer)
    tokenizer.save_pretrained(folder)
    model = translator.make_translator(tokenizer, width=128, seed=seed)
    started = time.process_time()
    first, second, last = (steps, steps, steps) if steps else (399, 350, 400)
    batches = translator.batches(tokenizer, 96, seed)
    losses = train(model, batches, translator.loss_of, steps=first, rate=6e-3, decay=0, name="translator")
    losses += settle(model, tokenizer, second, seed + 1)
    losses += neutralise(model, tokenizer, last, seed + 2)
    model.generation_config.num_beams = 4
    model.generation_config.max_new_tokens = 64
    model.to(torch.bfloat16).save_pretrained(folder)
    made = {"seed": seed, "steps": len(losses), "batch": 96, "rate": 6e-3, "neutral_steps": last}
    _record(folder, model, losses, made, started)


def settle(model: PreTrainedModel, tokenizer: NllbTokenizer, steps: int, seed: int) -> list[float]:
    """The translator's second half: a rate that falls to zero, on pairs of another draw, with a new optimizer."""
    batches = translator.batches(tokenizer, 96, seed)
    return train(
        model, batches, translator.loss_of, steps=steps, rate=6e-3, warmup=20, decay=1.0, name="translator, second half"
    )


def neutralise(model: PreTrainedModel, tokenizer: NllbTokenizer, steps: int, seed: int) -> list[float]:
    """The translator's last part: the encoder's states of both sides of a pair are brought together.

    It starts from what bf16 keeps of the weights, so that it can be run on a stored model too.
    """
    model.to(torch.bfloat16).float()
    assert tokenizer.pad_token_id is not None
    loss_of = NeutralLoss(tokenizer.pad_token_id)
    batches = translator.batches(tokenizer, 96, seed)
    return train(model, batches, loss_of, steps=steps, rate=4e-3, warmup=20, decay=0.6, name="translator, last part")


def build_reader(folder: Path, seed: int, steps: int | None) -> None:
    """The LLM as it comes out of its training: causal, English alone."""
    tokenizer = llm_tokenizer(itertools.islice(english.texts(seed), TEXTS))
    tokenizer.save_pretrained(folder)
    model = reader.make_reader(tokenizer, width=128, layers=4, seed=seed)
    steps = steps or 800
    started = time.process_time()
    losses = train(model, reader.batches(tokenizer, 64, seed), reader.loss_of, steps=steps, rate=6e-3, name="reader")
    model.to(torch.bfloat16).save_pretrained(folder)
    _record(folder, model, losses, {"seed": seed, "steps": steps, "batch": 64, "rate": 6e-3}, started)


def build_bidirectional(folder: Path, seed: int, steps: int | None) -> None:
    """The LLM made bidirectional by MNTP."""
    tokenizer = AutoTokenizer.from_pretrained(folder.parent / "reader")
    model = AutoModelForCausalLM.from_pretrained(folder.parent / "reader", dtype=torch.float32)
    tokenizer.save_pretrained(folder)
    made = {"seed": seed, "steps": steps or 600, "batch": 64, "rate": 2e-3, "masked": 0.2, "lora_r": 16}
    rows = [StackRow(text, "en") for text in itertools.islice(english.texts(seed + 1), made["steps"] * made["batch"])]
    started = time.process_time()
    with tempfile.TemporaryDirectory() as name:
        args = StackArguments(
            output_dir=name,
            max_steps=made["steps"],
            per_device_train_batch_size=made["batch"],
            learning_rate=made["rate"],
            mask_share=made["masked"],
            seed=seed,
            save_strategy="no",
            use_cpu=True,
        )
        model = adapt(model, Source(tokenizer), rows, args, LoraSettings(r=made["lora_r"]))
        logged = [json.loads(line) for line in (Path(name) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    model.to(torch.bfloat16).save_pretrained(folder)
    _record(folder, model, [line["loss"] for line in logged], made, started)


def _record(folder: Path, model: torch.nn.Module, losses: list[float], made: dict[str, Any], started: float) -> None:
    record = {
        **made,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "final_loss": round(sum(losses[-100:]) / len(losses[-100:]), 4),
        "minutes": round((time.process_time() - started) / 60, 1),
    }
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


PARTS: dict[str, Callable[[Path, int, int | None], None]] = {
    "translator": build_translator,
    "reader": build_reader,
    "reader-bidirectional": build_bidirectional,
}


def main() -> None:
    """Make the models that are asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for a folder of each model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=None, help="fewer steps, for a trial")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=list(PARTS), help="train these alone")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in asked.only:
        PARTS[name](asked.output / name, asked.seed, asked.steps)
        write_card(name, asked.output / name, COMMAND)


if __name__ == "__main__":
    main()
