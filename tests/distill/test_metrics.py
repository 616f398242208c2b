"""Overlap, entropies and the health of rollouts, on numbers small enough to check by eye."""

import dataclasses
import math

import pytest
import torch

from dudi.distill.metrics import (
    RolloutHealth,
    Watch,
    _top_ids,
    agreement,
    health_metrics,
    top_k_overlap,
    watched_positions,
)
from dudi.objective.heads import Head
from dudi.objective.signals import Heads, Rows

CPU = torch.device("cpu")


def entropy(logits):
    """(..., V) -> (...) in nats."""
    log_probs = logits.float().log_softmax(-1)
    return -torch.linalg.vecdot(log_probs.exp(), log_probs)


class TestOverlap:
    def test_by_hand(self):
        student = torch.tensor([[9.0, 8.0, 7.0, 1.0, 0.0, 0.0], [9.0, 8.0, 7.0, 1.0, 0.0, 0.0]])
        teacher = torch.tensor([[7.0, 0.0, 9.0, 8.0, 0.1, 0.2], [0.0, 0.1, 0.2, 7.0, 8.0, 9.0]])
        overlap = top_k_overlap(student, teacher, 3)  # {0, 1, 2} with {2, 3, 0}, and with {5, 4, 3}
        assert overlap.tolist() == pytest.approx([2 / 3, 0.0])
        assert overlap.dtype == torch.float32

    def test_any_leading_shape_and_the_ends(self):
        logits = torch.randn(2, 3, 20)
        assert torch.equal(top_k_overlap(logits, logits * 2, 5), torch.ones(2, 3))
        assert torch.equal(top_k_overlap(logits, -logits, 20), torch.ones(2, 3))
        assert torch.equal(top_k_overlap(logits, -logits, 10), torch.zeros(2, 3))

    def test_order_inside_the_top_does_not_matter(self):
        assert top_k_overlap(torch.tensor([3.0, 2.0, 0.0]), torch.tensor([2.0, 3.0, 0.0]), 2) == 1

    def test_the_qwen_sizes(self):
        student, teacher = torch.zeros(2, 151936), torch.zeros(2, 152064)
        student[:, [5, 6, 7, 151935]] = 10.0
        teacher[:, [5, 6, 8, 151935]] = 10.0
        teacher[:, 151936:] = 99.0  # padded rows, which would fill the teacher's top
        assert top_k_overlap(student, teacher, 4).tolist() == [0.75, 0.75]
        assert top_k_overlap(teacher, student, 4).tolist() == [0.75, 0.75]

    @pytest.mark.parametrize("k", [0, -1, 6])
    def test_wrong_k(self, k):
        with pytest.raises(ValueError, match="between 1 and the vocabulary's 5"):
            top_k_overlap(torch.zeros(5), torch.zeros(8), k)


class TestWatchedPositions:
    def test_all_while_they_are_few(self):
        assert watched_positions(5, 5, seed=0, step=1) == [0, 1, 2, 3, 4]
        assert watched_positions(0, 5, seed=0, step=1) == []

    def test_a_seeded_sample_in_order(self):
        places = watched_positions(1000, 50, seed=0, step=1)
        assert len(set(places)) == 50 and places == sorted(places) and places[0] >= 0 and places[-1] < 1000
        assert places == watched_positions(1000, 50, seed=0, step=1)
        assert places != watched_positions(1000, 50, seed=0, step=2)
        assert places != watched_positions(1000, 50, seed=1, step=1)


def make_rows(teacher=True):
    hidden = torch.eye(3)
    return Rows(hidden, torch.tensor([0, 1, 2]), [3], torch.ones(3), teacher_hidden=hidden if teacher else None)


def watch(places, k, rows=3):
    """A watch of rows that are all of the first of two languages, and whose labels are the first ids."""
    return Watch(places, torch.arange(rows) % 3, torch.zeros(rows, dtype=torch.int64), 2, k)


