"""`metrics.jsonl`, `samples.jsonl`, `eval.jsonl`: one JSON object a line, nothing after the last finished step."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.files import write_json_lines


@dataclasses.dataclass(frozen=True, slots=True)
class RunLog:
    """A JSONL file that a run appends to, if this is the process that `writes` (rank 0)."""

    path: Path
    writes: bool

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line and hand it to the operating system, so that a reader sees whole lines.

        The folder is not made here: one that vanished under a run must stop it, and not come back half empty.
        """
        if not self.writes:
            return
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def sync(self) -> None:
        """Bring what was written to the disk: a checkpoint must not outlive the lines of its steps."""
        if self.writes and self.path.exists():
            with self.path.open("a") as file:
                os.fsync(file.fileno())

    def rewind(self, stage: str, step: int) -> None:
        """Drop what a killed process wrote of `stage` after `step`, a half-written last line included."""
        if self.writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self.replace([r for r in read_jsonl(self.path) if r.get("stage") != stage or r.get("step", 0) <= step])

    def replace(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the whole file anew; it changes at once or not at all."""
        if self.writes:
            write_json_lines(self.path, records)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a JSONL file; a torn last line is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="backslashreplace").split("\n"):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records
