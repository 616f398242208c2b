"""A plan as text: the table of `dudi plan`, and what to change when a run does not fit."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Iterator

from dudi.plan.estimate import Plan
from dudi.plan.footprint import memory
from dudi.plan.workload import PHASES, Workload
from dudi.tables import Grid, grid_of, terminal

WIDTH = 79
_GB = 1e9
_FITS = 0.95
"""Share of a device that a plan may fill: the estimate is not exact."""


def render(plan: Plan) -> str:
    """A plain table of at most 80 columns: models, memory, work, time, assumptions."""
    blocks = [_models(plan), terminal(_memory_grid(plan))]
    if plan.gpu is not None and not fits(plan.memory.total, plan.gpu.memory):
        verdict = f"Does not fit. {advise_out_of_memory(plan, plan.gpu.memory)}"
        blocks.append(textwrap.fill(verdict, WIDTH, break_on_hyphens=False))
    blocks += [terminal(_work_grid(plan)), terminal(_time_grid(plan))]
    notes = textwrap.TextWrapper(WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False)
    blocks.append("\n".join(["Assumptions", *map(notes.fill, plan.notes)]))
    return "\n\n".join(blocks) + "\n"


def _models(plan: Plan) -> str:
    """On what, with which models, and how many rows a step has."""
    work = plan.work
    unnamed = "CPU" if work.cpu else "device"
    device = unnamed if plan.gpu is None else f"{plan.gpu.name} ({_gb(plan.gpu.memory)} GB)"
    models = [("student", work.student), *(("teacher", shape) for shape in (work.teacher, *work.other_teachers))]
    rows = []
    for role, shape in models:
        if shape is not None:
            rows.append((f"  {role}  {shortened(shape.name)}", (f"{shape.parameters:,}",)))
    rows += [("  adapters", (f"{work.trainable:,}",))] if work.adapter else []
    heading = f"{plan.method} on {work.processes} x {device}, {plan.dtype}"
    batch = work.rows * work.accumulation * work.processes
    step = f"  one step {batch} rows = {work.rows} x {work.accumulation} x {work.processes} devices"
    return f"{terminal(grid_of(('parameters',), rows, corner=heading))}\n{step}"


def shortened(name: str) -> str:
    """A model's name for a table of at most 80 columns: of a long one the end, which tells most, behind dots."""
    return name if len(name) < 44 else f"...{name[-40:]}"


def _memory_grid(plan: Plan) -> Grid:
    m = plan.memory
    peak = max(m.phases.values())
    held = [
        ("  student's weights", m.student),
        ("  gradients", m.gradients),
        ("  optimizer's states", m.optimizer),
        ("  teacher's weights", m.teacher),
        ("  reference's weights", m.reference),
        ("  Python and its libraries" if plan.work.cpu else "  context and allocator", m.reserve),
        ("  held throughout", m.held),
    ]
    phases = [
        (f"rollouts: KV cache {_gb(m.kv_cache)}, sampling {_gb(m.sampling)}", m.phases["rollouts"]),
        ("passes of teacher and reference", m.scoring),
        (f"student's pass: activations {_gb(m.activations)}, head {_gb(m.head)}", m.phases["student"]),
    ]
    phases += [("at the end: the adapter merged into a copy", m.merging)] if plan.work.adapter else []
    largest = [(f"  {'>' if size == peak and size else ' '} {label}", size) for label, size in phases]
    less = [("    less the gradients that come after it", -min(m.later, peak))] if m.later and peak else []
    rows = [(label, (_gb(size) if size else "-",)) for label, size in (*held, *largest, *less, ("total", m.total))]
    rows.insert(len(held), ("  and the largest of these, one after the other:", ("",)))
    return grid_of(("GB",), rows, corner="Memory on each device")


def fits(needed: int, device_bytes: int) -> bool:
    """Whether so many bytes leave a little room on the device."""
    return needed <= _FITS * device_bytes


