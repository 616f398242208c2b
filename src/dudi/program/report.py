"""`dudi report`: its words, and what it does."""

from __future__ import annotations

import argparse
from pathlib import Path

from dudi.command import output_file, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of `dudi report`."""
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folders of runs; several are compared, by method and seed. Or one folder of an evaluation",
    )
    parser.add_argument(
        "--output",
        type=output_file,
        metavar="FILE",
        help="where to write (default: report.html in the run; for several runs, in the folder above the first)",
    )
    parser.add_argument("--png", action="store_true", help="write the charts as PNG too (needs the extra plots)")


def run(given: argparse.Namespace) -> int:
    """Write the report and say where it is.

    Raises:
        ConfigError: a folder is no run; `--png` without resvg-py or a font.
        EnvironmentFault: a file cannot be written.
    """
    from dudi.report import write_report

    return say(str(write_report(given.runs, given.output, png=given.png)))
