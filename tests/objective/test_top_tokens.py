"""A teacher's likeliest tokens and their tail: the dense loss where all are named, less elsewhere, exact gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dudi.objective.heads import Distance, Head, weighted_divergence, weighted_top_divergence
from dudi.objective.losses import token_divergence
from dudi.objective.top_tokens import TopTokens, student_events, top_divergence

KINDS = [("forward_kl", 0.5), ("reverse_kl", 0.5), ("jsd", 0.5), ("jsd", 0.1)]


def top_tokens(logits, labels, k):
    """The label and the k likeliest tokens of teacher logits (N, V), with the exact tail."""
    log_probs = logits.double().log_softmax(-1)
    likeliest = log_probs.topk(k).indices
    ids = torch.cat([labels.unsqueeze(1), likeliest], dim=1)
    void = torch.cat([torch.zeros_like(ids[:, :1], dtype=torch.bool), likeliest == labels.unsqueeze(1)], dim=1)
    named = log_probs.gather(1, ids).masked_fill(void, -torch.inf)
    rest = log_probs.scatter(1, ids, -torch.inf).logsumexp(1, keepdim=True)
    return TopTokens(ids, torch.cat([named, rest], dim=1))


def normal(*shape, seed=0, scale=3.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_with_every_token_named_it_is_the_dense_loss(kind, beta):
    student, teacher, labels = normal(6, 30, seed=1).requires_grad_(), normal(6, 30, seed=2), torch.arange(6)
    top = top_tokens(teacher, labels, 30)
    assert bool(top.log_probs[:, -1].isneginf().all())
    ours, dense = top_divergence(student, top, kind, beta), token_divergence(student, teacher, kind, beta)
    torch.testing.assert_close(ours, dense, rtol=1e-12, atol=1e-12)
    (own,), (whole,) = (torch.autograd.grad(values.sum(), student) for values in (ours, dense))
    torch.testing.assert_close(own, whole, rtol=1e-10, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.1, 1.0, 5.0, 20.0]),
    k=st.integers(1, 18),
    kind=st.sampled_from(KINDS),
)
def test_it_is_never_above_the_dense_loss_and_grows_with_k(seed, scale, k, kind):
    """Data processing: through coarser events two distributions are closer."""
    student, teacher = normal(4, 20, seed=seed, scale=scale), normal(4, 20, seed=seed + 1, scale=scale)
    labels = torch.tensor([0, 5, 19, 7])
    found = [top_divergence(student, top_tokens(teacher, labels, one), *kind) for one in (k, min(k + 1, 18))]
    whole = token_divergence(student, teacher, *kind)
    slack = 1e-9 * (1 + whole.abs())
    assert bool((found[0] >= -slack).all())
    assert bool((found[0] <= found[1] + slack).all()) and bool((found[1] <= whole + slack).all())


@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_the_gradient_is_exact(kind, beta):
    student, teacher = normal(3, 12, seed=3).requires_grad_(), normal(3, 12, seed=4)
    top = top_tokens(teacher, torch.tensor([0, 11, 4]), 4)
    assert torch.autograd.gradcheck(lambda logits: top_divergence(logits, top, kind, beta), student)


def test_a_small_tail_of_the_student_is_no_rounding():
    logits = torch.tensor([[30.0, 29.0, 8.0, 7.0, 6.0]])
    top = TopTokens(torch.tensor([[0, 1]]), torch.tensor([[-0.5, -1.0, -4.0]]))
    exact = student_events(logits.double(), top)[0, -1]
    assert student_events(logits, top)[0, -1].item() == pytest.approx(exact.item(), rel=1e-6)
    assert exact.exp() < 1e-9


@pytest.mark.parametrize(("kind", "beta"), KINDS)
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_the_sweep_is_the_plain_loss(kind, beta, softcap, monkeypatch):
    from dudi.objective import fused

    monkeypatch.setattr(fused, "CPU_TILE", 3 * 50)  # three rows at a time
    monkeypatch.setattr(fused, "FEWEST_ROWS", 1)
    hidden, teacher = normal(8, 6, seed=5).requires_grad_(), normal(8, 50, seed=8)
    weight, bias = normal(50, 6, seed=6, scale=0.5).requires_grad_(), normal(50, seed=7, scale=0.1).requires_grad_()
    head, weights = Head(weight, bias, 0.7, softcap), torch.rand(8, dtype=torch.float64)
    top, values, seen = top_tokens(teacher, torch.arange(8), 5), torch.zeros(8, dtype=torch.float64), []
    total = weighted_top_divergence(
        head, hidden, top, weights, Distance(kind, beta, 1.0), lambda rows, *_: seen.append(rows), values
    )
    rows = top_divergence(head.logits(hidden), top, kind, beta)
    torch.testing.assert_close(total, (rows * weights).sum())
    torch.testing.assert_close(values, rows.detach())
    assert [rows.stop for rows in seen] == [3, 6, 8]
    tensors = (hidden, weight, bias)
    for own, plain in zip(
        torch.autograd.grad(2 * total, tensors), torch.autograd.grad(2 * (rows * weights).sum(), tensors), strict=True
    ):
        torch.testing.assert_close(own, plain)


def test_all_tokens_through_the_sweep_are_the_fused_loss():
    hidden, theirs = normal(8, 6, seed=9).requires_grad_(), normal(8, 4, seed=10)
    student, teacher = Head(normal(40, 6, seed=11)), Head(normal(40, 4, seed=12))
    weights, distance = torch.rand(8, dtype=torch.float64), Distance("jsd", 0.3, 1.0)
    top = top_tokens(teacher.logits(theirs), torch.arange(8), 40)
    torch.testing.assert_close(
        weighted_top_divergence(student, hidden, top, weights, distance),
        weighted_divergence(student, hidden, teacher, theirs, weights, distance, "fused"),
    )


def test_the_likeliest_tokens_are_those_of_the_teacher():
    teacher = normal(5, 30, seed=13)
    top = top_tokens(teacher, torch.tensor([0, 3, 29, 8, 8]), 12)
    expected = teacher.topk(8).indices.sort(1).values
    assert torch.equal(top.likeliest(8).sort(1).values, expected)
