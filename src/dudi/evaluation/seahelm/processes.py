"""Child processes that do not outlive us: each in a process group of its own, stopped with all that is in it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dudi.errors import EnvironmentFault

LINES, CAUSES = 15, 3
_ERROR = re.compile(r"\b\w+(Error|Exception): \w")


def start(command: Sequence[str], log: Path, *, cwd: Path) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, its output appended to a file.

    Raises:
        EnvironmentFault: the program is not there or cannot be run.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    local = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "PYTHONUNBUFFERED": "1"}
    how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "start_new_session": True}
    try:
        with log.open("ab") as out:
            return subprocess.Popen(command, stdout=out, cwd=cwd, env=os.environ | local, **how)
    except OSError as error:
        raise EnvironmentFault(f"{command[0]}: cannot be started: {error.strerror}") from error


def stop(process: subprocess.Popen[bytes], grace: float = 10.0) -> None:
    """End a program and its process group: first asked, and after `grace` seconds, or a second Ctrl-C, forced."""
    try:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ending(code: int) -> str:
    """How a program ended, in words."""
    return f"signal {-code}" if code < 0 else f"code {code}"


def last_lines(log: Path) -> str:
    """The end of a log, indented by two, and before it the first errors that it names: vLLM says the cause early."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    written = [f"  {line.rstrip()}" for line in text.splitlines() if line.strip() and "GET /health" not in line]
    named = [line for line in written[:-LINES] if _ERROR.search(line)][:CAUSES]
    return "\n".join([*named, *(["  ..."] if named else []), *written[-LINES:]]) or "  (no output)"
