"""Child processes that never outlive us: each in a process group of its own, stopped with all that it started."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import psutil

from dudi.errors import EnvironmentFault

LINES = 15
CAUSES = 3
GRACE = 10.0
_TAIL_BYTES = 64 * 1024
_ERROR = re.compile(r"\b\w+(Error|Exception): \w")


def start(
    command: Sequence[str], log: Path, *, cwd: Path, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, its output appended to a file.

    Args:
        command: Program and words.
        log: Takes stdout and stderr.
        cwd: Its working directory.
        variables: Added to the environment.

    Raises:
        EnvironmentFault: the program is not there or cannot be run.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    local = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "PYTHONUNBUFFERED": "1"}
    try:
        with log.open("ab") as out:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, **local, **(variables or {})},
                start_new_session=True,
            )
    except OSError as error:
        raise EnvironmentFault(f"{command[0]}: cannot be started: {error.strerror}") from error


def stop(process: subprocess.Popen[bytes], grace: float = GRACE) -> None:
    """End a program, its process group, and what it started elsewhere: first asked, then forced.

    Args:
        process: Of `start`; it may be gone already while its children live.
        grace: Seconds between asking and forcing.
    """
    family = _descendants(process.pid)
    try:
        _signal(process.pid, family, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and (process.poll() is None or _alive(process.pid, family)):
            time.sleep(0.05)
    finally:  # a second Ctrl-C forces
        family += [child for child in _descendants(process.pid) if child not in family]
        _signal(process.pid, family, signal.SIGKILL)
        process.wait()


def last_lines(log: Path, lines: int = LINES) -> str:
    """The end of a log, indented by two, and before it the first errors that it names: vLLM says the cause early.

    Blank lines and the traces of our own watching are left out.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return "  (no output)"
    written = [f"  {line.rstrip()}" for line in text.splitlines() if line.strip() and "GET /health" not in line]
    named = [line for line in written[:-lines] if _ERROR.search(line)][:CAUSES]
    return "\n".join([*named, *(["  ..."] if named else []), *written[-lines:]]) or "  (no output)"


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does: by an exception, so that what was started is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers; whoever runs us in another one stops us otherwise
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def _signal(group: int, family: Sequence[psutil.Process], number: signal.Signals) -> None:
    """The group, also when its first process is gone; then whoever left the group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(number)


def _alive(group: int, family: Sequence[psutil.Process]) -> bool:
    if any(_runs(child) for child in family):
        return True
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    # A zombie is still a member, and where the first process of a container reaps nobody it stays one for ever.
    return any(_group_of(one) == group and _runs(one) for one in psutil.process_iter())


def _group_of(process: psutil.Process) -> int | None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        return os.getpgid(process.pid)
    return None


def _runs(child: psutil.Process) -> bool:
    try:
        return child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it went between the two questions
        return False
