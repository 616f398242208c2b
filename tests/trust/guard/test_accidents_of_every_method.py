"""Every kind of broken rollout in every method that rolls out: exact counts, finite loss."""

import pytest
from test_rollout_accidents import KINDS, check


@pytest.mark.parametrize("method", ["dudi", "gkd", "sdft", "spin"])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_counts_and_a_finite_loss(tmp_path, tokenizer, rows, method, kind):
    check(tmp_path, tokenizer, rows, method, kind)
