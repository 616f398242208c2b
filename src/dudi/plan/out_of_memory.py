"""What to lower, and by how much, when a run has filled the memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil
import torch

from dudi.errors import DudiError, EnvironmentFault
from dudi.plan.models import plan_run
from dudi.plan.text import advise_out_of_memory

if TYPE_CHECKING:
    from dudi.distill.recipe import RunConfig

_CPU_ALLOCATOR = "can't allocate memory"


@contextlib.contextmanager
def explained_out_of_memory(config: RunConfig) -> Iterator[None]:
    """Inside, running out of memory ends in the keys to change, from the estimate of `dudi plan` for this run.

    Raises:
        EnvironmentFault: the memory of the device, or of the machine, was full.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and _CPU_ALLOCATOR not in str(error):
            raise
        what = (str(error).partition(". ")[0].splitlines() or ["out of memory"])[0][:100]
        raise EnvironmentFault(f"out of memory ({what})\n{_advice(config)}") from error


def _advice(config: RunConfig) -> str:
    try:
        planned = plan_run(config, gpus=max(1, int(os.environ.get("WORLD_SIZE", "1"))))
    except (DudiError, OSError, ValueError):  # the estimate is a help: it must not hide what happened
        keys = "per_device_train_batch_size, rollout_batch_size or max_length"
        return f"lower {keys}; `dudi plan` estimates what they need"
    return advise_out_of_memory(planned, _device_bytes())


def _device_bytes() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return int(psutil.virtual_memory().total)
