"""Hidden states of completions, inside a model's forward that is opened for our work, whatever wraps the model.

Sequences of a batch differ in length, in Burmese and in English by a factor of four. Padded to one width most of a pass
would be padding; in groups of like length a pass is as many passes, each of which adds to the gradient of all weights
anew. Where the model is plain they are packed: one sequence of at most `PACK_TOKENS` tokens without padding, in which
each attends to itself alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface

from dudi.data.chat import Tokens
from dudi.models.attention import attends_to_all
from dudi.objective.heads import Kernel, backbone, head_of, hidden_states
from dudi.objective.signals import sum_by_sequence

FULL = 256
"""Positions of a pass from which on a CPU's matrix products gain nothing from more."""
PACK_TOKENS = 4096
"""Most tokens of a pass; a longer sequence has one of its own."""
PACKING = {"cpu"}
"""Kinds of device on which sequences are packed. On a GPU their attention is one call of torch's own kernel; that has
not been measured (`benchmarks/gpu.py`, part `packed`)."""
PACKED = "dudi_packed"
HALF = (torch.float16, torch.bfloat16)


def open_forward(model: PreTrainedModel) -> None:
    """Let `model(dudi_work=f)` run `f(model)` inside the wrapped module's forward.

    DDP, FSDP and ZeRO gather parameters and reduce gradients in hooks around the forward of what they wrap; a backbone
    called from outside would miss them. Every other call reaches the model's own forward. The method is bound to the
    instance and asks its class: a deep copy of the model is bound to the copy. It has the signature of the class's own:
    `generate` reads there which inputs a model takes (position ids, masks, `logits_to_keep`) and leaves out the others
    without a word.
    """
    kind = type(model)

    def forward(
        self: PreTrainedModel, *args: Any, dudi_work: Callable[[PreTrainedModel], Any] | None = None, **kwargs: Any
    ) -> Any:
        return kind.forward(self, *args, **kwargs) if dudi_work is None else dudi_work(self)

    forward.__signature__ = inspect.signature(kind.forward)  # type: ignore[attr-defined]  # inspect looks for it
    model.forward = types.MethodType(forward, model)


def inside(module: nn.Module, work: Callable[[PreTrainedModel], Any]) -> Any:
    """Run `work` on the innermost model, inside the forward of the module that wraps it."""
    return module(dudi_work=work)


def completion_states(model: PreTrainedModel, pairs: Sequence[tuple[Tokens, Tokens]]) -> Tensor:
    """Hidden states (N, H) of the innermost model that predict each completion token, one completion after the other.

    Prompt and padding rows never reach a head.
    """
    states: dict[int, Tensor] = {}
    lengths = [len(prompt) + len(completion) for prompt, completion in pairs]
    states_of = _padded_states
    gathers = is_deepspeed_zero3_enabled() or any(isinstance(module, FSDPModule) for module in model.modules())
    if gathers:  # each call of the backbone is a collective: every rank makes as many, whatever its lengths
        groups = [list(range(len(pairs)))]
    elif packs(model, max(lengths)):
        groups, states_of = by_tokens(lengths), packed_states
    else:
        groups = similar_lengths(lengths, model.device)
    for group in groups:
        part = states_of(model, [pairs[i] for i in group])
        states.update(zip(group, part.split([len(pairs[i][1]) for i in group]), strict=True))
    return torch.cat([states[i] for i in range(len(pairs))])


def joined_ids(completions: Sequence[Tokens], device: torch.device) -> Tensor:
    """(N,) ids of completions, one after the other."""
    return torch.cat([torch.as_tensor(ids, dtype=torch.int64) for ids in completions]).to(device)


def similar_lengths(lengths: Sequence[int], device: torch.device) -> list[list[int]]:
    """Indices grouped by length, longest first: one width for all would be mostly padding.

    Prompts in Burmese are several times as long as in English. On a device no sequence is padded to more than twice its
    length: each group costs launches. A CPU is as fast on a few hundred positions as on more, so that a group there is
    closed once it has `FULL` of them and the next sequence would bring its padding over a sixteenth.
    """
    groups: list[list[int]] = []
    real = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        width = lengths[groups[-1][0]] if groups else 0
        padded = width * (len(groups[-1]) + 1) if groups else 0
        fits = lengths[index] * 2 >= width
        if device.type == "cpu" and fits:
            fits = padded - width < FULL or (padded - real - lengths[index]) * 16 <= padded
        if groups and fits:
            groups[-1].append(index)
            real += lengths[index]
        else:
            groups.append([index])
            real = lengths[index]
    return groups


def _padded_states(model: PreTrainedModel, pairs: Sequence[tuple[Tokens, Tokens]]) -> Tensor:
    """`completion_states` of sequences that are padded to one width."""
    width = max(len(prompt) + len(completion) for prompt, completion in pairs)
    ids = torch.zeros((len(pairs), width), dtype=torch.int64)
    places: list[Tensor] = []
    for row, (prompt, completion) in enumerate(pairs):
        start, end = len(prompt), len(prompt) + len(completion)
        ids[row, :start] = torch.as_tensor(prompt, dtype=torch.int64)
        ids[row, start:end] = torch.as_tensor(completion, dtype=torch.int64)
        places.append(torch.arange(start - 1, end - 1) + row * width)
    states = hidden_states(model, ids.to(model.device))
    return states.flatten(0, 1)[torch.cat(places).to(states.device)]


