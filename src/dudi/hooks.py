"""What has to happen between the steps of `Trainer`, whose loop dudi leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
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

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """From here on there are step boundaries at which a signal can be obeyed."""
        if self.trainer.interrupts is not None:
            self.trainer.interrupts.armed = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """There are none any more."""
        if self.trainer.interrupts is not None:
            self.trainer.interrupts.armed = False

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Number the pass over the data; a method in iterations starts its next one."""
        self.trainer.epoch = int(state.epoch or 0)
        if METHODS[self.trainer.args.method].iterated:
            stages.begin_iteration(self.trainer, self.trainer.epoch)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the average after the student."""
        if isinstance(self.trainer.teacher, MovingAverage):
            self.trainer.teacher.update()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Obey a signal: save here and stop. One rank's signal is everybody's."""
        interrupts = self.trainer.interrupts
        if interrupts is None:
            return
        asked = torch.tensor([float(interrupts.received is not None)], device=args.device)
        if float(self.trainer.accelerator.reduce(asked, "sum")):
            interrupts.received = interrupts.received or "a signal to another process"
            control.should_save = control.should_training_stop = True
