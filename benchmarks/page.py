"""The table of aims, from the results that are there; `python -m benchmarks.page` puts it into docs/speed.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PAGE = Path("docs/speed.md")
RESULTS = Path("docs/results")
BEGIN, END = "<!-- targets: begin -->", "<!-- targets: end -->"

Result = dict[str, Any]


def over(name: str) -> Callable[[Result], str]:
    """Ours beside one of TRL's contestants."""

    def said(result: Result) -> str:
        entry = result["contestants"][name]
        return (
            f"{entry['ours_faster']['median']:.2f}x, the peak {entry['ours_memory']:.2f}x above the models, "
            f"{entry['ours_peak']:.2f}x with them"
        )

    return said


def dudi_over_gkd(result: Result) -> str:
    """Time over counted FLOPs.

    Raises:
        KeyError: one of the two did not run.
    """
    ratio = result["dudi_over_gkd"]
    if ratio is None:
        raise KeyError("dudi_over_gkd")
    return f"{ratio['over_counted']:.2f}x ({ratio['seconds']['median']:.2f}x for {ratio['counted_flops']:.2f}x)"


def growth(result: Result) -> str:
    """What grows beyond gradient and optimizer states, in tables of (vocabulary, hidden); and the most on the way."""
    parts = []
    for name in dict.fromkeys(row["name"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["name"] == name]
        rest = [row["above"] - row["head"] for row in rows]
        grown, most = rest[-1] - rest[0], max(rest) - rest[0]
        tables = round(grown / (rows[-1]["table"] - rows[0]["table"]), 1) + 0.0
        parts.append(f"`{name}` {grown / 1e6:+,.0f} MB ({tables} tables of the head), on the way {most / 1e6:+,.0f} MB")
    return "; ".join(parts)


def left_of_the_teacher(result: Result) -> str:
    """What a step's teacher takes, and the step, without its states and with them."""
    again, kept = result["rows"]
    teacher = f"{again['phases']['teacher']:.2f} s -> {kept['phases']['teacher']:.2f} s"
    return f"the teacher's pass {teacher}, the step {again['seconds']:.2f} s -> {kept['seconds']:.2f} s"


def two(result: Result) -> str:
    """Two processes over one, and what the exchange takes."""
    return (
        f"{result['faster']:.2f}x; without an exchange {result['faster_without_exchange']:.2f}x; "
        f"exchange {result['exchange_seconds']:.2f} s a step"
    )


def planned(result: Result) -> str:
    """Predicted over measured."""
    return ", ".join(f"`{row['name']}` {row['total'] / row['measured']:.2f}" for row in result["rows"])


def projected(key: str, form: str) -> Callable[[Result], str]:
    """A number of the projection."""
    return lambda result: format(result["projection"][key], form)


Line = tuple[str, str, str, Callable[[Result], str]]
"""What is measured, its aim, the result that has it, and how that is said."""

AIMS: tuple[Line, ...] = (
    ("GKD over TRL `GKDTrainer`, tuned", "3.5x", "speed-cpu-small.json", over("trl-gkd-tuned")),
    ("GKD over TRL `DistillationTrainer`, tuned", "2.5x", "speed-cpu-small.json", over("trl-distillation-tuned")),
    ("DuDi over our GKD, per counted FLOP", "0.70x", "speed-dudi.json", dudi_over_gkd),
    (
        "real pair over TRL `GKDTrainer`: time, peak",
        "2.5x, at most 0.5x",
        "speed-real-pair.json",
        over("trl-gkd-tuned"),
    ),
    ("262k vocabulary over `DistillationTrainer`", "2x", "speed-vocabulary-262k.json", over("trl-distillation-tuned")),
    (
        "memory from 32k to 256k entries, beyond the head's weights, gradient and optimizer states",
        "at most 0.3 tables of the head, DuDi 0.5",
        "speed-vocabulary.json",
        growth,
    ),
    (
        "off-policy half in later epochs with `teacher_cache`",
        "of the teacher only its head",
        "speed-teacher-cache.json",
        left_of_the_teacher,
    ),
)
"""What `make bench` measures."""
FURTHER: tuple[Line, ...] = (
    ("two processes", "1.8x, or the overhead counted", "speed-processes.json", two),
    ("`dudi plan` over the measured peak, `cpu-small`", "within 10 % (set for a GPU)", "speed-plan.json", planned),
    (
        "`paper` on one GPU: samples/s",
        "12 (H200)",
        "speed-gpu/projection.json",
        projected("samples_per_second", ".2f"),
    ),
    ("... GPU-hours of 84,000 visits", "2 (H200)", "speed-gpu/projection.json", projected("hours", ".2f")),
    (
        "... passes, share of the measured rate",
        "40 %",
        "speed-gpu/projection.json",
        projected("passes_share_of_rate", ".0%"),
    ),
    (
        "... rollouts, tokens/s",
        "20,000",
        "speed-gpu/projection.json",
        projected("rollout_tokens_per_second", ",.0f"),
    ),
    ("... `dudi plan` over the measured peak, inside 23 GB", "within 10 %", "speed-gpu/24gb.json", planned),
)


def table(results: Path, lines: Sequence[Line], beside: str = "") -> list[str]:
    """The table of aims; a dash where a result is not there, or lacks what is asked.

    Args:
        results: Folder of the results.
        lines: Of the table.
        beside: Where their pages are, seen from the table.
    """
    rows = ["| | aim | reached |", "|---|---|---|"]
    for title, aim, name, said in lines:
        path = results / name
        try:
            reached = f"{said(json.loads(path.read_text()))} ([table]({beside}{name.replace('.json', '.md')}))"
        except (FileNotFoundError, KeyError):
            reached = "-"
        rows.append(f"| {title} | {aim} | {reached} |")
    return rows


def main() -> None:
    """Write the table into docs/speed.md."""
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text("\n".join([before + BEGIN, *table(RESULTS, (*AIMS, *FURTHER), "results/"), END]) + after)


if __name__ == "__main__":
    main()
