"""The objective's terms as pure functions on tensors.

Shapes: V is the vocabulary, H a hidden size, N rows of hidden states, B pairs; `...` any leading shape. Nothing is
averaged here: every function returns one number per token or per pair, and `signals` divides by the counts of
the whole optimizer step. Softmax and reductions run in fp32 at least; float64 stays float64.

Directions (the paper writes D(teacher || student) and runs its reverse, see `docs/method.md`):

    forward_kl   KL(teacher || student)
    reverse_kl   KL(student || teacher)
    jsd          beta KL(teacher || m) + (1 - beta) KL(student || m),   m = beta teacher + (1 - beta) student
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from dudi.objective.methods import Divergence

Weighting = Literal["sft", "dft"]

IGNORE = -100
"""The label of a position that is not trained, as in `transformers`."""

WIDE_VOCABULARY = 2**16
"""Ids from which the CPU's `log_softmax` is too coarse."""

VOCABULARY_TILE = 32768
"""Columns of the vocabulary that the chunked log-probabilities hold at a time."""


def at_least_fp32(logits: Tensor) -> Tensor:
    """The logits in fp32; float64 stays float64."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _check_beta(kind: str, beta: float) -> None:
    if kind not in get_args(Divergence):
        raise ValueError(f"divergence '{kind}' is not one of {', '.join(get_args(Divergence))}")
    if kind == "jsd" and not 0 < beta < 1:
        raise ValueError(f"jsd needs 0 < beta < 1, got {beta}; its ends are forward_kl and reverse_kl")


def _log_softmax(logits: Tensor) -> Tensor:
    """log-softmax in fp32 at least.

    Over 152k ids the CPU's `log_softmax` sums in few lanes and is off by 1e-4; there `logsumexp`, which sums pairwise
    and keeps one more copy, takes its place.
    """
    logits = at_least_fp32(logits)
    if logits.device.type == "cpu" and logits.shape[-1] > WIDE_VOCABULARY:
        return logits - logits.logsumexp(-1, keepdim=True)
    return F.log_softmax(logits, dim=-1)


def _kl(log_p: Tensor, log_q: Tensor, dim: int) -> Tensor:
    """KL(p || q)."""
    return (log_p.exp() * (log_p - log_q)).sum(dim)


def token_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    kind: Divergence = "reverse_kl",
    beta: float = 0.5,
    temperature: float = 1.0,
) -> Tensor:
    """Divergence between the student's and the teacher's next-token distributions (D of Eqs. 3-7).

    Args:
        student_logits: (..., V).
        teacher_logits: (..., V'). Where V and V' differ by padding, the shared first ids are compared.
        kind: `forward_kl`, `reverse_kl` or `jsd`.
        beta: The teacher's share in the mixture of `jsd` (Agarwal et al. 2024).
        temperature: Divides both logits.

    Returns:
        (...) in nats, with a gradient to both inputs; detach the teacher's.

    Raises:
        ValueError: an unknown kind, or `jsd` with beta outside (0, 1).
    """
    shared = min(student_logits.shape[-1], teacher_logits.shape[-1])
    student = _log_softmax(at_least_fp32(student_logits[..., :shared]) / temperature)
    teacher = _log_softmax(at_least_fp32(teacher_logits[..., :shared]) / temperature)
    return log_prob_divergence(student, teacher, kind, beta)


def log_prob_divergence(student: Tensor, teacher: Tensor, kind: Divergence, beta: float, dim: int = -1) -> Tensor:
    """`token_divergence` of log-probabilities: (..., E), (..., E) -> (...) in nats; the events lie along `dim`."""
    _check_beta(kind, beta)
    if kind == "forward_kl":
        return _kl(teacher, student, dim)
    if kind == "reverse_kl":
        return _kl(student, teacher, dim)
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * _kl(teacher, mixture, dim) + (1 - beta) * _kl(student, mixture, dim)


def token_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of each label.

    Logits (..., V), ids (...) -> (...) in nats; exactly 0 where the label is -100, at positions that are not trained.
    """
    trained = labels != IGNORE
    log_probs = _log_softmax(logits)
    chosen = log_probs.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return torch.where(trained, chosen, torch.zeros_like(chosen))


def weigh_cross_entropy(log_probs: Tensor, weighting: Weighting) -> Tensor:
    """-w log pi(y_t) of Eq. 1 from the log-probabilities (...) of the labels, in nats.

    w is 1 for `sft`, and sg(pi(y_t)) for `dft` (Wu et al. 2026).

    Raises:
        ValueError: an unknown weighting.
    """
    if weighting == "sft":
        return -log_probs
    if weighting == "dft":
        return -log_probs * log_probs.detach().exp()
    raise ValueError(f"weighting '{weighting}' is not one of sft, dft")


def cross_entropy(logits: Tensor, labels: Tensor, weighting: Weighting = "sft") -> Tensor:
    """Cross-entropy of the ground truth, or its dynamic re-weighting (Eq. 1).

    Logits (..., V), ids (...) -> (...) in nats; exactly 0 where the label is -100, at positions that are not trained.
    """
    return weigh_cross_entropy(token_log_probs(logits, labels), weighting)


def spin(
    policy_gold: Tensor, policy_rollout: Tensor, reference_gold: Tensor, reference_rollout: Tensor, beta: float = 0.1
) -> Tensor:
    """Self-play loss of pairs (ground truth y, rollout y') (Chen et al. 2024; Eq. 2).

    The argument of Eq. 2 as printed has the inverse sign: minimising it would lower the likelihood of the ground
    truth. This is what the text and SPIN itself say:

        -logsigmoid(beta [(log pi(y) - log ref(y)) - (log pi(y') - log ref(y'))])

    Where the policy equals the reference the loss is log 2. All are (B,), the log-probabilities log pi(y | x) summed
    over each text's tokens; beta is the regularisation (lambda of Eq. 2).
    """
    margin = (policy_gold - reference_gold) - (policy_rollout - reference_rollout)
    return -F.logsigmoid(beta * at_least_fp32(margin))


def chunked_divergence(
    student_hidden: Tensor,
    student_weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    kind: Divergence = "reverse_kl",
    beta: float = 0.5,
    temperature: float = 1.0,
    *,
    student_bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    student_scale: float = 1.0,
    teacher_scale: float = 1.0,
    student_softcap: float | None = None,
    teacher_softcap: float | None = None,
) -> Tensor:
    """`token_divergence` from hidden states, without ever holding (N, V) logits.

    States (N, H_s) and (N, H_t) that the heads read, weights (V, H_s) and (V', H_t), biases (V,) and (V',) -> (N,) in
    nats, fp32, with a gradient to the student's tensors only. A scale multiplies the logits (Cohere, Granite), a soft
    cap is the c of c tanh(logits / c) (Gemma).

    The kernel is TRL's (Triton on CUDA, torch elsewhere). Its `beta` also chooses the kind, with 0 for forward and 1
    for reverse KL; ours is the mixture's share alone.

    Raises:
        ValueError: as `token_divergence`.
    """
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    _check_beta(kind, beta)
    shared = min(student_weight.shape[0], teacher_weight.shape[0])
    student = student_hidden, _first_rows(student_weight, shared), _first_rows(student_bias, shared)
    teacher = teacher_hidden.detach(), _first_rows(teacher_weight, shared), _first_rows(teacher_bias, shared)
    chosen = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": beta}[kind]
    caps = student_scale, student_softcap, teacher_scale, teacher_softcap
    divergence, _ = ChunkedDivergenceFunction.apply(*student, *teacher, chosen, temperature, *caps)
    return divergence


def chunked_log_probs(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """`token_log_probs` from hidden states, without ever holding (N, V) logits (TRL's kernel).

    States (N, H), weights (V, H), ids (N,) that are all trained, bias (V,) -> (N,) in nats, fp32; scale and soft cap as
    in `chunked_divergence`.
    """
    from trl.kernels import ChunkedLogProbFunction

    outputs = ChunkedLogProbFunction.apply(hidden, weight, bias, labels, 1.0, VOCABULARY_TILE, softcap, scale, ())
    return outputs[0]


def _first_rows(tensor: Tensor | None, rows: int) -> Tensor | None:
    return tensor if tensor is None or tensor.shape[0] == rows else tensor[:rows]
