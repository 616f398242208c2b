"""`dudi train`: from a recipe to a run directory with its report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from dudi.command import say, words_of
from dudi.distill.loading import Loaded
from dudi.distill.recipe import RunConfig, load_named
from dudi.distill.run import check_finished, default_output
from dudi.distill.run import train as train_student
from dudi.environment import quiet_libraries
from dudi.evaluation.records import FILE, Evaluation
from dudi.plan.out_of_memory import explained_out_of_memory
from dudi.training.interrupts import Interrupts
from dudi.training.lock import FolderLock
from dudi.training.publishing import push_run
from dudi.training.ranks import from_first, on_first
from dudi.training.run_folder import check_output, is_finished, is_reported
from dudi.training.runlog import read_jsonl


def run(given: argparse.Namespace) -> int:
    """`dudi train`, with the words of `dudi.program.cli`."""
    config = load_named(given.recipe, given.overrides)
    with explained_out_of_memory(config):
        allowed = words_of(given.allow_changed) or ()
        return train(config, dry_run=given.dry_run, resume=given.resume, output=given.output, allow_changed=allowed)


def train(
    config: RunConfig,
    *,
    dry_run: bool = False,
    resume: str = "auto",
    output: Path | None = None,
    show: Sequence[str] = (),
    allow_changed: Collection[str] = (),
) -> int:
    """Run a recipe, then ask its benchmark's questions and write its report; returns the exit code.

    Args:
        config: The recipe with its overrides.
        dry_run: Resolve, validate and show; train nothing.
        resume: As in `dudi.distill.run.train`.
        output: The run's folder; `runs/NAME` when None.
        show: Languages of which one row is shown as the models read it, before training.
        allow_changed: Parts of the run's identity that may differ from the checkpoint's.
    """
    quiet_libraries()
    folder = output if output is not None else default_output(config)
    args = config.dudi_config(folder)
    args.require_teacher(config.main_teacher.model is not None)
    from_first(lambda: check_output(folder, resume, config.named_places))
    if config.benchmark is not None:
        from dudi.evaluation.of_run import asked_of, probe_notes

        asked = asked_of(config, args)  # what is wrong with them is better said before training
        notes = probe_notes(config, args, asked)
        if notes and args.process_index == 0:
            say("\n".join(f"note: {note}" for note in notes))
    if dry_run:
        from dudi.program.dry_run import describe

        return say(describe(config, args))
    first, loaded = args.process_index == 0, Loaded(config, args)
    with on_first(FolderLock(folder)), Interrupts() as interrupts:
        if resume == "auto" and from_first(lambda: is_finished(folder, config.digest())):
            check_finished(loaded, allow_changed)
            reports = ["report.html", "README.md", *([FILE] if config.benchmark is not None else [])]
            if first and not is_reported(folder, reports):
                finish(loaded)  # it was stopped between its last step and its report
            return say(f"{folder} holds this run, finished: {folder}/model. Use --resume never to run it again")
        train_student(loaded, interrupts, resume=resume, show=show, allow_changed=allow_changed)
        if first:
            finish(loaded)
            if args.push_to_hub:
                say(f"hub      {push_run(folder, args)}")
    return 0


def finish(loaded: Loaded) -> None:
    """Ask the benchmark's questions, write the report and the model card, and say where everything is."""
    from dudi.report import write_model_card, write_report
    from dudi.report.cost import phase_lines
    from dudi.report.run_folder import read_run

    config, folder = loaded.config, loaded.args.folder
    if config.benchmark is not None:
        from dudi.evaluation.of_run import evaluate_run
        from dudi.evaluation.tables import benchmark_tables

        by_name: dict[str, list[Evaluation]] = {}
        for one in evaluate_run(loaded):
            by_name.setdefault(str(one.benchmark.get("name")), []).append(one)
        for name, own in by_name.items():
            text = benchmark_tables(own, colour=sys.stdout.isatty())
            say(text if len(by_name) == 1 else f"{name}\n{text}\n")
    write_report([folder])
    write_model_card(folder)
    records = read_jsonl(folder / "metrics.jsonl")
    last: dict[str, Any] = next((r for r in reversed(records) if r.get("stage") == config.method), {})
    shown = {k: v for k, v in last.items() if k.startswith(("loss", "overlap")) and isinstance(v, float)}
    say("  ".join(f"{key.removeprefix('loss/')} {value:.3g}" for key, value in shown.items()))
    say("\n".join(phase_lines(read_run(folder))))
    place = shlex.quote(str(folder))
    samples = "; rollouts in samples.jsonl" if read_jsonl(folder / "samples.jsonl") else ""
    say(
        f"report   {place}/report.html\n"
        f"model    {place}/model  (transformers chat {place}/model)\n"
        f"metrics  {place}/metrics.jsonl  (a line per step{samples})\n"
        f"card     {place}/README.md"
    )
