"""Several sequences as one, without padding: every product is of all their tokens, and attention of each of them alone.

Sequences of a batch differ in length, in Burmese and in English by a factor of four. Padded to one width most of a pass
would be padding; in groups of like length a pass is as many passes, each of which adds to the gradient of all weights
anew. Here there is one, of at most so many tokens (`TOKENS`), and padding is none.

On a GPU attention of sequences of different lengths is one call of torch's own kernel (`varlen_attn`). It is not done
there yet (`DEVICES`): it has not been measured (`benchmarks/gpu.py`, part `packed`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, cast

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
"""Where it is done."""
NAME = "dudi_packed"
HALF = (torch.float16, torch.bfloat16)


@dataclasses.dataclass(frozen=True, slots=True)
class Pack:
    """Where the sequences of a pack lie.

    Attributes:
        lengths: Of each, in tokens.
        borders: (S + 1,) int32, where each begins, and where the last one ends.
    """

    lengths: list[int]
    borders: Tensor


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, dudi_pack: Pack, **more: Any
) -> tuple[Tensor, None]:
    """Attention of each sequence to itself: (1, heads, T, width) -> (1, T, heads, width)."""
    if query.is_cuda and query.dtype in HALF and not more.get("dropout"):
        return _attend_in_one_call(query, key, value, dudi_pack, more.get("scaling")), None
    sides = (side.split(dudi_pack.lengths, dim=2) for side in (query, key, value))
    parts = [sdpa_attention_forward(module, q, k, v, None, **more)[0] for q, k, v in zip(*sides, strict=True)]
    return torch.cat(parts, dim=1), None


def _attend_in_one_call(query: Tensor, key: Tensor, value: Tensor, pack: Pack, scale: float | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    longest = max(pack.lengths)
    q, k, v = (side[0].transpose(0, 1).contiguous() for side in (query, key, value))  # (T, heads, width)
    found = varlen_attn(
        q,
        k,
        v,
        pack.borders,
        pack.borders,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0),  # causal
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return cast(Tensor, found).unsqueeze(0)


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
    borders = torch.tensor([0, *lengths]).cumsum(0)
    places = torch.cat([torch.arange(length) for length in lengths])
    wanted = torch.cat(
        [
            torch.arange(len(prompt) - 1, length - 1) + start
            for (prompt, _), length, start in zip(pairs, lengths, borders[:-1].tolist(), strict=True)
        ]
    )
    device = model.device
    with _packing(model):
        states = backbone(model)(
            input_ids=ids.unsqueeze(0).to(device),
            position_ids=places.unsqueeze(0).to(device),
            use_cache=False,
            dudi_pack=Pack(lengths, borders.to(device, torch.int32)),
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
