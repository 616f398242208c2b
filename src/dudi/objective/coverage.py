"""How much of a text two tokenizers let two models be compared on, before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from dudi.data.chat import Tokens
from dudi.errors import ConfigError
from dudi.objective.shared_events import SharedEvents
from dudi.objective.token_bytes import TEXT_ALONE
from dudi.tables import grid_of, terminal

ROWS = 32
"""Completions of each language that are looked at."""


@dataclasses.dataclass(frozen=True, slots=True)
class LanguageCoverage:
    """One language's line."""

    language: str
    bytes: int  # of the completions, each end of turn counted as one
    used: int  # bytes before whose token something is compared
    compared: int  # borders of either side at which something is compared
    agreeing: int  # those of them at which both sides go on with the same event
    common: int  # those of them that are borders of both sides
    student_tokens: int
    teacher_tokens: int  # for the same bytes

    @property
    def share(self) -> float:
        """Share of the bytes that is used."""
        return self.used / max(self.bytes, 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Coverage:
    """What a pair of tokenizers covers, by language."""

    languages: list[LanguageCoverage]
    cells: int  # events that both sides know
    student_ids: int
    teacher_ids: int

    def table(self) -> str:
        """The lines as text."""
        columns = ("bytes used", "same event", "common borders", "tokens (student / teacher)")
        rows = []
        for one in self.languages:
            shares = (one.share, one.agreeing / max(one.compared, 1), one.common / max(one.compared, 1))
            tokens = f"{one.student_tokens:,} / {one.teacher_tokens:,}"
            rows.append((one.language, [*(f"{share:.1%}" for share in shares), tokens]))
        events = f"{self.cells:,} common events of {self.student_ids:,} / {self.teacher_ids:,} tokens"
        return f"{events}\n{terminal(grid_of(columns, rows, corner='language'))}"

    def check(self, least: float) -> None:
        """Refuse a pair with a language of whose bytes a smaller share is used.

        Raises:
            ConfigError: with the table.
        """
        low = [f"{one.language} {one.share:.0%}" for one in self.languages if one.share < least]
        if low:
            raise ConfigError(
                f"student and teacher have different tokenizers, and of some languages less than {least:.0%} of the "
                f"bytes could be compared: {', '.join(low)}. Take another teacher, or {TEXT_ALONE}; or lower "
                f"min_shared_bytes\n{self.table()}"
            )


def measure_coverage(events: SharedEvents, completions: Mapping[str, Sequence[Tokens]]) -> Coverage:
    """Align each language's first `ROWS` completions, which are given as the student's token ids."""
    lines = []
    for language, own in sorted(completions.items()):
        counts = np.zeros(7, dtype=np.int64)
        for completion in own[:ROWS]:
            aligned = events.align(completion, events.encode(completion))
            both = ~aligned.student.inside & ~aligned.teacher.inside
            compared = aligned.used.sum(), (aligned.used & aligned.agreeing).sum(), (aligned.used & both).sum()
            counts += [aligned.total, aligned.used_bytes(), *compared, aligned.student.length, aligned.teacher.length]
        lines.append(LanguageCoverage(language, *counts.tolist()))
    return Coverage(lines, len(events.cells), len(events.student_cells), len(events.teacher_cells))
