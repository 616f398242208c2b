"""A run's folder belongs to one process at a time: another one is refused, with who holds it."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Self

from dudi.errors import ConfigError, plain

if sys.platform != "win32":
    import fcntl

_held: dict[Path, tuple[int, int]] = {}
"""The folders that this process holds: an open descriptor of each, and how often it is held."""


class FolderLock:
    """Holds a run's folder while it is open; of several ranks one holds it (`ranks.on_first`).

    The operating system locks the folder itself: no file is written, and the lock ends with the process, however that
    ends. A process may hold a folder more than once: a run does, and its trainer. Other machines are not kept out. A
    folder is made where it is missing, and taken away again where nothing was written into it.

    Raises:
        ConfigError: on entering: another process works in it.
    """

    def __init__(self, folder: Path) -> None:
        self.place = folder.resolve()

    def __enter__(self) -> Self:
        descriptor, times = _held[self.place] if self.place in _held else (_locked(self.place), 0)
        _held[self.place] = descriptor, times + 1
        return self

    def __exit__(self, *raised: object) -> None:
        descriptor, times = _held.pop(self.place)
        if times > 1:
            _held[self.place] = descriptor, times - 1
            return
        with contextlib.suppress(OSError):  # there is a run in it, it has gone, or it can be written no more
            self.place.rmdir()
        os.close(descriptor)


def hold_anew(folder: Path) -> None:
    """Hold a folder again that was moved away, if this process holds it: the lock has gone with it."""
    place = folder.resolve()
    if place in _held:
        descriptor, times = _held[place]
        os.close(descriptor)
        _held[place] = _locked(place), times


def _locked(place: Path) -> int:
    """An open descriptor of a folder that is locked."""
    while True:
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_RDONLY)
        try:
            if sys.platform != "win32":
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _holder(os.fstat(descriptor))
            os.close(descriptor)
            raise ConfigError(
                f"{place}: another process works in this folder{who}; wait for it, end it, or use another --output "
                "(output_dir in Python)"
            ) from None
        except OSError:  # a file system without locks
            pass
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), place.stat()):
                return descriptor
        os.close(descriptor)  # another process has just let it go, and taken it away


def _holder(folder: os.stat_result) -> str:
    """Which process has locked a folder, as Linux tells it."""
    device = f"{os.major(folder.st_dev):02x}:{os.minor(folder.st_dev):02x}:{folder.st_ino}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines():
            fields = line.split()
            if "FLOCK" in fields and device in fields:
                process = fields[fields.index(device) - 1]
                words = Path(f"/proc/{process}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                return f" (process {process}: {plain(' '.join(words).strip()[:200])})"
    return ""


def _forget() -> None:
    """In a process that was forked: the folders are its parent's, and let go when that ends."""
    for descriptor, _ in _held.values():
        os.close(descriptor)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget)
