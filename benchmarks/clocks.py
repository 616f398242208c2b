"""Time by phase and memory of any trainer, from outside: hooks on the models, wrappers on the trainer's methods."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer

PHASES = ("rollout", "teacher", "reference", "student", "optimizer", "other")


class PhaseClock:
    """Wall time of each phase; the innermost phase that is open gets the time."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._open: list[str] = []
        self._since = time.perf_counter()

    def _book(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[self._open[-1] if self._open else "other"] += now - self._since
        self._since = now

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Book what runs inside under a phase."""
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def restart(self) -> None:
        """Forget what was booked."""
        self._book()
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def read(self) -> dict[str, float]:
        """Seconds by phase since the last restart."""
        self._book()
        return dict(self.seconds)

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        """Book each call of a method."""
        own = getattr(owner, name)

        @functools.wraps(own)
        def clocked(*args: Any, **kwargs: Any) -> Any:
            with self.phase(phase):
                return own(*args, **kwargs)

        setattr(owner, name, clocked)

    def hook(self, module: nn.Module, phase: str) -> None:
        """Book each forward of a module."""

        def enter(*_: Any) -> None:
            self._book()
            self._open.append(phase)

        def leave(*_: Any) -> None:
            self._book()
            self._open.pop()

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)


def watch(trainer: Trainer, teacher: PreTrainedModel | None, ours: bool) -> PhaseClock:
    """Put a clock on a trainer's phases. A head that is fused with the loss counts as the student's work.

    Ours keeps an account of its own and stays as it is: a method put on it would cost it the gradient in place.
    """
    clock = PhaseClock()
    if not ours:
        clock.wrap(trainer, "training_step", "student")
        clock.wrap(trainer.model, "generate", "rollout")
    if teacher is not None:
        clock.hook(teacher, "teacher")
        clock.hook(teacher.get_decoder(), "teacher")
    return clock


def watch_optimizer(trainer: Trainer, clock: PhaseClock) -> None:
    """The optimizer exists once training has begun."""
    clock.wrap(trainer.optimizer, "step", "optimizer")


class Memory:
    """Bytes of this process (or of the device) above what the models' weights take."""

    def __init__(self) -> None:
        self._before = 0

    def before_models(self) -> None:
        """Everything that is imported is there; no model is."""
        self._before = 0 if torch.cuda.is_available() else _status("VmRSS")

    def peak_above(self, models: int) -> int:
        """The highest moment so far, without what was there before and without the weights."""
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() - models
        return _status("VmHWM") - self._before - models


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def weight_bytes(*models: nn.Module | None) -> int:
    """Bytes of the models' parameters; one that is there twice counts once."""
    seen = {p.data_ptr(): p.numel() * p.element_size() for m in models if m is not None for p in m.parameters()}
    return sum(seen.values())
