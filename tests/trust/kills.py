"""SIGKILL at a moment, resume with the same command, hold the end against a run that nobody disturbed."""

import dataclasses
import random
import shutil
import time
from pathlib import Path

from lab import numbers_of, records_of, weights_of, where

SECOND_KILL = 0.3
"""Share of the trials in which the resumed run is killed as well."""


@dataclasses.dataclass
class Whole:
    """A run from start to end."""

    weights: str
    numbers: list
    samples: list
    seconds: float


def whole_run(lab, method, *more):
    """The undisturbed run of a method, made once."""
    key = ("whole", method, *more)
    if key not in lab.kept:
        run = lab.folder / f"whole-{'-'.join(key[1:])}".replace("/", "_")
        began = time.monotonic()
        child = lab.run(lab.words(run, method, *more))
        assert child.code == 0, child.said
        lab.kept[key] = Whole(
            weights_of(run), numbers_of(run), records_of(run, "samples.jsonl"), time.monotonic() - began
        )
    return lab.kept[key]


def differences(run, whole):
    """In what a finished run differs from the undisturbed one; empty when it does not."""
    found = []
    if weights_of(run) != whole.weights:
        found.append("weights")
    if numbers_of(run) != whole.numbers:
        found.append("metrics")
    if records_of(run, "samples.jsonl") != whole.samples:
        found.append("samples")
    return found + [name for name in ("report.html", "README.md") if not (run / name).is_file()]


def kill_at_random(lab, method, seed):
    """One trial; returns what happened.

    The moment is uniform over the wall time that the last finished run of this method took.
    """
    whole, chance = whole_run(lab, method), random.Random(f"{method}-{seed}")
    run, cache = lab.folder / f"killed-{method}-{seed}", lab.folder / f"killed-{method}-{seed}.cache"
    words = lab.words(run, method)
    moments, kills = [chance.random()], []
    if chance.random() < SECOND_KILL:
        moments.append(chance.random() * (1 - moments[0]))
    for moment in moments:
        child = lab.start(words, cache=cache)
        code = child.wait(moment * whole.seconds)
        if code is not None:
            assert code == 0, child.said
            kills.append("ended before the kill")
            break
        child.kill()
        kills.append(where(run))
    began = time.monotonic()
    last = lab.run(words, cache=cache)
    if kills == ["ended before the kill"]:
        whole.seconds = min(whole.seconds, child.ended - child.started)
    took = time.monotonic() - began
    lost = differences(run, whole) if last.code == 0 else [f"exit {last.code}: {last.said[-400:]}"]
    if not lost:
        shutil.rmtree(run)
        shutil.rmtree(cache, ignore_errors=True)
    return {"method": method, "seed": seed, "killed": kills, "resumed_seconds": round(took, 1), "lost": lost}


@dataclasses.dataclass
class Save:
    """A run that was killed before the save of step 9, and the file operations that this save consists of."""

    run: Path
    operations: list
    only: tuple = ("step-9", "step-3")  # what is written, and what is deleted to make room for it

    def copy(self, place):
        shutil.copytree(self.run, place)
        return place


def cut_before_a_save(lab):
    """Such a run of `sft`, made once."""
    if "save" not in lab.kept:
        run = lab.folder / "before-a-save"
        first = {"folder": str(run), "at": 1, "only": ["step-9"]}
        assert lab.run(lab.words(run, "sft"), plant={"boundaries": first}).code == -9
        copy, record = lab.folder / "counted", lab.folder / "operations"
        save = Save(run, [])
        save.copy(copy)
        plant = {"folder": str(copy), "record": str(record), "only": save.only}
        assert lab.run(lab.words(copy, "sft"), plant={"boundaries": plant}).code == 0
        save.operations += record.read_text().splitlines()
        assert len(save.operations) > 30
        lab.kept["save"] = save
    return lab.kept["save"]
