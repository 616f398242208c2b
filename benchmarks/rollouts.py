"""Who decodes how fast, alone: our loop eager and replayed, `generate`, and transformers' continuous batching."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel

from benchmarks.contestants import NEVER
from benchmarks.parts import Found
from benchmarks.sizes import Size
from benchmarks.work import make_model, prompt_lengths
from dudi.rollouts import NoiseKey, Request, TransformersEngine

FIRST = 16
"""Ids below are a tokenizer's special ones."""


def alone(size: Size) -> Found:
    """Tokens a second of each decoder, over the rollouts of one step.

    Continuous batching hands a row's place to the next prompt when it ends; here no row ends early, so that what it
    gains is what its paged attention and its graphs do, not what short answers would leave.
    """
    model = make_model(size, "student").eval().to(size.device)
    draws = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(FIRST, size.vocabulary, (length,), generator=draws).tolist() for length in prompt_lengths(size, 0)
    ]
    rows = [_timed(name, run, size, len(prompts)) for name, run in _decoders(model, prompts, size).items()]
    lines = [f"### Rollouts alone, `{size.name}`", "", "| | seconds | tokens/s |", "|---|---|---|"]
    for row in rows:
        told = row["failed"] or f"{row['seconds']:.2f} | {row['rate']:,.0f}"
        lines.append(f"| {row['name']} | {told} |" + (" |" if row["failed"] else ""))
    return {"rows": rows, "prompts": len(prompts), "new": size.new}, "\n".join(lines)


def _decoders(model: PreTrainedModel, prompts: Sequence[list[int]], size: Size) -> dict[str, Callable[[], Any]]:
    requests = [Request(prompt, NoiseKey(0, str(n), 0, "plain")) for n, prompt in enumerate(prompts)]

    def ours(still: bool) -> Callable[[], Any]:
        engine = TransformersEngine(
            lambda: contextlib.nullcontext(model),
            stop_ids=(NEVER,),
            pad_id=0,
            max_new_tokens=size.new,
            temperature=1.0,
            vocabulary=size.vocabulary,
            batch_size=size.batch,
        )
        engine.still = still
        return lambda: engine.generate(requests)

    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, max_new_tokens=size.new, pad_token_id=0, eos_token_id=None
    )
    return {
        "our loop": ours(still=False),
        "our loop, replayed": ours(still=True),
        "`generate`": lambda: _generated(model, prompts, config, size),
        "continuous batching": lambda: model.generate_batch(  # type: ignore[operator]
            list(prompts),
            generation_config=config,
            continuous_batching_config=_room(prompts, size),
            persistent_manager=True,  # the second call finds its graphs and its cache
        ),
    }


def _room(prompts: Sequence[list[int]], size: Size) -> ContinuousBatchingConfig:
    """Pages for all rows at a time: on a CPU it would take what the whole machine has."""
    page = ContinuousBatchingConfig().page_size
    pages = sum(-(-(len(prompt) + size.new) // page) + 1 for prompt in prompts)
    return ContinuousBatchingConfig(num_blocks=pages, max_batch_tokens=sum(map(len, prompts)))


def _generated(model: PreTrainedModel, prompts: Sequence[list[int]], config: GenerationConfig, size: Size) -> None:
    """In batches, padded on the left, longest first, as ours are."""
    ordered = sorted(prompts, key=len, reverse=True)
    for start in range(0, len(ordered), size.batch):
        own = ordered[start : start + size.batch]
        width = len(own[0])
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in own], device=model.device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in own], device=model.device)
        model.generate(input_ids=ids, attention_mask=mask, generation_config=config)  # type: ignore[operator]


def _timed(name: str, run: Callable[[], Any], size: Size, prompts: int) -> dict[str, Any]:
    """The second of two calls: the first compiles, captures and allocates."""
    seconds = 0.0
    try:
        for _ in range(2):
            begun = time.perf_counter()
            run()
            if size.device == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - begun
    except Exception as error:  # whatever one of them meets, the others are asked
        return {"name": name, "failed": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}
    return {"name": name, "failed": "", "seconds": seconds, "rate": prompts * size.new / seconds}
