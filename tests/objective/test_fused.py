"""The fused head against dense autograd: the same values and gradients, tile by tile, and few tables held."""

import pytest
import torch

from dudi.objective import fused
from dudi.objective.heads import Distance, Head, divergence, weighted_divergence
from dudi.objective.losses import token_divergence, token_log_probs

ROWS, WIDTH, WIDER, VOCABULARY = 23, 12, 20, 331


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Several tiles, several blocks in a tile, and a last one that is not full."""
    monkeypatch.setattr(fused, "CPU_TILE", 7 * VOCABULARY)
    monkeypatch.setattr(fused, "FEWEST_ROWS", 2)
    monkeypatch.setattr(fused, "CPU_BLOCK", 3 * VOCABULARY)


def tensors(dtype=torch.float64, bias=True):
    draw = torch.Generator().manual_seed(3)

    def some(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    student = [some(ROWS, WIDTH), some(VOCABULARY, WIDTH), some(VOCABULARY) if bias else None]
    teacher = [some(ROWS, WIDER), some(VOCABULARY, WIDER), some(VOCABULARY) if bias else None]
    weights = torch.rand(ROWS, generator=draw, dtype=torch.float64).to(dtype)
    weights[[2, 9]] = 0
    return [t.requires_grad_() if t is not None else None for t in student], teacher, weights


def gradients(loss, inputs):
    return torch.autograd.grad(loss * 1.7, [t for t in inputs if t is not None])


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize(("temperature", "scale", "bias"), [(1.0, 1.0, False), (0.7, 0.5, True)])
def test_value_and_gradient_are_those_of_dense_logits(kind, temperature, scale, bias):
    student, teacher, weights = tensors(bias=bias)
    what = fused.Divergence(kind, 0.3, temperature, scale, 2 * scale)
    ours = fused.weighted_divergence(what, tuple(student), tuple(teacher), weights)
    logits = [torch.nn.functional.linear(*side) * s for side, s in ((student, scale), (teacher, 2 * scale))]
    dense = (token_divergence(*logits, kind, 0.3, temperature) * weights).sum()
    torch.testing.assert_close(ours, dense, rtol=1e-12, atol=1e-12)
    for mine, other in zip(gradients(ours, student), gradients(dense, student), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_in_fp32_it_is_as_close_to_the_truth_as_dense_logits_are(kind):
    student, teacher, weights = tensors(torch.float32, bias=False)
    heads = Head(student[1]), Head(teacher[1])
    distance = Distance(kind, 0.5, 1.0)
    values, grads = {}, {}
    for kernel in ("fused", "dense"):
        values[kernel] = weighted_divergence(heads[0], student[0], heads[1], teacher[0], weights, distance, kernel)
        grads[kernel] = gradients(values[kernel], student)
    exact_student, (teacher_hidden, teacher_weight, _), exact_weights = tensors(bias=False)
    rows = divergence(Head(exact_student[1]), exact_student[0], Head(teacher_weight), teacher_hidden, distance)
    exact = (rows * exact_weights).sum()
    truth = gradients(exact, exact_student)
    for kernel in ("fused", "dense"):
        assert values[kernel].item() == pytest.approx(exact.item(), rel=2e-6)
        for grad, true in zip(grads[kernel], truth, strict=True):
            torch.testing.assert_close(grad.double(), true, rtol=1e-4, atol=2e-5)


def test_where_both_models_are_certain_nothing_is_nan():
    hidden = torch.tensor([[200.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [-2.0]], requires_grad=True)
    for kind in ("forward_kl", "reverse_kl", "jsd"):
        what = fused.Divergence(kind)
        value = fused.weighted_divergence(
            what, (hidden, weight, None), (hidden.detach(), weight.detach(), None), torch.ones(1)
        )
        assert value.item() == pytest.approx(0, abs=1e-6)
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad(value, [hidden, weight]))


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(("scale", "bias"), [(1.0, False), (0.5, True)])
def test_log_probs_of_labels(scale, bias, held, monkeypatch):
    monkeypatch.setattr(fused, "HELD_LOGITS", ROWS * VOCABULARY + held)
    student, _, upstream = tensors(bias=bias)
    labels = torch.arange(ROWS) * 13 % VOCABULARY
    ours = fused.label_log_probs(*student, labels, scale)
    dense = token_log_probs(torch.nn.functional.linear(*student) * scale, labels)
    torch.testing.assert_close(ours, dense, rtol=1e-12, atol=1e-12)
    mine, others = gradients(ours @ upstream, student), gradients(dense @ upstream, student)
    for one, other in zip(mine, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(fused.label_log_probs(*student, labels, scale), dense, rtol=1e-12, atol=1e-12)


def test_only_what_needs_a_gradient_gets_one():
    (hidden, weight, _), teacher, weights = tensors()
    hidden.requires_grad_(False)
    parts = fused.Divergence("jsd"), (hidden, weight, None), (*teacher[:2], None), weights
    loss = fused.weighted_divergence(*parts)
    loss.backward()
    assert hidden.grad is None
    assert teacher[1].grad is None
    assert weight.grad.abs().sum() > 0
    with torch.no_grad():
        other = fused.weighted_divergence(
            fused.Divergence("jsd"), (hidden, weight, None), (*teacher[:2], None), weights
        )
    assert other == loss


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_heads_in_16_bits_are_widened_piece_by_piece(kind, monkeypatch):
    """To the values of the whole head in fp32, of which no copy is made."""
    student, teacher, weights = tensors(torch.float32)
    student[1], teacher[1] = student[1].detach().bfloat16().requires_grad_(), teacher[1].bfloat16()
    labels = torch.arange(ROWS) * 13 % VOCABULARY

    def loss(ours, theirs):
        own = fused.label_log_probs(student[0], ours, student[2], labels) @ weights
        sides = (student[0], ours, student[2]), (teacher[0], theirs, teacher[2])
        return own + fused.weighted_divergence(fused.Divergence(kind), *sides, weights)

    whole = student[1].float(), teacher[1].float()
    truth = loss(*whole)
    expected = gradients(truth, student)
    monkeypatch.setattr(fused, "CPU_WIDENED", 100 * WIDTH)
    widest = []
    table = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **keys: widest.append(shape[0]) or table(*shape, **keys))
    found = loss(student[1], teacher[1])
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-6)
    hidden, weight, bias = zip(gradients(found, student), expected, strict=True)
    torch.testing.assert_close(*hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*weight, rtol=1e-2, atol=2e-2)  # each of its two parts is rounded to 16 bits
    torch.testing.assert_close(*bias, rtol=1e-4, atol=1e-5)
    assert {(100, WIDTH), (60, WIDER)} <= {*widest} and not {(VOCABULARY, WIDTH), (VOCABULARY, WIDER)} & {*widest}


@pytest.mark.parametrize("bias", [False, True])
def test_gathered_the_weights_gradient_is_what_autograd_would_have_added(bias):
    """Two divergences and the labels of one head, on top of a gradient that is there already."""
    student, teacher, weights = tensors(bias=bias)
    labels, factors = torch.arange(ROWS) * 13 % VOCABULARY, (0.3, 2.5)

    def loss(gathers):
        head = Head(student[1], student[2], 0.5, gathers=gathers)
        theirs = Head(teacher[1], teacher[2])
        sums = [
            weighted_divergence(head, student[0], theirs, teacher[0], weights, Distance(kind, 0.5, 0.7), factor=factor)
            for kind, factor in zip(("jsd", "reverse_kl"), factors, strict=True)
        ]
        own = head.log_probs(student[0], labels) @ weights
        return factors[0] * sums[0] + factors[1] * sums[1] + 1.7 * own

    found = []
    for gathers in (False, True):
        for tensor in student:
            if tensor is not None:
                tensor.grad = torch.ones_like(tensor)
        table = student[1].grad
        loss(gathers).backward()
        assert student[1].grad is table
        found.append([tensor.grad for tensor in student if tensor is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_factor_that_was_not_promised_is_an_error():
    student, teacher, weights = tensors(bias=False)
    head, theirs = Head(student[1], gathers=True), Head(teacher[1])
    total = weighted_divergence(head, student[0], theirs, teacher[0], weights, Distance("jsd", 0.5, 1.0), factor=0.3)
    with pytest.raises(RuntimeError, match=r"multiplied by 0\.5, and 0\.3 was promised"):
        (0.5 * total).backward()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_observer_sees_every_row_once(temperature):
    student, teacher, weights = tensors()
    seen = []
    fused.weighted_divergence(
        fused.Divergence("reverse_kl", temperature=temperature),
        tuple(student),
        tuple(teacher),
        weights,
        lambda rows, ours, theirs: seen.append((rows, ours.clone(), theirs.clone())),
    )
    assert [place for rows, _, _ in seen for place in range(rows.start, rows.stop)] == list(range(ROWS))
    assert {len(ours) for _, ours, _ in seen} == {3, 2}  # blocks of tiles of six and five rows
    with torch.no_grad():
        for side, (hidden, weight, bias) in ((1, student), (2, teacher)):
            logits = torch.nn.functional.linear(hidden, weight, bias)
            torch.testing.assert_close(torch.cat([s[side] for s in seen]), logits.log_softmax(-1))


def test_no_rows():
    student, teacher, _ = tensors(bias=False)
    loss = fused.weighted_divergence(
        fused.Divergence("jsd"), (student[0][:0], student[1], None), (teacher[0][:0], teacher[1], None), torch.zeros(0)
    )
    loss.backward()
    assert loss == 0
    assert not student[1].grad.any()
