"""`python -m benchmarks --size cpu-small --output speed.json`: the same work for everybody, and a table."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from benchmarks import machine
from benchmarks.contestants import CONTESTANTS, WITHOUT_VLLM
from benchmarks.parts import compare, write
from benchmarks.sizes import SIZES


def main() -> None:
    """Run a size and write JSON, and Markdown beside it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="cpu-small")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="to try a GPU's script on a CPU")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=WITHOUT_VLLM, metavar="NAME")
    parser.add_argument("--steps", type=int, help="timed steps of each contestant")
    parser.add_argument("--output", type=Path, help="a .json file; the tables go beside it as .md")
    args = parser.parse_args()
    size = SIZES[args.size]
    size = dataclasses.replace(size, device=args.device or size.device, steps=args.steps or size.steps)
    if size.device == "cpu":
        size = dataclasses.replace(size, dtype="float32")
    result, page = compare(args.only, size, machine.describe(size))
    print(page)
    if args.output:
        write(args.output, result, page)


if __name__ == "__main__":
    main()
