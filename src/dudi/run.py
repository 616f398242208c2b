"""`dudi train`: from a recipe to a run directory."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi import checkpoints
from dudi.arguments import DudiConfig
from dudi.data.files import atomic_file
from dudi.data.rejections import Rejections
from dudi.data.sources import BUILT_IN, RowSet, load_rows
from dudi.data.template_limits import read_template
from dudi.environment import choose_precision, collect_environment
from dudi.errors import ConfigError, DataError
from dudi.interrupts import Interrupts
from dudi.languages import load_languages
from dudi.ranks import from_first
from dudi.resuming import config_digest, go_on, is_finished, is_reported, say, starting_point
from dudi.runlog import read_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dudi.config import LoraSection, ModelSection, RunConfig
    from dudi.config.recipe import Recipe
    from dudi.data.examples import Example
    from dudi.run_arguments import RunArguments
    from dudi.trainer import DudiTrainer


def quiet_libraries() -> None:
    """Leave the terminal to what a person needs: the libraries' bars and notices tell nothing about the run."""
    import warnings

    import datasets
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning)


def train(
    config: RunConfig,
    *,
    dry_run: bool = False,
    resume: str = "auto",
    output: Path | None = None,
    show: Sequence[str] = (),
    allow_changed: Collection[str] = (),
) -> int:
    """Run a recipe.

    Args:
        config: The recipe with its overrides.
        dry_run: Resolve, validate and show; train nothing.
        resume: `auto` goes on with the run that the folder holds, `never` starts anew (an old run is moved aside), a
            path is the checkpoint to go on from.
        output: The run's folder; `runs/NAME` when None.
        show: Languages of which one row is shown as the models read it, before training.
        allow_changed: Parts of the run's identity that may differ from the checkpoint's.

    Returns:
        The exit code.

    Raises:
        DudiError: with the exit code that belongs to it.
    """
    quiet_libraries()
    folder = output if output is not None else default_output(config)
    args = config.dudi_config(folder)
    args.require_teacher(config.teacher.model is not None)
    if dry_run:
        from dudi.dryrun import describe

        say(describe(config, args))
        return 0
    with Interrupts() as interrupts:
        return _train(config, args, folder, resume, show, frozenset(allow_changed), interrupts)


def _train(
    config: RunConfig,
    args: DudiConfig,
    folder: Path,
    resume: str,
    show: Sequence[str],
    allow_changed: frozenset[str],
    interrupts: Interrupts,
) -> int:
    first = args.process_index == 0
    if resume == "auto" and from_first(lambda: is_finished(folder, config)):
        if first and not is_reported(folder, config):
            finish(folder, config, args)  # it was stopped between its last step and its report
        say(f"{folder} holds this run, finished: {folder}/model. Use --resume never to run it again")
        return 0
    if config.benchmark is not None:
        from dudi.evaluation.after_training import asked_questions

        asked_questions(config, args.languages)  # what is wrong with them is better said before training
    start = from_first(lambda: starting_point(folder, resume, {"cold_start", args.method}))
    if first:
        say(f"{config.method} -> {folder}   ({choose_precision(config.dtype, use_cpu=args.use_cpu).reason})")
    train_rows, eval_rows = read_rows(config, args, folder)
    before = len(train_rows.rejections)
    trainer = build_trainer(config, args, train_rows, eval_rows, interrupts)
    if len(train_rows.rejections) > before:  # prompts that turned out too long once they were tokens
        total = train_rows.total + (eval_rows.total if eval_rows else 0)
        show_rejections(train_rows.rejections, total, config, args, folder)
    trainer.allow_changed = allow_changed
    trainer.claim(folder)
    if start is not None:
        trainer.check_resume(start)
    if first:
        write_records(folder, config, data_summary(train_rows, trainer, config))
        say("\n".join(f"note: {note}" for note in trainer.setup.notes + data_notes(train_rows, trainer)))
        show_examples(trainer, show)
        go_on(folder, start, resume)
    trainer.train(resume_from_checkpoint=None if start is None else str(start))
    about = {"step": trainer.state.global_step, "identity": trainer.identity(), "config": config_digest(config)}
    trainer.save_final(folder / "model", about)
    if first:
        finish(folder, config, args)
    return 0


