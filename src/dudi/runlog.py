"""`metrics.jsonl` and `samples.jsonl`: one JSON object a line, nothing after the last finished step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class RunLog:
    """A JSONL file that a run appends to.

    Args:
        path: The file.
        writes: Whether this process writes (rank 0).
    """

    def __init__(self, path: Path, writes: bool) -> None:
        self.path, self.writes = path, writes

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line and hand it to the operating system, so that a reader sees whole lines."""
        if not self.writes:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def rewind(self, stage: str, step: int) -> None:
        """Drop what a killed process wrote of `stage` after `step`, a half-written last line included."""
        if not self.writes or not self.path.exists():
            return
        kept = [r for r in read_jsonl(self.path) if r.get("stage") != stage or r.get("step", 0) <= step]
        beside = self.path.with_name(self.path.name + ".tmp")
        beside.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept), encoding="utf-8")
        os.replace(beside, self.path)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a JSONL file; a torn last line is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="backslashreplace").split("\n"):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records
