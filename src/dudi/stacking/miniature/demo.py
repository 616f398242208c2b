"""`dudi stack demo`: MT-LLM against its rivals on small models of the package, offline, on a laptop."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from dudi.command import say
from dudi.data.cldr.speaker import LANGUAGES
from dudi.errors import ConfigError
from dudi.files import write_json, write_text
from dudi.stacking import StackRow
from dudi.stacking.miniature import english
from dudi.stacking.miniature.contest import Budget
from dudi.stacking.miniature.page import page
from dudi.stacking.miniature.parallel import pairs
from dudi.stacking.miniature.results import terminal
from dudi.stacking.miniature.running import Found, contest
from dudi.stacking.miniature.tasks import TASKS, asked_rows, country_of, training_rows, was_in_parallel

ATTENTIONS = ("bidirectional", "causal")
QUICK = Budget(align_steps=4, align_batch=8, task_steps=3, task_batch=4, trained=12, tests=2, beams=2)
BITEXT = 8000
"""Pairs that `--rows` writes."""
INTRODUCTION = """\
A translator of eight languages is stacked under a small LLM that has read
English alone. Nothing is downloaded. Each system learns a task from English
rows, and is asked in seven other languages about other countries:
  region: in which part of the world does the sentence play?
"""


def run(given: argparse.Namespace) -> int:
    """Run the contest and print its tables.

    Args:
        given: The words of `dudi stack demo`.

    Raises:
        ConfigError: a number below 1.
    """
    for name in ("seeds", "jobs"):
        if vars(given)[name] < 1:
            raise ConfigError(f"dudi stack demo: --{name} must be at least 1, got {vars(given)[name]}")
    if given.rows is not None:
        return write_rows(given.rows)
    say(INTRODUCTION)
    started = time.perf_counter()
    attentions = ATTENTIONS if given.attention == "both" else (given.attention,)
    found = contest(attentions, given.seeds, given.jobs, QUICK if given.quick else Budget())
    say("\n" + terminal(found.scores, colour=sys.stdout.isatty()))
    say(f"\n{speed(found)}\n{time.perf_counter() - started:.0f} s in all.")
    if given.output is not None:
        write(found, given.output)
    return 0


def write(found: Found, folder: Path) -> None:
    """The page, and what it was made from."""
    write_text(folder / "mtllm.md", page(found))
    write_json(folder / "mtllm.json", dataclasses.asdict(found))
    say(f"Written: {folder / 'mtllm.md'} and mtllm.json")


def speed(found: Found) -> str:
    """One line about time."""
    translate, stacked = found.seconds["translate"], found.seconds["mtllm"]
    return (
        f"A test sentence takes translate-test {1000 * translate:.1f} ms and MT-LLM {1000 * stacked:.1f} ms, "
        f"{translate / stacked:.0f} times less."
    )


def write_rows(folder: Path) -> int:
    """The miniature's rows as JSONL, as `dudi stack align`, `teach`, `distill` and `eval` read them."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = itertools.islice(english.sentences(1000), Budget().align_steps * Budget().align_batch)
    _jsonl(folder / "english.jsonl", (StackRow(text, "en", id=f"english/{n}") for n, text in enumerate(texts)))
    _jsonl(folder / "bitext.jsonl", itertools.islice(bitext(1000), BITEXT))
    for task in TASKS:
        asked = [_in_parts(row) for language in LANGUAGES for row in asked_rows(task, language)]
        _jsonl(folder / f"{task}-train.jsonl", training_rows(task))
        _jsonl(folder / f"{task}-test.jsonl", asked)
    say(
        f"Written: {folder}/english.jsonl, bitext.jsonl, and the rows of {' and '.join(TASKS)}. Then:\n"
        f"  dudi stack align stack/mini/align data.train={folder}/english.jsonl\n"
        f"  dudi stack teach stack/mini/region data.train={folder}/region-train.jsonl"
    )
    return 0


def bitext(seed: int) -> Iterator[StackRow]:
    """Sentences of the translator's parallel text in other languages, with their English."""
    for number, pair in enumerate(pairs(seed)):
        sides = {pair.source_language: pair.source, pair.target_language: pair.target}
        english_side = sides.pop("en", None)
        if english_side is not None:
            ((language, text),) = sides.items()
            yield StackRow(text, language, english=english_side, id=f"bitext/{number}")


def _in_parts(row: StackRow) -> StackRow:
    """Whether the parallel text names the country of a row, or hides it; rows about one country are one item."""
    return dataclasses.replace(row, split="named" if was_in_parallel(row) else "hidden", item=country_of(row))


def _jsonl(path: Path, rows: Iterable[StackRow]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            kept = {key: value for key, value in dataclasses.asdict(row).items() if value not in (None, (), "")}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")
