"""Sequences to tensors, and the passes over them.

A completion is one list of ids, appended to whichever prompt reads it. The teacher's prompt is longer than the
student's, so that the two slices of hidden states start at different columns, and have the same length.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from dudi.data.chat import Tokens
from dudi.data.examples import Example
from dudi.heads import Head, Kernel, head_of, hidden_states
from dudi.signals.base import Heads, Kind, Rows, Signal, sum_by_sequence

FULL = 256
"""Positions of a pass from which on a CPU's matrix products gain nothing from more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """One sequence that is scored.

    Attributes:
        kind: `gold`, `plain` or `verbalized`.
        example: The row that it belongs to.
        prompt: What the student reads.
        completion: The ids that are scored; never empty.
        teacher_prompt: What the teacher reads before the same ids.
        language: The language that the completion should be in.
        ended: Whether the completion has its end of turn.
        trained: First token of the completion that counts in a token signal.
    """

    kind: Kind
    example: Example
    prompt: Tokens
    completion: Tokens
    teacher_prompt: Tokens
    language: str
    ended: bool
    trained: int = 0


@dataclasses.dataclass(slots=True)
class MicroBatch:
    """The sequences of one forward pass.

    Attributes:
        sequences: By kind, each in row order.
        per_sequence: Whether a token's weight is the inverse of its sequence's trained length.
        gold_reference: (B,) stored log-probabilities of the ground truth under the reference, or None.
        watched: Places (kind's row numbers) at which overlap and entropies are measured.
    """

    sequences: dict[Kind, list[Scored]]
    per_sequence: bool = False
    gold_reference: Tensor | None = None
    watched: list[int] = dataclasses.field(default_factory=list)

    @property
    def pairs(self) -> int:
        """Rows of the micro-batch."""
        return max(len(scored) for scored in self.sequences.values())

    def weights(self, kind: Kind) -> Tensor:
        """(N,) fp32 share of each completion token in its signal's mean."""
        parts = []
        for scored in self.sequences[kind]:
            weight = torch.ones(len(scored.completion))
            weight[: scored.trained] = 0
            parts.append(weight / weight.sum().clamp_min(1) if self.per_sequence else weight)
        return torch.cat(parts)

    def summed_weights(self) -> dict[Kind, float]:
        """Each kind's part in its denominator."""
        return {kind: float(self.weights(kind).sum()) for kind in self.sequences}


def _open_forward(
    self: PreTrainedModel, *args: Any, dudi_work: Callable[[PreTrainedModel], Any] | None = None, **kwargs: Any
) -> Any:
    return type(self).forward(self, *args, **kwargs) if dudi_work is None else dudi_work(self)


def open_forward(model: PreTrainedModel) -> None:
    """Let `model(dudi_work=f)` run `f(model)` inside the wrapped module's forward.

    DDP, FSDP and ZeRO gather parameters and reduce gradients in hooks around the forward of what they wrap; a backbone
    called from outside would miss them. Every other call reaches the model's own forward. The method is bound to the
    instance and asks its class: a deep copy of the model is bound to the copy.
    """
    model.forward = types.MethodType(_open_forward, model)


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
    groups = [list(range(len(pairs)))] if _gathers_parameters(model) else similar_lengths(lengths, model.device)
    for group in groups:
        part = _padded_states(model, [pairs[i] for i in group])
        for i, rows in zip(group, part.split([len(pairs[i][1]) for i in group]), strict=True):
            states[i] = rows
    return torch.cat([rows for rows in states if rows is not None])


def _gathers_parameters(model: PreTrainedModel) -> bool:
    """Whether each call of the backbone is a collective: then every rank must make as many, whatever its lengths."""
    return is_deepspeed_zero3_enabled() or any(isinstance(module, FSDPModule) for module in model.modules())


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


def labels_of(sequences: Sequence[Scored], device: torch.device) -> Tensor:
    """(N,) completion ids, one sequence after the other."""
    parts = [torch.as_tensor(scored.completion, dtype=torch.int64) for scored in sequences]
    return torch.cat(parts).to(device)


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
        labels = torch.cat([torch.as_tensor(c, dtype=torch.int64) for _, c in pairs]).to(hidden.device)
        values = head_of(model).shared_with(vocabulary).log_probs(hidden, labels, kernel)
        return sum_by_sequence(values, [len(completion) for _, completion in pairs])

    return inside(module, work)


@torch.no_grad()
def teacher_states(
    module: nn.Module, batch: MicroBatch, kinds: Sequence[Kind], vocabulary: int
) -> tuple[dict[Kind, Tensor], Head]:
    """The teacher's states for the completions of some kinds, in one pass, and its head.

    Returns:
        By kind (N, H_t), aligned with the student's rows; the head, cut to the vocabulary.
    """
    chosen = [scored for kind in kinds for scored in batch.sequences[kind]]

    def work(model: PreTrainedModel) -> tuple[Tensor, Head]:
        states = completion_states(model, [(s.teacher_prompt, s.completion) for s in chosen])
        return states, head_of(model).shared_with(vocabulary)

    states, head = inside(module, work)
    sizes = [sum(len(s.completion) for s in batch.sequences[kind]) for kind in kinds]
    return dict(zip(kinds, states.split(sizes), strict=True)), head


def student_rows(
    model: PreTrainedModel,
    batch: MicroBatch,
    teacher: Mapping[Kind, Tensor],
    reference: Mapping[Kind, Tensor],
) -> dict[Kind, Rows]:
    """The student's one pass over all sequences of a micro-batch, cut into kinds.

    Args:
        model: The innermost student, inside its wrapped forward.
        batch: The sequences.
        teacher: By kind, (N, H_t) states of the teacher.
        reference: By kind, (S,) summed log-probabilities of the reference.
    """
    everything = [scored for kind in batch.sequences for scored in batch.sequences[kind]]
    hidden = completion_states(model, [(s.prompt, s.completion) for s in everything])
    labels = labels_of(everything, hidden.device)
    rows: dict[Kind, Rows] = {}
    start = 0
    for kind, sequences in batch.sequences.items():
        lengths = [len(scored.completion) for scored in sequences]
        part = slice(start, start + sum(lengths))
        start = part.stop
        rows[kind] = Rows(
            hidden[part],
            labels[part],
            lengths,
            batch.weights(kind).to(hidden.device),
            None if kind not in teacher else teacher[kind].to(hidden.device),
            None if kind not in reference else reference[kind].to(hidden.device),
        )
    return rows


def signal_sums(signals: Mapping[str, Signal], rows: Mapping[Kind, Rows], heads: Heads) -> dict[str, Tensor]:
    """Each signal's sum over the micro-batch: scalars with a gradient to the student."""
    return {name: signal.loss(rows, heads) for name, signal in signals.items()}
