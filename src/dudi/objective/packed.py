"""Several sequences as one, without padding: every product is of all their tokens, and attention of each of them alone.

Sequences of a batch differ in length, in Burmese and in English by a factor of four. Padded to one width most of a pass
would be padding; in groups of like length a pass is as many passes, each of which adds to the gradient of all weights
anew. Here there is one, of at most so many tokens (`TOKENS`), and padding is none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface

from dudi.data.chat import Tokens
from dudi.models.attention import attends_to_all
from dudi.objective.heads import backbone

TOKENS = 4096
"""Most tokens of a pass; a longer sequence has one of its own."""
DEVICES = {"cpu"}
"""Where it is done: a GPU would need a kernel for sequences of different lengths (docs/speed.md)."""
NAME = "dudi_packed"


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, packed_lengths: list[int], **more: Any
) -> tuple[Tensor, None]:
    """Attention of each sequence to itself: (1, heads, T, width) -> (1, T, heads, width)."""
    sides = (side.split(packed_lengths, dim=2) for side in (query, key, value))
    parts = [sdpa_attention_forward(module, q, k, v, None, **more)[0] for q, k, v in zip(*sides, strict=True)]
    return torch.cat(parts, dim=1), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)


def packs(model: PreTrainedModel, longest: int) -> bool:
    """Whether passes of this model are packed: one that is plain, on a CPU, and keeps its activations.

    Under gradient checkpointing layers run again when the attention is the model's own again.

    Args:
        model: The innermost model.
        longest: Tokens of the longest sequence.
    """
    text = model.config.get_text_config()
    return (
        model.device.type in DEVICES
        and text._attn_implementation == "sdpa"
        and attends_to_all(model.config, longest)
        and not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    )


def by_tokens(lengths: Sequence[int]) -> list[list[int]]:
    """Indices in their order, in groups of at most `TOKENS`."""
    groups: list[list[int]] = []
    held = 0
    for index, length in enumerate(lengths):
        if groups and held + length <= TOKENS:
            groups[-1].append(index)
            held += length
        else:
            groups.append([index])
            held = length
    return groups


def packed_states(model: PreTrainedModel, pairs: Sequence[tuple[Tokens, Tokens]]) -> Tensor:
    """`forward.completion_states` of sequences that are read as one."""
    lengths = [len(prompt) + len(completion) for prompt, completion in pairs]
    ids = torch.cat([torch.as_tensor(part, dtype=torch.int64) for pair in pairs for part in pair])
    starts = torch.tensor([0, *lengths]).cumsum(0)[:-1]
    places = torch.cat([torch.arange(length) for length in lengths])
    wanted = torch.cat(
        [
            torch.arange(len(prompt) - 1, length - 1) + start
            for (prompt, _), length, start in zip(pairs, lengths, starts.tolist(), strict=True)
        ]
    )
    device = model.device
    with _packing(model):
        states = backbone(model)(
            input_ids=ids.unsqueeze(0).to(device),
            position_ids=places.unsqueeze(0).to(device),
            use_cache=False,
            packed_lengths=lengths,
        ).last_hidden_state
    return states[0, wanted.to(device)]


@contextlib.contextmanager
def _packing(model: PreTrainedModel) -> Iterator[None]:
    """The model's layers attend to sequences of a pack."""
    text = model.config.get_text_config()
    own = text._attn_implementation
    text._attn_implementation = NAME
    try:
        yield
    finally:
        text._attn_implementation = own
