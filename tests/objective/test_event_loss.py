"""The loss across tokenizers: today's where there is one tokenizer, and the truth where the truth is known."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from byte_source import PerfectModel, byte_source, next_byte
from dudi.objective import fused
from dudi.objective.event_batch import EventBatch
from dudi.objective.event_loss import UNKNOWN, EventLoss
from dudi.objective.heads import Distance, Head
from dudi.objective.losses import token_divergence
from dudi.objective.shared_events import END, Covers, SharedEvents
from helpers import SPECIALS, TEXT, make_tokenizer
from tokenizer_kinds import byte_bpe, sentence_piece

KINDS = ("forward_kl", "reverse_kl", "jsd")
TINY = {"letters": "ab", "length": 5, "seed": 4}


class Pair:
    """Two tokenizers with some texts in both."""

    def __init__(self, student, teacher, texts, kind="reverse_kl", beta=0.3, temperature=1.0):
        ends = [
            next(t.get_vocab()[e] for e in ("<|im_end|>", "<end_of_turn>") if e in t.get_vocab())
            for t in (student, teacher)
        ]
        self.sizes = len(student), len(teacher)
        self.events = SharedEvents(student, teacher, ends[:1], ends[1:])
        self.student = [[*student(text, add_special_tokens=False)["input_ids"], ends[0]] for text in texts]
        self.teacher = [self.events.encode(ids) for ids in self.student]
        self.aligned = [self.events.align(*both) for both in zip(self.student, self.teacher, strict=True)]
        self.batch = EventBatch(self.aligned, self.student, self.teacher)
        self.loss = EventLoss(self.events)
        self.distance = Distance(kind, beta, temperature)

    def divergence(self, student, teacher, batch=None):
        """Of all logits at once."""
        parts = [
            self.loss.judge(tile, student[tile.student.rows].t(), teacher[tile.teacher.rows].t(), self.distance)
            for tile in (batch or self.batch).tiles(2**62, student.device)
        ]
        return torch.cat(parts) if parts else student.new_zeros(0)

    def states(self, width=12, dtype=torch.float64):
        """Hidden states and head weights of both sides."""
        draw = torch.Generator().manual_seed(5)
        shapes = [
            (sum(map(len, self.student)), width),
            (self.sizes[0], width),
            (sum(map(len, self.teacher)), width + 3),
            (self.sizes[1], width + 3),
        ]
        return [torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]


@pytest.fixture(scope="module")
def tokenizers():
    return {"large": make_tokenizer(), "small": make_tokenizer(vocab_size=300), "sentencepiece": sentence_piece()}


ANSWERS = [answer for _, answer in TEXT.values()]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_with_one_tokenizer_it_is_the_divergence_of_tokens(tokenizers, kind, temperature):
    pair = Pair(tokenizers["large"], tokenizers["large"], ANSWERS, kind, 0.3, temperature)
    hidden, weight, teacher_hidden, teacher_weight = pair.states()
    logits = (hidden @ weight.t()).requires_grad_()
    other = teacher_hidden @ teacher_weight.t()
    today = token_divergence(logits, other, kind, 0.3, temperature)
    ours = pair.divergence(logits, other)
    torch.testing.assert_close(ours, today, rtol=1e-12, atol=1e-12)
    shares = torch.rand(len(today), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = [torch.autograd.grad((values * shares).sum(), logits)[0] for values in (ours, today)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-13)


@pytest.fixture(scope="module")
def taught():
    """The student's tokenizer under one with two more special tokens, in other ids."""
    return make_tokenizer(422, [*SPECIALS, "<think>", "<tool_call>"])


def shifted(pair, logits, extra):
    """The student's own logits under the teacher's ids, with some logit for what the teacher alone has."""
    wide = torch.full((len(logits), pair.sizes[1]), extra, dtype=logits.dtype)
    for cell in range(len(pair.events.cells)):
        ours, theirs = (np.flatnonzero(side == cell) for side in (pair.events.student_cells, pair.events.teacher_cells))
        wide[:, theirs] = logits[:, ours]
    return wide


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
@pytest.mark.parametrize("extra", [-3.0, 2.0, 12.0])
def test_forward_kl_does_not_charge_what_the_student_cannot_write(tokenizers, taught, temperature, extra):
    """A teacher that holds what its twin holds, and beside it its own special tokens, is at 0 and pulls nowhere."""
    pair = Pair(tokenizers["large"], taught, ANSWERS, "forward_kl", temperature=temperature)
    assert (pair.events.teacher_cells == len(pair.events.cells)).sum() == 2
    hidden, weight, *_ = pair.states()
    logits = (hidden @ weight.t() / 4).requires_grad_()
    values = pair.divergence(logits, shifted(pair, logits.detach(), extra))
    assert values.abs().max() < 1e-9
    assert torch.autograd.grad(values.sum(), logits)[0].abs().max() < 1e-9


