"""A language-model head as weights, so that it can be applied to some rows of hidden states only."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from dudi.errors import ConfigError
from dudi.models.few_rows import is_large, multiply_few
from dudi.objective import fused, losses
from dudi.objective.methods import Divergence, Kernel
from dudi.objective.top_tokens import TopTokens, top_divergence

DENSE_LOGITS = 2**26
"""Up to this many logits (256 MiB in fp32) `auto` may hold them: one product instead of one a tile and pass."""


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """The map from hidden states (N, H) to logits (N, V)."""

    weight: Tensor  # (V, H)
    bias: Tensor | None = None  # (V,)
    scale: float = 1.0  # multiplies the logits (Cohere's `logit_scale`, the inverse of Granite's `logits_scaling`)
    softcap: float | None = None  # c of c tanh(logits / c) (Gemma's `final_logit_softcapping`)
    gathers: bool = False  # whether fused kernels add the weights' gradient to their `.grad` (`fused.Gathered`)

    def __len__(self) -> int:
        return self.weight.shape[0]

    def shared_with(self, vocabulary: int) -> Head:
        """The head of the first `vocabulary` ids: what is left when padding is cut."""
        if vocabulary == len(self):
            return self
        bias = None if self.bias is None else self.bias[:vocabulary]
        return dataclasses.replace(self, weight=self.weight[:vocabulary], bias=bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """(N, H) -> (N, V), in fp32 at least."""
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        return self.finished(F.linear(hidden, self.weight.to(hidden.dtype), bias))

    def logits_of_few(self, hidden: Tensor) -> Tensor:
        """`logits` of a few rows, without a gradient, in the form that a CPU is fastest at."""
        if not is_large(self.weight):
            return self.logits(hidden)
        return self.finished(multiply_few(hidden, self.weight, self.bias))

    def finished(self, logits: Tensor) -> Tensor:
        """The plain product's logits, scaled and capped."""
        logits = losses.at_least_fp32(logits)
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def log_probs(self, hidden: Tensor, labels: Tensor, kernel: Kernel = "auto") -> Tensor:
        """Log-probabilities of labels: (N, H), (N,) -> (N,) in nats."""
        chosen, weight, bias, scale = self.kernel(kernel, hidden), self.weight, self.bias, self.scale
        if chosen == "fused":
            return fused.label_log_probs(hidden, weight, bias, labels, scale, self.gathered())
        if chosen == "dense":
            return losses.token_log_probs(self.logits(hidden), labels)
        return losses.chunked_log_probs(hidden, weight, labels, bias=bias, scale=scale, softcap=self.softcap)

    def kernel(self, asked: Kernel, hidden: Tensor) -> Kernel:
        """How the head is applied to some rows: what was asked for, or by device and size."""
        if self.fuses(asked, hidden.device):
            return "fused"
        if asked in ("auto", "fused"):
            return "dense" if len(hidden) * len(self) <= DENSE_LOGITS else "chunked"
        return asked

    def fuses(self, asked: Kernel, device: torch.device) -> bool:
        """Whether the head is applied in one sweep with the loss.

        Fused is the faster on a CPU (docs/speed.md). No kernel but dense and chunked knows a soft cap.
        """
        return self.softcap is None and (asked == "fused" or (asked == "auto" and device.type == "cpu"))

    def gathered(self, factor: float | None = None) -> fused.Gathered | None:
        """Where a fused kernel, whose result the loss multiplies with the factor, adds the gradient of the weights."""
        if not (self.gathers and torch.is_grad_enabled()):
            return None
        if self.weight.grad is None:
            self.weight.grad = torch.zeros_like(self.weight)
        return fused.Gathered(self.weight.grad, factor)


@dataclasses.dataclass(frozen=True, slots=True)
class Distance:
    """D of Eqs. 3-7 with its settings, as in `losses.token_divergence`."""

    kind: Divergence
    beta: float
    temperature: float


def weighted_divergence(
    student: Head,
    student_hidden: Tensor,
    teacher: Head,
    teacher_hidden: Tensor,
    weights: Tensor,
    distance: Distance,
    kernel: Kernel = "auto",
    observer: fused.Observer | None = None,
    values: Tensor | None = None,
    factor: float | None = None,
) -> Tensor:
    """The sum over aligned rows of weight times divergence, with a gradient to the student's tensors only.

    States (N, H_s) and (N, H_t), heads of as many ids, weights (N,) -> a scalar in nats. The observer is shown the
    logits where they are made row by row anyway (`fused`), else never called; `values` (N,) is filled with each row's
    divergence, without a gradient; `factor` is what the loss multiplies the sum with, where it is known.
    """
    if teacher.softcap is not None or student.kernel(kernel, student_hidden) != "fused":
        rows = divergence(student, student_hidden, teacher, teacher_hidden, distance, kernel)
        if values is not None:
            values.copy_(rows.detach())
        return (rows * weights).sum()
    what = fused.Divergence(distance.kind, distance.beta, distance.temperature, student.scale, teacher.scale)
    ours, theirs = (student_hidden, student.weight, student.bias), (teacher_hidden, teacher.weight, teacher.bias)
    gathered = None if factor is None else student.gathered(factor)
    return fused.weighted_divergence(what, ours, theirs, weights, observer, values, gathered)