@dataclasses.dataclass(frozen=True, slots=True)
class Pack:
    """Where the sequences of a pack lie."""

    lengths: list[int]  # of each, in tokens
    borders: Tensor  # (S + 1,) int32, where each begins, and where the last one ends


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, dudi_pack: Pack, **more: Any
) -> tuple[Tensor, None]:
    """Attention of each sequence to itself: (1, heads, T, width) -> (1, T, heads, width)."""
    if query.is_cuda and query.dtype in HALF:
        return _attend_in_one_call(query, key, value, dudi_pack, more.get("scaling")), None
    sides = (side.split(dudi_pack.lengths, dim=2) for side in (query, key, value))
    parts = [sdpa_attention_forward(module, q, k, v, None, **more)[0] for q, k, v in zip(*sides, strict=True)]
    return torch.cat(parts, dim=1), None


def _attend_in_one_call(query: Tensor, key: Tensor, value: Tensor, pack: Pack, scale: float | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    borders, longest, grouped = pack.borders, max(pack.lengths), query.shape[1] != key.shape[1]
    q, k, v = (side[0].transpose(0, 1).contiguous() for side in (query, key, value))  # (T, heads, width)
    causal = (-1, 0)
    found = varlen_attn(
        q, k, v, borders, borders, longest, longest, scale=scale, window_size=causal, enable_gqa=grouped
    )
    return cast(Tensor, found).unsqueeze(0)


AttentionInterface.register(PACKED, _attend)
AttentionMaskInterface.register(PACKED, lambda *args, **kwargs: None)


def packs(model: PreTrainedModel, longest: int) -> bool:
    """Whether passes of this model are packed: one that is plain, on a CPU, and keeps its activations.

    Under gradient checkpointing layers run again when the attention is the model's own again. Dropout of attention is
    drawn for padded batches: packed ones would have other masks, and so other losses than were committed.
    """
    text = model.config.get_text_config()
    return (
        model.device.type in PACKING
        and text._attn_implementation == "sdpa"
        and attends_to_all(model.config, longest)
        and not (model.training and getattr(text, "attention_dropout", None))
        and not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    )


def by_tokens(lengths: Sequence[int]) -> list[list[int]]:
    """Indices in their order, in groups of at most `PACK_TOKENS`."""
    groups: list[list[int]] = []
    held = 0
    for index, length in enumerate(lengths):
        if groups and held + length <= PACK_TOKENS:
            groups[-1].append(index)
            held += length
        else:
            groups.append([index])
            held = length
    return groups


def packed_states(model: PreTrainedModel, pairs: Sequence[tuple[Tokens, Tokens]]) -> Tensor:
    """`completion_states` of sequences that are read as one."""
    lengths = [len(prompt) + len(completion) for prompt, completion in pairs]
    ids = torch.cat([torch.as_tensor(part, dtype=torch.int64) for pair in pairs for part in pair])
    borders = torch.tensor([0, *lengths]).cumsum(0)
    places = torch.cat([torch.arange(length) for length in lengths])
    wanted = []
    for (prompt, _), length, start in zip(pairs, lengths, borders[:-1].tolist(), strict=True):
        wanted.append(torch.arange(len(prompt) - 1, length - 1) + start)
    device = model.device
    with _packing(model):
        states = backbone(model)(
            input_ids=ids.unsqueeze(0).to(device),
            position_ids=places.unsqueeze(0).to(device),
            use_cache=False,
            dudi_pack=Pack(lengths, borders.to(device, torch.int32)),
        ).last_hidden_state
    return states[0, torch.cat(wanted).to(device)]


@contextlib.contextmanager
def _packing(model: PreTrainedModel) -> Iterator[None]:
    """The model's layers attend to sequences of a pack."""
    text = model.config.get_text_config()
    own = text._attn_implementation
    text._attn_implementation = PACKED
    try:
        yield
    finally:
        text._attn_implementation = own


@torch.no_grad()
def summed_log_probs(
    module: nn.Module, pairs: Sequence[tuple[Tokens, Tokens]], vocabulary: int, kernel: Kernel = "auto"
) -> Tensor:
    """(S,) summed log-probabilities of S completions, in fp32, under a model with `open_forward`, wrapped or not.

    As many ids as `vocabulary` says take part in the softmax.
    """

    def work(model: PreTrainedModel) -> Tensor:
        hidden = completion_states(model, pairs)
        completions = [completion for _, completion in pairs]
        labels = joined_ids(completions, hidden.device)
        values = head_of(model).shared_with(vocabulary).log_probs(hidden, labels, kernel)
        return sum_by_sequence(values, [len(completion) for completion in completions])

    return inside(module, work)
