"""The models, tokenizers and rows that a recipe names."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi.command import say
from dudi.data.built_in import SOURCES
from dudi.data.chat import ChatFormat, borrow_template, chat_format, read_template, template_kwargs
from dudi.data.locate import held_out
from dudi.data.rejections import Rejections
from dudi.data.sources import RowSet, load_rows
from dudi.distill.arguments import DudiConfig
from dudi.distill.teacher_keys import by_key
from dudi.errors import ConfigError, DataError, EnvironmentFault
from dudi.languages.registry import check_codes, load_languages
from dudi.training.arguments import training_dtype
from dudi.training.interrupts import Interrupts

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from dudi.config.schema import LoraSection, ModelSection
    from dudi.distill.recipe import RunConfig, TeacherSection
    from dudi.distill.served import ServedTeacher
    from dudi.distill.trainer import DudiTrainer


def read_rows(config: RunConfig, args: DudiConfig, folder: Path) -> tuple[RowSet, RowSet | None]:
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
    show_rejections(rejections, total, config, args, folder)
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
    data = config.data
    return {
        "languages": list(args.languages) if source in SOURCES else sorted(load_languages()),
        "language": data.language,
        "language_column": data.language_column,
        "rejections": rejections,
        "max_rows": data.max_rows,
        "rows_per_language": data.rows_per_language,
        "tasks": data.tasks,
        "seed": args.seed,
    }


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


@dataclasses.dataclass(eq=False, repr=False)
class Loaded:
    """The models, tokenizers and chat formats that a recipe names, handed on to whoever needs one of them.

    Each is read when it is first asked for, and once; a dry run never asks for weights. The student alone is read each
    time: training changes it.

    Attributes:
        config: The recipe.
        args: Its training arguments.
    """

    config: RunConfig
    args: DudiConfig

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The student's, with the chat template that the recipe asks for."""
        tokenizer = _tokenizer_of(self.config.student, "student")
        borrow_template(tokenizer, self.lender)
        return tokenizer

    @property
    def lender(self) -> PreTrainedTokenizerBase | None:
        """The main teacher's tokenizer, where training reads it: with the teacher, or for its chat template alone."""
        wanted = self.args.needs_teacher or self.config.student.chat_template == "teacher"
        return next(iter(self.teacher_tokenizers.values()), None) if wanted else None

    @functools.cached_property
    def student_format(self) -> ChatFormat:
        """How the student reads a conversation.

        Raises:
            ConfigError: no chat template, or one without an end of turn.
        """
        kwargs = template_kwargs(self.args.chat_template_kwargs, "student")
        return chat_format(self.tokenizer, kwargs, self.config.student.model)

    def read_student(self) -> PreTrainedModel:
        """The student, untrained."""
        return _model_of(self.config.student, "float32")

    @functools.cached_property
    def teachers(self) -> dict[str, PreTrainedModel | ServedTeacher]:
        """The teachers by name, the main one in front (`RunConfig.named_teachers`)."""
        dtype = training_dtype(self.args)
        return {name: _teacher_of(section, dtype) for name, section in self.config.named_teachers.items()}

    def drop_teachers(self) -> None:
        """Forget the teachers: they are read anew when they are asked for again."""
        vars(self).pop("teachers", None)

    @functools.cached_property
    def teacher_tokenizers(self) -> dict[str, PreTrainedTokenizerBase]:
        """Their tokenizers."""
        return {name: _tokenizer_of(section, "teacher") for name, section in self.config.named_teachers.items()}

    @functools.cached_property
    def teacher_formats(self) -> dict[str, ChatFormat]:
        """How they read a conversation, in the student's template where one has none.

        Raises:
            ConfigError: as `student_format`.
        """
        kwargs, found = template_kwargs(self.args.chat_template_kwargs, "teacher"), {}
        for name, tokenizer in self.teacher_tokenizers.items():
            borrow_template(tokenizer, self.tokenizer)
            found[name] = chat_format(tokenizer, kwargs, str(self.config.named_teachers[name].model))
        return found

    @functools.cached_property
    def student_config(self) -> PretrainedConfig:
        """The student's config, without its weights.

        Raises:
            EnvironmentFault: it can be read neither here nor on the hub.
            ConfigError: it is no config that transformers knows.
        """
        return _config_of(self.config.student, "student")

    @functools.cached_property
    def teacher_configs(self) -> dict[str, PretrainedConfig]:
        """The teachers', likewise, by name."""
        sections, several = self.config.named_teachers, bool(self.config.teachers)
        return {name: _config_of(one, f"teachers.{name}" if several else "teacher") for name, one in sections.items()}

    def find_models(self) -> None:
        """Look for the models that will be trained and read, without loading them.

        Raises:
            ConfigError: there is none of the name.
            EnvironmentFault: the hub cannot be asked.
        """
        from dudi.models.load import find_model

        teachers = self.config.named_teachers.values() if self.args.needs_teacher else []
        for section in (self.config.student, *(one for one in teachers if one.server is None)):
            find_model(
                str(section.model),
                revision=section.revision,
                gguf_file=section.gguf_file,
                trust_remote_code=section.trust_remote_code,
            )

    def make_trainer(
        self,
        rows: RowSet,
        evaluation: RowSet | None,
        interrupts: Interrupts | None = None,
        args: DudiConfig | None = None,
    ) -> DudiTrainer:
        """A trainer of the student on these rows.

        Args:
            rows: The training rows.
            evaluation: Those of evaluation, or None.
            interrupts: Tells when a signal has asked to stop.
            args: Other training arguments than the recipe's: those of one of its stages.
        """
        from dudi.distill.trainer import DudiTrainer

        args = self.args if args is None else args
        tokenizer = self.tokenizer  # before the weights: what is wrong with it is said at once
        lent: Any = by_key(self.teacher_tokenizers) if args.needs_teacher else self.lender
        student = self.read_student()
        teachers = by_key(self.teachers) if args.needs_teacher else {}
        return DudiTrainer(
            student,
            None,
            args,
            rows.rows,
            None if evaluation is None else evaluation.rows,
            tokenizer,
            peft_config=None if self.config.lora is None else lora_config(self.config.lora),
            teacher_processing_class=lent,
            teachers=teachers or None,
            rejections=rows.rejections,
            interrupts=interrupts,
        )


