"""A stage of `dudi stack`: from a recipe to a run directory, as `dudi train` makes one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi.command import say
from dudi.environment import choose_precision, quiet_libraries
from dudi.stacking.recipe import StackConfig
from dudi.training.interrupts import Interrupts
from dudi.training.ranks import from_first
from dudi.training.run_folder import go_on, is_finished, starting_point, write_records
from dudi.training.runlog import read_jsonl

if TYPE_CHECKING:
    from dudi.stacking.arguments import StackArguments

NEXT = {
    "adapt": "dudi stack align RECIPE llm={place}/model",
    "align": "dudi stack finetune RECIPE start={place}   (or teach, then distill)",
    "teach": "dudi stack distill RECIPE teacher={place} start=THE_RUN_OF_ALIGN",
    "distill": "dudi stack eval {place} ROWS.jsonl",
    "finetune": "dudi stack eval {place} ROWS.jsonl",
}


def run_stage(config: StackConfig, *, dry_run: bool = False, resume: str = "auto", output: Path | None = None) -> int:
    """Run one stage.

    Args:
        config: The recipe, which names the stage.
        dry_run: Resolve, validate and show; train nothing.
        resume: As in `dudi.distill.run.train`.
        output: The run's folder; `runs/NAME-STAGE` when None.

    Returns:
        The exit code.

    Raises:
        DudiError: with the exit code that belongs to it.
    """
    quiet_libraries()
    folder = output if output is not None else default_output(config)
    args = config.stack_arguments(folder)
    if dry_run:
        say(describe(config, folder))
        return 0
    with Interrupts():
        return _run(config, args, folder, resume)


def _run(config: StackConfig, args: StackArguments, folder: Path, resume: str) -> int:
    first = args.process_index == 0
    if resume == "auto" and from_first(lambda: is_finished(folder, config.digest())):
        say(f"{folder} holds this run, finished: {folder}/model. Use --resume never to run it again")
        return 0
    from dudi.data.locate import note_of
    from dudi.stacking import stored
    from dudi.stacking.reading import parallel_rows, training_rows
    from dudi.stacking.rows import fingerprint
    from dudi.stacking.stages import STAGES, WITH_TASK, Job, task_of

    rows, eval_rows = training_rows(config, task_of(config) if config.stage in WITH_TASK else None)
    parallel = parallel_rows(config) if config.stage == "align" else []
    start = from_first(lambda: starting_point(folder, resume, {config.stage}))
    if first:
        say(f"{config.stage} -> {folder}   ({choose_precision(config.dtype, use_cpu=args.use_cpu).reason})")
        counts: dict[str, int] = {}
        for row in rows:
            counts[row.language] = counts.get(row.language, 0) + 1
        data = {"source": config.data.train, "fingerprint": fingerprint(rows), "rows": counts, "rejected": {}}
        write_records(folder, config.resolved_yaml(), data)
        say(f"note: {len(rows)} rows: {', '.join(f'{code} {count}' for code, count in counts.items())}")
        if note := note_of(str(config.data.train), config.data.split):
            say(f"note: {note}")
        go_on(folder, start, resume)
    made = STAGES[config.stage](Job(config, args, rows, eval_rows, parallel, start))
    if first:
        stored.save_model(
            folder / stored.MODEL,
            made.model,
            made.tokenizer,
            made.llm_tokenizer,
            {"stage": config.stage, "config": config.digest()},
        )
        finish(folder, config)
    return 0


def default_output(config: StackConfig) -> Path:
    """`runs/NAME-STAGE`; the stage once."""
    name = config.recipe_name.replace("/", "-")
    return Path("runs") / (name if name.endswith(f"-{config.stage}") else f"{name}-{config.stage}")


def describe(config: StackConfig, folder: Path) -> str:
    """What a run would do: its keys that are no defaults, where each is from, and what it finds at the names in them.

    Raises:
        DudiError: a model or rows that it names are not there, or cannot be used.
    """
    lines = [f"dudi stack {config.stage} -> {folder}", ""]
    kept = [line for line in config.resolved_yaml().splitlines()[1:] if line and not line.endswith("# default")]
    sections = [line for line in kept if not line.startswith("#")]
    for place, line in enumerate(sections):
        following = sections[place + 1] if place + 1 < len(sections) else ""
        if line.endswith(":") and not following.startswith("  "):
            continue  # a section that holds nothing but defaults
        lines.append(line)
    return "\n".join([*lines, "", *_found(config), "dry run: nothing was trained"])


def _found(config: StackConfig) -> list[str]:
    """The models and rows that a stage would read, each looked for."""
    from dudi.models.load import find_model
    from dudi.stacking import stored
    from dudi.stacking.reading import parallel_rows, training_rows
    from dudi.stacking.stages import WITH_TASK, task_of

    alone = config.stage in ("adapt", "teach")
    earlier = {"start": None if alone else config.start.model}
    earlier |= {"teacher": config.teacher.model if config.stage == "distill" else None}
    parts = {"encoder": None if alone else config.encoder, "llm": config.llm}
    lines = [f"{role:<9}{stored.model_folder(name)}" for role, name in earlier.items() if name is not None]
    for role, part in parts.items() if earlier["start"] is None else ():
        if part is not None and part.model is not None:
            find_model(part.model, revision=part.revision)
            lines.append(f"{role:<9}{part.model}")
    rows, held_out = training_rows(config, task_of(config) if config.stage in WITH_TASK else None)
    counts = {"rows": rows, "held out": held_out, "parallel": parallel_rows(config) if config.stage == "align" else []}
    return [*lines, *(f"{name:<9}{len(found):,}" for name, found in counts.items() if found)]


def finish(folder: Path, config: StackConfig) -> None:
    """Write the report and the model card, and say where everything is."""
    from dudi.report import write_model_card, write_report

    write_report([folder])
    write_model_card(folder)
    records = read_jsonl(folder / "metrics.jsonl")
    last: dict[str, Any] = next((record for record in reversed(records) if "loss" in record), {})
    wanted = ("loss", "fvu", "cosine", "accuracy")
    say("  ".join(f"{key} {last[key]:.3g}" for key in wanted if isinstance(last.get(key), float)))
    place = shlex.quote(str(folder))
    say(
        f"report   {place}/report.html\n"
        f"model    {place}/model\n"
        f"metrics  {place}/metrics.jsonl  (a line per step)\n"
        f"card     {place}/README.md\n"
        f"next     {NEXT[config.stage].format(place=place)}"
    )
