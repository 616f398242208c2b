"""What a model can read: ids that its embeddings have, and as many tokens as it has positions for."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi.errors import ConfigError

MOST_OFFSET = 4
"""Rows that a table of positions has beside its positions, for padding: 2 in OPT."""


def check_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, who: str) -> None:
    """Refuse a tokenizer that makes ids of ordinary text which the model's embeddings do not have.

    A special token beyond them is let pass, as Gemma 3 has one for images: no row may spell one out.

    Raises:
        ConfigError: there is such a token, or the end of text is one.
    """
    words: Any = model.get_input_embeddings()
    size = words.weight.shape[0]
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    passed = special - {tokenizer.eos_token_id}
    ids = tokenizer.get_vocab().items()
    beyond = sorted((index, token) for token, index in ids if index >= size and index not in passed)
    if beyond:
        shown = ", ".join(f"{token!r} ({index})" for index, token in beyond[:3])
        raise ConfigError(
            f"{who}: its tokenizer has {len(beyond)} tokens beyond the {size} rows of the model's embeddings, such as "
            f"{shown}; resize the embeddings (model.resize_token_embeddings) and save, or take the model's own"
        )


def learned_positions(model: PreTrainedModel) -> int | None:
    """How many positions a model has a learned vector for; None where it computes them, as rotary ones."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    words = model.get_input_embeddings()
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding) and module is not words]
    for table in tables:
        if most is not None and 0 <= table.num_embeddings - most <= MOST_OFFSET:
            # RoBERTa's and XLM-R's begin behind the padding's own row: of their 514 positions 512 are for tokens.
            before = 0 if table.padding_idx is None else table.padding_idx + 1
            return int(min(most, table.num_embeddings - before))
    return None


def check_length(model: PreTrainedModel, tokens: int, who: str, what: str) -> None:
    """Refuse a number of tokens for which a model (`who`) has no positions; `what` makes sequences as long.

    Raises:
        ConfigError: the model has fewer positions.
    """
    most = learned_positions(model)
    if most is not None and tokens > most:
        raise ConfigError(f"{who} has {most:,} positions, and {what} makes sequences of {tokens:,} tokens; lower it")
