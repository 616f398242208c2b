"""Beside the table: memory against the vocabulary, what a second process costs, the plan against what was measured.

python -m benchmarks.checks vocabulary --output docs/results/speed-vocabulary.json
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import conductor, machine
from benchmarks.parts import Found, write
from benchmarks.prediction import Predicted, predict
from benchmarks.report import spread, where
from benchmarks.sizes import SIZES, Size
from benchmarks.work import make_config
from dudi.models.shape import shape_of
from dudi.plan.costs import FP32

VOCABULARIES = (32_768, 65_536, 131_072, 262_144)
OURS = ("dudi-gkd", "dudi")


def step_of(name: str, size: Size, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """The last of a contestant's steps.

    Raises:
        conductor.Failed: it ended before.
    """
    worker = conductor.start(name, size, options)
    failed: dict[str, str] = {}
    steps = conductor.take_turns([worker], size, failed)[name]
    if failed:
        raise conductor.Failed(failed[name])
    return steps[-1]


def vocabulary(size: Size, entries: Sequence[int] = VOCABULARIES) -> dict[str, Any]:
    """Peak memory above the models, and without what the head's gradient and optimizer states take."""
    rows = []
    for name in OURS:
        for count in entries:
            now = dataclasses.replace(size, vocabulary=count, steps=1)
            above = step_of(name, now)["above"]
            table = FP32 * count * size.student["hidden_size"]
            rows.append({"name": name, "vocabulary": count, "above": above, "head": 3 * table, "table": table})
    return {"rows": rows}


def vocabulary_page(found: dict[str, Any]) -> list[str]:
    """As Markdown."""
    lines = [
        "| | vocabulary | peak above the models | of it the head's gradient and optimizer states | the rest | "
        "the rest grows by |",
        "|---|---|---|---|---|---|",
    ]
    first: dict[str, dict[str, int]] = {}
    for row in found["rows"]:
        start = first.setdefault(row["name"], row)
        grown = (row["above"] - row["head"]) - (start["above"] - start["head"])
        tables = row["table"] - start["table"]
        more = round(grown / max(tables, 1), 1) + 0.0  # no minus before a zero
        share = f"{grown / 1e6:,.0f} MB, {more} tables of (vocabulary, hidden)" if tables else ""
        lines.append(
            f"| `{row['name']}` | {row['vocabulary']:,} | {row['above'] / 1e6:,.0f} MB | {row['head'] / 1e6:,.0f} MB | "
            f"{(row['above'] - row['head']) / 1e6:,.0f} MB | {share} |"
        )
    return lines


def processes(size: Size) -> dict[str, Any]:
    """One process, two that know nothing of each other, two that share a step: all of one thread and as many rows each.

    Two at a time share caches and memory, whatever they do; what is left is the exchange of gradients.
    """
    alone = dataclasses.replace(size, threads=1, steps=2 * size.steps)  # the first takes two a round
    shared = dataclasses.replace(alone, processes=2)
    workers = [conductor.start("dudi", at) for at in (alone, alone, shared)]
    seconds: dict[str, list[float]] = {"alone": [], "beside": [], "together": []}
    try:
        for _ in range(size.steps):
            for name, group in (("alone", workers[:1]), ("beside", workers[:2]), ("together", workers[2:])):
                for worker in group:
                    worker.go()
                seconds[name].append(max(worker.listen()["seconds"] for worker in group))
    finally:
        for worker in workers:
            worker.stop()
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    gradients = FP32 * shape_of(make_config(size, size.student), "student").parameters
    return {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "faster": 2 * middle["alone"] / middle["together"],
        "faster_without_exchange": 2 * middle["alone"] / middle["beside"],
        "exchange_seconds": middle["together"] - middle["beside"],
        "gradient_bytes": gradients,
        "rows": size.batch * size.accumulation,
    }


def processes_page(found: dict[str, Any]) -> list[str]:
    """As Markdown."""
    titles = {
        "alone": "one process",
        "beside": "two that know nothing of each other",
        "together": "two that share a step (DDP, gloo)",
    }
    faster = {"alone": 1.0, "beside": found["faster_without_exchange"], "together": found["faster"]}
    lines = [
        f"DuDi steps of {found['rows']} rows a process, one thread each.",
        "",
        "| | s a step | rows a second |",
        "|---|---|---|",
    ]
    for name, title in titles.items():
        s = found["seconds"][name]
        lines.append(f"| {title} | {s['median']:.2f} ({s['min']:.2f} - {s['max']:.2f}) | {faster[name]:.2f}x |")
    return [
        *lines,
        "",
        f"The exchange of {found['gradient_bytes'] / 1e6:,.0f} MB of gradients and the wait for the slower of the two: "
        f"{found['exchange_seconds']:.2f} s a step.",
    ]


