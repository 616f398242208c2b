"""The files that a run reads, as they were when it began: whether one of them was touched since."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from dudi.files import json_text

SOURCES = "sources.json"
Times = dict[str, list[int]]
"""Size and times of each file, by its path."""


def times_of(names: Iterable[str | None], run: Path) -> Times:
    """Size and times of the files at these names; what is changed has others, what is only touched may have too.

    Args:
        names: Files, folders and globs; a name that is no path here (of the hub) has no files.
        run: The run's folder, whose own files do not count.
    """
    own = run.resolve()
    files = {file for name in names if name for file in _files_of(name) if not file.is_relative_to(own)}
    found = {str(file): file.stat() for file in sorted(files)}
    return {name: [one.st_size, one.st_mtime_ns, one.st_ctime_ns] for name, one in found.items()}


def touched(names: Iterable[str | None], run: Path) -> Times | None:
    """`times_of` the files, where it is not what a run wrote down of them (`SOURCES`); else, and without that, None."""
    file = run / SOURCES
    now = times_of(names, run)
    return now if file.is_file() and file.read_text(encoding="utf-8") != json_text(now) else None


def _files_of(name: str) -> Iterator[Path]:
    """The files of a name, without those that are hidden inside a folder."""
    path = Path(name).expanduser()
    for place in [path] if path.exists() else map(Path, glob.glob(str(path), recursive=True)):
        for file in place.rglob("*") if place.is_dir() else [place]:
            hidden = any(part.startswith(".") for part in file.relative_to(place).parts)
            if file.is_file() and not hidden:
                yield file.resolve()
