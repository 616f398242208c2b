"""The learning rate of a method in iterations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from torch.optim.lr_scheduler import LambdaLR


def repeated(one: LambdaLR, steps: int, rates: Sequence[float], base: float) -> LambdaLR:
    """A schedule that runs anew in each iteration, with the iteration's own rate.

    Args:
        one: The schedule of one iteration.
        steps: Optimizer steps of an iteration.
        rates: A learning rate for each iteration; the last one goes on.
        base: The learning rate that `one` multiplies.
    """

    def factor(shape: Callable[[int], float], step: int) -> float:
        iteration = min(step // steps, len(rates) - 1)
        return shape(step - iteration * steps) * rates[iteration] / base

    shapes: list[Callable[[int], float]] = [functools.partial(factor, shape) for shape in one.lr_lambdas]
    return LambdaLR(one.optimizer, shapes)
