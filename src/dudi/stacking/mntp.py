"""MNTP: a causal LLM learns to read in both directions, before it becomes a teacher (LLM2Vec, arXiv 2404.05961).

A share of the tokens is masked, and the state *in front of* each masked place predicts the token: the head keeps its
habit of predicting the next one. Only an adapter is trained; it is merged at the end.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dudi.objective.forward import inside, open_forward
from dudi.objective.heads import head_of
from dudi.stacking import lora
from dudi.stacking.arguments import StackArguments
from dudi.stacking.checks import check_reader
from dudi.stacking.rows import StackRow
from dudi.stacking.tokens import Source
from dudi.stacking.trainer import Batch, Objective, StackTrainer, Sums, check_there, run, trainable, trainable_lora

IGNORED = -100


class MaskedNextToken(Objective):
    """Cross-entropy at the masked places, in nats."""

    stage = "adapt"

    def __init__(self, source: Source, args: StackArguments) -> None:
        super().__init__(source, args)
        tokenizer = source.tokenizer
        # A masked token is the tokenizer's own, else `_`, as LLM2Vec does, else the unknown one.
        blank = tokenizer.encode("_", add_special_tokens=False)
        other = blank[-1] if blank else tokenizer.unk_token_id or tokenizer.eos_token_id
        self.mask = int(other if tokenizer.mask_token_id is None else tokenizer.mask_token_id)
        self.special = torch.tensor(sorted(set(tokenizer.all_special_ids)))

    def collate(self, rows: Sequence[StackRow], places: Sequence[int]) -> Batch:
        """The texts as the LLM's tokenizer writes them."""
        texts = [row.text for row in rows]
        return self.source.collate(self.source.encode(texts, ["" for _ in rows], max_length=self.args.max_length))

    def prepare(self, batch: Batch) -> Batch:
        """Masked ids and their labels; drawn from the global generator, which a checkpoint keeps."""
        ids, attended = batch["input_ids"], batch["attention_mask"].bool()
        free = attended & ~torch.isin(ids, self.special.to(ids.device))
        free[:, 0] = False  # nothing stands in front of it
        hidden = free & (torch.rand(ids.shape).to(ids.device) < self.args.mask_share)
        labels = ids.masked_fill(~hidden, IGNORED)
        return batch | {"input_ids": ids.masked_fill(hidden, self.mask), "labels": labels}

    def count(self, batch: Batch) -> float:
        """Masked tokens."""
        return float((batch["labels"] != IGNORED).sum())

    def loss(self, model: nn.Module, inner: Any, batch: Batch) -> tuple[Tensor, Sums]:
        """Summed over masked tokens; the head sees only the states in front of them."""
        row, column = (batch["labels"] != IGNORED).nonzero(as_tuple=True)
        targets = batch["labels"][row, column]

        def work(own: PreTrainedModel) -> Tensor:
            read = own.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
            return head_of(own).logits(read.last_hidden_state[row, column - 1])

        logits = inside(model, work)
        total = nn.functional.cross_entropy(logits, targets, reduction="sum")
        return total, {"loss": total, "right": (logits.argmax(dim=-1) == targets).sum()}


def adapt(
    model: PreTrainedModel,
    source: Source,
    rows: Sequence[StackRow],
    args: StackArguments,
    lora_settings: lora.LoraSettings = lora.AUTHORS,
    *,
    resume: str | Path | None = None,
    about: Mapping[str, Any] | None = None,
) -> PreTrainedModel:
    """Make a causal language model, with its head, bidirectional, in place, by MNTP on the rows' texts.

    `args.output_dir` gets `metrics.jsonl` and `checkpoints/`; `resume` is one of these, of the same run, and `about` is
    more of what identifies it.

    Returns:
        The model, its adapter merged, `config.is_causal` false.

    Raises:
        ConfigError: a key was given that MNTP does not read, or the tokenizer or the longest text is not the model's.
        DataError: there are no rows.
    """
    args.begin("adapt")
    check_there("adapt", rows)
    check_reader(model, source, args.max_length)
    model.config.is_causal = False
    lora.add_lora(model.base_model, lora_settings, args.seed)
    trainable(model)
    trainable_lora(model)
    open_forward(model)
    run(StackTrainer(model, args, MaskedNextToken(source, args), rows, about=about), resume)
    del model.forward  # the instance's; the class has its own
    lora.merge_lora(model.base_model)
    model.config = copy.deepcopy(model.config)
    return model
