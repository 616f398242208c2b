"""Largest remainder, hash ranks and the distance of mixes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dudi.data.sea.sampling import Candidates, hash_rank, largest_remainder, total_variation

COUNTS = st.dictionaries(st.text(max_size=3), st.integers(0, 1000), min_size=1, max_size=30)


def test_quotas_by_hand():
    # 10 of 61, shares 5.246, 3.115, 1.639: whole parts 5 + 3 + 1, and the tenth to the largest remainder
    assert largest_remainder({"a": 32, "b": 19, "c": 10}, 10) == {"a": 5, "b": 3, "c": 2}


def test_ties_go_to_the_larger_cell_then_to_the_lower_name():
    assert largest_remainder({"b": 1, "a": 1}, 1) == {"b": 0, "a": 1}
    assert largest_remainder({"a": 1, "b": 3}, 2) == {"a": 0, "b": 2}


def test_takes_all_where_there_are_fewer():
    assert largest_remainder({"a": 2, "b": 1}, 10) == {"a": 2, "b": 1}


def test_refuses_negative_numbers():
    with pytest.raises(ValueError, match="at least 0"):
        largest_remainder({"a": -1}, 1)
    with pytest.raises(ValueError, match="at least 0"):
        largest_remainder({"a": 1}, -1)


@given(COUNTS, st.integers(0, 3000))
def test_quotas_sum_up_stay_within_counts_and_miss_their_share_by_less_than_one(counts, total):
    quotas = largest_remainder(counts, total)
    available = sum(counts.values())
    assert list(quotas) == list(counts)
    assert sum(quotas.values()) == min(total, available)
    for cell, quota in quotas.items():
        assert 0 <= quota <= counts[cell]
        if total < available:
            assert abs(quota - counts[cell] * total / available) < 1


@given(COUNTS, st.integers(0, 3000), st.randoms())
def test_quotas_do_not_depend_on_the_order_of_cells(counts, total, random):
    shuffled = list(counts.items())
    random.shuffle(shuffled)
    assert largest_remainder(dict(shuffled), total) == largest_remainder(counts, total)


def test_ranks_depend_on_seed_and_parts_alone():
    assert hash_rank(0, "a") == hash_rank(0, "a")
    assert len({hash_rank(0, "a"), hash_rank(1, "a"), hash_rank(0, "b"), hash_rank(0, "a", b"")}) == 4
    assert hash_rank(0, "a", "bc") != hash_rank(0, "ab", "c")


def test_ranks_fit_a_signed_word_and_are_spread_evenly():
    ranks = [hash_rank(0, str(number)) for number in range(4000)]
    assert all(-(2**63) <= rank < 2**63 for rank in ranks)
    assert 0.45 < sum(rank < 0 for rank in ranks) / len(ranks) < 0.55


ROWS = st.lists(
    st.tuples(st.sampled_from([-(2**63), -5, 0, 7, 2**63 - 1, *range(20, 40)]), st.sampled_from("abc")), max_size=40
)


@given(ROWS, st.integers(0, 50))
def test_the_smallest_ranks_of_each_cell_are_taken_and_what_comes_again_is_counted(rows, total):
    candidates = Candidates()
    first: dict[int, tuple[str, int]] = {}
    for line, (rank, cell) in enumerate(rows, start=1):
        candidates.add("th", rank, (cell,), line % 3, line)
        first.setdefault(rank, (cell, line))
    counts = {(cell,): [own for own, _ in first.values()].count(cell) for cell in "abc"}
    quotas = largest_remainder({cell: count for cell, count in counts.items() if count}, total)
    wanted, left = [], dict(quotas)
    for _, (cell, line) in sorted(first.items()):
        if left[cell,]:
            left[cell,] -= 1
            wanted.append((line % 3, line))
    sample = candidates.choose("th", total)
    assert sample.places == wanted and sample.after == quotas and candidates.choose("id", 5).places == []
    assert sample.before == {cell: count for cell, count in counts.items() if count}
    assert sample.duplicates.total() == len(rows) - len(first)


def test_total_variation():
    assert total_variation({"a": 1, "b": 1}, {"a": 5, "b": 5}) == 0
    assert total_variation({"a": 1}, {"b": 1}) == 1
    assert total_variation({"a": 3, "b": 1}, {"a": 1, "b": 1}) == pytest.approx(0.25)
    assert total_variation({"a": 1}, {}) == 1
    assert total_variation({}, {}) == 0
