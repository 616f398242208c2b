"""A file that appears whole or not at all, and what it holds, as a hash."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dudi.errors import EnvironmentFault

_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EBADF, errno.EISDIR}
"""What file systems answer that know no sync of a folder (FUSE, CIFS, 9p); a full or broken disk answers otherwise."""
_unsynced: set[Path] = set()


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well; the folder is made.

    Yields:
        The temporary path, an empty file; the block writes it, or puts another file there.

    Raises:
        EnvironmentFault: the folder or the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        yield temporary
        settle_mode(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        why = error.strerror or error
        raise EnvironmentFault(f"cannot write {path}: {why}; check the folder and the disk") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> Path:
    """Write a text whole or not at all; a lone surrogate in somebody's data does not cost the file.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write a value as `json_text` has it; errors and return as of `write_text`."""
    return write_text(path, json_text(value))


def write_json_inside(path: Path, value: Any) -> None:
    """Write a value as `json_text` has it into a folder that is about to be sealed; who seals it says what fails."""
    path.write_text(json_text(value), encoding="utf-8")


def write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write one object a line; errors and return as of `write_text`. No record is held longer than it takes."""
    with (
        atomic_file(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as out,
    ):
        for record in records:
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
    return path


def json_text(value: Any) -> str:
    """JSON that people can read, with a line's end; what JSON does not know is written as its text."""
    return json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n"


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_of_files(files: Iterable[Path]) -> str:
    """Hex SHA-256 over the hashes and names of files, in their order: the same wherever their folder lies."""
    return hashlib.sha256("\n".join(f"{sha256_of(file)}  {file.name}" for file in files).encode()).hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hex SHA-256 of a value as JSON, whatever the order of its keys; what JSON does not know counts by its text.

    Identities, caches and seals stand on it: another way to write the JSON makes all of them others.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def sync(path: Path) -> None:
    """Bring a file, or a folder's names, to the disk.

    Where the file system cannot sync a folder this is said once and passed over: what is written is as whole as before,
    only a power cut right after it may take it away.

    Raises:
        OSError: the disk refuses.
    """
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC or not path.is_dir():
            raise
        if path not in _unsynced:
            _unsynced.add(path)
            warnings.warn(f"{path}: this file system cannot sync a folder ({error.strerror}); going on", stacklevel=2)


def settle_mode(path: Path) -> None:
    """Give a new file the mode that the umask asks for: some libraries write through temporary files of mode 0600."""
    wanted = 0o666 & ~_umask()
    if stat.S_IMODE(path.stat().st_mode) != wanted:
        path.chmod(wanted)


def _umask() -> int:
    """The process's umask; where the system does not tell it, it can only be had by setting it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    own = os.umask(0o077)
    os.umask(own)
    return own
