"""Training of the mini models: cross-entropy on the answers, Muon for the matrices, AdamW for the rest."""

from __future__ import annotations

import dataclasses
import random
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from mini.corpus import Sample
from torch.nn.functional import cross_entropy
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from dudi.data.chat import ChatFormat

POOL = 4096
"""Samples that are sorted by length together, so that a batch holds little padding."""
IGNORED = -100


@dataclasses.dataclass(frozen=True)
class Shape:
    """The shape of a model and how long it learns."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    steps: int
    batch: int = 64
    learning_rate: float = 4e-3
    warmup: int = 100
    """Steps; the last half of all steps decays to zero, linearly."""
    family: Literal["qwen3", "llama"] = "qwen3"
    muon: bool = True
    """False: AdamW for the matrices too. Muon orthogonalises in bf16, which is slow on a CPU that has no bf16."""


FAMILIES: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


def make_model(shape: Shape, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """A model with random weights."""
    torch.manual_seed(seed)
    config_class, model_class = FAMILIES[shape.family]
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.hidden // shape.heads,
        max_position_embeddings=512,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        initializer_range=shape.hidden**-0.5 / 2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return model_class(config)


def train(model: PreTrainedModel, stream: Iterator[Sample], chat: ChatFormat, shape: Shape, seed: int) -> list[float]:
    """Train in place; returns the loss of each step, in nats per token."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=shape.learning_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
        if shape.muon
        else torch.optim.AdamW(matrices, lr=shape.learning_rate, betas=(0.9, 0.98), weight_decay=0.05),
        torch.optim.AdamW(others, lr=shape.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: _rate(step, shape)) for o in optimizers]
    losses: list[float] = []
    started = time.perf_counter()
    model.train()
    for step, (ids, labels, mask) in enumerate(_batches(stream, chat, shape.batch, seed), start=1):
        loss = _loss(model, ids, labels, mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
        if step % 100 == 0 or step == shape.steps:
            spent = time.perf_counter() - started
            left = spent / step * (shape.steps - step)
            mean = sum(losses[-100:]) / len(losses[-100:])
            sys.stderr.write(
                f"{shape.hidden}: step {step}/{shape.steps}  loss {mean:.3f}  {spent:.0f} s, {left:.0f} s left\n"
            )
        if step == shape.steps:
            break
    return losses


def _loss(model: PreTrainedModel, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The head sees the answers' positions alone."""
    hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    kept = targets != IGNORED
    return cross_entropy(model.lm_head(hidden[kept]), targets[kept])


def _rate(step: int, shape: Shape) -> float:
    return min(1.0, (step + 1) / shape.warmup, 2 * (1 - step / shape.steps))


def _batches(
    stream: Iterator[Sample], chat: ChatFormat, size: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    source = random.Random(seed)
    while True:
        pool = sorted(_tokenised(stream, chat), key=lambda pair: len(pair[0]) + len(pair[1]))
        batches = [pool[i : i + size] for i in range(0, POOL, size)]
        source.shuffle(batches)
        yield from map(_padded, batches)


def _tokenised(stream: Iterator[Sample], chat: ChatFormat) -> Iterable[tuple[list[int], list[int]]]:
    for _ in range(POOL):
        sample = next(stream)
        yield chat.prompt_ids(sample.messages), chat.answer_ids(sample.answer)


def _padded(pairs: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    width = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.zeros(len(pairs), width, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(pairs):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
        mask[row, :end] = 1
    return ids, labels, mask
