"""Signals that ask a run to end: a checkpoint after the current step, then the end; a second press leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Self

from dudi.errors import INTERRUPTED

ASKING: tuple[str, ...] = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
"""What asks: a person or a scheduler, a terminal that goes away, SLURM before a job's time is up."""
PRESSING: tuple[str, ...] = ("SIGTERM", "SIGINT")
"""Of these a second one leaves at once. After the others SIGTERM is no hurry: it follows them by itself."""
ONE_PRESS = 1.0
"""Seconds within which a signal counts as the same one: on Ctrl-C both the terminal and torchrun send it."""
_current: list[Interrupts] = []
"""Those that are open: signals belong to the process."""


def current() -> Interrupts | None:
    """What listens to signals now, if anything does."""
    return _current[-1] if _current else None


class Interrupts:
    """Turns the first signal into a wish to stop, which the trainer grants at its next step boundary.

    Attributes:
        armed: Whether a step boundary is coming. Elsewhere there is nothing to save, and a signal raises
            `KeyboardInterrupt` as Python's own handler does.
        received: The name of the first signal, or None.
    """

    def __init__(self) -> None:
        self.armed = False
        self.received: str | None = None
        self._at = 0.0
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there only
            numbers = [signal.Signals[name] for name in ASKING if name in signal.Signals.__members__]
            # One that is ignored stays so: `nohup` and `disown` mean it.
            heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handle) for number in heard}
        _current.append(self)
        return self

    def __exit__(self, *raised: object) -> None:
        _current.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.received is not None:
            if {name, self.received} <= {*PRESSING} and time.monotonic() - self._at > ONE_PRESS:
                os._exit(INTERRUPTED)  # whatever is being written appears whole or not at all
            return
        self.received, self._at = name, time.monotonic()
        if not self.armed:
            raise KeyboardInterrupt
        text = f"{self.received}: a checkpoint after this step, then the end; once more leaves at once\n"
        with contextlib.suppress(OSError):  # a terminal may be gone
            # Past Python's buffers, which the code that was interrupted may be using.
            os.write(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2, text.encode())
