"""The verb `dudi compare`: evaluations side by side, printed or written to a file."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from dudi.command import output_file, words_of
from dudi.errors import ConfigError, did_you_mean
from dudi.files import write_text

SUFFIXES = {".txt": "text", ".md": "markdown", ".tex": "latex", ".csv": "csv"}
_WHAT = "a run folder, RUN:SUBJECT, an evaluation.json or its folder; NAME=PATH,PATH joins seeds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of `dudi compare`."""
    parser.usage = "%(prog)s A [B ...] [options]"  # names first: options that take several words would take them
    add = parser.add_argument
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    add("evaluations", nargs="+", metavar="A", help=_WHAT)
    columns = "language, split, task, group, competency, overall (default: language)"
    add("--by", default="language", metavar="KEY", help=columns)
    add("--benchmark", metavar="NAME", help="whose scores, of files that hold several benchmarks'")
    add("--metric", metavar="NAME", help="default: score, exact_match or acc")
    add("--baseline", metavar="NAME", help="show the overall difference to this one")
    add("--candidate", metavar="NAME", help="test this one against the best other overall")
    add("--rival", **several, metavar="NAME", help="test the candidate against each")
    add("--reference", **several, metavar="NAME", help="show, do not rank")
    add("--confidence", type=float, default=0.95, metavar="P", help="of all tests (default: 0.95)")
    add("--tau", type=float, metavar="T", help="a lead counts below this eps_min (default: 0.2)")
    add("--allow-different", **several, metavar="KEY", help="seeds, decoding, ... or all")
    add("--std", action=argparse.BooleanOptionalAction, help="default: where they fit")
    add("--eps", action="store_true", help="print every test as well: eps_min, or p of single models")
    add("--output", type=output_file, metavar="FILE", help="write FILE.md, .tex, .csv or .txt")
    add("--format", metavar="text|markdown|latex|csv", help="default: what FILE ends with, or text")


def run(given: argparse.Namespace) -> int:
    """Compare what the command line names."""
    chosen = _format(given.output, given.format)  # before anything is read: a wrong suffix needs no waiting
    from dudi.comparison.load import load_evaluations
    from dudi.comparison.render import render
    from dudi.comparison.significance import TAU
    from dudi.comparison.table import compare

    comparison = compare(
        load_evaluations(given.evaluations, given.benchmark),
        **{name: getattr(given, name) for name in ("by", "metric", "confidence", "baseline", "candidate")},
        tau=TAU if given.tau is None else given.tau,
        rivals=given.rival,
        references=given.reference,
        allow_different=words_of(given.allow_different) or [],
    )
    terminal = given.output is None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns
    text = render(comparison, chosen, colour=terminal, std=given.std, eps=given.eps, width=width)
    sys.stdout.write(text if given.output is None else f"{write_text(given.output, text)}\n")
    return 0


def _format(output: Path | None, asked: str | None) -> str:
    from dudi.comparison.render import FORMATS

    if asked is not None and asked not in FORMATS:
        raise ConfigError(f"--format: '{asked}' is not one of {', '.join(FORMATS)}{did_you_mean(asked, FORMATS)}")
    if asked is not None or output is None:
        return asked or "text"
    if output.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--output {output}: end the name with {', '.join(SUFFIXES)}, or say --format")
    return SUFFIXES[output.suffix.lower()]