def write_records(folder: Path, config: Recipe, data: dict[str, Any]) -> None:
    """Write down what a run is before it begins: `resolved.yaml`, `env.json` and `data.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "resolved.yaml") as beside:
        beside.write_text(config.resolved_yaml(), encoding="utf-8")
    checkpoints.write_json(folder / "env.json", collect_environment(folder) | {"command": ["dudi", *sys.argv[1:]]})
    checkpoints.write_json(folder / "data.json", data)


def default_output(config: RunConfig) -> Path:
    """`runs/NAME`, and the method where the command line changed it."""
    name = config.recipe_name.replace("/", "-")
    changed = config.origin("method") == "command line" and config.method not in name.split("-")
    return Path("runs") / (f"{name}-{config.method}" if changed else name)


def read_rows(config: RunConfig, args: DudiConfig, folder: Path) -> tuple[RowSet, RowSet | None]:
    """The training and the evaluation rows; rejected ones are written to `rejected.jsonl` and shown.

    Raises:
        DataError: too many rows are bad, or none is left.
    """
    data, rejections = config.data, Rejections()
    known = set(load_languages())
    options: dict[str, Any] = {
        "language": data.language,
        "language_column": data.language_column,
        "rejections": rejections,
        "max_rows": data.max_rows,
        "rows_per_language": data.rows_per_language,
        "tasks": data.tasks,
        "seed": args.seed,
    }
    rows = load_rows(data.train, split=data.split, languages=_asked(data.train, args, known), **options)
    evaluation = None
    if data.eval is not None or data.eval_split is not None:
        source = data.eval or data.train
        evaluation = load_rows(
            source, split=data.eval_split or "train", languages=_asked(source, args, known), **options
        )
    total = rows.total + (evaluation.total if evaluation else 0)
    show_rejections(rejections, total, config, args, folder)
    if not rows.rows:
        raise DataError(f"{data.train}: no good row is left of {rows.total}")
    return rows, evaluation


def show_rejections(rejections: Rejections, total: int, config: RunConfig, args: DudiConfig, folder: Path) -> None:
    """Write `rejected.jsonl`, say what was rejected and why, and stop when it is too much.

    Raises:
        DataError: more than `data.max_rejected_share` of the rows are bad.
    """
    if len(rejections) and args.process_index == 0:
        folder.mkdir(parents=True, exist_ok=True)
        rejections.write(folder / "rejected.jsonl")
        say("\n".join(rejections.summary()))
    rejections.check_share(total, config.data.max_rejected_share)


def _asked(source: str, args: DudiConfig, known: set[str]) -> list[str]:
    return list(args.languages) if source in BUILT_IN else sorted(known)


def build_trainer(
    config: RunConfig,
    args: DudiConfig,
    rows: RowSet,
    evaluation: RowSet | None,
    interrupts: Interrupts | None = None,
) -> DudiTrainer:
    """Load the models of a recipe and make its trainer."""
    from dudi.trainer import DudiTrainer

    tokenizer = tokenizer_of(config.student, "student")
    teacher, teacher_tokenizer = None, None
    if reads_teacher_template(config, args):
        teacher_tokenizer = tokenizer_of(config.teacher, "teacher")
    if args.needs_teacher and config.teacher.model is not None:
        teacher = model_of(config.teacher, training_dtype(args))
    student = model_of(config.student, "float32")
    return DudiTrainer(
        student,
        teacher,
        args,
        rows.rows,
        None if evaluation is None else evaluation.rows,
        tokenizer,
        peft_config=None if config.lora is None else lora_config(config.lora),
        teacher_processing_class=teacher_tokenizer,
        rejections=rows.rejections,
        interrupts=interrupts,
    )


def reads_teacher_template(config: RunConfig, args: DudiConfig) -> bool:
    """Whether the teacher's tokenizer is loaded: with the teacher, or for its chat template alone."""
    wanted = args.needs_teacher or config.student.chat_template == "teacher"
    return wanted and config.teacher.model is not None


def training_dtype(args: RunArguments) -> str:
    """The precision that frozen models are held in."""
    return "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"


def tokenizer_of(section: ModelSection, role: str) -> PreTrainedTokenizerBase:
    """A section's tokenizer, with the chat template that it asks for.

    Raises:
        ConfigError: the template's file cannot be read.
    """
    from dudi.models import load_tokenizer

    tokenizer = load_tokenizer(
        section.model,
        revision=section.revision,
        gguf_file=section.gguf_file,
        trust_remote_code=section.trust_remote_code,
    )
    wanted = section.chat_template
    if wanted == "teacher" and role == "student":
        tokenizer.chat_template = None  # the trainer gives it the teacher's
    elif wanted is not None:
        tokenizer.chat_template = read_template(Path(wanted), f"{role}.chat_template")
    return tokenizer


