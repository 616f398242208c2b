"""Which keys a recipe may have: its sections, and those of training. No torch here."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dudi.training.keys import INHERITED, YAML_NAMES, Rule, declared_rule, default_of, rules_of
from dudi.training.values import Place, fit, hints_of

if TYPE_CHECKING:
    from dudi.training.arguments import RunArguments

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
REFUSED: dict[str, str] = {name: rule.elsewhere for name, rule in INHERITED.items() if rule.elsewhere}
"""Fields of `TrainingArguments` that a recipe does not set, with what to do instead."""


class Section(BaseModel):
    """A part of the tree; a key that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ModelSection(Section):
    """The student: which model, and how it is loaded."""

    model: Place = Field(description="A hub name, a folder, or `package:NAME`: an installed Python package's folder.")
    revision: str | None = Field(default=None, description="Commit, tag or branch on the hub.")
    dtype: Dtype = Field(
        default="auto", description="Precision of the weights; auto: the student float32, a teacher that of training."
    )
    attn_implementation: str | None = Field(
        default=None, description="sdpa, flash_attention_2, eager; null: transformers'."
    )
    gguf_file: str | None = Field(
        default=None, description="A GGUF file inside the folder; it is read as full weights."
    )
    keep_layers: int | list[int] | None = Field(
        default=None,
        description="Cut the model down to these layers; a number means that many, evenly spaced, both ends included.",
    )
    chat_template: Place | None = Field(
        default=None,
        description="`teacher`, or a path to a jinja file (`package:NAME/FILE`: one in a package); null: its own.",
    )
    trust_remote_code: bool = Field(default=False, description="Run Python code that the model's repository brings.")


class LoraSection(Section):
    """Train low-rank adapters instead of all weights (needs the extra `peft`)."""

    r: int = Field(default=16, ge=1, description="Rank of the adapters.")
    alpha: int = Field(default=32, ge=1, description="Scale of the adapters: alpha / r.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout in front of the adapters.")
    target_modules: str | list[str] = Field(default="all-linear", description="Which linear layers get an adapter.")


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingKey:
    """One key: a field of the arguments, with the type of what a recipe may give.

    The `default` of keys that take the method's own is None. The `help` is empty for fields of `TrainingArguments` that
    dudi leaves as they are; `own` ones it declares, or gives another default than transformers does.
    """

    name: str
    hint: Any
    default: Any
    help: str
    own: bool
    rule: Rule

    @property
    def yaml_name(self) -> str:
        return YAML_NAMES.get(self.name, self.name)

    def read(self, value: Any) -> Any:
        """A value that a recipe gives, in the key's type.

        Raises:
            ConfigError: it does not fit, is out of range, or would have no effect; the message begins with the key.
        """
        found = fit(value, self.hint, self.yaml_name)
        self.rule.check(found, self.default, self.yaml_name)
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Schema:
    """The keys of one kind of recipe.

    Attributes:
        sections: Its sections, in the order in which they are written.
        shorthand: The key that text in place of a section, or of one of a family, stands for, where it may be text.
        training: Its keys at the top level, beside `dtype`; asking for them imports torch.
        families: Sections of which a recipe may have several, by names of its own: `teachers.my.model`.
    """

    sections: Mapping[str, type[Section]]
    shorthand: Mapping[str, str]
    training: Callable[[], Mapping[str, TrainingKey]]
    families: Mapping[str, type[Section]] = dataclasses.field(default_factory=dict)

    def known_keys(self) -> list[str]:
        """Every key that a recipe may set, sections' keys with a dot."""
        dotted = [f"{name}.{key}" for name, section in self.sections.items() for key in section.model_fields]
        return [*dotted, "dtype", *self.training()]

    def knows(self, key: str) -> bool:
        """Whether a recipe may have this key, section or family."""
        section, name = self.section_of(key)
        if section is not None:
            return not name or name in section.model_fields
        return key in self.families or key == "dtype" or key in self.training()

    def section_of(self, key: str) -> tuple[type[Section] | None, str]:
        """The section that a key lies in and its name there, empty for the section itself; None for other keys."""
        first, _, rest = key.partition(".")
        if first in self.families and rest:
            return self.families[first], rest.partition(".")[2]
        return self.sections.get(first), rest

    def hint(self, key: str) -> Any:
        """The type of a known key's value; of a section that may be given as text, that of the text."""
        section, name = self.section_of(key)
        name = name or self.shorthand.get(key.partition(".")[0], "")
        if section is not None and name in section.model_fields:
            return section.model_fields[name].annotation
        return Dtype if key == "dtype" else self.training()[key].hint if key in self.training() else Any


def keys_of(arguments: type[RunArguments]) -> Mapping[str, TrainingKey]:
    """The fields of a class of arguments that a recipe may set, by the name that YAML uses, ours in front."""
    from transformers import TrainingArguments

    inherited = {field.name for field in dataclasses.fields(TrainingArguments)}
    kind: Any = arguments
    hints, rules = hints_of(kind), rules_of(arguments)
    keys = []
    for field in dataclasses.fields(arguments):
        if field.name in rules and field.name not in REFUSED:
            rule = rules[field.name]
            hint = _without_enums(hints[field.name])
            hint = hint if rule.common is None else hint | None
            default = default_of(field)
            default = default.value if isinstance(default, enum.Enum) else default
            own = declared_rule(field) is not None
            keys.append(TrainingKey(field.name, hint, default, str(field.metadata.get("help", "")), own, rule))
    return {key.yaml_name: key for key in sorted(keys, key=lambda key: (not key.own, key.name in inherited))}


def _without_enums(hint: Any) -> Any:
    """The type of what YAML gives where transformers wants a member of an enum, or its value."""
    members = typing.get_args(hint)
    for member in members:
        if isinstance(member, type) and issubclass(member, enum.Enum):
            return Literal[tuple(one.value for one in member)]
    return hint
