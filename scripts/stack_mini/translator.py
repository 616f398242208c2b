"""The translator: M2M100 in small, trained on CLDR's parallel text."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from torch.nn.functional import cross_entropy
from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer, PreTrainedModel

from dudi.languages.flores import FLORES
from dudi.stacking.miniature.parallel import Paraphrase, pairs

POOL = 8192
"""Pairs that are sorted by length together, so that a batch holds little padding."""
IGNORED = -100
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def make_translator(tokenizer: NllbTokenizer, width: int, seed: int) -> M2M100ForConditionalGeneration:
    """A translator with random weights."""
    torch.manual_seed(seed)
    config = M2M100Config(
        vocab_size=len(tokenizer),
        d_model=width,
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=width // 32,
        decoder_attention_heads=width // 32,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        max_position_embeddings=256,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        scale_embedding=True,
        init_std=width**-0.5 / 2,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
    )
    model = M2M100ForConditionalGeneration(config)
    # Tied to the head and scaled on the way in: the table itself has to be small.
    torch.nn.init.normal_(model.model.shared.weight, std=width**-0.5)
    return model


def batches(tokenizer: NllbTokenizer, size: int, seed: int) -> Iterator[Batch]:
    """Batches of pairs of like length: source ids and mask, decoder input, labels."""
    source = random.Random(seed)
    stream = pairs(seed)
    tags = {language: tokenizer.convert_tokens_to_ids(code) for language, code in FLORES.items()}
    while True:
        pool = [next(stream) for _ in range(POOL)]
        sources = _plain(tokenizer, [pair.source for pair in pool])
        targets = _plain(tokenizer, [pair.target for pair in pool])
        rows = [_row(*row, tags, tokenizer.eos_token_id) for row in zip(pool, sources, targets, strict=True)]
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        grouped = [rows[i : i + size] for i in range(0, POOL, size)]
        source.shuffle(grouped)
        for group in grouped:
            yield _padded(group, tokenizer.pad_token_id, tokenizer.eos_token_id)


def loss_of(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the target's tokens; the first of them is the target language's tag."""
    ids, mask, decoder_ids, labels = batch
    hidden = model.model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids).last_hidden_state
    kept = labels != IGNORED
    return cross_entropy(model.lm_head(hidden[kept]), labels[kept])


def _plain(tokenizer: NllbTokenizer, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def _row(
    pair: Paraphrase, source: list[int], target: list[int], tags: dict[str, int], end: int
) -> tuple[list[int], list[int]]:
    return [tags[pair.source_language], *source, end], [tags[pair.target_language], *target, end]


def _padded(rows: list[tuple[list[int], list[int]]], pad: int, start: int) -> Batch:
    ids, mask = _rectangle([source for source, _ in rows], pad)
    decoder_ids, _ = _rectangle([[start, *target[:-1]] for _, target in rows], pad)
    labels, _ = _rectangle([target for _, target in rows], IGNORED)
    return ids, mask, decoder_ids, labels


def _rectangle(rows: list[list[int]], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    filled = torch.tensor([row + [fill] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return filled, mask
