"""What a long run is made of: each part is on disk once it is done, and one that fails does not stop the others."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import conductor, report
from benchmarks.sizes import Size

Found = tuple[dict[str, Any], str]
"""A part's numbers and its page."""


def compare(names: Sequence[str], size: Size, measured: dict[str, Any]) -> Found:
    """Contestants on the same work.

    Args:
        names: Of the contestants.
        size: Of the work.
        measured: The machine and its rates (`machine.describe`).
    """
    steps, failed = conductor.run(names, size)
    result = report.summary(size, measured, steps, failed)
    return result, report.page(result)


def write(path: Path, result: Mapping[str, Any], page: str) -> None:
    """Write a `.json`, and the page beside it as `.md`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(page + "\n")


def run_part(name: str, work: Callable[[], Found], path: Path, measured: Mapping[str, Any] | None = None) -> str:
    """Do a part and write it down.

    Args:
        name: What the part is called.
        work: What it does.
        path: Its `.json`.
        measured: Goes into it beside what it finds.

    Returns:
        Its page; that of a part that failed says how.
    """
    begun = time.monotonic()
    try:
        found, page = work()
    except Exception as error:
        found, page = {"failed": traceback.format_exc()}, f"### `{name}`\n\nFailed: {str(error)[-600:]}"
    found = {"part": name, **(measured or {}), **found, "wall_seconds": time.monotonic() - begun}
    write(path, found, page)
    return page
