"""`python -m benchmarks --size cpu-small --output speed.json`: the same work for everybody, and a table."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from benchmarks import conductor, machine, report
from benchmarks.contestants import CONTESTANTS
from benchmarks.sizes import SIZES


def main() -> None:
    """Run a size and write JSON, and Markdown beside it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="cpu-small")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="to try a GPU's script on a CPU")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME")
    parser.add_argument("--steps", type=int, help="timed steps of each contestant")
    parser.add_argument("--output", type=Path, help="a .json file; the tables go beside it as .md")
    args = parser.parse_args()
    size = SIZES[args.size]
    size = dataclasses.replace(size, device=args.device or size.device, steps=args.steps or size.steps)
    if size.device == "cpu":
        size = dataclasses.replace(size, dtype="float32")
    measured = machine.describe(size)
    steps, failed = conductor.run(args.only, size)
    result = report.summary(size, measured, steps, failed)
    text = report.page(result)
    print(text)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(result, indent=1) + "\n")
        args.output.with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main()
