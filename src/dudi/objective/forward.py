"""A model's forward opened for our work: hidden states of completion rows only, inside whatever wraps the model."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from dudi.data.chat import Tokens
from dudi.objective.heads import Kernel, head_of, hidden_states
from dudi.objective.packed import by_tokens, packed_states, packs
from dudi.objective.signals import sum_by_sequence

FULL = 256
"""Positions of a pass from which on a CPU's matrix products gain nothing from more."""


@functools.cache
def _opened_forward(kind: type[PreTrainedModel]) -> Callable[..., Any]:
    """A forward for this class that also takes `dudi_work`.

    It has the signature of the class's own: `generate` reads there which inputs a model takes (position ids, masks,
    `logits_to_keep`) and leaves out the others without a word.
    """

    def forward(
        self: PreTrainedModel, *args: Any, dudi_work: Callable[[PreTrainedModel], Any] | None = None, **kwargs: Any
    ) -> Any:
        return kind.forward(self, *args, **kwargs) if dudi_work is None else dudi_work(self)

    forward.__signature__ = inspect.signature(kind.forward)  # type: ignore[attr-defined]  # inspect looks for it
    return forward


def open_forward(model: PreTrainedModel) -> None:
    """Let `model(dudi_work=f)` run `f(model)` inside the wrapped module's forward.

    DDP, FSDP and ZeRO gather parameters and reduce gradients in hooks around the forward of what they wrap; a backbone
    called from outside would miss them. Every other call reaches the model's own forward. The method is bound to the
    instance and asks its class: a deep copy of the model is bound to the copy.
    """
    model.forward = types.MethodType(_opened_forward(type(model)), model)  # type: ignore[arg-type]  # a class is hashable


def inside(module: nn.Module, work: Callable[[PreTrainedModel], Any]) -> Any:
    """Run `work` on the innermost model, inside the forward of the module that wraps it."""
    return module(dudi_work=work)


def completion_states(model: PreTrainedModel, pairs: Sequence[tuple[Tokens, Tokens]]) -> Tensor:
    """Hidden states that predict each completion token.

    Args:
        model: The innermost model.
        pairs: S prompts with their completions.

    Returns:
        (N, H), the completions' positions one after the other: prompt and padding rows never reach a head.
    """
    states: list[Tensor | None] = [None] * len(pairs)
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
        for i, rows in zip(group, part.split([len(pairs[i][1]) for i in group]), strict=True):
            states[i] = rows
    return torch.cat([rows for rows in states if rows is not None])


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


@torch.no_grad()
def summed_log_probs(
    module: nn.Module, pairs: Sequence[tuple[Tokens, Tokens]], vocabulary: int, kernel: Kernel = "auto"
) -> Tensor:
    """(S,) summed log-probabilities of completions, in fp32, without a gradient.

    Args:
        module: A model, wrapped or not, with `open_forward`.
        pairs: S prompts with their completions.
        vocabulary: The ids that take part in the softmax.
        kernel: How the head is applied.
    """

    def work(model: PreTrainedModel) -> Tensor:
        hidden = completion_states(model, pairs)
        completions = [completion for _, completion in pairs]
        labels = joined_ids(completions, hidden.device)
        values = head_of(model).shared_with(vocabulary).log_probs(hidden, labels, kernel)
        return sum_by_sequence(values, [len(completion) for completion in completions])

    return inside(module, work)