@pytest.mark.parametrize("extra", [-3.0, 2.0])
def test_forward_kl_of_another_student_is_the_teachers_share_of_what_it_can_write(tokenizers, taught, extra):
    pair = Pair(tokenizers["large"], taught, ANSWERS, "forward_kl")
    hidden, weight, *_ = pair.states()
    logits = (hidden @ weight.t()).requires_grad_()
    like = logits.detach().flip(0) / 3
    wide = shifted(pair, like, extra)
    writable = (wide.softmax(-1) * torch.as_tensor(pair.events.teacher_cells != len(pair.events.cells))).sum(-1)
    expected = writable * token_divergence(logits, like, "forward_kl")
    values = pair.divergence(logits, wide)
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(one.sum(), logits, retain_graph=True)[0] for one in (values, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_reverse_kl_still_charges_a_student_for_what_its_teacher_cannot_write(tokenizers, taught):
    pair = Pair(taught, tokenizers["large"], ANSWERS, "reverse_kl")
    logits = torch.zeros(sum(map(len, pair.student)), pair.sizes[0], dtype=torch.float64)
    values = pair.divergence(logits, torch.zeros(len(logits), pair.sizes[1], dtype=torch.float64))
    share = 2 / pair.sizes[0]
    within = (1 - share) * math.log((1 - share) * pair.sizes[1] / (pair.sizes[0] - 2))
    torch.testing.assert_close(values, torch.full_like(values, share * (math.log(share) + 87) + within))


def test_ends_of_other_names_change_nothing(tokenizers):
    """The tokens are the same but for the name of the end of turn."""
    specials = ["<|endoftext|>", "<|im_start|>", "<end_of_turn>"]
    pair = Pair(tokenizers["large"], make_tokenizer(specials=specials), ANSWERS)
    hidden, weight, teacher_hidden, teacher_weight = pair.states()
    logits, other = hidden @ weight.t(), teacher_hidden @ teacher_weight.t()
    today = token_divergence(logits, other, "reverse_kl")
    torch.testing.assert_close(pair.divergence(logits, other), today, rtol=1e-12, atol=1e-12)


PAIRS = [("large", "small"), ("small", "large"), ("large", "sentencepiece"), ("sentencepiece", "large")]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_tile_by_tile_it_is_the_loss_of_all_logits(tokenizers, monkeypatch, names, kind, temperature):
    pair = Pair(*(tokenizers[name] for name in names), ANSWERS[:4], kind, 0.3, temperature)
    hidden, weight, teacher_hidden, teacher_weight = pair.states()
    monkeypatch.setattr(fused, "CPU_TILE", 9 * max(pair.sizes))
    assert len(list(pair.batch.tiles(9, "cpu"))) > 5
    bias = torch.linspace(-1, 1, pair.sizes[0], dtype=torch.float64)
    inputs = [tensor.requires_grad_() for tensor in (hidden, weight, bias)]
    student, teacher = Head(weight, bias, 0.5, softcap=6.0), Head(teacher_weight, None, 2.0)
    shares = torch.rand(len(hidden), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shares[3] = 0
    places = pair.divergence(student.logits(hidden), teacher.logits(teacher_hidden))
    dense = (places * shares[torch.as_tensor(pair.batch.student_rows)]).sum()
    tiled = pair.loss.weighted(pair.batch, student, hidden, teacher, teacher_hidden, shares, pair.distance)
    assert places.min() >= -1e-9
    torch.testing.assert_close(tiled, dense, rtol=1e-10, atol=1e-12)
    for ours, other in zip(*(torch.autograd.grad(1.7 * value, inputs) for value in (tiled, dense)), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-8, atol=1e-10)


def test_in_fp32_and_under_autocast_it_is_near_the_truth(tokenizers):
    pair = Pair(tokenizers["large"], tokenizers["sentencepiece"], ANSWERS)
    exact = pair.states()
    truth = pair.loss.weighted(
        pair.batch, Head(exact[1]), exact[0], Head(exact[3]), exact[2], torch.ones(len(exact[0])), pair.distance
    )
    coarse = [tensor.float() for tensor in exact]
    value = pair.loss.weighted(
        pair.batch,
        Head(coarse[1]),
        coarse[0].requires_grad_(),
        Head(coarse[3]),
        coarse[2],
        torch.ones(len(exact[0])),
        pair.distance,
    )
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(truth.item(), rel=1e-5)
    assert torch.isfinite(torch.autograd.grad(value, coarse[0])[0]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("merges", "temperature"),
    [
        (
            ([], [("a", "b"), ("ab", "a")]),
            1.0,
        ),  # a completed teacher is a target: at 1 it is the nearest, elsewhere fixed
        (([("a", "b"), ("ab", "a")], []), 1.0),
        (([("a", "b"), ("ab", "a")], []), 1.3),
    ],
)
def test_gradients_are_those_of_finite_differences(kind, merges, temperature):
    pair = Pair(*map(byte_bpe, merges), ["abab", "ba"], kind, 0.3, temperature)
    assert any(a.student.inside.any() or a.teacher.inside.any() for a in pair.aligned)
    draw = torch.Generator().manual_seed(2)
    columns = [[t.get_vocab()[name] for name in ("a", "b", "<|im_end|>")] for t in map(byte_bpe, merges)]
    extra = [
        sorted({i for ids in side for i in ids} | set(own))
        for side, own in zip((pair.student, pair.teacher), columns, strict=True)
    ]
    few = [
        torch.randn(sum(map(len, side)), len(own), generator=draw, dtype=torch.float64, requires_grad=True)
        for side, own in zip((pair.student, pair.teacher), extra, strict=True)
    ]

    def losses(*logits):
        wide = [
            torch.full((len(part), size), -9.0, dtype=torch.float64)
            for part, size in zip(logits, pair.sizes, strict=True)
        ]
        wide = [
            full.index_copy(1, torch.tensor(own), part) for full, own, part in zip(wide, extra, logits, strict=True)
        ]
        return pair.divergence(wide[0], wide[1].detach())

    assert torch.autograd.gradcheck(losses, [few[0], few[1].detach()], eps=1e-6, atol=1e-5)


def without_covers(aligned):
    """Cells at common borders alone: what a border hides is not added, and inside a token nothing is compared."""
    nothing = Covers(*[np.zeros(0, dtype=np.int64)] * 4)
    student, teacher = (dataclasses.replace(side, covers=nothing) for side in (aligned.student, aligned.teacher))
    used = aligned.used & ~student.inside & ~teacher.inside
    return dataclasses.replace(aligned, student=student, teacher=teacher, used=used)


def perfect(student, teacher, source, kind="forward_kl"):
    """Two tokenizers with all texts of a source, and the logits of two models that know it."""
    pair = Pair(student, teacher, list(source), kind, 0.5)
    models = PerfectModel(source, student), PerfectModel(source, teacher)
    logits = [
        torch.cat([model.logits(ids) for ids in side])
        for model, side in zip(models, (pair.student, pair.teacher), strict=True)
    ]
    return pair, logits


LEFT_TO_RIGHT = ([("a", "b"), ("ab", "c")], [("b", "c"), ("c", "a")])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("swapped", [False, True])
def test_two_models_that_know_the_bytes_agree_whatever_their_tokens(kind, swapped):
    pair, logits = perfect(*map(byte_bpe, LEFT_TO_RIGHT[:: -1 if swapped else 1]), byte_source(length=5), kind)
    values = pair.divergence(*logits)
    assert len(values) > 1000
    assert values.abs().max() < 1e-9
    bare = EventBatch([without_covers(one) for one in pair.aligned], pair.student, pair.teacher)
    assert pair.divergence(*logits, bare).mean() > 0.1


@pytest.mark.parametrize("merges", LEFT_TO_RIGHT)
def test_what_follows_is_the_exact_probability_of_the_next_byte(merges):
    """The cells are single letters: neither side's longer tokens are known to the other."""
    source = byte_source(length=5)
    student, teacher = byte_bpe(merges), byte_bpe(LEFT_TO_RIGHT[merges is LEFT_TO_RIGHT[0]])
    pair, logits = perfect(student, teacher, source)
    tile = next(pair.batch.tiles(10**9, "cpu"))
    from dudi.objective.event_loss import _judge

    judged = _judge(logits[0][tile.student.rows].t(), tile.student, tile, pair.loss.student)
    before = [text[:place] for text, one in zip(source, pair.aligned, strict=True) for place in one.places[one.used]]
    inside = np.concatenate([one.student.inside[one.used] for one in pair.aligned])
    for column, text in enumerate(text for text, hidden in zip(before, inside, strict=True) if not hidden):
        chances = next_byte(source, text)
        for letter in "abc":
            cell = pair.events.cells.index(letter)
            assert judged.cells[cell, column].exp().item() == pytest.approx(chances.get(letter, 0.0), abs=1e-9)
        end = pair.events.cells.index(END)
        assert judged.cells[end, column].exp().item() == pytest.approx(chances.get("", 0.0), abs=1e-9)


def learn(pair, source, student, teacher_logits, batch, steps=150):
    """Train a table of next-token logits, one row for each beginning, under a perfect teacher.

    Returns:
        How far what it writes is from the source (total variation).
    """
    beginnings = {}
    rows = [beginnings.setdefault(tuple(ids[:i]), len(beginnings)) for ids in pair.student for i in range(len(ids))]
    index, labels = torch.tensor(rows), torch.tensor([token for ids in pair.student for token in ids])
    owner = torch.repeat_interleave(torch.tensor([len(ids) for ids in pair.student]))
    shares = torch.tensor(list(source.values()), dtype=torch.float64)
    hidden = torch.full((pair.sizes[0],), -60.0, dtype=torch.float64)
    hidden[labels.unique()] = 0
    table = torch.zeros(len(beginnings), pair.sizes[0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([table], lr=0.2)
    weights = shares[owner][torch.as_tensor(batch.student_rows)]
    for step in range(steps):
        if step == 2 * steps // 3:
            optimizer.param_groups[0]["lr"] = 0.02
        loss = (pair.divergence((table + hidden)[index], teacher_logits, batch) * weights).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    log_probs = torch.log_softmax(table.detach() + hidden, -1)[index].gather(1, labels.unsqueeze(1)).squeeze(1)
    written = torch.zeros(len(source), dtype=torch.float64).index_add(0, owner, log_probs).exp()
    return 0.5 * ((written - shares).abs().sum() + 1 - written.sum()).item()


@pytest.mark.parametrize(
    ("kind", "merges"),
    [
        pytest.param("reverse_kl", ([], [("a", "b"), ("ab", "a")]), marks=pytest.mark.slow),
        pytest.param("forward_kl", ([("a", "b"), ("ab", "a")], []), marks=pytest.mark.slow),
        ("jsd", ([], [("a", "b"), ("ab", "a")])),
    ],
)
def test_a_student_learns_to_write_what_its_teacher_writes(kind, merges):
    """Without what a border hides it does not: a teacher of longer words forbids to go on after short ones."""
    source = byte_source(**TINY)
    student, teacher = map(byte_bpe, merges)
    pair, (_, teacher_logits) = perfect(student, teacher, source, kind)
    assert learn(pair, source, student, teacher_logits, pair.batch) < 0.05
    bare = EventBatch([without_covers(one) for one in pair.aligned], pair.student, pair.teacher)
    assert learn(pair, source, student, teacher_logits, bare) > 0.15


def test_inside_a_token_only_what_its_longer_tokens_say_counts():
    """The teacher writes "ab" as one token: inside it, it is known to hold "b" with what its longer tokens give."""
    student, teacher = byte_bpe([]), byte_bpe([("a", "b")])
    pair = Pair(student, teacher, ["ab"], "forward_kl")
    a, b, end = (student.get_vocab()[name] for name in ("a", "b", "<|im_end|>"))
    ab, single = teacher.get_vocab()["ab"], teacher.get_vocab()["a"]
    logits = torch.full((2, pair.sizes[1]), -60.0, dtype=torch.float64)
    logits[0, ab], logits[0, single] = math.log(0.6), math.log(0.4)
    logits[1, 0] = 0
    ours = torch.full((3, pair.sizes[0]), -60.0, dtype=torch.float64)
    ours[0, a], ours[2, end] = 0, 0
    for chance, expected in ((0.6, 0.0), (0.9, 0.0), (0.3, 0.6 * math.log(2) + 0.4 * math.log(0.4 / 0.7))):
        ours[1, b], ours[1, a] = math.log(chance), math.log(1 - chance)
        inside = pair.divergence(ours, logits)[1]
        assert inside.item() == pytest.approx(expected, abs=1e-9)
    assert 0 < UNKNOWN < 0.01


def test_digits_keep_their_mass():
    """A student with "201" under a teacher that writes single digits: no digit is pushed to 0."""
    student, teacher = byte_bpe([("2", "0"), ("20", "1")]), byte_bpe([])
    pair = Pair(student, teacher, ["2017"], "forward_kl")
    whole = student.get_vocab()["201"]
    ours = torch.full((3, pair.sizes[0]), -60.0, dtype=torch.float64)
    ours[0, whole], ours[1, student.get_vocab()["7"]], ours[2, 0] = 0, 0, 0
    theirs = torch.full((5, pair.sizes[1]), -60.0, dtype=torch.float64)
    for row, name in enumerate(["2", "0", "1", "7", "<|im_end|>"]):
        theirs[row, teacher.get_vocab()[name]] = 0
    values = pair.divergence(ours, theirs)
    assert len(values) == 5
    assert values.max() < 2 * UNKNOWN
