"""FLOPs of a run, counted while some of its steps run rather than worked out from a formula."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback, TrainerControl, TrainerState

from dudi.distill.loading import Loaded
from dudi.distill.run import make_trainer, read_rows
from dudi.objective.methods import METHODS

STEPS = 8
"""How many steps are counted, of methods without iterations."""


def counted_flops(loaded: Loaded, *, cold_start: bool) -> dict[str, float]:
    """FLOPs of one optimizer step, generation and all passes of teacher and reference included.

    Args:
        loaded: The run's recipe and what it names.
        cold_start: Count the cold start's steps instead of the method's.

    Returns:
        `per_step`, the mean over `counted_steps`; `before`, what the stage costs once before its first step (the
        reference's pass over the ground truth, the teacher's answers).
    """
    args = loaded.args
    rows, evaluation = read_rows(loaded.config, args)
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    if cold_start:
        args = args.for_cold_start(str(args.folder / "counted"))
    trainer = make_trainer(loaded, rows, evaluation, args=args)
    marks = Marks(counter)
    trainer.add_callback(marks)
    with counter:
        trainer.train()
    return {
        "per_step": (counter.get_total_flops() - marks.before) / marks.steps,
        "before": marks.before,
        "counted_steps": marks.steps,
    }


class Marks(TrainerCallback):
    """Notes what was spent before the first step, and ends the run after a few.

    A method in iterations writes all rollouts of one at its beginning: one whole iteration is counted.
    """

    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter, self.before, self.steps = counter, 0, STEPS

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called after the stages that come first."""
        self.before = self.counter.get_total_flops()
        if METHODS[args.method].iterated:
            self.steps = -(-state.max_steps // args.spin_iterations)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called after each optimizer step."""
        control.should_training_stop = state.global_step >= self.steps


def _attention_forward(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    batch, heads, length, width = query
    return int(2 * batch * heads * length * key[2] * (width + value[3]))


_aten = torch.ops.aten
_CPU_ATTENTION: dict[Any, Any] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention_forward,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, *rest, **named: int(
        2.5 * _attention_forward(*rest, **named)
    ),
}
"""The CPU's attention kernels, which torch's counter does not know."""
