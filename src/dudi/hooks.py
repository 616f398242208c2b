"""What has to happen between the steps of `Trainer`, whose loop dudi leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from dudi import stages
from dudi.methods import METHODS
from dudi.teachers import MovingAverage

if TYPE_CHECKING:
    from dudi.trainer import DudiTrainer


class StepHooks(TrainerCallback):
    """What has to happen between `Trainer`'s steps."""

    def __init__(self, trainer: DudiTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Number the pass over the data; a method in iterations starts its next one."""
        self.trainer.epoch = int(state.epoch or 0)
        if METHODS[self.trainer.args.method].iterated:
            stages.begin_iteration(self.trainer, self.trainer.epoch)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the average after the student."""
        if isinstance(self.trainer.teacher, MovingAverage):
            self.trainer.teacher.update()
