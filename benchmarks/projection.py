"""From measured DuDi steps to the hours of the paper's run on one device, with every assumption in print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROWS, EPOCHS = 28_000, 3
PAPER_GPU_HOURS = 56
"""About 7 hours on 8 H200."""
PASSES = ("teacher", "reference", "student")


def project(result: Mapping[str, Any]) -> dict[str, Any]:
    """What `report.summary` of the contestant `dudi` comes to over 84,000 visits."""
    size, measured = result["size"], result["contestants"]["dudi"]
    rows = size["batch"] * size["accumulation"] * size["processes"]
    floors = result["floors"]["dudi"]
    passes = sum(measured["phases"][phase] for phase in PASSES)
    flops = sum(floors["flops"].get(phase, 0.0) for phase in PASSES)
    gold = ROWS * measured["phases"]["reference"] / rows / 3600
    return {
        "samples_per_second": measured["samples_per_second"],
        "hours": ROWS * EPOCHS / measured["samples_per_second"] / 3600,
        "reference_hours": gold,
        "passes_share_of_rate": flops / passes / result["matrix_flops_per_second"],
        "rollout_tokens_per_second": measured["rollout_tokens_per_second"],
        "floor_hours": ROWS * EPOCHS / rows * floors["total_seconds"] / 3600,
    }


def assumptions(size: Mapping[str, Any]) -> list[str]:
    """What the hours rest on."""
    longest = size["gold_longest"] or size["gold"]
    return [
        f"{ROWS:,} rows x {EPOCHS} epochs = {ROWS * EPOCHS:,} visits, as in the paper; one device, no exchange.",
        f"Ground truths of {size['gold']} to {longest} tokens and prompts of {size['shortest']} to {size['longest']}, "
        "spread evenly: the lengths of SEA-Instruct itself were not at hand.",
        f"Every rollout has exactly {size['new']} tokens. Real ones end earlier: an upper estimate.",
        "The reference reads each ground truth once; a row is taken to cost what a rollout costs it.",
        "Not counted: the cold start, loading, evaluation, checkpoints.",
        f"The paper's {PAPER_GPU_HOURS} GPU-hours are its own figure (about 7 hours on 8 H200), for its own code.",
    ]


def page(result: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """As Markdown."""
    hours = found["hours"] + found["reference_hours"]
    return [
        "| | reached | target |",
        "|---|---|---|",
        f"| samples/s | {found['samples_per_second']:.2f} | 12 |",
        f"| GPU-hours of the paper's run (it reports {PAPER_GPU_HOURS}) | {hours:.2f}, the floor is "
        f"{found['floor_hours']:.2f} | 2 |",
        f"| passes, share of the measured rate | {found['passes_share_of_rate']:.0%} | 40% |",
        f"| rollouts, tokens/s | {found['rollout_tokens_per_second']:,.0f} | 20,000 |",
        "",
        "Assumptions:",
        "",
        *(f"- {line}" for line in assumptions(result["size"])),
    ]
