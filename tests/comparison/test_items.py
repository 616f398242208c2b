"""Lines of `answers.jsonl` as items: of every metric the table's own number, and languages of a question together."""

import pytest

from dudi.comparison.bootstrap import lead
from dudi.comparison.items import answers_by_run


def stack_line(language, item, right, seed=0, overall=True):
    line = {"id": f"{language}/{item}", "item": item, "language": language, "task": "choice", "seed": seed}
    return line | {"scores": {"accuracy": float(right)}} | ({} if overall else {"overall": False})


def test_a_mean_over_languages_without_the_one_that_was_learned_in():
    lines = [stack_line("eng_Latn", str(n), True, overall=False) for n in range(9)]
    lines += [stack_line("ind_Latn", str(n), n < 6) for n in range(9)] + [stack_line("mya_Mymr", "0", False)]
    rival = [line | {"scores": {"accuracy": 0.0}} for line in lines]
    own, other = (list(answers_by_run(each, "accuracy").values()) for each in (lines, rival))
    found = lead(own, other)
    assert found.difference == pytest.approx((6 / 9 + 0 / 1) / 2)
    assert found.items == 9
    column = list(answers_by_run(lines, "accuracy", "language", "eng_Latn").values())
    assert sum(one.value for one in column[0]) == 9


def test_answers_of_students_by_every_metric():
    line = {"id": "a", "language": "th", "split": "seen", "exact": True, "chrf": 60.0, "bits": 80.0, "bytes": 40}
    lines = [line, line | {"id": "b", "exact": False, "chrf": 20.0, "bits": 20.0, "bytes": 10, "seed": None}]
    assert {one.value for one in answers_by_run(lines, "exact_match")[0]} == {0.0, 1.0}
    bits = answers_by_run(lines, "bits_per_byte")[0]
    assert [(one.value, one.weight) for one in bits] == [(80.0, 40.0), (20.0, 10.0)]
    assert answers_by_run(lines, "bits_per_byte", "language", "vi") == {}
    assert answers_by_run(lines, "in_language") == {}


def test_runs_are_told_apart_by_their_seed():
    lines = [stack_line("th", "1", True, seed) for seed in (3, 4)]
    assert set(answers_by_run(lines, "accuracy")) == {3, 4}
