"""What a precision costs on this CPU: a student's pass and back under LoRA, and a decoded token, in three ways.

    python scripts/precision_speed.py models/qwen2.5-coder-0.5b

fp32; fp32 weights under autocast (`dtype: bfloat16`); bf16 weights under autocast (`student.dtype: bfloat16` too).
Seconds of processor time on one thread, the lower of `--repeat`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from peft import LoraConfig, get_peft_model

from dudi.command import say
from dudi.models.load import load_model

WAYS = {
    "fp32": (torch.float32, False),
    "fp32 weights, autocast": (torch.float32, True),
    "bf16 weights, autocast": (torch.bfloat16, True),
}


def seconds(call: Callable[[], Any], repeat: int) -> float:
    """Processor time of the quickest call, after one that is not counted."""
    call()
    found = []
    for _ in range(repeat):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)


def measured(name: str, dtype: torch.dtype, autocast: bool, asked: argparse.Namespace) -> tuple[float, float]:
    """Seconds of a pass and back, and of a token of every row behind the passes' states."""
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model: Any = get_peft_model(load_model(name, dtype=dtype), lora)  # type: ignore[arg-type]
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    inner = model.base_model.model
    ids = torch.randint(0, inner.config.vocab_size, (asked.rows, asked.tokens), generator=torch.manual_seed(0))
    precision = torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast)

    def pass_and_back() -> None:
        with precision:
            states = inner.model(input_ids=ids, use_cache=False).last_hidden_state
        states.float().square().mean().backward()

    with torch.no_grad(), precision:
        cache = inner.model(input_ids=ids, use_cache=True).past_key_values

    @torch.no_grad()
    def token() -> None:
        with precision:
            states = inner.model(input_ids=ids[:, :1], past_key_values=cache, use_cache=True).last_hidden_state
            inner.lm_head(states[:, -1])

    return seconds(pass_and_back, asked.repeat), seconds(token, 2 * asked.repeat)


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    say(f"{asked.model}, {asked.rows} rows of {asked.tokens} tokens, seconds of one thread")
    for way, (dtype, autocast) in WAYS.items():
        both, one = measured(asked.model, dtype, autocast, asked)
        say(f"{way:<24} pass and back {both:6.2f}   a token of each row {one:6.2f}")


if __name__ == "__main__":
    main()
