"""What a loaded stack is held against: every weight is there, and attention is what the config says.

All this went wrong unseen in libraries of this kind: an encoder whose weights were all random, a bidirectional LLM
that a new version of `transformers` read causally, padding that changed the result.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dudi.errors import ConfigError, DataError
from dudi.models.frozen import evaluating
from dudi.models.limits import check_ids, check_length
from dudi.stacking.tokens import Source

LENGTH, PADDING = 6, 3
TOLERANCE = 1e-3
"""How far padding may move a state, relative to its size; 16 bits round at 4e-3, and get forty times as much."""

ENCODER_TOLERANCE = 1e-4
"""The same of an encoder in fp32, which gets 1e-6: a convolution over padding moves small models by 1e-3."""


@torch.no_grad()
def check_attention(llm: PreTrainedModel, attention: str) -> None:
    """Perturb the last input and look at the first state, with padding in the batch and without; look for leaks.

    Raises:
        DataError: the LLM's attention is not what the stack's config says, or padding changes the result.
    """
    who = type(llm).__name__
    state = f"attention: the config says {attention}, but the first state of this {who}"
    embedding: Any = llm.get_input_embeddings()
    weight = embedding.weight
    # Vectors of the size of the LLM's embeddings, the same ones at every load.
    drawn = torch.randn(1, LENGTH, weight.shape[1], generator=torch.Generator().manual_seed(0))
    first = (drawn * weight[:64].float().std().cpu().clamp(min=1e-3)).to(weight.device, weight.dtype)
    second = first.clone()
    second[:, -1] = first[:, -1].flip(-1) * -1.5
    with evaluating(llm):
        # Kernels take other paths with padding than without: both have to be as the config says.
        alone, padded = _states(llm, first, 0), _states(llm, first, PADDING)
        for padding, seen in ((0, alone), (PADDING, padded)):
            sees_ahead = bool((seen[:, 0] != _states(llm, second, padding)[:, 0]).any())
            if sees_ahead and attention == "causal":
                raise DataError(f"{state} depends on the last input; see config.is_causal")
            if not sees_ahead and attention == "bidirectional":
                advice = "it cannot be read bidirectionally: set attention: causal"
                raise DataError(f"{state} does not depend on the last input; {advice}")
    leak = float((padded - alone).abs().max() / alone.abs().max().clamp(min=1e-6))
    if not leak <= (TOLERANCE if first.dtype == torch.float32 else 40 * TOLERANCE):
        raise DataError(f"attention: padding changes what this {who} reads (by {leak:.1e} of a state)")


def _states(llm: PreTrainedModel, inputs: Tensor, padding: int) -> Tensor:
    """States of the inputs, with so many padded places behind them that hold something else."""
    places = torch.cat([inputs, 7.0 * inputs[:, :padding]], dim=1)
    mask = torch.ones(places.shape[:2], dtype=torch.long, device=inputs.device)
    mask[:, inputs.shape[1] :] = 0
    return llm(inputs_embeds=places, attention_mask=mask).last_hidden_state[:, : inputs.shape[1]].float()


@torch.no_grad()
def check_encoder(encoder: PreTrainedModel) -> None:
    """Perturb the last token and look at the first state: an encoder's tokens see those behind them; look for leaks.

    Raises:
        ConfigError: the state does not change: it is a decoder, and belongs on top; or padding changes the result.
    """
    embedding: Any = encoder.get_input_embeddings()
    count, padding = len(embedding.weight), encoder.config.pad_token_id
    ids = torch.tensor([[token for token in range(3, count) if token != padding][: LENGTH + 1]])
    ids = ids.to(embedding.weight.device)
    mask = torch.ones_like(ids[:, 1:])
    behind = ids.new_full((1, PADDING), int(padding or 0))
    with evaluating(encoder):
        # The same tokens but for the last one.
        pair = (ids[:, :-1], torch.cat([ids[:, : LENGTH - 1], ids[:, -1:]], dim=1))
        first, second = (encoder(input_ids=one, attention_mask=mask).last_hidden_state for one in pair)
        filled, seen = torch.cat([pair[0], behind], dim=1), torch.cat([mask, torch.zeros_like(behind)], dim=1)
        padded = encoder(input_ids=filled, attention_mask=seen).last_hidden_state[:, : mask.shape[1]]
    who = type(encoder).__name__
    if not bool((first[:, 0] != second[:, 0]).any()):
        raise ConfigError(f"encoder: a {who} reads from left to right and is no encoder; a decoder is named in llm")
    leak = float((padded - first).abs().max() / first.abs().max().clamp(min=1e-6))
    if not leak <= (ENCODER_TOLERANCE if first.dtype == torch.float32 else 40 * TOLERANCE):
        raise ConfigError(
            f"encoder: padding changes what a {who} reads (by {leak:.1e} of a state), so that a text would depend on "
            "its batch; take another encoder"
        )


def check_reader(reader: PreTrainedModel, source: Source, max_length: int) -> None:
    """Hold the tokenizer and the longest text, in tokens, against the part of a stack that reads them.

    Raises:
        ConfigError: ids that its embeddings lack, fewer positions than tokens, or no place for a word.
    """
    who = type(reader).__name__
    check_room(source, max_length, "max_length")
    check_ids(reader, source.tokenizer, who)
    check_length(reader, max_length, who, "max_length")


def check_room(source: Source, max_length: int, key: str) -> None:
    """Refuse a length, in tokens, that has no place for more than what a tokenizer sets around a text.

    Raises:
        ConfigError: no token of a text would be read; `key` is where the length was said.
    """
    around = source.tokenizer.num_special_tokens_to_add()
    if max_length <= around:
        raise ConfigError(f"{key}: {max_length} has no place for a word beside {around} special tokens; raise it")


def check_reading(reader: Any, source: Source, max_length: int) -> None:
    """`check_reader` of a `MTLLMModel`: of the part that reads, and of an LLM that reads its own tokens too.

    Raises:
        ConfigError: as there.
    """
    check_reader(reader.reads, source, max_length)
    if source.beside is not None:
        check_reader(reader.llm, source.beside, 2 * max_length + 1)
