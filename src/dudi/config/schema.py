"""Which keys a recipe may have: those of `dudi train`, or those of `dudi stack`."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dudi.config.sections import Section
from dudi.objective.methods import METHOD_KEYS

if TYPE_CHECKING:
    from dudi.training.arguments import RunArguments


@dataclasses.dataclass(frozen=True, slots=True)
class Schema:
    """The keys of one kind of recipe.

    Attributes:
        sections: Its sections, in the order in which they are written.
        shorthand: The key that a section's text stands for.
        training: Its keys at the top level, beside `dtype`; asking for them imports torch.
    """

    sections: Mapping[str, type[Section]]
    shorthand: Mapping[str, str]
    training: Callable[[], Mapping[str, TrainingKey]]

    def top_level_keys(self) -> list[str]:
        """Every key that a recipe may have outside its sections."""
        return ["dtype", *self.training()]

    def known_keys(self) -> list[str]:
        """Every key that a recipe may set, sections' keys with a dot."""
        dotted = [f"{name}.{key}" for name, section in self.sections.items() for key in section.model_fields]
        return [*dotted, *self.top_level_keys()]


REFUSED: dict[str, str] = {
    "output_dir": "the run's folder is given with --output DIR",
    "resume_from_checkpoint": "write --resume PATH",
    "bf16": "write dtype: bfloat16",
    "fp16": "write dtype: float16",
    "hub_token": "a recipe is no place for a secret; run `hf auth login` or set HF_TOKEN",
    "local_rank": "the launcher (torchrun, accelerate launch) sets it",
    "parallelism_config": "it is a Python object; use accelerate's config file",
    "remove_unused_columns": "it must stay off, since rows carry their text to the verbalizer",
    "logging_nan_inf_filter": "it must stay off, so that a non-finite loss stops the run",
}
"""Fields of `TrainingArguments` that a recipe does not set, with what to do instead."""


YAML_NAMES: dict[str, str] = {"lmbda": "lambda"}
"""Fields whose name in YAML is no Python name."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingKey:
    """One key.

    Attributes:
        name: The field of `DudiConfig`.
        hint: The type of what a recipe may give.
        default: Its default; None for keys that take the method's own.
        help: One line about it; empty for fields of `TrainingArguments` that dudi leaves as they are.
        own: Whether dudi declares it, or gives it another default than transformers does.
    """

    name: str
    hint: Any
    default: Any
    help: str
    own: bool

    @property
    def yaml_name(self) -> str:
        """How a recipe writes it."""
        return YAML_NAMES.get(self.name, self.name)


def keys_of(arguments: type[RunArguments]) -> Mapping[str, TrainingKey]:
    """The fields of a class of arguments that a recipe may set, by the name that YAML uses."""
    from transformers import TrainingArguments

    inherited = {field.name for field in dataclasses.fields(TrainingArguments)}
    hints = typing.get_type_hints(arguments)
    kinds = arguments.__mro__[: arguments.__mro__.index(TrainingArguments)]
    declared = {name for kind in kinds for name in kind.__annotations__}
    keys = [
        TrainingKey(
            field.name, _hint(field.name, hints[field.name]), _default(field), _help(field), field.name in declared
        )
        for field in dataclasses.fields(arguments)
        if field.init and field.name not in REFUSED
    ]
    return {key.yaml_name: key for key in sorted(keys, key=lambda key: (not key.own, key.name in inherited))}


def _hint(name: str, declared: Any) -> Any:
    """The declared type describes a constructed config; a recipe may leave a key to the method, and misspell a word.

    Words are checked against `CHOICES` when their line is known, with the nearest valid one in the message.
    """
    hint = str if typing.get_origin(declared) is typing.Literal else declared
    return hint | None if name in METHOD_KEYS else hint


def _help(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata.get("help", ""))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default.value if isinstance(field.default, enum.Enum) else field.default
