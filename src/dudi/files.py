"""A file that appears whole or not at all, and what it holds, as a hash."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from dudi.errors import EnvironmentFault


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well.

    Args:
        path: The file to write; its folder is made.

    Yields:
        The temporary path; the block creates the file.

    Raises:
        EnvironmentFault: the folder or the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write {path}: {error.strerror or error}; check the folder and the disk"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_text(target: Path, text: str) -> Path:
    """Write a file whole or not at all.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    beside = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A lone surrogate in somebody's data must not cost the report.
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(beside, target)
    except OSError as error:
        raise EnvironmentFault(f"{target}: cannot be written: {error.strerror}") from error
    return target