def _tokenizer_of(section: ModelSection, role: str) -> PreTrainedTokenizerBase:
    """A section's tokenizer, with the chat template that it asks for.

    Raises:
        ConfigError: the template's file cannot be read.
    """
    from dudi.models.load import load_tokenizer, locate

    wanted = section.chat_template
    own = wanted is None or (wanted == "teacher" and role == "student")
    template = None if own else read_template(Path(locate(str(wanted))), f"{role}.chat_template")
    tokenizer = load_tokenizer(
        section.model,
        revision=section.revision,
        gguf_file=section.gguf_file,
        trust_remote_code=section.trust_remote_code,
    )
    if wanted is not None:
        tokenizer.chat_template = template  # None: it is given the teacher's
    return tokenizer


def _teacher_of(section: TeacherSection, auto: str) -> PreTrainedModel | ServedTeacher:
    """A teacher's model, here or where it is served."""
    from dudi.distill.served import ServedTeacher

    if section.server is not None:
        return ServedTeacher(str(section.model), section.server, section.server_timeout)
    return _model_of(section, auto)


def _model_of(section: ModelSection, auto: str) -> PreTrainedModel:
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


def _config_of(section: ModelSection, role: str) -> PretrainedConfig:
    """The config of a recipe's model, cut to the layers that are kept; no weights are read.

    Args:
        section: `student` or `teacher` of the recipe.
        role: Which of them, for messages.

    Raises:
        EnvironmentFault: neither here nor on the hub can the config be read.
        ConfigError: it is no config that transformers knows.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    from dudi.models.hub_errors import explain_hub_error
    from dudi.models.layers import keep_layers
    from dudi.models.load import locate

    name = str(section.model)
    options: dict[str, Any] = {"gguf_file": section.gguf_file} if section.gguf_file else {}
    options["trust_remote_code"] = section.trust_remote_code
    try:
        config = AutoConfig.from_pretrained(locate(name), revision=section.revision or "main", **options)
    except OSError as error:
        if not Path(name).exists() and (found := explain_hub_error(name, "config", error)) is not None:
            raise found from error
        raise EnvironmentFault(
            f"{role}.model: the config of '{name}' cannot be read from here; "
            "connect to the hub once, or name a folder that holds its config.json"
        ) from error
    except (ValueError, StrictDataclassError) as error:
        raise ConfigError(f"{role}.model: '{name}': {' '.join(str(error).split())[:200]}") from error
    config.name_or_path = name
    if section.keep_layers is not None:
        keep_layers(config, section.keep_layers)
    return config


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
