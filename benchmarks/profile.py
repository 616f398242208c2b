"""Where our own step spends its time, phase by phase: matrix products, attention, other operations, what lies between.

python -m benchmarks.profile dudi --output docs/results/speed-profile.json
python -m benchmarks.profile dudi --size real-pair --output docs/results/speed-profile-real-pair.json
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

from benchmarks import checks, machine
from benchmarks.contestants import CONTESTANTS, make_parts
from benchmarks.parts import write
from benchmarks.sizes import SIZES, Size
from benchmarks.work import make_rows, make_tokenizer

PREFIX = "dudi/"
PRODUCTS = {"aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise"}
OURS = [name for name, contestant in CONTESTANTS.items() if contestant.ours]


class OneStep(TrainerCallback):
    """Profiles the step after the one that warms up."""

    def __init__(self, device: str) -> None:
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
        self.profiler = profile(activities=activities, record_shapes=True, with_flops=True, acc_events=True)
        self.seconds = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin where the first step ends, since the second's rollouts come before its `on_step_begin`."""
        if state.global_step == 1:
            self.profiler.start()
            self.seconds = -time.perf_counter()
        elif state.global_step == 2:
            self.seconds += time.perf_counter()
            self.profiler.stop()


def trainer_of(name: str, size: Size) -> Trainer:
    """One of our contestants, in this process."""
    return CONTESTANTS[name].build(make_parts(name, size, make_tokenizer(size), make_rows(size)))


@dataclasses.dataclass(slots=True)
class Account:
    """What a phase spent, in seconds of its thread."""

    seconds: float = 0.0
    operations: int = 0
    products: float = 0.0
    attention: float = 0.0
    flops: float = 0.0
    others: Counter[str] = dataclasses.field(default_factory=Counter)

    def take(self, event: FunctionEvent) -> None:
        """Book an operation's own time; autograd's and our own functions only hold operations."""
        if not event.name.startswith(("aten::", "mkldnn::")):
            return
        own = event.self_cpu_time_total / 1e6
        self.operations += 1
        if event.name in PRODUCTS:
            self.products += own
            self.flops += event.flops or 0
        elif "attention" in event.name:
            self.attention += own
        else:
            self.others[event.name] += own

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        between = self.seconds - self.products - self.attention - self.others.total()
        return {
            "seconds": self.seconds,
            "operations": self.operations,
            "products": self.products,
            "attention": self.attention,
            "others": self.others.total(),
            "between": between,
            "product_flops": self.flops,
            "largest": self.others.most_common(4),
        }


def accounts(events: Sequence[FunctionEvent]) -> dict[str, dict[str, Any]]:
    """Each operation goes to the innermost phase that was open when it began."""
    phases = sorted((e for e in events if e.name.startswith(PREFIX)), key=lambda e: e.time_range.start)
    starts = [phase.time_range.start for phase in phases]
    found: dict[str, Account] = defaultdict(Account)

    def innermost(moment: float) -> FunctionEvent | None:
        for phase in reversed(phases[: bisect.bisect_right(starts, moment)]):
            if phase.time_range.end >= moment:
                return phase
        return None

    for event in events:
        begun = event.time_range.start
        if event.name.startswith(PREFIX):
            length = event.time_range.elapsed_us() / 1e6
            found[event.name.removeprefix(PREFIX)].seconds += length
            around = [p for p in phases if p.time_range.start < begun and p.time_range.end >= event.time_range.end]
            if around:
                found[around[-1].name.removeprefix(PREFIX)].seconds -= length
            continue
        phase = innermost(begun)
        if phase is not None:
            found[phase.name.removeprefix(PREFIX)].take(event)
    return {name: account.as_dict() for name, account in found.items()}


def page(found: dict[str, Any]) -> list[str]:
    """As Markdown."""
    lines = [
        "Seconds of one step, the profiler's own cost included.",
        "",
        "| phase | seconds | matrix products | their rate | attention | other operations | between operations | "
        "operations | largest of the others |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for phase, a in found["phases"].items():
        rate = a["product_flops"] / a["products"] / 1e9 if a["products"] else 0.0
        best = found["teacher_flops_per_second" if phase == "teacher" else "matrix_flops_per_second"]
        largest = ", ".join(f"`{name.removeprefix('aten::')}` {seconds:.2f}" for name, seconds in a["largest"])
        share = rate * 1e9 / best
        lines.append(
            f"| {phase} | {a['seconds']:.2f} | {a['products']:.2f} | {rate:,.0f} GFLOP/s ({share:.0%}) | "
            f"{a['attention']:.2f} | {a['others']:.2f} | {a['between']:.2f} | {a['operations']:,} | {largest} |"
        )
    left = found["seconds"] - sum(a["seconds"] for a in found["phases"].values())
    lines.append(f"| outside: optimizer, clipping, rows | {left:.2f} |" + " |" * 7)
    return [*lines, "", f"The whole step: {found['seconds']:.2f} s."]


def main() -> None:
    """Profile one step and write JSON, and Markdown beside it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("contestant", choices=OURS)
    parser.add_argument("--size", choices=SIZES, default="cpu-small")
    parser.add_argument("--output", type=Path, help="a .json file; the table goes beside it as .md")
    args = parser.parse_args()
    logging.set_verbosity_error()
    size = dataclasses.replace(SIZES[args.size], steps=1)
    measured = machine.describe(size)
    trainer = trainer_of(args.contestant, size)
    step = OneStep(size.device)
    trainer.add_callback(step)
    trainer.train()
    print(file=sys.stderr)
    found = {"seconds": step.seconds, "phases": accounts(step.profiler.events() or [])}
    result = {"check": f"profile of {args.contestant}", "size": dataclasses.asdict(size), **measured, **found}
    text = checks.page(result, page(result))
    print(text)
    if args.output:
        write(args.output, result, text)


if __name__ == "__main__":
    main()
