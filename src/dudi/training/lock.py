"""A run's folder belongs to one process at a time: another one is refused, with who holds it."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from dudi.errors import ConfigError, plain

LOCK, HOLDER = ".lock", ".holder"
"""The file that is locked, and the one that says who did."""


class FolderLock:
    """Holds a run's folder while it is open; of several ranks one holds it (`ranks.on_first`).

    The lock is the operating system's: it ends with the process, however that ends. A process may hold a folder more
    than once: a run does, and its trainer.

    Args:
        folder: The run's folder; made where it is missing, and taken away again where nothing was written into it.

    Raises:
        ConfigError: on entering: another process works in it.
    """

    def __init__(self, folder: Path) -> None:
        self.place = folder.resolve()
        self.lock = FileLock(self.place / LOCK, is_singleton=True)

    def __enter__(self) -> Self:
        self.place.mkdir(parents=True, exist_ok=True)
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            holder = self.place / HOLDER
            who = (
                plain(holder.read_text(encoding="utf-8").strip()[:300]) if holder.is_file() else "it does not say which"
            )
            raise ConfigError(
                f"{self.place}: another process works in this folder ({who}); wait for it, end it, or use another "
                "--output (output_dir in Python)"
            ) from None
        if self.lock.lock_counter == 1:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            words = " ".join(sys.argv)[:200]
            self._say(f"process {os.getpid()} on {socket.gethostname()} since {since}: {words}\n")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.lock.lock_counter == 1:
            with contextlib.suppress(OSError):  # the folder has gone, can be written no more, or holds a run
                for name in (HOLDER, LOCK):
                    (self.place / name).unlink(missing_ok=True)
                self.place.rmdir()
        self.lock.release()

    def _say(self, who: str) -> None:
        with contextlib.suppress(OSError):
            (self.place / HOLDER).write_text(who, encoding="utf-8")


def hold_anew(folder: Path, old: Path) -> None:
    """Hold a folder again that was moved away, its lock with it, if this process holds it.

    Args:
        folder: Where it was.
        old: Where it is now; nobody holds it there.
    """
    lock = FolderLock(folder)
    times = lock.lock.lock_counter
    if not times:
        return
    lock.lock.release(force=True)
    for name in (HOLDER, LOCK):
        (old / name).unlink(missing_ok=True)
    for _ in range(times):
        lock.__enter__()