def model_of(section: ModelSection, auto: str) -> PreTrainedModel:
    """A section's model; `auto` is the precision where the section leaves it open."""
    import torch

    from dudi.config import TeacherSection
    from dudi.models import load_model, move

    name = auto if section.dtype == "auto" else section.dtype
    teacher = section if isinstance(section, TeacherSection) else None
    model = load_model(
        section.model,
        dtype=getattr(torch, name),
        revision=section.revision,
        attn_implementation=section.attn_implementation,
        gguf_file=section.gguf_file,
        keep_layers=section.keep_layers,
        quantization=None if teacher is None else teacher.quantization,
        trust_remote_code=section.trust_remote_code,
    )
    if teacher is not None and teacher.device != "auto":
        move(model, teacher.device)
    return model


def lora_config(section: LoraSection) -> Any:
    """The adapter as `peft` wants it.

    Raises:
        ConfigError: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigError("lora: needs the package peft; run: pip install 'dudi[peft]'") from None
    return LoraConfig(
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=section.target_modules,
        task_type="CAUSAL_LM",
    )


def show_examples(trainer: DudiTrainer, languages: Sequence[str]) -> None:
    """Print one row of each language as student and teacher read it."""
    if not languages or trainer.setup.train is None:
        return
    from rich.console import Console

    from dudi.showing import Formats, first_of_each, show_rows

    console = Console(highlight=False, soft_wrap=True)
    teacher = trainer.setup.teacher_format if trainer.setup.teacher is not None else None
    chosen = first_of_each(trainer.setup.train.examples, languages)
    show_rows(console, trainer.args, chosen, Formats(trainer.setup.student_format, teacher))
    console.rule()


def data_summary(rows: RowSet, trainer: DudiTrainer, config: RunConfig) -> dict[str, Any]:
    """What the run was trained on, for `data.json` and the model card."""
    return {
        "source": config.data.train,
        "fingerprint": rows.fingerprint,
        "rows": dict(Counter(example.row.language for example in _examples(trainer))),
        "rejected": dict(rows.rejections.counts),
        "truncated": {} if trainer.setup.train is None else trainer.setup.train.truncated,
    }


def _examples(trainer: DudiTrainer) -> list[Example]:
    """What is trained on: the rows that were left when prompts had become tokens."""
    return [] if trainer.setup.train is None else trainer.setup.train.examples


def data_notes(rows: RowSet, trainer: DudiTrainer) -> list[str]:
    """What a person should know about the rows."""
    notes = [f"{len(_examples(trainer))} rows, {len(rows.rejections)} rejected"]
    truncated = trainer.setup.train.truncated if trainer.setup.train is not None else {}
    if truncated:
        parts = ", ".join(f"{language} {count}" for language, count in sorted(truncated.items()))
        notes.append(f"completions cut at max_length, by language: {parts}")
    return notes


def finish(folder: Path, config: RunConfig, args: DudiConfig) -> None:
    """Ask the benchmark's questions, write the report and the model card, and say where everything is."""
    from dudi.report import write_model_card, write_report

    if config.benchmark is not None:
        show_benchmark(folder, config, args)
    write_report([folder])
    write_model_card(folder)
    records = read_jsonl(folder / "metrics.jsonl")
    last: dict[str, Any] = next((r for r in reversed(records) if r.get("stage") == config.method), {})
    shown = {k: v for k, v in last.items() if k.startswith(("loss", "overlap")) and isinstance(v, float)}
    say("  ".join(f"{key.removeprefix('loss/')} {value:.3g}" for key, value in shown.items()))
    place = shlex.quote(str(folder))
    say(
        f"report   {place}/report.html\n"
        f"model    {place}/model  (transformers chat {place}/model)\n"
        f"metrics  {place}/metrics.jsonl  (a line per step; rollouts in samples.jsonl)\n"
        f"card     {place}/README.md"
    )


def show_benchmark(folder: Path, config: RunConfig, args: DudiConfig) -> None:
    """Evaluate the run and print its tables."""
    from dudi.evaluation.after_training import evaluate_run
    from dudi.evaluation.table import benchmark_tables

    result = evaluate_run(config, args, folder)
    say(benchmark_tables(result["scores"], config.method, colour=sys.stdout.isatty()))
