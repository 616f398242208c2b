"""Rows that were not taken: counted by reason, kept with file and line, shown, and a stop when there are too many."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from dudi.errors import DataError, EnvironmentFault, plain
from dudi.files import atomic_file

EXCERPT_LENGTH = 200
"""Characters of a rejected row that `rejected.jsonl` shows."""

IN_MEMORY = 1 << 22
"""Bytes of rejections held in memory; more of them go to a temporary file, so that memory stays flat."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rejection:
    """One rejected row.

    Attributes:
        reason: A short stable slug, such as `empty_completion`.
        file: The file, dataset or stage that it came from.
        line: Its line (text), row (Parquet, counted from 1) or record (CSV: the record's last line).
        excerpt: The beginning of the row, at most 200 characters.
    """

    reason: str
    file: str
    line: int | None = None
    id: str | None = None
    detail: str = ""
    excerpt: str = ""


class Rejections:
    """The rejected rows of one dataset.

    Attributes:
        counts: Rejected rows by reason.
        path: Where `write` put them last; None before.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.path: Path | None = None
        self._lines = tempfile.SpooledTemporaryFile(IN_MEMORY, mode="w+", encoding="utf-8")  # noqa: SIM115
        self._examples: dict[str, str] = {}

    def __len__(self) -> int:
        return self.counts.total()

    def add(
        self,
        reason: str,
        *,
        where: str,
        detail: str = "",
        line: int | None = None,
        row_id: str | None = None,
        excerpt: str = "",
    ) -> None:
        """Count one rejected row; arguments as the fields of `Rejection`, `where` for its `file`."""
        detail, excerpt = (plain(text[: 4 * EXCERPT_LENGTH]) for text in (detail, excerpt))
        rejection = Rejection(reason, where, line, row_id, detail, excerpt[:EXCERPT_LENGTH])
        self.counts[reason] += 1
        self._lines.write(json.dumps(dataclasses.asdict(rejection), ensure_ascii=False) + "\n")
        place = f"{plain(where)}:{line}" if line is not None else plain(where)
        self._examples.setdefault(reason, f"{place}: {detail}" if detail else place)

    def items(self) -> list[Rejection]:
        """Every rejection, in the order in which they came."""
        self._lines.seek(0)
        found = [Rejection(**json.loads(line)) for line in self._lines]
        self._lines.seek(0, 2)
        return found

    def write(self, path: Path) -> Path:
        """Write `rejected.jsonl`, whole or not at all: one `Rejection` a line, as an object.

        Returns:
            `path`.

        Raises:
            EnvironmentFault: the file cannot be written.
        """
        self._lines.seek(0)
        with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as out:
            shutil.copyfileobj(self._lines, out)
        self._lines.seek(0, 2)
        self.path = path
        return path

    def settle(self, path: Path) -> Path | None:
        """Write `rejected.jsonl`, or remove that of an earlier attempt, which would tell of rows that are now good.

        Returns:
            `path`, or None where no row was rejected.

        Raises:
            EnvironmentFault: the file cannot be written or removed.
        """
        if self:
            return self.write(path)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise EnvironmentFault(f"cannot remove {path}: {error.strerror}") from error
        return None

    def summary(self) -> list[str]:
        """One line a reason, the commonest at the top: count, reason and the earliest place."""
        return [f"{count:>8,} {reason} (as in {self._examples[reason]})" for reason, count in self.counts.most_common()]

    def check_share(self, total: int, max_share: float) -> None:
        """Stop when too many rows were rejected.

        Raises:
            DataError: more than `max_share`, between 0 and 1, of `total` rows that were read, good and bad.
        """
        if not total or len(self) <= max_share * total:
            return
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.counts.most_common(6))
        place = str(self.path) if self.path is not None else "rejected.jsonl"
        raise DataError(
            f"{len(self):,} of {total:,} rows were rejected, more than the allowed {max_share:.1%}: {reasons}\n"
            f"each one is in {place} with its file and line; repair them or take them out"
        )
