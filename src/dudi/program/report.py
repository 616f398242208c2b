"""`dudi report`: its words, and what it does."""

from __future__ import annotations

import argparse
from pathlib import Path

from dudi.command import output_file, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of `dudi report`."""
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs or of `dudi eval`; several are compared")
    where = "where to write (default: report.html in the run; for several runs, in the folder above the first)"
    add("--output", type=output_file, metavar="FILE", help=where)
    add("--png", action="store_true", help="write the charts as PNG too (needs the extra plots)")


def run(given: argparse.Namespace) -> int:
    """Write the report and say where it is.

    Raises:
        ConfigError: a folder is no run; `--png` without resvg-py or a font.
        EnvironmentFault: a file cannot be written.
    """
    from dudi.report import write_report

    return say(str(write_report(given.runs, given.output, png=given.png)))
