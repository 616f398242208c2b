"""Tokens a second and memory of models under `generate`, one after the other on the same machine, each in a process.

    python scripts/real_speed.py models/smollm2-135m models/qwen2.5-coder-1.5b --dtype float32 --output speed.json

Greedy answers of a fixed length to one question, one answer at a time. The fastest of the repetitions counts: others
use the machine too. Memory is the process's peak, libraries included; `empty` is that of a process without a model.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

QUESTION = "What is the capital of Thailand? Answer in a long text about its history, its people and its food."


def main() -> None:
    """Measure each model that was named, and one process without any."""
    parser = argparse.ArgumentParser(description="Tokens a second and memory under generate.")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="of each answer (default: 64)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="answers, of which the fastest counts")
    parser.add_argument("--output", type=Path, metavar="FILE")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.models[0], given.dtype, given.tokens, given.repeat)))  # noqa: T201
        return
    found = []
    for model in ["", *given.models]:
        words = [sys.executable, __file__, model, "--dtype", given.dtype, "--one"]
        words += ["--tokens", str(given.tokens), "--repeat", str(given.repeat)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(  # noqa: T201
            f"{found[-1]['model']:<32}{found[-1]['tokens_per_second']:>8.1f} tokens/s{found[-1]['peak_mib']:>8,.0f} MiB"
        )
    if given.output is not None:
        given.output.write_text(json.dumps({"command": sys.argv, "found": found}, indent=2) + "\n", encoding="utf-8")


def measure(name: str, dtype: str, tokens: int, repeat: int) -> dict[str, Any]:
    """One model's speed, and the peak of this process."""
    import torch

    from dudi.models.load import load_model, load_tokenizer

    best = 0.0
    if name:
        tokenizer, model = load_tokenizer(name), load_model(name, dtype=getattr(torch, dtype)).eval()
        ids = torch.tensor([tokenizer(QUESTION)["input_ids"]])
        kwargs = {"min_new_tokens": tokens, "max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
        for _ in range(repeat):
            started = time.monotonic()
            model.generate(ids, attention_mask=torch.ones_like(ids), **kwargs)
            best = max(best, tokens / (time.monotonic() - started))
    else:
        import transformers  # noqa: F401
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    threads = torch.get_num_threads()
    return {
        "model": Path(name).name if name else "empty",
        "dtype": dtype,
        "threads": threads,
        "tokens_per_second": round(best, 2),
        "peak_mib": round(peak),
    }


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    main()
