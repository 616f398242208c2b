"""A recipe to a run directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi.command import say
from dudi.data.sources import RowSet
from dudi.distill.loading import Loaded, read_rows, show_rejections
from dudi.environment import choose_precision
from dudi.files import write_json
from dudi.training.interrupts import Interrupts
from dudi.training.ranks import from_first
from dudi.training.run_folder import go_on, starting_point, write_records
from dudi.training.sources import SOURCES, times_of, touched

if TYPE_CHECKING:
    from dudi.distill.recipe import RunConfig
    from dudi.distill.trainer import DudiTrainer


def train(
    loaded: Loaded,
    interrupts: Interrupts | None = None,
    *,
    resume: str = "auto",
    show: Sequence[str] = (),
    allow_changed: Collection[str] = (),
) -> None:
    """Train a recipe's student and save it as `model/` in the run's folder.

    Args:
        loaded: The recipe with its overrides, its keys and what it names; `args.folder` is the run's folder. It keeps
            the teacher for whoever asks it afterwards.
        interrupts: Tells when a signal has asked to stop.
        resume: `auto` goes on with the run that the folder holds, `never` starts anew (an old run is moved aside), a
            path is the checkpoint to go on from.
        show: Languages of which one row is shown as the models read it, before training.
        allow_changed: Parts of the run's identity that may differ from the checkpoint's.

    Raises:
        DudiError: with the exit code that belongs to it.
    """
    config, args = loaded.config, loaded.args
    first, folder = args.process_index == 0, args.folder
    start = from_first(lambda: starting_point(folder, resume, {"cold_start", args.method}))
    seen = times_of(config.named_places.values(), folder) if first else {}  # before any of it is read
    if first:
        say(f"{config.method} -> {folder}   ({choose_precision(config.dtype, use_cpu=args.use_cpu).reason})")
    train_rows, eval_rows = read_rows(config, args, folder)
    before = len(train_rows.rejections)
    trainer = loaded.make_trainer(train_rows, eval_rows, interrupts)
    if len(train_rows.rejections) > before:  # prompts that turned out too long once they were tokens
        total = train_rows.total + (eval_rows.total if eval_rows else 0)
        show_rejections(train_rows.rejections, total, config, args, folder)
    trainer.allow_changed = frozenset(allow_changed)
    trainer.claim(folder)
    if start is not None:
        trainer.check_resume(start)
    if first:
        train_rows.rejections.settle(folder / "rejected.jsonl")
        data = data_summary(train_rows, trainer, config)
        write_records(folder, config.resolved_yaml(), data, dtype=config.dtype, use_cpu=args.use_cpu)
        write_json(folder / SOURCES, seen)
        say("\n".join(f"note: {note}" for note in trainer.setup.notes + data_notes(train_rows, trainer)))
        show_examples(trainer, show)
        go_on(folder, start, resume)
    trainer.train(resume_from_checkpoint=None if start is None else str(start))
    about = {"step": trainer.state.global_step, "identity": trainer.identity(), "config": config.digest()}
    trainer.save_final(folder / "model", about)
    if trainer.is_fsdp_enabled:
        loaded.drop_teachers()  # they are spread over the ranks, of which one alone goes on


def check_finished(loaded: Loaded, allow_changed: Collection[str] = ()) -> None:
    """Refuse a finished run whose rows or models are others now.

    Where no file was touched since it began, nothing is loaded; else rows and models are read and hashed, as for a run.
    What is named on the hub is not looked at, and neither is a run of a version that did not write down its files.

    Raises:
        ConfigError: with each difference.
    """
    config, args = loaded.config, loaded.args
    now = from_first(lambda: touched(config.named_places.values(), args.folder))
    if now is None:
        return
    trainer = loaded.make_trainer(*read_rows(config, args, args.folder))
    trainer.allow_changed = frozenset(allow_changed)
    trainer.check_claim(args.folder)
    from_first(lambda: write_json(args.folder / SOURCES, now))  # touched, and the same


def default_output(config: RunConfig) -> Path:
    """`runs/NAME`, and the method where the command line changed it."""
    name = config.recipe_name.replace("/", "-")
    changed = config.origin("method") == "command line" and config.method not in name.split("-")
    return Path("runs") / (f"{name}-{config.method}" if changed else name)


def show_examples(trainer: DudiTrainer, languages: Sequence[str]) -> None:
    """Print one row of each language as student and teacher read it."""
    if not languages:
        return
    from rich.console import Console

    from dudi.distill.showing import Formats, first_of_each, show_rows

    console = Console(highlight=False, soft_wrap=True)
    setup = trainer.setup
    teacher = setup.teacher_format if setup.teacher is not None else None
    by_key = {key: setup.teachers.members[name].chat for key, name in setup.teachers.routes.items()}
    chosen = first_of_each(trainer.run.rows.examples, languages)
    formats = Formats(setup.student_format, teacher, by_key)
    show_rows(console, trainer.args, chosen, formats, setup.verbalizer)
    console.rule()


def data_summary(rows: RowSet, trainer: DudiTrainer, config: RunConfig) -> dict[str, Any]:
    """What the run is trained on, for `data.json` and the model card: the rows left when prompts were tokens."""
    kept, probe = trainer.run.rows, trainer.setup.probe
    return {
        "source": config.data.train,
        "fingerprint": rows.fingerprint,
        "rows": dict(Counter(example.row.language for example in kept.examples)),
        "probe": dict(Counter(example.row.language for example in probe.examples)) if probe is not None else {},
        "rejected": dict(rows.rejections.counts),
        "left_out": rows.left_out,
        "truncated": kept.truncated,
    }


def data_notes(rows: RowSet, trainer: DudiTrainer) -> list[str]:
    """What a person should know about the rows."""
    kept = trainer.run.rows
    notes = [f"{len(kept.examples)} rows, {len(rows.rejections)} rejected"]
    if kept.truncated:
        parts = ", ".join(f"{language} {count}" for language, count in sorted(kept.truncated.items()))
        notes.append(f"completions cut at max_length, by language: {parts}")
    return notes
