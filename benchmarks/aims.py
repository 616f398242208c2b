"""`make bench`: everything on a CPU that has an aim, one part after the other, and the table of aims.

python -m benchmarks.aims --output runs/speed                      # all of it
python -m benchmarks.aims --output runs/speed --parts real-pair    # one part; the table has the others that are there
python -m benchmarks.aims --output /tmp/try --tiny                 # its path, with tiny shapes
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import checks, machine, page
from benchmarks.parts import Found, compare, run_part
from benchmarks.sizes import SIZES, Size

Work = Callable[[Size, dict[str, Any]], Found]


def contest(*names: str, steps: int) -> Work:
    """Some contestants on a size."""
    return lambda size, measured: compare(names, dataclasses.replace(size, steps=steps), measured)


def vocabulary(size: Size, measured: dict[str, Any]) -> Found:
    """Memory against the vocabulary, of two rows a step."""
    return checks.run("vocabulary", dataclasses.replace(size, batch=2), measured)


PARTS: dict[str, tuple[str, Work]] = {
    "cpu-small": ("cpu-small", contest("trl-gkd-tuned", "trl-distillation-tuned", "dudi-gkd", steps=5)),
    "dudi": ("cpu-small", contest("dudi-gkd", "dudi", steps=7)),
    "real-pair": ("real-pair", contest("trl-gkd-tuned", "dudi-gkd", "dudi", steps=2)),
    "vocabulary-262k": (
        "vocabulary-262k",
        contest("trl-distillation-tuned", "trl-gkd-tuned", "dudi-gkd", steps=3),
    ),
    "vocabulary": ("cpu-small", vocabulary),
    "teacher-cache": ("cpu-small", lambda size, measured: checks.run("teacher-cache", size, measured)),
}
"""Each part's size, and what is done with it."""


def main() -> None:
    """Run the parts, and print their table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.aims", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for a .json and a .md of each part")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try the script")
    args = parser.parse_args()
    sizes = {name: SIZES["tiny" if args.tiny else PARTS[name][0]] for name in args.parts}
    # Before anything else loads the machine.
    measured = {name: machine.describe(SIZES[name]) for name in dict.fromkeys(size.name for size in sizes.values())}
    for name, size in sizes.items():
        work = partial(PARTS[name][1], size, measured[size.name])
        print(run_part(name, work, args.output / f"speed-{name}.json"), file=sys.stderr, flush=True)
    print("\n".join(page.table(args.output, page.AIMS)))


if __name__ == "__main__":
    main()
