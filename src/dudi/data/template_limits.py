"""A chat template is a program from whoever made the model: `transformers` runs it in a sandbox, here it gets an end.

The sandbox keeps it from Python, and not from looping for ever or filling the memory.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from jinja2 import Environment, TemplateSyntaxError

from dudi.errors import ConfigError, DataError

SECONDS = 5.0
"""Longest time that a template may take for a conversation of two turns; real ones take a millisecond."""
MEMORY = 1 << 29
"""Bytes that it may take."""
MAX_CHARACTERS = 1 << 20
"""Longest template, and the longest text that it may make of two short turns."""


class TooLong(Exception):
    """The template has had its time."""


def read_template(path: Path, key: str) -> str:
    """A chat template's file.

    Args:
        path: The file.
        key: What asked for it, for messages.

    Raises:
        ConfigError: it is no regular file, too large, or no text.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{key}: {path} is no file")
        if path.stat().st_size > MAX_CHARACTERS:
            raise ConfigError(f"{key}: {path} is larger than {MAX_CHARACTERS:,} bytes: no chat template")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: cannot read {path}: {error}") from error


def refuse_powers(template: str, model_name: str) -> None:
    """Refuse `**`: a power tower computes for years in one operation, which nothing can interrupt.

    Raises:
        DataError: the template has one, or is no Jinja.
    """
    try:
        found = any(kind == "operator" and text == "**" for _, kind, text in Environment().lex(template))
    except TemplateSyntaxError as error:
        raise DataError(
            f"{model_name}: its chat template is no Jinja (line {error.lineno}: {error.message})"
        ) from error
    if found:
        raise DataError(f"{model_name}: its chat template computes powers (**), which no chat template needs")


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Inside, Python code has `SECONDS` and `MEMORY`: where the system has such limits, and in the main thread.

    Raises:
        TooLong: the time is over; MemoryError: the memory is.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    with _memory():
        handler = signal.signal(signal.SIGALRM, _stop)
        left, interval = signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, left, interval)
            signal.signal(signal.SIGALRM, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise TooLong(f"it takes longer than {SECONDS:g} seconds for two short turns")


@contextlib.contextmanager
def _memory() -> Iterator[None]:
    """Lower the limit of this process's memory to what it has and `MEMORY` more."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):  # not Linux
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * resource.getpagesize() + MEMORY
    if soft == resource.RLIM_INFINITY or wanted < soft:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
