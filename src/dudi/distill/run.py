"""A recipe to a run directory: its rows, their trainer, and what is written beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi.command import say
from dudi.data.built_in import SOURCES
from dudi.data.locate import held_out
from dudi.data.rejections import Rejections
from dudi.data.sources import RowSet, load_rows
from dudi.distill.loading import Loaded, lora_config
from dudi.distill.teacher_keys import by_key
from dudi.environment import choose_precision
from dudi.errors import ConfigError, DataError
from dudi.files import write_json
from dudi.languages.registry import check_codes, load_languages
from dudi.training.interrupts import Interrupts
from dudi.training.ranks import from_first
from dudi.training.run_folder import go_on, starting_point, write_records
from dudi.training.sources import SOURCES as TOUCHED
from dudi.training.sources import times_of, touched

if TYPE_CHECKING:
    from dudi.distill.arguments import DudiConfig
    from dudi.distill.recipe import RunConfig
    from dudi.distill.trainer import DudiTrainer


def read_rows(config: RunConfig, args: DudiConfig) -> tuple[RowSet, RowSet | None]:
    """The training and the evaluation rows; rejected ones are shown.

    Raises:
        ConfigError: `languages` names one that is not known.
        DataError: too many rows are bad, or none is left.
    """
    data, rejections = config.data, Rejections()
    try:
        check_codes(args.languages, load_languages(), "languages")
    except ConfigError as error:
        raise ConfigError(config.placed(str(error))) from error
    # Without the key, every language of the data is trained: its default is that of the verbalizer's targets.
    only = None if config.origin("languages") == "default" else args.languages
    rows = load_rows(data.train, split=data.split, only=only, **_row_options(config, args, data.train, rejections))
    evaluation = read_evaluation(config, args, rejections)
    total = rows.total + (evaluation.total if evaluation else 0)
    notes = dict.fromkeys((*rows.notes, *(evaluation.notes if evaluation else ())))
    if notes and args.process_index == 0:
        say("\n".join(f"note: {note}" for note in notes))
    _show_rejections(rejections, total, config, args)
    if not rows.rows:
        raise DataError("; ".join([f"{data.train}: no good row is left of {rows.total}", *rows.notes]))
    return rows, evaluation


def read_evaluation(config: RunConfig, args: DudiConfig, rejections: Rejections) -> RowSet | None:
    """The evaluation rows; None where the recipe names none. Bad ones are counted in `rejections`.

    Raises:
        ConfigError: the recipe does not say which of several splits, or they are the rows that are trained on.
        DataError: a file as a whole cannot be read.
    """
    named = held_out(config.data.train, config.data.eval, config.data.eval_split)
    if named is None:
        return None
    source, split = named
    return load_rows(source, split=split, **_row_options(config, args, source, rejections))


def _row_options(config: RunConfig, args: DudiConfig, source: str, rejections: Rejections) -> dict[str, Any]:
    options = config.data.model_dump(include={"language", "language_column", "max_rows", "rows_per_language", "tasks"})
    languages = list(args.languages) if source in SOURCES else sorted(load_languages())
    return options | {"languages": languages, "rejections": rejections, "seed": args.seed}


def _show_rejections(rejections: Rejections, total: int, config: RunConfig, args: DudiConfig) -> None:
    """Say what was rejected and why, and stop when it is too much, each row in `rejected.jsonl`."""
    if rejections and args.process_index == 0:
        say("\n".join(rejections.summary()))
        if len(rejections) > config.data.max_rejected_share * total:
            rejections.write(args.folder / "rejected.jsonl")
    rejections.check_share(total, config.data.max_rejected_share)


def make_trainer(
    loaded: Loaded,
    rows: RowSet,
    evaluation: RowSet | None,
    interrupts: Interrupts | None = None,
    args: DudiConfig | None = None,
) -> DudiTrainer:
    """A trainer of a recipe's student on these rows, with the arguments of one of its stages where they are given."""
    from dudi.distill.trainer import DudiTrainer

    args, lora = loaded.args if args is None else args, loaded.config.lora
    tokenizer = loaded.tokenizer  # before the weights: what is wrong with it is said at once
    lent: Any = by_key(loaded.teacher_tokenizers) if args.needs_teacher else loaded.lender
    student = loaded.read_student()
    teachers = by_key(loaded.teachers) if args.needs_teacher else {}
    return DudiTrainer(
        student,
        None,
        args,
        rows.rows,
        None if evaluation is None else evaluation.rows,
        tokenizer,
        peft_config=None if lora is None else lora_config(lora),
        teacher_processing_class=lent,
        teachers=teachers or None,
        rejections=rows.rejections,
        interrupts=interrupts,
    )


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
    train_rows, eval_rows = read_rows(config, args)
    rejections = train_rows.rejections
    before = len(rejections)
    trainer = make_trainer(loaded, train_rows, eval_rows, interrupts)
    if len(rejections) > before:  # prompts that turned out too long once they were tokens
        _show_rejections(rejections, train_rows.total + (eval_rows.total if eval_rows else 0), config, args)
    trainer.allow_changed = frozenset(allow_changed)
    trainer.claim(folder)
    if start is not None:
        trainer.check_resume(start)
    if first:
        rejections.settle(folder / "rejected.jsonl")
        data, notes = _about_rows(train_rows, trainer, config.data.train)
        write_records(folder, config.resolved_yaml(), data, dtype=config.dtype, use_cpu=args.use_cpu)
        write_json(folder / TOUCHED, seen)
        say("\n".join(f"note: {note}" for note in trainer.setup.notes + notes))
        if show:
            _show_examples(trainer, show)
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
    trainer = make_trainer(loaded, *read_rows(config, args))
    trainer.allow_changed = frozenset(allow_changed)
    trainer.check_claim(args.folder)
    from_first(lambda: write_json(args.folder / TOUCHED, now))  # touched, and the same


