"""Losses against sums written out by hand, against TRL, and against themselves (dense and chunked)."""

import math

import pytest
import torch

from dudi.objective.losses import (
    IGNORE,
    chunked_divergence,
    chunked_log_probs,
    cross_entropy,
    spin,
    token_divergence,
    token_log_probs,
    weigh_cross_entropy,
)

KINDS = ("forward_kl", "reverse_kl", "jsd")


def normal(*shape, seed=0, scale=1.0, dtype=torch.float32):
    """A seeded tensor that no global generator has a part in."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def log_odds(*probabilities):
    """Logits of a distribution that is written down as probabilities."""
    return torch.tensor([math.log(p) for p in probabilities], dtype=torch.float64)


# The references: plain Python floats, one sum at a time.


def softmax_by_hand(logits, temperature=1.0):
    powers = [math.exp(value / temperature) for value in logits]
    return [power / sum(powers) for power in powers]


def kl_by_hand(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def divergence_by_hand(student, teacher, kind, beta=0.5, temperature=1.0):
    s, t = softmax_by_hand(student, temperature), softmax_by_hand(teacher, temperature)
    if kind == "forward_kl":
        return kl_by_hand(t, s)
    if kind == "reverse_kl":
        return kl_by_hand(s, t)
    m = [beta * a + (1 - beta) * b for a, b in zip(t, s, strict=True)]
    return beta * kl_by_hand(t, m) + (1 - beta) * kl_by_hand(s, m)


def spin_by_hand(policy_gold, policy_rollout, reference_gold, reference_rollout, beta):
    t = beta * ((policy_gold - reference_gold) - (policy_rollout - reference_rollout))
    return math.log(1 + math.exp(-t))


class TestTokenDivergence:
    @pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
    @pytest.mark.parametrize(
        ("kind", "beta"), [("forward_kl", 0.5), ("reverse_kl", 0.5), ("jsd", 0.5), ("jsd", 0.1), ("jsd", 0.9)]
    )
    def test_equals_the_sum_written_by_hand(self, kind, beta, temperature):
        student = normal(2, 3, 7, seed=1, scale=2.0, dtype=torch.float64)
        teacher = normal(2, 3, 7, seed=2, scale=2.0, dtype=torch.float64)
        got = token_divergence(student, teacher, kind, beta, temperature)
        assert got.shape == (2, 3)
        for b in range(2):
            for t in range(3):
                expected = divergence_by_hand(student[b, t].tolist(), teacher[b, t].tolist(), kind, beta, temperature)
                assert got[b, t].item() == pytest.approx(expected, abs=1e-13)

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            # student (1/2, 1/2), teacher (3/4, 1/4):
            ("forward_kl", 0.75 * math.log(1.5) + 0.25 * math.log(0.5)),  # 0.1308...
            ("reverse_kl", 0.5 * math.log(2 / 3) + 0.5 * math.log(2)),  # 0.1438...
            # m = (5/8, 3/8)
            (
                "jsd",
                0.5 * (0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3)) + 0.25 * (math.log(4 / 5) + math.log(4 / 3)),
            ),
        ],
    )
    def test_hand_computed_values(self, kind, expected):
        got = token_divergence(log_odds(0.5, 0.5), log_odds(0.75, 0.25), kind)
        assert got.item() == pytest.approx(expected, abs=1e-14)

    def test_the_numbers_of_those_values(self):
        student, teacher = log_odds(0.5, 0.5), log_odds(0.75, 0.25)
        assert token_divergence(student, teacher, "forward_kl").item() == pytest.approx(0.130812, abs=1e-6)
        assert token_divergence(student, teacher, "reverse_kl").item() == pytest.approx(0.143841, abs=1e-6)
        assert token_divergence(student, teacher, "jsd").item() == pytest.approx(0.033822, abs=1e-6)

    def test_jsd_weighs_the_teacher_with_beta(self):
        # teacher (9/10, 1/10), student (1/5, 4/5), beta 1/4: m = (3/8, 5/8)
        expected = 0.25 * (0.9 * math.log(2.4) + 0.1 * math.log(0.16)) + 0.75 * (
            0.2 * math.log(8 / 15) + 0.8 * math.log(1.28)
        )
        student, teacher = log_odds(0.2, 0.8), log_odds(0.9, 0.1)
        assert token_divergence(student, teacher, "jsd", beta=0.25).item() == pytest.approx(expected, abs=1e-14)
        assert token_divergence(teacher, student, "jsd", beta=0.25).item() != pytest.approx(expected, abs=1e-2)

    def test_forward_kl_is_the_teachers_kl_to_the_student(self):
        """The teacher is nearly sure, the student spreads: cheap under KL(teacher||student), dear the other way."""
        student, teacher = log_odds(0.5, 0.5), log_odds(0.999, 0.001)
        forward = token_divergence(student, teacher, "forward_kl").item()
        reverse = token_divergence(student, teacher, "reverse_kl").item()
        assert forward == pytest.approx(0.999 * math.log(1.998) + 0.001 * math.log(0.002), abs=1e-12)
        assert reverse == pytest.approx(0.5 * math.log(0.5 / 0.999) + 0.5 * math.log(500), abs=1e-12)
        assert forward < 0.7 < 2.7 < reverse

    def test_reverse_kl_is_the_default(self):
        student, teacher = log_odds(0.5, 0.5), log_odds(0.999, 0.001)
        assert token_divergence(student, teacher) == token_divergence(student, teacher, "reverse_kl")

    @pytest.mark.parametrize("kind", KINDS)
    def test_zero_between_equals(self, kind):
        logits = normal(5, 100, seed=3, scale=4.0).requires_grad_()
        value = token_divergence(logits, logits.detach().clone(), kind)
        assert value.abs().max() < 1e-6
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert gradient.abs().max() < 1e-6

    @pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
    def test_exactly_zero_between_the_same_numbers(self, kind):
        logits = normal(5, 100, seed=3, scale=4.0)
        assert torch.equal(token_divergence(logits, logits.clone(), kind), torch.zeros(5))

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_constant_added_to_the_logits_changes_nothing(self, kind):
        student, teacher = normal(4, 9, seed=4, dtype=torch.float64), normal(4, 9, seed=5, dtype=torch.float64)
        moved = token_divergence(student + 100.0, teacher - 50.0, kind)
        torch.testing.assert_close(moved, token_divergence(student, teacher, kind), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("kind", KINDS)
    def test_extreme_logits_stay_finite(self, kind):
        student = torch.tensor([[0.0, -1e4, -50.0]], requires_grad=True)
        value = token_divergence(student, torch.tensor([[-60.0, 0.0, -1e4]]), kind)
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        if kind == "jsd":
            assert value.item() == pytest.approx(math.log(2), abs=1e-6)

    @pytest.mark.parametrize("kind", KINDS)
    def test_gradcheck(self, kind):
        student = normal(2, 3, 5, seed=6, dtype=torch.float64).requires_grad_()
        teacher = normal(2, 3, 5, seed=7, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda s, t: token_divergence(s, t, kind, 0.3, 0.8), (student, teacher))

    def test_the_gradient_of_forward_kl_is_student_minus_teacher(self):
        student = log_odds(0.5, 0.3, 0.2).requires_grad_()
        (gradient,) = torch.autograd.grad(token_divergence(student, log_odds(0.1, 0.2, 0.7), "forward_kl"), student)
        torch.testing.assert_close(gradient, torch.tensor([0.4, 0.1, -0.5], dtype=torch.float64), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("kind", KINDS)
    def test_padding_of_either_vocabulary_is_left_out(self, kind):
        student, teacher = normal(3, 10, seed=8, dtype=torch.float64), normal(3, 14, seed=9, dtype=torch.float64)
        expected = torch.tensor(
            [divergence_by_hand(student[i].tolist(), teacher[i, :10].tolist(), kind) for i in range(3)],
            dtype=torch.float64,
        )
        torch.testing.assert_close(token_divergence(student, teacher, kind), expected, rtol=0, atol=1e-12)
        swapped = {"forward_kl": "reverse_kl", "reverse_kl": "forward_kl", "jsd": "jsd"}[kind]
        torch.testing.assert_close(token_divergence(teacher, student, swapped), expected, rtol=0, atol=1e-12)

    def test_the_qwen_sizes(self):
        student, teacher = normal(2, 151936, seed=10), normal(2, 152064, seed=11)
        teacher[:, 151936:] = 50.0  # what an untrained padded row may say
        cut = token_divergence(student, teacher[:, :151936].contiguous())
        assert torch.equal(token_divergence(student, teacher), cut)
        assert (cut < 10).all()

    @pytest.mark.parametrize("kind", KINDS)
    def test_precision(self, kind):
        student, teacher = normal(4, 50, seed=12, dtype=torch.float64), normal(4, 50, seed=13, dtype=torch.float64)
        assert token_divergence(student, teacher, kind).dtype == torch.float64
        assert token_divergence(student.float(), teacher.float(), kind).dtype == torch.float32
        half = token_divergence(student.bfloat16(), teacher.bfloat16(), kind)
        assert half.dtype == torch.float32
        # The only loss is the rounding of the inputs: the softmax itself runs in fp32.
        rounded = token_divergence(student.bfloat16().double(), teacher.bfloat16().double(), kind)
        torch.testing.assert_close(half.double(), rounded, rtol=1e-4, atol=1e-6)

    def test_unknown_kind(self):
        with pytest.raises(ValueError, match="reverse_kl"):
            token_divergence(torch.zeros(1, 3), torch.zeros(1, 3), "reverse-kl")

    @pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, 1.5])
    def test_jsd_has_no_ends(self, beta):
        with pytest.raises(ValueError, match="0 < beta < 1"):
            token_divergence(torch.zeros(1, 3), torch.zeros(1, 3), "jsd", beta=beta)

    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    @pytest.mark.parametrize(("trl_beta", "kind"), [(0, "forward_kl"), (0.5, "jsd"), (0.1, "jsd"), (1, "reverse_kl")])
    def test_trl_agrees(self, trl_beta, kind, temperature, monkeypatch):
        monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        from trl.experimental.gkd.gkd_trainer import GKDTrainer

        student, teacher = normal(2, 5, 30, seed=14, scale=2.0), normal(2, 5, 30, seed=15, scale=2.0)
        labels = torch.ones(2, 5, dtype=torch.int64)
        labels[0, 3:] = IGNORE
        theirs = GKDTrainer.generalized_jsd_loss(
            student, teacher, labels=labels, beta=trl_beta, temperature=temperature
        )
        beta = trl_beta if kind == "jsd" else 0.5
        ours = token_divergence(student, teacher, kind, beta, temperature)[labels != IGNORE].mean()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
        other = token_divergence(teacher, student, kind, beta, temperature)[labels != IGNORE].mean()
        assert trl_beta == 0.5 or abs(other - theirs) > 1e-3


class TestLogProbsAndCrossEntropy:
    def test_equals_the_sum_written_by_hand(self):
        logits = normal(2, 3, 6, seed=20, scale=3.0, dtype=torch.float64)
        labels = torch.tensor([[0, 5, IGNORE], [2, IGNORE, 3]])
        got = token_log_probs(logits, labels)
        for b in range(2):
            for t in range(3):
                label = labels[b, t].item()
                expected = 0.0 if label == IGNORE else math.log(softmax_by_hand(logits[b, t].tolist())[label])
                assert got[b, t].item() == pytest.approx(expected, abs=1e-13)
        totals = token_log_probs(logits, labels).sum(-1)
        assert totals.tolist() == pytest.approx(
            [(got[0, 0] + got[0, 1]).item(), (got[1, 0] + got[1, 2]).item()], abs=1e-13
        )

    def test_hand_computed_values(self):
        logits = log_odds(0.25, 0.75).expand(3, 2)
        labels = torch.tensor([0, 1, IGNORE])
        assert cross_entropy(logits, labels).tolist() == pytest.approx([math.log(4), math.log(4 / 3), 0.0], abs=1e-14)
        # DFT: 1/4 log 4 and 3/4 log 4/3.
        assert cross_entropy(logits, labels, "dft").tolist() == pytest.approx(
            [0.25 * math.log(4), 0.75 * math.log(4 / 3), 0.0], abs=1e-14
        )

    @pytest.mark.parametrize("weighting", ["sft", "dft"])
    def test_all_masked_is_exactly_zero_with_a_gradient(self, weighting):
        logits = normal(2, 4, 9, seed=21).requires_grad_()
        loss = cross_entropy(logits, torch.full((2, 4), IGNORE), weighting)
        assert torch.equal(loss, torch.zeros(2, 4))
        loss.sum().backward()
        assert torch.equal(logits.grad, torch.zeros(2, 4, 9))

    @pytest.mark.parametrize("weighting", ["sft", "dft"])
    def test_a_masked_position_has_no_gradient_and_the_others_have(self, weighting):
        logits = normal(3, 9, seed=22).requires_grad_()
        cross_entropy(logits, torch.tensor([4, IGNORE, 8]), weighting).sum().backward()
        assert logits.grad[1].abs().max() == 0
        assert logits.grad[0].abs().max() > 1e-3 < logits.grad[2].abs().max()

    def test_dft_is_p_times_cross_entropy_with_no_gradient_through_p(self):
        logits = normal(6, 11, seed=23, dtype=torch.float64).requires_grad_()
        labels = torch.tensor([0, 3, 3, 7, 10, 1])
        plain = cross_entropy(logits, labels)
        weighted = cross_entropy(logits, labels, "dft")
        p = logits.softmax(-1)[torch.arange(6), labels].detach()
        torch.testing.assert_close(weighted, p * plain)
        (got,) = torch.autograd.grad(weighted.sum(), logits, retain_graph=True)
        (held,) = torch.autograd.grad((p * plain).sum(), logits)
        torch.testing.assert_close(got, held)
        # With the gradient through the weight it would be another one.
        q = logits.softmax(-1)[torch.arange(6), labels]
        (through,) = torch.autograd.grad((-q * q.log()).sum(), logits)
        assert (through - got).abs().max() > 1e-2

    def test_gradcheck(self):
        logits = normal(2, 3, 5, seed=24, dtype=torch.float64).requires_grad_()
        labels = torch.tensor([[0, 4, IGNORE], [2, 2, 1]])
        assert torch.autograd.gradcheck(lambda x: cross_entropy(x, labels), (logits,))
        assert torch.autograd.gradcheck(lambda x: token_log_probs(x, labels).sum(-1), (logits,))

    def test_precision(self):
        logits, labels = normal(4, 50, seed=25, dtype=torch.float64), torch.tensor([1, 2, 3, IGNORE])
        assert cross_entropy(logits, labels).dtype == torch.float64
        assert cross_entropy(logits.bfloat16(), labels).dtype == torch.float32
        torch.testing.assert_close(
            cross_entropy(logits.bfloat16(), labels).double(),
            cross_entropy(logits.bfloat16().double(), labels),
            rtol=1e-5,
            atol=1e-6,
        )

    def test_unknown_weighting(self):
        with pytest.raises(ValueError, match="sft, dft"):
            weigh_cross_entropy(torch.zeros(2), "focal")


class TestSpin:
    def test_log_2_where_the_policy_is_the_reference(self):
        gold, rollout = normal(8, seed=30, scale=50.0), normal(8, seed=31, scale=50.0)
        torch.testing.assert_close(spin(gold, rollout, gold.clone(), rollout.clone()), torch.full((8,), math.log(2)))

    def test_equals_the_formula_written_by_hand(self):
        values = [(-10.0, -12.0, -11.0, -11.5), (-3.0, -1.0, -2.0, -9.0), (-40.0, -2.0, -38.0, -2.5)]
        columns = [torch.tensor(column, dtype=torch.float64) for column in zip(*values, strict=True)]
        for beta in (0.1, 1.0):
            expected = [spin_by_hand(*value, beta) for value in values]
            assert spin(*columns, beta=beta).tolist() == pytest.approx(expected, abs=1e-13)

    def test_hand_computed_value(self):
        # margin (-10 + 11) - (-12 + 11.5) = 1.5; log(1 + e^-0.15) = 0.6209...
        arguments = [torch.tensor([x]) for x in (-10.0, -12.0, -11.0, -11.5)]
        assert spin(*arguments).item() == pytest.approx(math.log1p(math.exp(-0.15)), abs=1e-6)
        assert spin(*arguments).item() == pytest.approx(0.620957, abs=1e-6)

    def test_the_sign(self):
        """Raising the ground truth's likelihood lowers the loss; raising the rollout's raises it."""
        arguments = [torch.tensor([-5.0], requires_grad=True) for _ in range(4)]
        gradients = torch.autograd.grad(spin(*arguments, beta=0.1).sum(), arguments)
        assert [g.item() for g in gradients] == pytest.approx([-0.05, 0.05, 0.05, -0.05], abs=1e-6)

    def test_a_gradient_step_raises_gold_and_lowers_the_rollout(self):
        logits = normal(2, 5, 12, seed=32).requires_grad_()  # the policy at (y, y') of one pair
        labels = torch.randint(12, (2, 5), generator=torch.Generator().manual_seed(33))
        before = token_log_probs(logits, labels).sum(-1)
        reference = before.detach()
        spin(before[:1], before[1:], reference[:1], reference[1:]).sum().backward()
        with torch.no_grad():
            after = token_log_probs(logits - 0.5 * logits.grad, labels).sum(-1)
        assert after[0] > reference[0] + 1e-3
        assert after[1] < reference[1] - 1e-3

    def test_gradcheck(self):
        arguments = [normal(3, seed=34 + i, dtype=torch.float64).requires_grad_() for i in range(4)]
        assert torch.autograd.gradcheck(lambda *a: spin(*a, beta=0.7), arguments)

    def test_extreme_margins_stay_finite(self):
        zero = torch.zeros(2)
        gold = torch.tensor([-1e5, 1e5], requires_grad=True)
        loss = spin(gold, zero, zero, zero)
        loss.sum().backward()
        assert loss.tolist() == pytest.approx([1e4, 0.0])
        assert gold.grad.tolist() == pytest.approx([-0.1, 0.0], abs=1e-6)

    def test_precision(self):
        arguments = [normal(3, seed=38 + i, dtype=torch.float64) for i in range(4)]
        assert spin(*arguments).dtype == torch.float64
        assert spin(*(a.bfloat16() for a in arguments)).dtype == torch.float32


# Dense logits from the same pieces as the chunked kernels.


def dense_logits(hidden, weight, bias, scale, softcap):
    logits = hidden @ weight.T
    if bias is not None:
        logits = logits + bias
    logits = logits * scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


HEADS = [
    pytest.param({}, id="plain"),
    pytest.param({"student_bias": True, "teacher_bias": True}, id="bias"),
    pytest.param({"student_scale": 0.25, "teacher_scale": 2.0}, id="scale"),
    pytest.param({"student_softcap": 3.0, "teacher_softcap": 5.0}, id="softcap"),
    pytest.param({"temperature": 0.6}, id="temperature"),
    pytest.param(
        {
            "student_bias": True,
            "teacher_scale": 0.5,
            "student_scale": 1.5,
            "student_softcap": 4.0,
            "temperature": 1.7,
        },
        id="all",
    ),
]


class TestChunked:
    @pytest.mark.parametrize("options", HEADS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_divergence_equals_the_dense_one(self, kind, options):
        rows, vocabulary, beta = 23, 70, 0.3
        hidden = normal(rows, 16, seed=40).requires_grad_()
        weight = normal(vocabulary, 16, seed=41, scale=0.4).requires_grad_()
        teacher_hidden = normal(rows, 24, seed=42)
        teacher_weight = normal(vocabulary, 24, seed=43, scale=0.4)
        options = dict(options)
        temperature = options.pop("temperature", 1.0)
        biases = {}
        if options.pop("student_bias", False):
            biases["student_bias"] = normal(vocabulary, seed=44).requires_grad_()
        if options.pop("teacher_bias", False):
            biases["teacher_bias"] = normal(vocabulary, seed=45)
        chunked = chunked_divergence(
            hidden, weight, teacher_hidden, teacher_weight, kind, beta, temperature, **biases, **options
        )
        student_logits, teacher_logits = (
            dense_logits(
                h, w, biases.get(f"{who}_bias"), options.get(f"{who}_scale", 1.0), options.get(f"{who}_softcap")
            )
            for who, h, w in (("student", hidden, weight), ("teacher", teacher_hidden, teacher_weight))
        )
        dense = token_divergence(student_logits, teacher_logits, kind, beta, temperature)
        assert dense.min() > 1e-3  # there is something to compare
        torch.testing.assert_close(chunked, dense, rtol=1e-5, atol=1e-5)

        upstream = normal(rows, seed=46)
        wanted = [hidden, weight, *(b for b in biases.values() if b.requires_grad)]
        ours = torch.autograd.grad((chunked * upstream).sum(), wanted)
        reference = torch.autograd.grad((dense * upstream).sum(), wanted)
        for got, expected in zip(ours, reference, strict=True):
            assert expected.abs().max() > 1e-2
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_really_walks_the_vocabulary_in_pieces(self, kind, monkeypatch):
        from trl.kernels import chunked_divergence as kernel

        monkeypatch.setattr(kernel, "TOKEN_CHUNK_SIZE", 8)
        monkeypatch.setattr(kernel, "VOCAB_CHUNK_SIZE", 32)
        self.test_divergence_equals_the_dense_one(kind, {"student_softcap": 3.0})

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_teacher_gets_no_gradient(self, kind):
        hidden, weight = normal(4, 8, seed=50).requires_grad_(), normal(20, 8, seed=51)
        teacher_hidden, teacher_weight = normal(4, 8, seed=52).requires_grad_(), normal(20, 8, seed=53)
        chunked_divergence(hidden, weight, teacher_hidden, teacher_weight, kind).sum().backward()
        assert teacher_hidden.grad is None
        assert hidden.grad.abs().max() > 0

    def test_the_qwen_sizes(self):
        hidden, teacher_hidden = normal(2, 8, seed=54).requires_grad_(), normal(2, 8, seed=55)
        weight = normal(151936, 8, seed=56, scale=0.5).requires_grad_()
        teacher_weight = normal(152064, 8, seed=57, scale=0.5)
        teacher_weight[151936:] = 100.0 * teacher_hidden[0]  # a padded row that would win
        chunked = chunked_divergence(hidden, weight, teacher_hidden, teacher_weight)
        # In float64: over so many ids a sum in fp32 is itself off by more than 1e-5.
        dense = token_divergence(
            hidden.double() @ weight.double().T, teacher_hidden.double() @ teacher_weight.double().T
        ).float()
        assert 0.5 < dense.min() < dense.max() < 20
        torch.testing.assert_close(chunked, dense, rtol=1e-5, atol=1e-5)
        ours = torch.autograd.grad(chunked.sum(), [hidden, weight])
        expected = torch.autograd.grad(dense.sum(), [hidden, weight])
        torch.testing.assert_close(ours[0], expected[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours[1], expected[1], rtol=1e-4, atol=1e-5)

    def test_a_larger_student_gets_no_gradient_in_its_padding(self):
        weight = normal(24, 8, seed=58).requires_grad_()
        chunked_divergence(
            normal(3, 8, seed=59), weight, normal(3, 8, seed=60), normal(20, 8, seed=61), student_bias=torch.zeros(24)
        ).sum().backward()
        assert weight.grad[20:].abs().max() == 0
        assert weight.grad[:20].abs().max() > 0

    def test_errors(self):
        tensors = (torch.zeros(2, 4), torch.zeros(5, 4), torch.zeros(2, 4), torch.zeros(5, 4))
        with pytest.raises(ValueError, match="not one of"):
            chunked_divergence(*tensors, "kl")
        for beta in (0.0, 1.0):
            with pytest.raises(ValueError, match="0 < beta < 1"):
                chunked_divergence(*tensors, "jsd", beta)

    def test_half_precision_gives_fp32(self):
        tensors = [normal(4, 16, seed=62), normal(50, 16, seed=63), normal(4, 16, seed=64), normal(50, 16, seed=65)]
        half = chunked_divergence(*(t.bfloat16() for t in tensors))
        assert half.dtype == torch.float32
        hidden, weight, teacher_hidden, teacher_weight = (t.bfloat16().float() for t in tensors)
        whole = token_divergence(hidden @ weight.T, teacher_hidden @ teacher_weight.T)
        torch.testing.assert_close(half, whole, rtol=5e-2, atol=5e-2)

    @pytest.mark.parametrize("tile", [32768, 16])
    @pytest.mark.parametrize("softcap", [None, 3.0])
    @pytest.mark.parametrize("scale", [1.0, 0.4])
    def test_log_probs_equal_the_dense_ones(self, scale, softcap, tile, monkeypatch):
        monkeypatch.setattr("dudi.objective.losses.VOCABULARY_TILE", tile)
        hidden, weight = normal(9, 16, seed=70).requires_grad_(), normal(70, 16, seed=71).requires_grad_()
        bias = normal(70, seed=72).requires_grad_()
        labels = torch.tensor([0, 69, 5, 5, 33, 12, 1, 2, 68])
        chunked = chunked_log_probs(hidden, weight, labels, bias=bias, scale=scale, softcap=softcap)
        dense = token_log_probs(dense_logits(hidden, weight, bias, scale, softcap), labels)
        torch.testing.assert_close(chunked, dense, rtol=1e-5, atol=1e-5)
        upstream = normal(9, seed=73)
        for got, expected in zip(
            torch.autograd.grad((chunked * upstream).sum(), [hidden, weight, bias]),
            torch.autograd.grad((dense * upstream).sum(), [hidden, weight, bias]),
            strict=True,
        ):
            assert expected.abs().max() > 1e-2
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
