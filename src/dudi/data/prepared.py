"""Rows made from what people have: judged, held against benchmarks, balanced, written, and described on a card.

Two passes over the source: the first judges every row and notes a random number for each good one, eight bytes; the
second writes those whose number is among the smallest of their group. So memory does not grow with the texts.
"""

from __future__ import annotations

import array
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dudi.data.overlap import CHARACTERS, WORDS, HeldOutText
from dudi.data.records import Located
from dudi.data.rejections import Rejections
from dudi.data.rows import Row, RowError, parse_row
from dudi.data.sea.sampling import hash_rank
from dudi.data.sources import RowIds, by_language, content_digest, reject
from dudi.data.writers import card_beside, row_writer
from dudi.errors import DataError
from dudi.files import sha256_of, write_text

Group = tuple[str, ...]
"""What is balanced: a language, or a language and the one it was translated from."""
Quotas = Callable[[Mapping[Group, int]], Mapping[Group, int]]
"""From how many good rows each group has to how many of them are written."""
MAX_REJECTED_SHARE = 0.05
"""Nothing is written when more rows than this share are bad."""


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """A row before it is judged.

    Attributes:
        record: `id`, `language`, `prompt` and `completion`.
        group: What it is counted under.
        texts: What is held against a benchmark: the source's own texts, without the words around them.
    """

    record: Mapping[str, Any]
    group: Group
    texts: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """What was written; `NAME.card.json` is beside it.

    Attributes:
        rejections: The rows that could not be used.
        notes: What a person should know of the source.
    """

    output: Path
    card: Mapping[str, Any]
    rejections: Rejections
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        card, written = self.card, self.card["languages"]
        counts = ", ".join(f"{code} {own['written']:,}" for code, own in written.items())
        lines = [f"{self.output}: {card['output']['rows']:,} of {card['rows_read']:,} rows ({counts})"]
        if card["not_in"] is not None:
            left_out = {code: own["overlap"] for code, own in written.items() if own["overlap"]}
            each = f" ({by_language(left_out)})" if left_out else ""
            named = ", ".join(card["not_in"]["named"])
            lines.append(f"left out, since they share n-grams with {named}: {sum(left_out.values()):,}{each}")
        if self.rejections:
            bad = self.output.with_suffix(".rejected.jsonl").name
            lines += [f"{len(self.rejections):,} rejected, each in {bad}:", *self.rejections.summary()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def prepare(
    drafts: Callable[[], Iterator[Located]],
    output: Path,
    about: Mapping[str, Any],
    *,
    quotas: Quotas,
    benchmark: HeldOutText | None,
    seed: int,
    notes: Callable[[], Sequence[str]],
) -> Prepared:
    """Judge, balance and write rows, and their card.

    Args:
        drafts: Starts a pass: located `Draft`s, or what kept a record from being one.
        output: The `.jsonl` or `.parquet` file; `NAME.card.json` and `NAME.rejected.jsonl` go beside it.
        about: What the card says of the source.
        quotas: How many rows each group gives.
        benchmark: Rows that share an n-gram with it are left out and counted.
        seed: Of the choice within a group.
        notes: What a person should know of the source, asked after a pass.

    Raises:
        ConfigError: the output is of no known kind, or the source is not there.
        DataError: no good row, or too many bad ones.
        EnvironmentFault: the output cannot be written.
    """
    judge = _Judge(benchmark, seed)
    ranks: dict[Group, array.array[int]] = {}
    for group, _, rank in judge.passed(drafts()):
        ranks.setdefault(group, array.array("q")).append(rank)
    judge.rejections.settle(output.with_suffix(".rejected.jsonl"))
    judge.rejections.check_share(judge.total, MAX_REJECTED_SHARE)
    if not ranks:
        why = f"; {judge.overlap.total():,} share n-grams with the benchmark" if judge.overlap else ""
        raise DataError("; ".join([f"{output.name}: no good row among {judge.total:,}{why}", *notes()]))
    limits = _limits(ranks, quotas({group: len(own) for group, own in ranks.items()}))
    written: Counter[str] = Counter()
    with row_writer(output) as write:
        for group, row, rank in _Judge(benchmark, seed).passed(drafts()):
            if rank <= limits[group]:
                written[row.language] += 1
                write({"id": row.id, "language": row.language, "messages": row.messages})
    told = list(notes())
    not_in: dict[str, Any] | None = None
    if benchmark is not None:
        not_in = {"named": benchmark.named, "tasks": benchmark.tasks, "words": WORDS, "characters": CHARACTERS}
        told += [f"--not-in: {note}" for note in benchmark.notes]
    card = {
        **about,
        "seed": seed,
        "not_in": not_in,
        "rows_read": judge.total,
        "rejected": dict(judge.rejections.counts),
        "languages": {
            code: {"read": judge.read[code], "overlap": judge.overlap[code], "written": written[code]}
            for code in sorted(judge.read)
        },
        "output": {"file": output.name, "rows": written.total(), "sha256": sha256_of(output)},
    }
    write_text(card_beside(output), json.dumps(card, ensure_ascii=False, indent=2) + "\n")
    return Prepared(output, card, judge.rejections, tuple(told))


def _limits(ranks: Mapping[Group, array.array[int]], wanted: Mapping[Group, int]) -> dict[Group, float]:
    """The largest rank of each group that is written; none where nothing is wanted."""
    limits: dict[Group, float] = {}
    for group, own in ranks.items():
        count = min(wanted.get(group, 0), len(own))
        limits[group] = int(np.partition(np.frombuffer(own, np.int64), count - 1)[count - 1]) if count else -np.inf
    return limits


class _Judge:
    """One pass: which drafts are good rows, and what became of the others."""

    def __init__(self, benchmark: HeldOutText | None, seed: int) -> None:
        self.benchmark, self.seed = benchmark, seed
        self.total = 0
        self.read: Counter[str] = Counter()
        self.overlap: Counter[str] = Counter()
        self.rejections = Rejections()
        self._ids = RowIds()

    def passed(self, drafts: Iterator[Located]) -> Iterator[tuple[Group, Row, int]]:
        """The good rows with their groups and random numbers."""
        for located in drafts:
            draft = located.value
            self.total += 1
            try:
                if located.problem is not None:
                    raise RowError(*located.problem)
                self.read[draft.record["language"]] += 1
                row = parse_row(draft.record, fallback_id=f"{located.file}:{located.line}").in_nfc()
                row = self._ids.unique(row)
            except RowError as error:
                shown = located if draft is None else dataclasses.replace(located, value=draft.record)
                reject(self.rejections, shown, error)
                continue
            if self.benchmark is not None and self.benchmark.grams.shares(draft.texts):
                self.overlap[row.language] += 1
                continue
            yield draft.group, row, hash_rank(self.seed, row.id, content_digest(row))


def at_most(count: int | None, counts: Mapping[Group, int]) -> dict[Group, int]:
    """At most so many rows of each group; all where None."""
    return {group: own if count is None else min(own, count) for group, own in counts.items()}
