"""The miniature's rows as files, as `dudi stack align`, `teach`, `distill` and `eval` read them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from dudi.data.cldr.speaker import LANGUAGES
from dudi.files import write_json_lines
from dudi.stacking.miniature import english
from dudi.stacking.miniature.parallel import pairs
from dudi.stacking.miniature.places import in_parallel
from dudi.stacking.miniature.tasks import TASKS, asked_rows, country_of, training_rows
from dudi.stacking.rows import StackRow

TEXTS = 96_000
"""English texts of Stage 1: of 1,500 steps of 64."""
BITEXT = 8000
"""Pairs of other languages with English."""


def write_rows(folder: Path) -> None:
    """Write `english.jsonl`, `bitext.jsonl`, and each task's `TASK-train.jsonl` and `TASK-test.jsonl` into a folder."""
    texts = itertools.islice(english.sentences(1000), TEXTS)
    _write(folder / "english.jsonl", (StackRow(text, "en", id=f"english/{n}") for n, text in enumerate(texts)))
    _write(folder / "bitext.jsonl", itertools.islice(bitext(1000), BITEXT))
    for task in TASKS:
        _write(folder / f"{task}-train.jsonl", training_rows(task))
        _write(folder / f"{task}-test.jsonl", _asked(task))


def bitext(seed: int) -> Iterator[StackRow]:
    """Sentences of the translator's parallel text in other languages, with their English."""
    for number, pair in enumerate(pairs(seed)):
        sides = {pair.source_language: pair.source, pair.target_language: pair.target}
        english_side = sides.pop("en", None)
        if english_side is not None:
            ((language, text),) = sides.items()
            yield StackRow(text, language, english=english_side, id=f"bitext/{number}")


def _asked(task: str) -> Iterator[StackRow]:
    """The test rows in all languages: the parallel text names their country or hides it; a country is one item."""
    for language in LANGUAGES:
        for row in asked_rows(task, language):
            country = country_of(row)
            yield dataclasses.replace(row, split="named" if in_parallel(country) else "hidden", item=country)


def _write(file: Path, rows: Iterable[StackRow]) -> None:
    records = (dataclasses.asdict(row) for row in rows)
    given = ({key: value for key, value in record.items() if value not in (None, (), "")} for record in records)
    write_json_lines(file, given)
