"""The data card of a sample of SEA-Instruct-2602: where it comes from, what was left out, the mix before and after."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.data.rejections import Rejections
from dudi.data.sea.filter import MIX_COLUMNS
from dudi.data.sea.inputs import SeaFile
from dudi.data.sea.sampling import Cell, LanguageSample, total_variation
from dudi.errors import first_of
from dudi.files import sha256_of

SHOWN_VALUES = 6
"""Values of each column that the text shows; the card has them all."""
_UNKNOWN_LANGUAGE = "by text"


@dataclasses.dataclass
class Tally:
    """What the counting pass saw."""

    per_file: Counter[str] = dataclasses.field(default_factory=Counter)
    left_out: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    missing_columns: Counter[str] = dataclasses.field(default_factory=Counter)
    rejections: Rejections = dataclasses.field(default_factory=Rejections)

    def leave_out(self, language: str | None, reason: str) -> None:
        """Count a sound row that is not wanted, under the language that its folder names."""
        self.left_out.setdefault(language or _UNKNOWN_LANGUAGE, Counter())[reason] += 1


def card_of_sample(
    target: Path, files: Sequence[SeaFile], tally: Tally, samples: Mapping[str, LanguageSample], per_language: int
) -> dict[str, Any]:
    """What a card says of a written sample: nothing in it depends on the time or on the folders of this machine."""
    inputs = []
    for file in files:
        size, read = file.path.stat().st_size, tally.per_file[file.label]
        inputs.append({"file": file.label, "bytes": size, "rows": read, "sha256": sha256_of(file.path)})
    rows = sum(len(sample.places) for sample in samples.values())
    left_out = {code: dict(counts) for code, counts in sorted(tally.left_out.items())}
    return {
        "inputs": inputs,
        "output": {"file": target.name, "sha256": sha256_of(target), "rows": rows},
        "rows_read": tally.per_file.total(),
        "missing_columns": dict(tally.missing_columns),
        "left_out": left_out,
        "rejected": dict(tally.rejections.counts),
        "languages": {code: _language_card(sample, per_language) for code, sample in samples.items()},
    }


def _language_card(sample: LanguageSample, asked: int) -> dict[str, Any]:
    good, taken = sample.before.total(), len(sample.places)
    card: dict[str, Any] = {"asked": asked, "good": good, "taken": taken, "cells": len(sample.before)}
    if taken < asked:
        card["note"] = f"{good} good rows for {asked} asked: all were taken"
    card["joint_mix_moved"] = round(total_variation(sample.before, sample.after), 6)
    card["mix"] = {name: _marginal(sample.before, sample.after, position) for position, name in enumerate(MIX_COLUMNS)}
    return card


def _marginal(before: Counter[Cell], after: Counter[Cell], position: int) -> dict[str, list[int]]:
    """Rows [before, after] by the value of one column, the commonest at the top."""
    sums: dict[str, list[int]] = {}
    for side, cells in enumerate((before, after)):
        for cell, count in cells.items():
            sums.setdefault(cell[position], [0, 0])[side] += count
    return dict(sorted(sums.items(), key=lambda item: (-item[1][0], item[0])))


def mix_text(card: dict[str, Any], rejections: Rejections) -> str:
    """The mix of each language before and after, and the bad rows, for people."""
    lines = [f"{card['output']['rows']:,} of {card['rows_read']:,} rows"]
    for code, language in card["languages"].items():
        moved = f"joint mix moved by {language['joint_mix_moved']:.2%}"
        lines.append(f"{code}: {language['taken']:,} of {language['good']:,} good rows, {moved}")
        if "note" in language:
            lines.append(f"  note: {language['note']}")
        good, taken = language["good"], language["taken"]
        for name, values in language["mix"].items() if taken else ():
            shares = [f"{value} {b / good:.1%} → {a / taken:.1%}" for value, (b, a) in values.items()]
            lines.append(f"  {name}: {first_of(shares, SHOWN_VALUES)}")
    for code, reasons in card["left_out"].items():
        lines.append(f"left out, {code}: " + ", ".join(f"{reason} {count:,}" for reason, count in reasons.items()))
    if card["missing_columns"]:
        missing = ", ".join(f"{name} (in {count} files)" for name, count in card["missing_columns"].items())
        lines.append(f"columns that were not there, so not filtered by and counted as 'unknown': {missing}")
    if rejections:
        lines += ["rejected:", *rejections.summary()]
    return "\n".join(lines)
