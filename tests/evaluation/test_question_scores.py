"""Single questions as numbers, whichever benchmark they come from."""

import pytest

from dudi.evaluation.question_scores import question_scores, weights_of

BUILT_IN = [
    {"id": "a", "language": "th", "split": "seen", "exact": True, "chrf": 50.0, "bits": 8.0, "bytes": 4},
    {"id": "b", "language": "th", "split": "unseen", "exact": False, "chrf": 10.0, "bits": 30.0, "bytes": 6},
    {
        "id": "c",
        "language": "id",
        "split": "seen",
        "exact": True,
        "chrf": 90.0,
        "bits": 5.0,
        "bytes": 10,
        "in_language": None,
    },
]
HARNESS = [
    {"id": "s/0", "language": "th", "task": "sib200", "scores": {"acc": 1.0}, "weights": {}},
    {"id": "s/1", "language": "th", "task": "sib200", "scores": {"acc": 0.0}, "weights": {}},
    {"id": "x/0", "language": "th", "task": "xcopa", "scores": {"acc": 1.0}, "weights": {}},
    {
        "id": "n/0",
        "language": "th",
        "task": "ntrex",
        "scores": {"bits_per_byte": 2.0},
        "weights": {"bits_per_byte": 30.0},
    },
    {
        "id": "n/1",
        "language": "th",
        "task": "ntrex",
        "scores": {"bits_per_byte": 1.0},
        "weights": {"bits_per_byte": 10.0},
    },
    {
        "id": "i/0",
        "language": "id",
        "task": "ntrex",
        "scores": {"bits_per_byte": 4.0},
        "weights": {"bits_per_byte": 5.0},
    },
]


def mean(found):
    scores = list(found.values())
    weights = weights_of(scores)
    assert sum(weights) == pytest.approx(1)
    return sum(weight * score.value for weight, score in zip(weights, scores, strict=True))


def test_questions_of_a_file_weigh_alike_and_bits_by_their_bytes():
    assert mean(question_scores(BUILT_IN, "exact_match")) == pytest.approx(2 / 3)
    assert mean(question_scores(BUILT_IN, "chrf", "language", "th")) == pytest.approx(30)
    assert mean(question_scores(BUILT_IN, "bits_per_byte")) == pytest.approx(43 / 20)
    assert list(question_scores(BUILT_IN, "exact_match", "split", "seen")) == ["a", "c"]
    assert not question_scores(BUILT_IN, "in_language") and not question_scores(BUILT_IN, "acc")


def test_cells_weigh_alike_whatever_their_size():
    assert mean(question_scores(HARNESS, "acc")) == pytest.approx((0.5 + 1) / 2)
    assert mean(question_scores(HARNESS, "acc", "task", "sib200")) == pytest.approx(0.5)
    assert mean(question_scores(HARNESS, "bits_per_byte", "language", "th")) == pytest.approx(70 / 40)
    assert mean(question_scores(HARNESS, "bits_per_byte")) == pytest.approx((70 / 40 + 4) / 2)
