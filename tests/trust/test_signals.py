"""Signals that ask a run to end: a checkpoint at the next step, exit 130 within seconds, the same bits afterwards."""

import signal
import time

import pytest
from kills import differences, whole_run
from lab import records_of

PROMISE = "SIGTERM, SIGINT, SIGHUP, SIGUSR1: a checkpoint, exit 130, same bits afterwards"
LONG = ("max_new_tokens=64", "max_steps=12")


def steps_are_there(run, stage, number):
    return sum(record.get("stage") == stage for record in records_of(run)) >= number


def until(holds, child, seconds=90.0):
    end = time.monotonic() + seconds
    while not holds() and child.wait(0.02) is None and time.monotonic() < end:
        pass
    assert child.code is None, child.said


@pytest.mark.parametrize(
    ("number", "method", "stage", "step"),
    [
        (signal.SIGTERM, "dudi", "dudi", 4),
        (signal.SIGINT, "dudi", "cold_start", 4),
        (signal.SIGTERM, "spin", "spin", 5),
        (signal.SIGINT, "sft", "sft", 1),
        (signal.SIGHUP, "sft", "sft", 2),
        (signal.SIGUSR1, "gkd", "gkd", 2),
    ],
)
def test_a_signal_saves_and_leaves(lab, promise, tmp_path, number, method, stage, step):
    whole, run, cache = whole_run(lab, method), tmp_path / "run", tmp_path / "cache"
    child = lab.start(lab.words(run, method), cache=cache)
    until(lambda: steps_are_there(run, stage, step), child)
    child.signal(number)
    began = time.monotonic()
    assert child.wait(30) == 130, child.said
    took = time.monotonic() - began
    last = child.said.splitlines()[-1]
    assert last.startswith(f"interrupted: {signal.Signals(number).name} in {stage}; ") and "is saved" in last
    reached = max(record["step"] for record in records_of(run) if record["stage"] == stage)
    folder = run / ("stages/cold_start/checkpoints" if stage == "cold_start" else "checkpoints") / f"step-{reached}"
    assert str(folder) in last and (folder / "manifest.json").is_file()
    again = lab.run(lab.words(run, method), cache=cache)
    assert again.code == 0, again.said
    assert stage == "cold_start" or f"going on from {folder}" in again.said
    promise(
        PROMISE,
        1,
        len(differences(run, whole)),
        "signals",
        f"{signal.Signals(number).name} in {stage}: left after {took:.1f} s",
    )


def test_during_generation_and_twice(lab, tmp_path):
    """A signal while rollouts are written waits for the step; a second one does not, and nothing is torn."""
    run = tmp_path / "run"
    words = lab.words(run, "dudi", "cold_start=none", "max_new_tokens=400", "save_steps=1")
    child = lab.start(words)
    until(lambda: steps_are_there(run, "dudi", 1), child)
    child.signal(signal.SIGTERM)
    time.sleep(1.3)
    child.signal(signal.SIGTERM)
    began = time.monotonic()
    assert child.wait(30) == 130
    assert time.monotonic() - began < 2.0 or "is saved" in child.said
    again = lab.start(words)
    until(lambda: "going on from" in again.said, again)
    again.kill()
    assert "skipped" not in again.said


def test_what_a_scheduler_sends_after_its_warning_is_no_hurry(lab, tmp_path):
    """SLURM sends SIGUSR1 some time before the end, and SIGTERM at it: the checkpoint is still written."""
    run = tmp_path / "run"
    child = lab.start(lab.words(run, "dudi", "cold_start=none", "max_new_tokens=400", "save_strategy=no"))
    until(lambda: steps_are_there(run, "dudi", 1), child)
    child.signal(signal.SIGUSR1)
    time.sleep(1.3)
    child.signal(signal.SIGTERM)
    assert child.wait(60) == 130, child.said
    assert "SIGUSR1 in dudi" in child.said and "is saved" in child.said.splitlines()[-1]


def test_before_the_first_step(lab, tmp_path):
    """There is nothing to save yet: it leaves at once, with 130 all the same."""
    child = lab.start(lab.words(tmp_path / "run", "dudi"))
    until(lambda: "dudi ->" in child.said, child)
    child.signal(signal.SIGTERM)
    assert child.wait(20) == 130
    assert child.said.splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in child.said


def test_two_processes(lab, promise, tmp_path):
    """A signal to one of two: both save, both leave with 130."""
    run, cache = tmp_path / "run", tmp_path / "cache"
    words = lab.words(run, "dudi", "cold_start=none", "per_device_train_batch_size=1")
    ranks = lab.start_ranks(words, cache=cache)
    until(lambda: steps_are_there(run, "dudi", 2), ranks[0])
    ranks[1].signal(signal.SIGTERM)
    assert [rank.wait(30) for rank in ranks] == [130, 130], "".join(rank.said for rank in ranks)
    assert "is saved" in ranks[0].said.splitlines()[-1]
    again = lab.run_ranks(words, cache=cache)
    assert [rank.code for rank in again] == [0, 0], again[0].said
    whole = tmp_path / "whole"
    lab.run_ranks(lab.words(whole, "dudi", "cold_start=none", "per_device_train_batch_size=1"))
    from lab import weights_of

    lost = weights_of(run) != weights_of(whole)
    promise(
        PROMISE,
        1,
        lost,
        "signals",
        "one of two processes",
    )
