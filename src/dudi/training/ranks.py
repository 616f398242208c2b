"""What several processes decide together: one looks or writes, all go on or all stop, with the same message."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from dudi.errors import DudiError, EnvironmentFault

T = TypeVar("T")


def from_first(call: Callable[[], T]) -> T:
    """What `call` gives on the first rank, or its error, on every rank: looking for themselves they could disagree.

    Raises:
        DudiError: what the first rank raised; an `OSError` of the system becomes an `EnvironmentFault`.
    """
    found: list[tuple[T | None, DudiError | None]] = [(None, None)]
    if PartialState().process_index == 0:
        found = [_outcome(call)]
    value, error = broadcast_object_list(found, from_process=0)[0]
    if error is not None:
        raise error
    return value


@contextlib.contextmanager
def on_first(manager: contextlib.AbstractContextManager[object]) -> Iterator[None]:
    """Open a context on the first rank alone; what it raises on entering is raised on every rank."""
    with contextlib.ExitStack() as stack:
        from_first(lambda: bool(stack.enter_context(manager)))
        yield


def together(call: Callable[[], object]) -> None:
    """Call on every rank and wait for all of them: if one fails, all stop, instead of waiting for it for ever.

    Raises:
        DudiError: this rank's own, else that of the first rank that failed.
    """
    _, own = _outcome(call)
    for error in [own, *gather_object([own])]:
        if error is not None:
            raise error


def close_group_at_exit() -> None:
    """Close the process group before the interpreter ends: gloo's threads may still be dropping tensors.

    A thread that asks for the interpreter's lock while it is taken down ends the process by SIGABRT ("terminate called
    without an active exception"), and with it the launcher's other ranks: a finished run would look failed.
    """
    atexit.unregister(_close_group)
    atexit.register(_close_group)


def _close_group() -> None:
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def _outcome(call: Callable[[], T]) -> tuple[T | None, DudiError | None]:
    try:
        return call(), None
    except DudiError as error:
        return None, error
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return None, EnvironmentFault(f"{place}{error.strerror or error}")
