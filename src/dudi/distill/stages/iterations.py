"""The iterations of SPIN: a new opponent, its answers, a fresh optimizer."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from dudi.distill.stages.answers import read_answers, write_answers
from dudi.distill.stages.cache import hash_of
from dudi.distill.stages.reference import copy_into_reference, load_reference, save_reference
from dudi.distill.state import Run
from dudi.objective.methods import METHODS
from dudi.rollouts import Rollout


def begin_iteration(run: Run, iteration: int, identity: Mapping[str, Any], *, resumed: bool) -> dict[str, Rollout]:
    """Make the student the new opponent, and let it answer every row; its answers by row id.

    Each row is trained once per iteration, against its answer from this iteration or the one before: a coin, the same
    for the same seed, row and iteration (the original trains on both iterations' data).

    The reference becomes the opponent, and the folder of the iteration (counted from 0) belongs to the run's identity.
    Where the iteration goes on from a checkpoint inside it (`resumed`), its opponent is read.
    """
    key = hash_of({"identity": identity, "iteration": iteration})
    here = _pools(run, iteration)[-1]
    if resumed:  # that the folder is whole, and this checkpoint's, was seen when the checkpoint was (`needs`)
        load_reference(run, here / "reference")
    else:
        copy_into_reference(run)
        prompts = [example.prompt for example in run.rows.examples]
        write_answers(run, [run.collector.engine] * len(prompts), prompts, "spin", iteration, here, key)
        save_reference(run, here / "reference", key)
    pools = [read_answers(path) for path in _pools(run, iteration)]
    chosen: dict[str, Rollout] = {}
    for row_id in pools[0]:
        coin = repr((run.args.seed, row_id, iteration, "pool")).encode("utf-8", "backslashreplace")
        chosen[row_id] = pools[hashlib.sha256(coin).digest()[0] % len(pools)][row_id]
    return chosen


def _pools(run: Run, iteration: int) -> list[Path]:
    """The answers that an iteration trains against: its own and those of the one before."""
    folder = run.args.folder / "stages" / "spin"
    return [folder / f"iteration-{i}" for i in range(max(0, iteration - 1), iteration + 1)]


def opponents(run: Run, iteration: int) -> list[Path]:
    """The sealed folders without which an iteration cannot go on; none of a method without iterations."""
    if not METHODS[run.args.method].iterated:
        return []
    pools = _pools(run, iteration)
    return [*pools, pools[-1] / "reference"]


def repeated(one: LambdaLR, steps: int, rates: Sequence[float], base: float) -> LambdaLR:
    """A schedule of one iteration that runs anew after so many steps, with the iteration's own rate for its base.

    Iterations beyond the rates have the last one's.
    """

    def factor(shape: Callable[[int], float], step: int) -> float:
        iteration, within = divmod(step, steps)
        return shape(within) * rates[min(iteration, len(rates) - 1)] / base

    shapes: list[Callable[[int], float]] = [functools.partial(factor, shape) for shape in one.lr_lambdas]
    return LambdaLR(one.optimizer, shapes)
