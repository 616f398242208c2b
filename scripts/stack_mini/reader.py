"""The LLM: Llama in small, a reader of English alone."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from dudi.stacking.miniature.english import texts

POOL = 4096
"""Texts that are sorted by length together, so that a batch holds little padding."""
IGNORED = -100
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def make_reader(tokenizer: PreTrainedTokenizerFast, width: int, layers: int, seed: int) -> LlamaForCausalLM:
    """An LLM with random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        max_position_embeddings=256,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        initializer_range=width**-0.5 / 2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def batches(tokenizer: PreTrainedTokenizerFast, size: int, seed: int) -> Iterator[Batch]:
    """Batches of texts of like length: ids, mask and labels; a text ends with `</s>`."""
    source = random.Random(seed)
    stream = texts(seed)
    while True:
        pool = [next(stream) for _ in range(POOL)]
        rows = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(pool)["input_ids"]]
        rows.sort(key=len)
        grouped = [rows[i : i + size] for i in range(0, POOL, size)]
        source.shuffle(grouped)
        yield from (_padded(group, tokenizer.pad_token_id) for group in grouped)


def loss_of(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the next token."""
    ids, mask, labels = batch
    hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1]
    kept = labels[:, 1:] != IGNORED
    return cross_entropy(model.lm_head(hidden[kept]), labels[:, 1:][kept])


def _padded(rows: list[list[int]], pad: int) -> Batch:
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [IGNORED] * (width - len(row)) for row in rows])
    return ids, (labels != IGNORED).long(), labels
