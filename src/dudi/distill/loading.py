"""The models, tokenizers and chat formats that a recipe names."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi.data.chat import ChatFormat, borrow_template, chat_format, read_template, template_kwargs
from dudi.distill.arguments import DudiConfig
from dudi.errors import ConfigError, EnvironmentFault
from dudi.training.arguments import training_dtype

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from dudi.config.schema import LoraSection, ModelSection
    from dudi.distill.recipe import RunConfig
    from dudi.distill.served import ServedTeacher


@dataclasses.dataclass(eq=False, repr=False)
class Loaded:
    """What a recipe names, with its training arguments, handed on to whoever needs one of them.

    Each is read when it is first asked for, and once; a dry run never asks for weights. The student alone is read each
    time: training changes it. Who asks for a chat format is told by a `ConfigError` of a template that cannot be used.
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
        """How the student reads a conversation."""
        kwargs = template_kwargs(self.args.chat_template_kwargs, "student")
        return chat_format(self.tokenizer, kwargs, self.config.student.model)

    def read_student(self) -> PreTrainedModel:
        """The student, untrained."""
        return _model_of(self.config.student, "float32")

    @functools.cached_property
    def teachers(self) -> dict[str, PreTrainedModel | ServedTeacher]:
        """The teachers by name, the main one in front (`RunConfig.named_teachers`), here or where they are served."""
        from dudi.distill.served import ServedTeacher

        found: dict[str, PreTrainedModel | ServedTeacher] = {}
        for name, section in self.config.named_teachers.items():
            if section.server is None:
                found[name] = _model_of(section, training_dtype(self.args))
            else:
                found[name] = ServedTeacher(str(section.model), section.server, section.server_timeout)
        return found

    def drop_teachers(self) -> None:
        """Forget the teachers: they are read anew when they are asked for again."""
        vars(self).pop("teachers", None)

    @functools.cached_property
    def teacher_tokenizers(self) -> dict[str, PreTrainedTokenizerBase]:
        """Their tokenizers."""
        return {name: _tokenizer_of(section, "teacher") for name, section in self.config.named_teachers.items()}

    @functools.cached_property
    def teacher_formats(self) -> dict[str, ChatFormat]:
        """How they read a conversation, in the student's template where one has none."""
        kwargs, found = template_kwargs(self.args.chat_template_kwargs, "teacher"), {}
        for name, tokenizer in self.teacher_tokenizers.items():
            borrow_template(tokenizer, self.tokenizer)
            found[name] = chat_format(tokenizer, kwargs, str(self.config.named_teachers[name].model))
        return found

    @functools.cached_property
    def student_config(self) -> PretrainedConfig:
        """The student's config, without its weights; errors as in `teacher_configs`."""
        return _config_of(self.config.student, "student")

    @functools.cached_property
    def teacher_configs(self) -> dict[str, PretrainedConfig]:
        """The teachers', likewise, by name.

        Raises:
            EnvironmentFault: one can be read neither here nor on the hub.
            ConfigError: one is no config that transformers knows.
        """
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
            find_model(str(section.model), **_version(section))


def _version(section: ModelSection) -> dict[str, Any]:
    return {
        "revision": section.revision,
        "gguf_file": section.gguf_file,
        "trust_remote_code": section.trust_remote_code,
    }


def _tokenizer_of(section: ModelSection, role: str) -> PreTrainedTokenizerBase:
    """A section's tokenizer, with the chat template that it asks for."""
    from dudi.models.load import load_tokenizer, locate

    wanted = section.chat_template
    own = wanted is None or (wanted == "teacher" and role == "student")
    template = None if own else read_template(Path(locate(str(wanted))), f"{role}.chat_template")
    tokenizer = load_tokenizer(section.model, **_version(section))
    if wanted is not None:
        tokenizer.chat_template = template  # None: it is given the teacher's
    return tokenizer


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
        attn_implementation=section.attn_implementation,
        keep_layers=section.keep_layers,
        quantization=None if teacher is None else teacher.quantization,
        **_version(section),
    )
    if teacher is not None and teacher.device != "auto":
        move(model, teacher.device)
    return model


def _config_of(section: ModelSection, role: str) -> PretrainedConfig:
    """The config of a recipe's model, cut to the layers that are kept; no weights are read."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    from dudi.models.hub_errors import explain_hub_error
    from dudi.models.layers import keep_layers
    from dudi.models.load import locate

    name = str(section.model)
    options = {option: value for option, value in _version(section).items() if value is not None}
    try:
        config = AutoConfig.from_pretrained(locate(name), **options)
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
    """The adapter as `peft` wants it; a `ConfigError` where peft is not installed."""
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