def _work_grid(plan: Plan) -> Grid:
    rows = []
    for phase in PHASES:
        flops = f"{plan.flops[phase] / 1e12:,.1f}" if plan.flops[phase] else "-"
        seconds = f"{plan.seconds[phase]:,.2f}" if plan.seconds is not None and plan.flops[phase] else "-"
        rows.append((f"  {phase}", (flops, seconds)))
    total = "-" if plan.step_seconds is None else f"{plan.step_seconds:,.2f}"
    rows.append(("total", (f"{plan.step_flops / 1e12:,.1f}", total)))
    return grid_of(("TFLOP", "seconds"), rows, corner="Work of one step on each device")


def _time_grid(plan: Plan) -> Grid:
    steps = "steps unknown" if plan.steps is None else f"{plan.steps:,} steps"
    if plan.steps is not None and plan.rows is not None:
        steps += f", {plan.rows:,} rows" + ("" if plan.epochs is None else f", {plan.epochs:g} epochs")
    known = [(f"  {stage.name}", stage.hours) for stage in plan.stages]
    known.append((f"  {plan.method}: {steps}", plan.hours))
    known += [("total", plan.total_hours)] if plan.stages else []
    rows = []
    for label, hours in known:
        rows.append((label, ("-" if hours is None else f"{hours:,.2f}" if hours >= 0.01 else "< 0.01",)))
    return grid_of(("hours",), rows, corner="Time")


def _gb(size: float) -> str:
    return f"{size / _GB:,.2f}" if size < 9.995 * _GB else f"{size / _GB:,.1f}"


def advise_out_of_memory(plan: Plan, device_bytes: int) -> str:
    """Which keys to lower, and by how much, for the estimate to fit: one or two sentences.

    Batch size and accumulation change together, so that the optimizer step stays the same. The plan is that of a run
    that ran out of the memory of one device, or is expected to.
    """
    start = f"{_gb(plan.memory.total)} GB are estimated and the device has {_gb(device_bytes)} GB"
    if fits(plan.memory.total, device_bytes):
        halved = _settings(_halved(plan.work), plan.work) or "max_length and max_new_tokens lower"
        return f"{start}: it should fit. If it does not, set {halved}."
    for candidate in _smaller(plan.work):
        needed = memory(candidate).total
        if fits(needed, device_bytes):
            return f"{start}. Set {_settings(candidate, plan.work)}: then about {_gb(needed)} GB."
    return (
        f"{start}, and {_gb(plan.memory.held)} GB are held throughout, whatever the batch. "
        "Train adapters (lora: {r: 16}), load the teacher quantised (teacher.quantization: {load_in_4bit: true}), "
        "put it on another device (teacher.device), or spread the weights (fsdp)."
    )


def _smaller(work: Workload) -> Iterator[Workload]:
    """Workloads of less and less memory and the same optimizer step; checkpointing, which costs time, comes last."""
    batch, product = min(work.rollout_batch, max(work.rollouts, 1)), work.rows * work.accumulation
    counts = [rows for rows in range(work.rows, 0, -1) if product % rows == 0]  # down from the present batch size
    batches = [work.rollout_batch, *(batch >> shift for shift in range(1, batch.bit_length()))]
    for checkpointing in dict.fromkeys((work.checkpointing, True)):
        for rows, rollouts in itertools.product(counts, batches):
            yield dataclasses.replace(
                work,
                rows=rows,
                accumulation=product // rows,
                rollout_batch=rollouts,
                checkpointing=checkpointing,
            )


def _halved(work: Workload) -> Workload:
    rows, rollouts = work.rows // 2, max(1, work.rollout_batch // 2)
    if rows == 0 or (work.rows * work.accumulation) % rows:
        return dataclasses.replace(work, checkpointing=True, rollout_batch=rollouts)
    accumulation = work.rows * work.accumulation // rows
    return dataclasses.replace(work, rows=rows, accumulation=accumulation, rollout_batch=rollouts)


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
