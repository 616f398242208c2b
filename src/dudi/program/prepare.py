"""The words of `dudi prepare task` and `dudi prepare parallel`."""

from __future__ import annotations

import argparse
from pathlib import Path

from dudi.command import output_file, say, whole_number, words_of

FOLDER = Path("data")


def task_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of `dudi prepare task`."""
    parser.usage = "%(prog)s TASK [options]"  # the name first: options that take several words would take it
    add = parser.add_argument
    add("task", metavar="TASK", help="a task file of lm_eval, a folder of them, or a shipped one: sib200, xcopa")
    add("--split", default="train", metavar="NAME", help="train (default), validation, test, or the set's own name")
    _shared_arguments(parser)


def task(given: argparse.Namespace) -> int:
    """Write rows of a task; returns 0."""
    from dudi.data.task_rows import prepare_task

    prepared = prepare_task(
        given.task,
        given.output or FOLDER / f"{Path(given.task).stem}.jsonl",
        split=given.split,
        languages=words_of(given.languages),
        folder=given.data,
        not_in=words_of(given.not_in) or (),
        per_language=given.per_language,
        seed=given.seed,
    )
    return say(str(prepared))


def parallel_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of `dudi prepare parallel`."""
    parser.usage = "%(prog)s FILE [options]"
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="texts in several languages: .parquet, .jsonl, .json, .csv or .tsv")
    add("--from", dest="source", default="en", metavar="CODE", help="the language on one side (default: en)")
    add("--to", nargs="+", default=["all"], metavar="all|CODE", help="the languages on the other side (default: all)")
    add("--split", metavar="NAME", help="only rows whose column `split` says so")
    add("--one-way", action="store_true", help="no translations back into --from")
    add("--no-balance", action="store_true", help="all rows: not as many in each language")
    add("--licence", metavar="TEXT", help="what the texts' own page says, for the card")
    _shared_arguments(parser, languages=False)


def parallel(given: argparse.Namespace) -> int:
    """Write translation rows; returns 0."""
    from dudi.data.parallel import ALL, prepare_parallel

    targets = words_of(given.to)
    prepared = prepare_parallel(
        given.file,
        given.output or FOLDER / f"{given.file.stem}.jsonl",
        source=given.source,
        targets=None if targets == [ALL] else targets,
        split=given.split,
        both=not given.one_way,
        balance=not given.no_balance,
        per_language=given.per_language,
        not_in=words_of(given.not_in) or (),
        folder=given.data,
        seed=given.seed,
        licence=given.licence,
    )
    return say(str(prepared))


def _shared_arguments(parser: argparse.ArgumentParser, languages: bool = True) -> None:
    add = parser.add_argument
    if languages:
        add("--languages", nargs="+", metavar="CODE", help="only these languages")
    add("--not-in", nargs="+", metavar="TASK", help="leave out rows that share n-grams with what these tasks test")
    add("--data", type=Path, metavar="DIR", help="a folder of local Parquet files for tasks (docs/tasks.md)")
    add("--per-language", type=whole_number(1), metavar="N", help="at most N rows of each language, drawn by the seed")
    add("--seed", type=int, default=0, help="default: 0")
    add(
        "--output", type=output_file, metavar="FILE", help=f"the .jsonl or .parquet file (default: {FOLDER}/NAME.jsonl)"
    )
