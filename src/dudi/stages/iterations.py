"""The iterations of SPIN: a new opponent, its answers, a fresh optimizer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from dudi.data.chat import Tokens
from dudi.generation import student_engine
from dudi.stages.answers import read_answers, write_answers
from dudi.stages.reference import copy_into_reference, load_reference, save_reference, store_gold_reference
from dudi.stages.shared import hash_of, train_set

if TYPE_CHECKING:
    from dudi.trainer import DudiTrainer


def begin_iteration(trainer: DudiTrainer, iteration: int) -> None:
    """Make the student the new opponent, let it answer every row, and start the optimizer afresh.

    Each row is trained once per iteration, against its answer from this iteration or the one before: a coin, the same
    for the same seed, row and iteration (the original trains on both iterations' data).
    """
    key = hash_of({"identity": trainer.identity(), "iteration": iteration})
    here = _pools(trainer, iteration)[-1]
    resumed_inside = (trainer.state.epoch or 0) != iteration
    if not resumed_inside:
        copy_into_reference(trainer)
        optimizer, _ = trainer.built_optimizer()
        optimizer.state.clear()
        write_answers(trainer, student_engine(trainer), _prompts(trainer), "spin", iteration, here, {"key": key})
        save_reference(trainer, here / "reference", key)
    else:  # that they are whole, and this checkpoint's, was seen when the checkpoint was (`needs`)
        load_reference(trainer, here / "reference")
    pools = [read_answers(path) for path in _pools(trainer, iteration)]
    trainer.collector.pool = {
        row_id: pools[_coin(trainer.args.seed, row_id, iteration) % len(pools)][row_id] for row_id in pools[0]
    }
    store_gold_reference(trainer)


def _pools(trainer: DudiTrainer, iteration: int) -> list[Path]:
    """The answers that an iteration trains against: its own and those of the one before."""
    folder = trainer.args.folder / "stages" / "spin"
    return [folder / f"iteration-{i}" for i in range(max(0, iteration - 1), iteration + 1)]


def opponents(trainer: DudiTrainer) -> list[Path]:
    """The sealed folders without which the current iteration cannot go on."""
    pools = _pools(trainer, trainer.epoch)
    return [*pools, pools[-1] / "reference"]


def _coin(seed: int, row_id: str, iteration: int) -> int:
    text = repr((seed, row_id, iteration, "pool")).encode("utf-8", "backslashreplace")
    return hashlib.sha256(text).digest()[0]


def _prompts(trainer: DudiTrainer) -> list[Tokens]:
    return [example.prompt for example in train_set(trainer).examples]