def weighted_top_divergence(
    student: Head,
    student_hidden: Tensor,
    top: TopTokens,
    weights: Tensor,
    distance: Distance,
    observer: fused.Observer | None = None,
    values: Tensor | None = None,
    factor: float | None = None,
) -> Tensor:
    """`weighted_divergence` from a teacher of which the likeliest tokens are known, at temperature 1.

    Always in one sweep: the events of a row are few, so that autograd has a tile's logits, and the sweep all the rest.
    The observer is shown all of the student's log-probabilities in passing, and the rows of the teacher's tokens.
    """

    def sweep(needs: Sequence[bool]) -> tuple[Tensor, fused.Gradients]:
        head = fused.TiledHead(fused.precision_of(student_hidden), student_hidden, student.weight, student.bias)
        gradient = fused.Gradient(head, needs, gathered)
        shares, room = weights.to(head.result), head.table(head.rows)
        total = shares.new_zeros(())
        for rows in fused.slices(len(shares), head.rows):
            raw = head.logits(rows, room).requires_grad_(any(needs))
            with torch.set_grad_enabled(any(needs)):
                logits = student.finished(raw)
                found = top_divergence(logits, top[rows], distance.kind, distance.beta)
                summed = found.sum()
            if observer is not None:
                observer(rows, torch.log_softmax(logits.detach(), -1), top[rows])
            total += (found.detach() * shares[rows]).sum()
            if values is not None:
                values[rows] = found.detach()
            if any(needs):
                gradient.add(rows, torch.autograd.grad(summed, raw)[0], shares[rows])
        return total, (gradient.hidden, gradient.weight, gradient.bias)

    gathered = None if factor is None else student.gathered(factor)
    return fused.swept((student_hidden, student.weight, student.bias), sweep, gathered)


def divergence(
    student: Head,
    student_hidden: Tensor,
    teacher: Head,
    teacher_hidden: Tensor,
    distance: Distance,
    kernel: Kernel = "auto",
) -> Tensor:
    """Divergence of two heads on aligned rows: (N, H_s), (N, H_t) -> (N,) in nats; no gradient to the teacher.

    Row by row, so that what a row weighs in the loss is not known: `fused` is `auto` here.
    """
    setting = (distance.kind, distance.beta, distance.temperature)
    small = len(student_hidden) * len(student) <= DENSE_LOGITS
    if kernel == "dense" or (kernel != "chunked" and small):
        with torch.no_grad():
            teacher_logits = teacher.logits(teacher_hidden)
        return losses.token_divergence(student.logits(student_hidden), teacher_logits, *setting)
    return losses.chunked_divergence(
        student_hidden,
        student.weight,
        teacher_hidden,
        teacher.weight,
        *setting,
        student_bias=student.bias,
        teacher_bias=teacher.bias,
        student_scale=student.scale,
        teacher_scale=teacher.scale,
        student_softcap=student.softcap,
        teacher_softcap=teacher.softcap,
    )


def head_of(model: PreTrainedModel) -> Head:
    """The head of a causal language model.

    Raises:
        ConfigError: the output layer is not a plain linear map.
    """
    layer = model.get_output_embeddings()
    # A wrapper of whole modules or of single tokens shows the weight in force; an adapter's layer its base's.
    adapted = type(layer).__module__.startswith("peft.tuners")
    if layer is None or adapted or layer.weight.dim() != 2:
        kind = f"{'an adapter of peft, ' if adapted else ''}{type(layer).__name__}"
        raise ConfigError(
            f"{type(model).__name__}: its output layer is {kind}, and dudi needs a plain linear one; "
            "leave lm_head out of the adapter's target modules"
        )
    return head_on(layer, model.config.get_text_config())


def head_on(layer: Any, config: PretrainedConfig) -> Head:
    """The head that a plain linear layer, or the table of embeddings that stands for it, is.

    The config is that of the model's text, which may scale or cap the logits.
    """
    softcap = config.to_dict().get("final_logit_softcapping")
    return Head(_whole(layer.weight), layer.bias if isinstance(layer, nn.Linear) else None, _scale(config), softcap)


