"""The benchmark's numbers as one object, and as a Markdown page."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import floor
from benchmarks.clocks import PHASES
from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.sizes import BYTES, Size
from benchmarks.work import adapter_parameters, make_config
from dudi.models.shape import shape_of

Steps = Mapping[str, Sequence[Mapping[str, Any]]]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(size: Size, machine: dict[str, Any], steps: Steps, failed: Mapping[str, str]) -> dict[str, Any]:
    """Everything that was measured, and the floors beside it."""
    contestants = {name: _contestant(size, name, steps) for name in steps}
    return {
        "size": dataclasses.asdict(size),
        **machine,
        "contestants": contestants,
        "failed": dict(failed),
        "floors": _floors(size, machine, steps),
        "dudi_over_gkd": _dudi_over_gkd(size, steps),
    }


def _contestant(size: Size, name: str, steps: Steps) -> dict[str, Any]:
    taken, contestant = steps[name], CONTESTANTS[name]
    seconds = [step["seconds"] for step in taken]
    result: dict[str, Any] = {
        "title": contestant.title,
        "method": contestant.group,
        "seconds": spread(seconds),
        "cpu_seconds": spread([step["cpu_seconds"] for step in taken]),
        "samples_per_second": size.rows / statistics.median(seconds),
        "above_models_bytes": max(step["above"] for step in taken),
        "peak_bytes": max(step["above"] + step["weights"] for step in taken),
        "phases": {p: statistics.median(step["phases"].get(p, 0.0) for step in taken) for p in PHASES},
        "rollout_tokens_per_second": _rollout_rate(size, contestant.group, taken),
    }
    own = OURS[contestant.group]
    if own in steps and own != name:
        result["ours_faster"] = _ratio(taken, steps[own])
        result["ours_memory"] = max(s["above"] for s in steps[own]) / result["above_models_bytes"]
        result["ours_peak"] = max(s["above"] + s["weights"] for s in steps[own]) / result["peak_bytes"]
    return result


def _ratio(ones: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """One's time over the other's, round by round of their sitting; of two who never sat together, step by step."""
    shared = {step["sitting"] for step in ones} & {step["sitting"] for step in others}
    if shared:
        ones, others = ([step for step in steps if step["sitting"] in shared] for steps in (ones, others))
    return spread([one["seconds"] / other["seconds"] for one, other in zip(ones, others, strict=False)])


def _rollout_rate(size: Size, group: str, taken: Sequence[Mapping[str, Any]]) -> float:
    kinds = 2 if group == "dudi" else 1
    return kinds * size.rows * size.new / statistics.median(step["phases"]["rollout"] for step in taken)


def _parts(size: Size, name: str, steps: Steps) -> list[floor.Part]:
    method = CONTESTANTS[name].group
    student = shape_of(make_config(size, size.student), "student")
    teacher = None if method == "sdft" else shape_of(make_config(size, size.teacher), "teacher")
    return floor.parts(
        method,
        steps[name][-1]["sequences"],
        student,
        teacher,
        BYTES[size.dtype],
        size.accumulation,
        teacher_element=None if teacher is None else BYTES[size.judging],
        adapter=adapter_parameters(size),
    )


def _floors(size: Size, machine: Mapping[str, Any], steps: Steps) -> dict[str, Any]:
    floors = {}
    for method, name in OURS.items():
        if name not in steps:
            continue
        done = _parts(size, name, steps)
        rate, judging = machine["matrix_flops_per_second"], machine["teacher_flops_per_second"]
        if method == "sdft":
            judging = rate  # its teacher is the student's moving average
        seconds = floor.floor_seconds(done, rate, machine["copy_bytes_per_second"], judging)
        flops = {phase: sum(part.flops for part in done if part.phase == phase) for phase in seconds}
        floors[method] = {"seconds": seconds, "flops": flops, "total_seconds": sum(seconds.values())}
    return floors


def _dudi_over_gkd(size: Size, steps: Steps) -> dict[str, Any] | None:
    if not {"dudi", "dudi-gkd"} <= steps.keys():
        return None
    counted = floor.total_flops(_parts(size, "dudi", steps)) / floor.total_flops(_parts(size, "dudi-gkd", steps))
    measured = _ratio(steps["dudi"], steps["dudi-gkd"])
    return {"counted_flops": counted, "seconds": measured, "over_counted": measured["median"] / counted}


def where(result: Mapping[str, Any]) -> str:
    """The machine, the versions, its measured rates: one line."""
    machine = result["machine"]
    device = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads"
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    rate, judging = result["matrix_flops_per_second"], result["teacher_flops_per_second"]
    of_teacher = "" if judging == rate else f" ({judging / 1e9:,.0f} in the teacher's precision)"
    return (
        f"{device}; load {machine['load']} before it began; Python {result['python']}, {versions}. Measured rates: "
        f"{rate / 1e9:,.0f} GFLOP/s{of_teacher}, {result['copy_bytes_per_second'] / 1e9:,.1f} GB/s."
    )


def page(result: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    size = result["size"]
    rows = size["batch"] * size["accumulation"] * size["processes"]
    return "\n".join(
        [
            f"### `{size['name']}`",
            "",
            where(result),
            "",
            f"{rows} samples a step ({size['batch']} x {size['accumulation']}), none of them read twice; prompts of "
            f"{size['shortest']} to {size['longest']} tokens, rollouts of exactly {size['new']}, vocabulary "
            f"{size['vocabulary']:,}, {_precision(size)}; medians (least - most). {_turns(size)}",
            "",
            *_speed_table(result),
            "",
            *_phase_table(result),
            "",
            *_closing(result),
        ]
    )


def _precision(size: Mapping[str, Any]) -> str:
    """What is computed in which numbers, and what is trained."""
    teacher = "" if size["teacher_dtype"] is None else f" with a teacher in {size['teacher_dtype']}"
    return size["dtype"] + teacher + ("" if size["lora"] is None else f", LoRA of rank {size['lora']}")


def _turns(size: Mapping[str, Any]) -> str:
    """What stood beside what."""
    if size["together"] == 1:
        return f"One contestant at a time, twice {size['steps']} steps each, the second time in the opposite order."
    return (
        f"Sittings of up to {size['together']} contestants, which take {size['steps']} steps each in turn, every round "
        "in the opposite order of the one before. Ours sits with each peer, and its line is over all its sittings; a "
        "ratio is of the two's steps in the sitting that they shared, round by round."
    )


def _speed_table(result: Mapping[str, Any]) -> list[str]:
    lines = [
        "| | s a step | samples/s | ours is faster by | peak above the models | ours needs | peak | ours needs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for entry in result["contestants"].values():
        s, faster = entry["seconds"], entry.get("ours_faster")
        ratio = "" if faster is None else f"{faster['median']:.2f}x ({faster['min']:.2f} - {faster['max']:.2f})"
        memory, peak = ("", "") if faster is None else (f"{entry[key]:.2f}x" for key in ("ours_memory", "ours_peak"))
        lines.append(
            f"| {entry['title']} | {s['median']:.2f} ({s['min']:.2f} - {s['max']:.2f}) | "
            f"{entry['samples_per_second']:.2f} | {ratio} | {entry['above_models_bytes'] / 1e9:.2f} GB | {memory} | "
            f"{entry['peak_bytes'] / 1e9:.2f} GB | {peak} |"
        )
    lines += [f"| {CONTESTANTS[name].title} | failed | | | | | | |" for name in result["failed"]]
    return lines


def _phase_table(result: Mapping[str, Any]) -> list[str]:
    lines = ["| seconds of a step | " + " | ".join(PHASES) + " |", "|---|" + "---|" * len(PHASES)]
    for entry in result["contestants"].values():
        lines.append(f"| {entry['title']} | " + " | ".join(_short(entry["phases"][p]) for p in PHASES) + " |")
    for method, least in result["floors"].items():
        lines.append(
            f"| floor of `{method}` | " + " | ".join(_short(least["seconds"].get(p, 0)) for p in PHASES) + " |"
        )
    return lines


def _short(seconds: float) -> str:
    return "" if seconds < 5e-5 else f"{seconds:.3f}" if seconds < 1 else f"{seconds:.2f}"


def _closing(result: Mapping[str, Any]) -> list[str]:
    ratio = result["dudi_over_gkd"]
    if ratio is None:
        return []
    return [
        f"DuDi over our own GKD: {ratio['seconds']['median']:.2f}x the time "
        f"({ratio['seconds']['min']:.2f} - {ratio['seconds']['max']:.2f}) for {ratio['counted_flops']:.2f}x the "
        f"counted FLOPs: {ratio['over_counted']:.2f}."
    ]
