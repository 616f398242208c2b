"""The models, tokenizers and rows that a recipe names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi.command import say
from dudi.data.chat import read_template
from dudi.data.rejections import Rejections
from dudi.data.sources import BUILT_IN, RowSet, load_rows
from dudi.distill.arguments import DudiConfig
from dudi.errors import ConfigError, DataError
from dudi.languages.registry import load_languages
from dudi.training.arguments import training_dtype
from dudi.training.interrupts import Interrupts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dudi.config.sections import LoraSection, ModelSection
    from dudi.distill.recipe import RunConfig
    from dudi.distill.trainer import DudiTrainer


def read_rows(config: RunConfig, args: DudiConfig, folder: Path) -> tuple[RowSet, RowSet | None]:
    """The training and the evaluation rows; rejected ones are shown.

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
    # Without the key, every language of the data is trained: its default is that of the verbalizer's targets.
    only = None if config.origin("languages") == "default" else args.languages
    rows = load_rows(data.train, split=data.split, languages=_asked(data.train, args, known), only=only, **options)
    evaluation = None
    if data.eval is not None or data.eval_split is not None:
        source = data.eval or data.train
        evaluation = load_rows(
            source, split=data.eval_split or "train", languages=_asked(source, args, known), **options
        )
    total = rows.total + (evaluation.total if evaluation else 0)
    notes = dict.fromkeys((*rows.notes, *(evaluation.notes if evaluation else ())))
    if notes and args.process_index == 0:
        say("\n".join(f"note: {note}" for note in notes))
    show_rejections(rejections, total, config, args, folder)
    if not rows.rows:
        raise DataError("; ".join([f"{data.train}: no good row is left of {rows.total}", *rows.notes]))
    return rows, evaluation


def show_rejections(rejections: Rejections, total: int, config: RunConfig, args: DudiConfig, folder: Path) -> None:
    """Say what was rejected and why, and stop when it is too much, each row in `rejected.jsonl`.

    Raises:
        DataError: more than `data.max_rejected_share` of the rows are bad.
    """
    if rejections and args.process_index == 0:
        say("\n".join(rejections.summary()))
        if len(rejections) > config.data.max_rejected_share * total:
            rejections.write(folder / "rejected.jsonl")
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
    from dudi.distill.trainer import DudiTrainer

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


def tokenizer_of(section: ModelSection, role: str) -> PreTrainedTokenizerBase:
    """A section's tokenizer, with the chat template that it asks for.

    Raises:
        ConfigError: the template's file cannot be read.
    """
    from dudi.models.load import load_tokenizer

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

    from dudi.distill.recipe import TeacherSection
    from dudi.models.load import load_model, move

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
