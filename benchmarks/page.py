"""`python -m benchmarks.page`: fill the table of targets in docs/speed.md from the results that are there."""

from __future__ import annotations

import json
from collections.abc import Callable
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
        return f"{entry['ours_faster']['median']:.2f}x, {entry['ours_memory']:.2f}x memory"

    return said


def dudi_over_gkd(result: Result) -> str:
    """Time over counted FLOPs."""
    ratio = result["dudi_over_gkd"]
    return f"{ratio['over_counted']:.2f}x ({ratio['seconds']['median']:.2f}x for {ratio['counted_flops']:.2f}x)"


def growth(result: Result) -> str:
    """What grows beyond gradient and optimizer states, in tables of (vocabulary, hidden)."""
    parts = []
    for name in dict.fromkeys(row["name"] for row in result["rows"]):
        first, *_, last = (row for row in result["rows"] if row["name"] == name)
        grown = (last["above"] - last["head"]) - (first["above"] - first["head"])
        tables = grown / (last["table"] - first["table"])
        parts.append(f"`{name}` {grown / 1e6:+,.0f} MB ({round(tables, 1) + 0.0} tables of the head)")
    return ", ".join(parts)


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


LINES: tuple[tuple[str, str, str, Callable[[Result], str]], ...] = (
    (
        "GKD on `cpu-small`, ours over TRL `GKDTrainer` tuned",
        "2.5x samples/s, 0.4x memory",
        "speed-cpu-small.json",
        over("trl-gkd-tuned"),
    ),
    (
        "GKD on `cpu-small`, ours over TRL `DistillationTrainer` tuned",
        "1.6x samples/s, memory no higher",
        "speed-cpu-small.json",
        over("trl-distillation-tuned"),
    ),
    ("DuDi over our GKD", "1.1x the ratio of their counted FLOPs", "speed-dudi.json", dudi_over_gkd),
    (
        "memory from 32k to 256k entries",
        "0.3 tables of the head (DuDi 0.5) beyond its weights, gradient, optimizer state",
        "speed-vocabulary.json",
        growth,
    ),
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


def table(results: Path) -> list[str]:
    """The table of targets; a dash where a result is not there, or not of that kind."""
    lines = ["| | target | reached |", "|---|---|---|"]
    for title, target, name, said in LINES:
        path = results / name
        try:
            reached = said(json.loads(path.read_text()))
        except (FileNotFoundError, KeyError):
            reached = "-"
        linked = reached if reached == "-" else f"{reached} ([table](results/{name.replace('.json', '.md')}))"
        lines.append(f"| {title} | {target} | {linked} |")
    return lines


def main() -> None:
    """Write the table into the page."""
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text("\n".join([before + BEGIN, *table(RESULTS), END]) + after)


if __name__ == "__main__":
    main()