def _whole(weight: Tensor) -> Tensor:
    """The full weight of a sharded parameter (FSDP2 keeps it as a DTensor until its own module is called).

    Each rank reads it for rows of its own: its gradient is a part of a sum over the ranks, which FSDP2 averages.
    `full_tensor()` alone takes the ranks' gradients for equal, and keeps a slice of one.
    """
    from torch.distributed.tensor import DTensor, Partial

    if not isinstance(weight, DTensor):
        return weight
    full = weight.full_tensor(grad_placements=[Partial()] * weight.device_mesh.ndim)
    if full.requires_grad:
        ranks = weight.device_mesh.size()
        full.register_hook(lambda grad: grad / ranks)
    return full


def _scale(config: PretrainedConfig) -> float:
    """The factor on the logits, under the names that transformers' models give it."""
    values = config.to_dict()
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if values.get(name) is not None:
            return float(values[name])
    if values.get("logits_scaling") is None:
        return 1.0
    scaling = float(values["logits_scaling"])
    return scaling if config.model_type == "hyperclovax" else 1.0 / scaling


@contextlib.contextmanager
def gathering(model: PreTrainedModel, head: Head, kernel: Kernel) -> Iterator[Head]:
    """The head whose weights' gradient is gathered in their `.grad`, where a fused kernel makes it.

    While it is inside, an embedding that is tied to the head gives its gradient as the rows that were read: a table of
    its own would be added to the same `.grad`. It works in one process alone.
    """
    weight = head.weight
    ours = weight.is_leaf and weight.requires_grad and weight.dtype in (torch.float32, torch.float64)
    watched = weight._backward_hooks or weight._post_accumulate_grad_hooks  # somebody waits for what autograd brings
    if not (head.fuses(kernel, weight.device) and ours and torch.is_grad_enabled()) or watched:
        yield head
        return
    head = dataclasses.replace(head, gathers=True)
    embedding = model.get_input_embeddings()
    if not isinstance(embedding, nn.Embedding) or embedding.weight is not weight or embedding.sparse:
        yield head
        return
    head.gathered()  # rows are added to a table that is there; alone they would be the gradient, as a sparse tensor
    embedding.sparse = True
    try:
        yield head
    finally:
        embedding.sparse = False


def backbone(model: PreTrainedModel) -> nn.Module:
    """The part of a causal language model whose states its head reads.

    Raises:
        ConfigError: the model does not say which it is.
    """
    inner = model.get_decoder()
    if inner is not model:
        return inner
    # Llama 4's text model names a part that it does not have, and gives itself.
    parts = [part for part in model.children() if isinstance(part, PreTrainedModel)]
    if len(parts) != 1:
        name = type(model).__name__
        raise ConfigError(f"{name}: its get_decoder() gives the model itself, and not what its head reads")
    return parts[0]


def hidden_states(model: PreTrainedModel, input_ids: Tensor) -> Tensor:
    """The states that the head reads: (B, T) ids, right-padded -> (B, T, H).

    With causal attention and padding on the right no real token can see a pad, so that no mask is needed and the
    kernels' causal path is taken.
    """
    return backbone(model)(input_ids=input_ids, use_cache=False).last_hidden_state


@torch.no_grad()
def check_head(model: PreTrainedModel) -> None:
    """Hold `head_of` against the model's own logits on a few ids, and see that it does not look ahead.

    Raises:
        ConfigError: the model computes its logits in a way that `Head` does not know, or is no causal language model.
    """
    ids = torch.arange(1, 9, device=model.device).unsqueeze(0) % model.config.get_text_config().vocab_size
    training = model.training
    model.eval()
    own = model(input_ids=ids, use_cache=False).logits[0].float()
    other = torch.cat([ids[:, :-1], ids[:, :1]], dim=1)
    ahead = (model(input_ids=other, use_cache=False).logits[0, :-1].float() - own[:-1]).abs().max()
    ours = head_of(model).logits(hidden_states(model, ids)[0])
    model.train(training)
    if ahead > 1e-2 * own.abs().max():
        raise ConfigError(
            f"{type(model).__name__} looks ahead: a token changes what was predicted before it; it is no causal "
            "language model (an encoder needs is_decoder: true in its config to be one)"
        )
    if not torch.allclose(own, ours, rtol=1e-2, atol=1e-2):
        raise ConfigError(
            f"{type(model).__name__} computes its logits in a way dudi does not know (largest difference "
            f"{(own - ours).abs().max().item():.3g}); please open an issue with the model's name"
        )