def default_output(config: RunConfig) -> Path:
    """`runs/NAME`, and the method where the command line changed it."""
    name = config.recipe_name.replace("/", "-")
    changed = config.origin("method") == "command line" and config.method not in name.split("-")
    return Path("runs") / (f"{name}-{config.method}" if changed else name)


def _show_examples(trainer: DudiTrainer, languages: Sequence[str]) -> None:
    """Print one row of each language as student and teacher read it."""
    from rich.console import Console

    from dudi.distill.showing import Formats, first_of_each, show_rows

    console, setup = Console(highlight=False, soft_wrap=True), trainer.setup
    by_key = {key: setup.teachers.members[name].chat for key, name in setup.teachers.routes.items()}
    formats = Formats(setup.student_format, setup.teacher_format, by_key)
    chosen = first_of_each(trainer.run.rows.examples, languages)
    show_rows(console, trainer.args, chosen, formats, setup.verbalizer)
    console.rule()


def _about_rows(rows: RowSet, trainer: DudiTrainer, source: str) -> tuple[dict[str, Any], list[str]]:
    """What the run is trained on, the rows left when prompts were tokens: for `data.json`, and for a person."""
    kept, probe = trainer.run.rows, trainer.setup.probe
    notes = [f"{len(kept.examples)} rows, {len(rows.rejections)} rejected"]
    if kept.truncated:
        parts = ", ".join(f"{language} {count}" for language, count in sorted(kept.truncated.items()))
        notes.append(f"completions cut at max_length, by language: {parts}")
    rows_of = Counter(example.row.language for example in kept.examples)
    probed = Counter(example.row.language for example in ([] if probe is None else probe.examples))
    summary = {
        "source": source,
        "fingerprint": rows.fingerprint,
        "rows": dict(rows_of),
        "probe": dict(probed),
        "rejected": dict(rows.rejections.counts),
        "left_out": rows.left_out,
        "truncated": kept.truncated,
    }
    return summary, notes