class TestAgreement:
    def test_sums_over_the_places(self):
        student = Head(torch.tensor([[9.0, 0.0, 0.0], [8.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 8.0, 0.0]]))
        teacher = Head(torch.tensor([[9.0, 9.0, 0.0], [8.0, 8.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
        rows, heads = make_rows(), Heads(student, teacher, "auto")
        sums = agreement(rows, heads, watch([0, 1], 2))[0]
        assert sums[0] == 1.0  # the same two tokens at place 0, none at place 1
        assert sums[1].item() == pytest.approx(entropy(student.logits(rows.hidden[:2])).sum().item(), abs=1e-6)
        assert sums[2].item() == pytest.approx(entropy(teacher.logits(rows.hidden[:2])).sum().item(), abs=1e-6)
        assert sums[3] == 2.0
        last = agreement(rows, heads, watch([2], 2))[0]
        assert last[1].item() == pytest.approx(math.log(4), abs=1e-6)

    def test_nothing_to_watch(self):
        head = Head(torch.zeros(4, 3))
        nothing, one = watch([], 2), watch([0], 2)
        assert agreement(make_rows(), Heads(head, head, "auto"), nothing).tolist() == [[0] * 7] * 2
        assert agreement(make_rows(teacher=False), Heads(head, None, "auto"), one).tolist() == [[0] * 7] * 2

    def test_what_a_loss_has_shown_in_pieces_is_not_made_again(self):
        draw = torch.Generator().manual_seed(0)
        student, teacher = torch.randn(2, 90, 300, generator=draw).log_softmax(-1)
        places = [*range(0, 40), 50, 51, 88]
        pieces, whole = watch(places, 16, 90), watch(places, 16, 90)
        for start in range(0, 90, 37):
            rows = slice(start, min(start + 37, 90))
            pieces.observe(rows, student[rows], teacher[rows])
        whole.observe(slice(0, 90), student, teacher)
        assert whole.sums[0, 1].item() == pytest.approx(entropy(student[places]).sum().item())
        torch.testing.assert_close(pieces.sums, whole.sums)
        assert pieces.sums[0, 3] == len(places) and not pieces.sums[1].any()
        head = Head(torch.zeros(4, 3))
        assert agreement(make_rows(), Heads(head, head, "auto"), pieces) is pieces.sums


@pytest.mark.parametrize("vocabulary", [64 * 20, 64 * 20 + 7, 40, 64 * 16])
def test_the_largest_of_blocks_of_neighbours_are_the_largest_of_all(vocabulary):
    draw = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(5, 3, vocabulary, generator=draw)
    logits[0, 0, -9:] += 10  # all of them neighbours, and some in what is left over
    assert torch.equal(_top_ids(logits, 16), logits.topk(16).indices)


class TestRolloutHealth:
    def test_counts_and_rates(self):
        health = RolloutHealth()
        codes = ["th", "en", "ta"]
        assert health.add([*range(10)], True, "เมืองหลวงของไทยคือกรุงเทพมหานคร", "th", codes) == "th"
        assert health.add([*range(20)], False, "தமிழ்நாட்டின் தலைநகரம் சென்னை ஆகும்.", "th", codes) == "ta"
        assert health.add([*range(3)], True, "!?", "th", codes) == "und"
        assert dataclasses.astuple(health) == (3, 33, 2, 2, 1, 0, 0)
        metrics = health_metrics(dataclasses.astuple(health))
        assert metrics == {
            "rollout/mean_length": 11.0,
            "rollout/eos_rate": pytest.approx(2 / 3),
            "rollout/empty_rate": 0.0,
            "rollout/repetition_rate": 0.0,
            "rollout/wrong_language_rate": 0.5,
        }

    def test_no_rate_where_there_is_nothing_to_rate(self):
        assert health_metrics([0] * 7) == {}
        assert "rollout/wrong_language_rate" not in health_metrics([1, 5, 0, 0, 0, 0, 0])
