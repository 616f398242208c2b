"""The words of `dudi eval --benchmark seahelm`; apart from what they do, since help must not wait for torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from dudi.evaluation.benchmarks import SEAHELM, takers_of


def seahelm_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that only SEA-HELM has, and `--limit`."""
    add = parser.add_argument_group(f"SEA-HELM (--benchmark {SEAHELM.name}; docs/seahelm.md)").add_argument
    add("--seahelm", type=Path, metavar="DIR", help="a checkout of SEA-HELM")
    add("--seahelm-python", type=Path, metavar="PY", help="its interpreter (default: DIR/.venv/bin/python)")
    add("--base-url", metavar="URL", help="the model's server; MODEL is its name for the model. Else vLLM is started")
    add("--server-python", type=Path, metavar="PY", help="the interpreter that has vLLM (default: this one)")
    add("--server-args", default="", metavar="WORDS", help="more words for vLLM, in one string")
    add("--startup-timeout", type=float, default=900.0, metavar="S", help="seconds for vLLM (default: %(default).0f)")
    trial = f"only so many examples per task: a trial ({takers_of('limit')}: or a share)"
    add("--limit", "-L", type=_number, metavar="N", help=trial)
    add("--skip-tasks", nargs="+", default=[], metavar="TASK", help="leave these out")
    add("--judges", action="store_true", help="also what another language model judges (MT-Bench ...)")
    add("--count-all", action="store_true", help="count cultural and multi-turn tasks in the totals too")
    add("--workers", type=int, default=64, metavar="N", help="requests at a time (default: %(default)s)")


def _number(text: str) -> float:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    raise argparse.ArgumentTypeError(f"expected a number, got {text}")
