"""A plan as text: the table of `dudi plan`, and what to change when a run does not fit."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator

from dudi.plan.estimate import Plan
from dudi.plan.footprint import Memory, memory
from dudi.plan.workload import PHASES, Workload

WIDTH = 79
_GB = 1e9
_FITS = 0.95
"""Share of a device that a plan may fill: the estimate is not exact."""


def render(plan: Plan) -> str:
    """A plain table of at most 80 columns: models, memory, work, time, assumptions."""
    blocks = [table(plan) for table in (_head, _memory_table, _verdict, _work_table, _time_lines)]
    blocks.append(["Assumptions", *(_wrapped(note, "  - ", "    ") for note in plan.notes)])
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _head(plan: Plan) -> list[str]:
    work = plan.work
    unnamed = "CPU" if work.cpu else "device"
    device = unnamed if plan.gpu is None else f"{plan.gpu.name} ({_gb(plan.gpu.memory)} GB)"
    lines = [f"{plan.method} on {work.processes} x {device}, {plan.dtype}", ""]
    lines.append(f"  student  {_cut(work.student.name, 44):<44}{_millions(work.student.parameters):>20}")
    if work.teacher is not None:
        lines.append(f"  teacher  {_cut(work.teacher.name, 44):<44}{_millions(work.teacher.parameters):>20}")
    for other in work.other_teachers:
        lines.append(f"  teacher  {_cut(other.name, 44):<44}{_millions(other.parameters):>20}")
    if work.adapter:
        lines.append(f"  adapters {'':<44}{_millions(work.trainable):>20}")
    batch = work.rows * work.accumulation * work.processes
    lines.append(f"  one step {f'{batch} rows = {work.rows} x {work.accumulation} x {work.processes} devices':<44}")
    return [line.rstrip() for line in lines]


def _memory_table(plan: Plan) -> list[str]:
    m = plan.memory
    peak = max(m.phases)
    lines = [f"{'Memory on each device':<60}{'GB':>15}"]
    lines += [
        _line(label, size)
        for label, size in (
            ("student's weights", m.student),
            ("gradients", m.gradients),
            ("optimizer's states", m.optimizer),
            ("teacher's weights", m.teacher),
            ("reference's weights", m.reference),
            ("Python and its libraries" if plan.work.cpu else "context and allocator", m.reserve),
        )
    ]
    lines.append(_line("held throughout", m.held))
    lines.append("  and the largest of these, one after the other:")
    own = [
        (f"rollouts: KV cache {_gb(m.kv_cache)}, sampling {_gb(m.sampling)}", m.rollout_phase),
        ("passes of teacher and reference", m.scoring),
        (f"student's pass: activations {_gb(m.activations)}, head {_gb(m.head)}", m.student_phase),
    ]
    own += [("at the end: the adapter merged into a copy", m.merging)] if plan.work.adapter else []
    for label, size in own:
        lines.append(_line(f"{'>' if size == peak and size else ' '} {label}", size))
    if m.later and peak:
        lines.append(_line("  less the gradients that come after it", -min(m.later, peak)))
    return [*lines, f"{'total':<60}{_gb(m.total):>15}"]


def _verdict(plan: Plan) -> list[str]:
    if plan.gpu is None or fits(plan.memory, plan.gpu.memory):
        return []
    return [_wrapped("Does not fit. " + advise_out_of_memory(plan, plan.gpu.memory))]


def fits(needed: Memory, device_bytes: int) -> bool:
    """Whether the estimate leaves a little room on the device."""
    return needed.total <= _FITS * device_bytes


def _line(label: str, size: int) -> str:
    return f"  {label:<58}{_gb(size) if size else '-':>15}"


def _work_table(plan: Plan) -> list[str]:
    lines = [f"{'Work of one step on each device':<48}{'TFLOP':>12}{'seconds':>15}"]
    for phase in PHASES:
        flops = f"{plan.flops[phase] / 1e12:,.1f}" if plan.flops[phase] else "-"
        seconds = f"{plan.seconds[phase]:,.2f}" if plan.seconds is not None and plan.flops[phase] else "-"
        lines.append(f"  {phase:<46}{flops:>12}{seconds:>15}")
    total = "-" if plan.step_seconds is None else f"{plan.step_seconds:,.2f}"
    return [*lines, f"{'total':<48}{plan.step_flops / 1e12:>12,.1f}{total:>15}"]


def _time_lines(plan: Plan) -> list[str]:
    lines = [f"{'Time':<60}{'hours':>15}"]
    lines += [_hours(f"  {stage.name}", stage.hours) for stage in plan.stages]
    lines.append(_hours(f"  {plan.method}: {_steps(plan)}", plan.hours))
    return [*lines, _hours("total", plan.total_hours)] if plan.stages else lines


def _steps(plan: Plan) -> str:
    if plan.steps is None:
        return "steps unknown"
    if plan.rows is None:
        return f"{plan.steps:,} steps"
    epochs = "" if plan.epochs is None else f", {plan.epochs:g} epochs"
    return f"{plan.steps:,} steps, {plan.rows:,} rows{epochs}"


def _hours(label: str, hours: float | None) -> str:
    shown = "-" if hours is None else f"{hours:,.2f}" if hours >= 0.01 else "< 0.01"
    return f"{label:<60}{shown:>15}"


def _wrapped(text: str, first: str = "", following: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=following, break_on_hyphens=False)


def _gb(size: float) -> str:
    return f"{size / _GB:,.2f}" if size < 9.995 * _GB else f"{size / _GB:,.1f}"


def _millions(count: int) -> str:
    return f"{count:,}"


def _cut(text: str, width: int) -> str:
    return text if len(text) < width else "..." + text[-(width - 4) :]


def advise_out_of_memory(plan: Plan, device_bytes: int) -> str:
    """Which keys to lower, and by how much, for the estimate to fit.

    Batch size and accumulation change together, so that the optimizer step stays the same.

    Args:
        plan: The plan of the run that ran out, or is expected to.
        device_bytes: Memory of one device.

    Returns:
        One or two sentences.
    """
    start = f"{_gb(plan.memory.total)} GB are estimated and the device has {_gb(device_bytes)} GB"
    if fits(plan.memory, device_bytes):
        halved = _settings(_halved(plan.work), plan.work) or "max_length and max_new_tokens lower"
        return f"{start}: it should fit. If it does not, set {halved}."
    for candidate in _smaller(plan.work):
        needed = memory(candidate)
        if fits(needed, device_bytes):
            return f"{start}. Set {_settings(candidate, plan.work)}: then about {_gb(needed.total)} GB."
    return (
        f"{start}, and {_gb(plan.memory.held)} GB are held throughout, whatever the batch. "
        "Train adapters (lora: {r: 16}), load the teacher quantised (teacher.quantization: {load_in_4bit: true}), "
        "put it on another device (teacher.device), or spread the weights (fsdp)."
    )


def _smaller(work: Workload) -> Iterator[Workload]:
    """Workloads of less and less memory and the same optimizer step; checkpointing, which costs time, comes last."""
    batch, product = min(work.rollout_batch, max(work.rollouts, 1)), work.rows * work.accumulation
    counts = [rows for rows in range(work.rows, 0, -1) if product % rows == 0]  # down from the present batch size
    for checkpointing in dict.fromkeys((work.checkpointing, True)):
        for rows in counts:
            for rollouts in [batch >> shift for shift in range(batch.bit_length())] or [batch]:
                yield dataclasses.replace(
                    work,
                    rows=rows,
                    accumulation=work.rows * work.accumulation // rows,
                    rollout_batch=rollouts if rollouts < min(work.rollout_batch, work.rollouts) else work.rollout_batch,
                    checkpointing=checkpointing,
                )


def _halved(work: Workload) -> Workload:
    if work.rows == 1 or (work.rows * work.accumulation) % (work.rows // 2):
        return dataclasses.replace(work, checkpointing=True, rollout_batch=max(1, work.rollout_batch // 2))
    rows = work.rows // 2
    accumulation = work.rows * work.accumulation // rows
    return dataclasses.replace(
        work, rows=rows, accumulation=accumulation, rollout_batch=max(1, work.rollout_batch // 2)
    )


def _settings(new: Workload, old: Workload) -> str:
    """The keys that differ, as they are written on the command line."""
    words = []
    if new.rows != old.rows:
        words.append(f"per_device_train_batch_size={new.rows} gradient_accumulation_steps={new.accumulation}")
    if new.rollout_batch != old.rollout_batch:
        words.append(f"rollout_batch_size={new.rollout_batch}")
    if new.checkpointing and not old.checkpointing:
        words.append("gradient_checkpointing=true")
    return " ".join(words)
