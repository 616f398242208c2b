"""What runs before the first step of a method, and between the iterations of SPIN.

Each stage leaves a sealed folder in the run's `stages/`; the cold start and the teacher's answers are also shared
between runs through `cache_dir`, keyed by everything that they depend on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import set_seed

from dudi.methods import METHODS
from dudi.stages.answers import write_targets
from dudi.stages.cold_start import cold_start
from dudi.stages.iterations import begin_iteration, opponents
from dudi.stages.reference import (
    make_moving_average,
    make_reference,
    moving_average_needed,
    reference_needed,
    store_gold_reference,
)

if TYPE_CHECKING:
    from dudi.trainer import DudiTrainer

__all__ = ["begin_iteration", "moving_average_needed", "opponents", "prepare"]


def prepare(trainer: DudiTrainer) -> None:
    """Everything that comes before the first step: cold start, targets, reference, moving average."""
    started = cold_start(trainer)
    if trainer.args.targets == "teacher":
        write_targets(trainer)
    if reference_needed(trainer.args):
        trainer.reference = make_reference(trainer, on_new_adapter=started != "continue")
        if not METHODS[trainer.args.method].iterated:
            store_gold_reference(trainer)
    if moving_average_needed(trainer.args):
        trainer.teacher = make_moving_average(trainer)
    # A cached stage draws nothing from the global generators: without this, dropout would depend on the cache.
    set_seed(trainer.args.seed)
