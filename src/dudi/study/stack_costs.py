"""What the stages of stacks will take: steps, rows and FLOPs, known from recipes, rows and configs alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dudi.errors import EnvironmentFault
from dudi.stacking.planning import plan_stage
from dudi.stacking.reading import first_texts, training_rows
from dudi.stacking.recipe import WITH_TASK, StackConfig, StartSection
from dudi.stacking.stages import task_of
from dudi.study.stacks import StackJob, Stage
from dudi.tables import DASH, Grid, grid_of


def stages_grid(jobs: Iterable[StackJob], rows: Mapping[str, Sequence[str]]) -> Grid:
    """A line for each stage, whatever its seeds: how many these are, and of one of them steps, rows and FLOPs.

    Args:
        jobs: What is to be run.
        rows: By a job's id what tables call it.

    Raises:
        DudiError: a stage's rows cannot be read.
    """
    every: dict[str, Stage] = {}
    names: dict[str, dict[str, None]] = {}
    for job in jobs:
        for stage in job.stages:
            every[stage.id] = stage
            names.setdefault(stage.key, {}).update(dict.fromkeys(rows[job.id]))
    lines = []
    for key, (first, *others) in names.items():
        own = [stage for stage in every.values() if stage.key == key]
        label = f"{own[0].verb}: {first}" + (f" and {len(others)} more" if others else "")
        lines.append((label, (str(len(own)), *_cells(own[0], every))))
    return grid_of(("seeds", "steps", "rows", "TFLOP"), lines, corner="stage, of one seed")


def _cells(stage: Stage, every: Mapping[str, Stage]) -> tuple[str, str, str]:
    """Steps, rows and TFLOP of one run of a stage; a dash for what is not known from here."""
    config, known = _standing_alone(stage, every), None
    if stage.verb in WITH_TASK:
        known = len(training_rows(config, task_of(config))[0])
        rows = f"{known:,}"
    else:
        rows = first_texts(config)[1]
    try:
        plan = plan_stage(config, rows=known)
    except EnvironmentFault:  # a model on the hub, which is not here yet
        steps = config.settings["max_steps"]
        return f"{steps:,}" if steps > 0 else DASH, rows, DASH
    if plan.steps is None:
        return DASH, rows, DASH
    done = plan.steps * plan.step_flops / 1e12
    return f"{plan.steps:,}", rows, f"{done:,.0f}" if done >= 10 else f"{done:.2g}"


def _standing_alone(stage: Stage, every: Mapping[str, Stage]) -> StackConfig:
    """A stage's recipe with the models of those before it, which are not there yet, by the models that they have."""
    config = stage.config()
    for key, before in stage.after:
        section, earlier = key.partition(".")[0], every[before]
        if section == "start":
            found = _standing_alone(earlier, every)
            parts = {"encoder": found.encoder, "llm": found.llm, "start": StartSection()}
            config = config.model_copy(update=parts)
        elif section == "llm":
            config = config.model_copy(update={"llm": _standing_alone(earlier, every).llm})
    return config