def plan(size: Size) -> dict[str, Any]:
    """The peak that `dudi plan` predicts for the rows that were read, beside the measured one."""
    rows = []
    for name in OURS:
        step = step_of(name, size)
        predicted = predict(name, size, step["sequences"])
        rows.append(
            {
                "name": name,
                "measured": step["above"] + predicted.weights,
                "reserved": step["reserved"],
                **predicted.as_dict(),
            }
        )
    return {"rows": rows}


def plan_page(found: dict[str, Any]) -> list[str]:
    """As Markdown."""
    lines = [
        "| | predicted | measured | predicted / measured | weights | gradients and optimizer | "
        "rollouts | teacher, reference | student's pass |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        numbers = (row["weights"], row["held"] - row["weights"], row["rollout"], row["scoring"], row["student"])
        parts = " | ".join(f"{number / 1e9:.2f}" for number in numbers)
        lines.append(
            f"| `{row['name']}` | {row['total'] / 1e9:.2f} GB | {row['measured'] / 1e9:.2f} GB | "
            f"{row['total'] / row['measured']:.2f} | {parts} |"
        )
        if row["reserved"]:
            lines.append(
                f"| of the device, with what the allocator keeps | | {row['reserved'] / 1e9:.2f} GB |" + " |" * 6
            )
    return [*lines, "", Predicted.NOTE]


def kept(size: Size) -> dict[str, Any]:
    """The off-policy half alone, its teacher read in each step, and its teacher's states kept (`teacher_cache`).

    Kept, a later epoch is what a step is here: the teacher has read every row once, before the first step.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="dudi-bench-kept-") as folder:
        for name, options in (("the teacher again", {}), ("`teacher_cache`", {"teacher_cache": folder})):
            step = step_of("dudi-gkd", size, {"lmbda": 0.0, "max_new_tokens": None, **options})
            rows.append({"name": name, "seconds": step["seconds"], "phases": step["phases"]})
    return {"rows": rows}


def kept_page(found: dict[str, Any]) -> list[str]:
    """As Markdown."""
    lines = ["| | s a step | teacher | student, and both heads | other |", "|---|---|---|---|---|"]
    for row in found["rows"]:
        phases = row["phases"]
        other = row["seconds"] - phases["teacher"] - phases["student"]
        lines.append(
            f"| {row['name']} | {row['seconds']:.2f} | {phases['teacher']:.2f} | {phases['student']:.2f} | "
            f"{other:.2f} |"
        )
    return lines


CHECKS = {
    "teacher-cache": (kept, kept_page),
    "vocabulary": (vocabulary, vocabulary_page),
    "processes": (processes, processes_page),
    "plan": (plan, plan_page),
}


def run(name: str, size: Size, measured: dict[str, Any]) -> Found:
    """A check on a size, with the machine that it runs on."""
    check, lines = CHECKS[name]
    result = {"check": name, "size": dataclasses.asdict(size), **measured, **check(size)}
    return result, page(result, lines(result))


def page(result: dict[str, Any], lines: Sequence[str]) -> str:
    """A check's page: what it is, where it ran, what it found."""
    return "\n".join([f"### `{result['check']}`, `{result['size']['name']}`", "", where(result), "", *lines])


def main() -> None:
    """Run a check and write JSON, and Markdown beside it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checks", description=__doc__)
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--size", choices=SIZES, default="cpu-small")
    parser.add_argument("--batch", type=int, help="rows that a device reads at a time")
    parser.add_argument("--steps", type=int, help="timed steps")
    parser.add_argument("--output", type=Path, help="a .json file; the table goes beside it as .md")
    args = parser.parse_args()
    size = SIZES[args.size]
    size = dataclasses.replace(size, batch=args.batch or size.batch, steps=args.steps or size.steps)
    result, text = run(args.check, size, machine.describe(size))
    print(text)
    if args.output:
        write(args.output, result, text)


if __name__ == "__main__":
    main()
