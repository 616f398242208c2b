"""Everything that a GPU is asked, in one call, the most telling first; each part is on disk as soon as it is done.

python -m benchmarks.gpu --output runs/speed-gpu                   # all of it
python -m benchmarks.gpu --output runs/speed-gpu --minutes 9       # begin no part after 9 minutes
python -m benchmarks.gpu --output /tmp/try --device cpu --tiny     # its path, on a CPU
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import checks, conductor, machine, projection, report, rollouts, soundness
from benchmarks.parts import Found, compare, run_part
from benchmarks.sizes import SIZES, Size

SMALL_CARD = 23 * 10**9
"""Bytes that a process may take on a card of 24 GB: its context needs the rest."""
ROOM = 40 * 10**9
"""Bytes of a device for each contestant whose process lives."""
TUNED = ("dudi-gkd", "trl-distillation-tuned", "trl-gkd-tuned", "dudi")
AS_THEY_COME = ("trl-distillation", "trl-gkd")
VLLM = ("dudi-gkd-vllm", "trl-distillation-vllm")
SDFT = ("dudi-sdft", "trl-sdft-full", "trl-sdft")


@dataclasses.dataclass(frozen=True, slots=True)
class Bench:
    """Where the parts run.

    Attributes:
        paper: The size of the paper's run.
        long: The same with long answers.
        projected: The same with ground truths of many lengths.
        sound: One on which every method takes a few steps.
        measured: The machine and its rates.
    """

    paper: Size
    long: Size
    projected: Size
    sound: Size
    measured: dict[str, Any]

    def table(self, size: Size, names: Sequence[str], steps: int) -> Found:
        """Some contestants on the same work."""
        return compare(names, dataclasses.replace(size, steps=steps, together=self.together()), self.measured)

    def together(self) -> int:
        """Contestants whose processes the device has room for."""
        return max(1, self.measured["machine"].get("gpu_bytes", 10 * ROOM) // ROOM)

    def projection(self) -> Found:
        """DuDi alone on ground truths of many lengths, and the hours that follow."""
        result, text = self.table(self.projected, ("dudi",), steps=3)
        if result["failed"]:
            raise conductor.Failed(result["failed"]["dudi"])
        found = projection.project(result)
        return {**result, "projection": found}, "\n".join([text, "", *projection.page(result, found)])

    def small_card(self) -> Found:
        """Peak memory on a card of 24 GB, with accumulation, beside what `dudi plan` predicts."""
        rows = self.paper.batch * self.paper.accumulation
        size = dataclasses.replace(self.paper, batch=2, accumulation=rows // 2, steps=1, memory_limit=SMALL_CARD)
        found = checks.plan(size)
        note = f"Batch 2 with {rows // 2} micro-batches; a process may take {SMALL_CARD / 1e9:.0f} GB of the device."
        return found, "\n".join([f"### 24 GB, `{size.name}`", "", note, "", *checks.plan_page(found)])

    def kernels(self) -> Found:
        """The heads that can be chosen from, each alone."""
        options = {kernel: {"loss_kernel": kernel} for kernel in self.paper.kernels}
        return self.variants("`loss_kernel`", options, checks.OURS)

    def vllm(self) -> Found:
        """GKD beside TRL with vLLM in both processes, where it is installed."""
        if importlib.util.find_spec("vllm") is None:
            return {"missing": "vllm"}, "### vLLM\n\nNot run: vLLM is not installed here."
        return self.table(self.paper, VLLM, steps=2)

    def packed(self) -> Found:
        """Passes that are packed beside passes in groups of like length."""
        return self.variants("packed", {"groups": {}, "packed": {"packed": True}}, checks.OURS)

    def decoding(self) -> Found:
        """Rollouts token by token beside rollouts that are replayed."""
        return self.variants("decoding", {"eager": {}, "graph": {"still": True}}, ("dudi-gkd",))

    def variants(self, title: str, options: dict[str, dict[str, Any]], names: Sequence[str]) -> Found:
        """Ways of ours, each alone: seconds of a step and of its phases."""
        size = dataclasses.replace(self.paper, steps=2)
        lines = [f"### {title}, `{size.name}`", "", "| | | s a step | rollout | tokens/s | teacher | student | peak |"]
        lines.append("|---|---|---|---|---|---|---|---|")
        rows = []
        for name, (variant, chosen) in itertools.product(names, options.items()):
            step = checks.step_of(name, size, chosen)
            phases = step["phases"]
            rate = (2 if name == "dudi" else 1) * size.batch * size.accumulation * size.new / phases["rollout"]
            rows.append({"name": name, "variant": variant, **step})
            lines.append(
                f"| `{name}` | {variant} | {step['seconds']:.2f} | {phases['rollout']:.2f} | {rate:,.0f} | "
                f"{phases['teacher']:.2f} | {phases['student']:.2f} | {step['above'] / 1e9:.2f} GB |"
            )
        return {"rows": rows}, "\n".join(lines)

    def vocabulary(self) -> Found:
        """Memory from 32k to 256k entries."""
        found = checks.vocabulary(dataclasses.replace(self.paper, batch=2, accumulation=1))
        return found, "\n".join([f"### vocabulary, `{self.paper.name}`", "", *checks.vocabulary_page(found)])


PARTS: dict[str, Callable[[Bench], Found]] = {
    "methods": lambda bench: soundness.methods(bench.sound),
    "agreement": lambda bench: soundness.kernels(bench.sound),
    "projection": Bench.projection,
    "24gb": Bench.small_card,
    "paper": lambda bench: bench.table(bench.paper, TUNED, steps=3),
    "kernels": Bench.kernels,
    "decoding": Bench.decoding,
    "rollouts": lambda bench: rollouts.alone(bench.paper),
    "vllm": Bench.vllm,
    "packed": Bench.packed,
    "long": lambda bench: bench.table(bench.long, ("dudi-gkd", "trl-distillation-tuned"), steps=2),
    "paper-as-they-come": lambda bench: bench.table(bench.paper, ("dudi-gkd", *AS_THEY_COME), steps=1),
    "paper-sdft": lambda bench: bench.table(bench.paper, SDFT, steps=2),
    "vocabulary": Bench.vocabulary,
}


def main() -> None:
    """Run the parts, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for a .json and a .md of each part")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no part after this")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try the script")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu --tiny tries the script without one")
    begun = time.monotonic()
    args.output.mkdir(parents=True, exist_ok=True)
    bench = make_bench(args.device, args.tiny)
    pages = [report.where(bench.measured)]
    for name in args.parts:
        if time.monotonic() - begun > 60 * args.minutes:
            pages.append(f"### `{name}`\n\nNot run: the time was up.")
        else:
            work = partial(PARTS[name], bench)
            pages.append(run_part(name, work, args.output / f"{name}.json", bench.measured))
        (args.output / "gpu.md").write_text("\n\n".join(pages) + "\n")
    print("\n\n".join(pages))


def make_bench(device: Any, tiny: bool) -> Bench:
    """The sizes on their device, and the machine's rates."""
    names = ("tiny", "tiny", "tiny-projection", "tiny") if tiny else ("paper", "long", "projection", "cpu-small")
    sizes = [dataclasses.replace(SIZES[name], device=device) for name in names]
    if device == "cpu":
        sizes = [dataclasses.replace(size, dtype="float32") for size in sizes]
    return Bench(*sizes, machine.describe(sizes[0]))


if __name__ == "__main__":
    main()
