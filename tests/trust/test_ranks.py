"""Two processes killed together or one alone: no torn state, no hang, and resume works."""

import random
import shutil
import signal
import time

import pytest
from lab import numbers_of, weights_of

from dudi.training.checkpoints import newest_valid

KEYS = ("per_device_train_batch_size=1", "ddp_timeout=15")


def whole_of_two(lab, method):
    key = ("two", method)
    if key not in lab.kept:
        run, began = lab.folder / f"two-{method}", time.monotonic()
        ranks = lab.run_ranks(lab.words(run, method, *KEYS))
        assert [rank.code for rank in ranks] == [0, 0], ranks[0].said + ranks[1].said
        lab.kept[key] = (weights_of(run), numbers_of(run), time.monotonic() - began)
    return lab.kept[key]


@pytest.mark.parametrize("victims", [(0, 1), (0,), (1,)])
@pytest.mark.parametrize("method", ["sft", "dudi"])
def test_killed(lab, promise, tmp_path, method, victims):
    weights, numbers, seconds = whole_of_two(lab, method)
    run, chance, lost, slowest = tmp_path / "run", random.Random(f"{method}{victims}"), [], 0.0
    words, cache = lab.words(run, method, *KEYS), tmp_path / "cache"
    for attempt in range(2):
        ranks = lab.start_ranks(words, cache=cache)
        time.sleep((0.15 + 0.7 * chance.random()) * seconds)
        for victim in victims:
            ranks[victim].signal(signal.SIGKILL)
        began = time.monotonic()
        codes = [rank.wait(60) for rank in ranks]
        slowest = max(slowest, time.monotonic() - began)
        survivors = [rank for rank in range(2) if rank not in victims]
        _, skipped = newest_valid(run / "checkpoints")
        # The survivor is told by its peer's closed connection; or both had finished before.
        fine = None not in codes and not skipped and all(codes[rank] in (0, 1) for rank in survivors)
        fine &= all("Traceback" not in ranks[rank].said for rank in survivors)
        again = lab.run_ranks(words, cache=cache)
        fine &= [rank.code for rank in again] == [0, 0] and weights_of(run) == weights and numbers_of(run) == numbers
        if not fine:
            lost.append(f"{attempt}: {codes} {skipped} {''.join(rank.said[-500:] for rank in [*ranks, *again])}")
        shutil.rmtree(run)
        shutil.rmtree(cache, ignore_errors=True)
    who = "both" if len(victims) == 2 else f"rank {victims[0]}"
    promise(
        "2 processes, killed together or one alone: no torn state, no hang, same bits after resume",
        2,
        len(lost),
        "kills",
        f"{method}, {who}: the other left within {slowest:.1f} s {' '.join(lost)}",
    )


def test_one_that_never_meets_the_other(lab, promise, tmp_path):
    """Rank 0 dies before it listens: rank 1 leaves by `ddp_timeout`, which `transformers` hands to GPUs alone."""
    ranks = lab.start_ranks(lab.words(tmp_path / "run", "sft", *KEYS, "ddp_timeout=3"), cache=tmp_path / "cache")
    ranks[0].kill()
    code = ranks[1].wait(60)
    fine = code == 1 and ranks[1].said.splitlines()[-1].startswith("error: another process of this run is gone")
    promise("2 processes, one dead before they met: the other leaves by ddp_timeout", 1, not fine, "kills", str(code))


def test_a_disk_that_one_of_them_writes_to(lab, promise, tmp_path):
    """Rank 0 cannot save: rank 1 leaves as well, with the same line, and does not wait for it."""
    run = tmp_path / "run"
    plant = {"boundaries": {"folder": str(run), "at": 1, "do": "vanish", "only": [".step-6.partial"]}}
    ranks = lab.run_ranks(lab.words(run, "sft", *KEYS), plants={0: plant})
    last = [rank.said.splitlines()[-1] for rank in ranks]
    fine = [rank.code for rank in ranks] == [1, 1] and all("error: " in line for line in last)
    promise("2 processes, one cannot write: both stop with exit 1", 1, not fine, "accidents", "" if fine else str(last))
