"""A recipe of `dudi stack`: its sections and keys."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dudi.config.layers import COMMAND_LINE
from dudi.config.recipe import Recipe
from dudi.config.schema import LoraSection, Schema, Section, TrainingKey, keys_of
from dudi.errors import ConfigError
from dudi.training.keys import unread_message, unread_of
from dudi.training.values import Place

if TYPE_CHECKING:
    from dudi.stacking.arguments import StackArguments


ALONE = ("adapt", "teach")
"""Stages that have no encoder."""

WITH_TASK = ("teach", "distill", "finetune")
"""Stages that learn a task."""
_ALIGN = ("align",)


def _key(description: str, default: Any = None, *, read_by: tuple[str, ...] = (), **rules: Any) -> Any:
    """A key of a section, and the stages that read it where not all do."""
    extra: Any = {"read_by": read_by} if read_by else None
    return Field(default=default, description=description, json_schema_extra=extra, **rules)


class EncoderSection(Section):
    """The MT encoder; null: an LLM that reads its own tokens."""

    model: Place | None = _key("A hub name, a folder, or `package:NAME`: NLLB, M2M100, MT5, XLM-R, E5 ...")
    revision: str | None = _key("Commit, tag or branch on the hub.")
    codes: dict[str, str] = _key("The tokenizer's code for each code in the rows: {id: ind_Latn}.", {})


class LlmSection(Section):
    """The decoder on top; null: the encoder alone."""

    model: Place | None = _key("A hub name, a folder or `package:NAME`; a folder of adapters brings its base along.")
    revision: str | None = _key("Commit, tag or branch on the hub.")
    adapters: list[Place] = _key("LoRA adapters merged into it, in this order (LLM2Vec: MNTP, SimCSE).", [])
    attention: Literal["bidirectional", "causal"] = _key("Which tokens each token sees.", "bidirectional")
    attn_implementation: str | None = _key("sdpa, flash_attention_2, eager; null: transformers'.")
    gguf_file: str | None = _key("A GGUF file inside the folder; it is read as full weights.")
    keep_layers: int | list[int] | None = _key(
        "Cut the LLM down to these layers; a number means that many, evenly spaced, both ends included."
    )


class StartSection(Section):
    """An earlier stage to go on from, in the place of encoder and llm."""

    model: Place | None = _key("The folder of its run, or of its model.")


class TunedSection(Section):
    """The LLM that `dudi stack teach` has tuned."""

    model: Place | None = _key("The folder of its run.")


class StackDataSection(Section):
    """The rows."""

    train: Place | None = _key("A JSONL or Parquet file, a folder, or a hub name.")
    split: str = _key("Its split on the hub.", "train")
    eval: Place | None = _key("Rows for evaluation during training.", read_by=WITH_TASK)
    eval_split: str | None = _key("Their split; alone, it names a split of `data.train`.", read_by=WITH_TASK)
    parallel: Place | None = _key(
        "Texts with `english`, on which FVU and cosine of each language are measured.", read_by=_ALIGN
    )
    parallel_split: str = _key("Their split.", "train", read_by=_ALIGN)
    parallel_language: str | None = _key("The language of those that do not name theirs.", read_by=_ALIGN)
    parallel_columns: dict[str, str] = _key(
        "Our columns to theirs: {english: en}; without it rows of one id are matched.", {}, read_by=_ALIGN
    )
    bitext: Place | None = _key(
        "Texts with `english` that Stage 1 learns from first: the LLM's side is the English.", read_by=_ALIGN
    )
    bitext_split: str = _key("Their split.", "train", read_by=_ALIGN)
    bitext_language: str | None = _key("The language of those that do not name theirs.", read_by=_ALIGN)
    bitext_columns: dict[str, str] = _key("Our columns to theirs, as for `parallel_columns`.", {}, read_by=_ALIGN)
    language: str | None = _key("The source language of rows that do not name theirs.")
    columns: dict[str, str] = _key("Our columns to the rows' own: {text: premise, pair: hypothesis}.", {})
    max_rows: int | None = _key("Read at most this many training rows.", ge=1)


class TaskSection(Section):
    """What is asked about a row."""

    kind: Literal["classification", "choice", "generation"] = _key(
        "A class of a text or a pair, one of the row's `choices`, or a written `answer` (finetune).", "classification"
    )
    labels: list[str] = _key("Names of the classes, in the order of their numbers.", [])
    separator: str = _key(
        "Between the texts of a pair, where the tokenizer sets nothing (GPT-2, Qwen); the authors: ''.", "\n"
    )
    prompt: str = _key("generation: what the LLM is asked, in its own tokens, behind the text.", "")


@functools.cache
def stack_keys() -> Mapping[str, TrainingKey]:
    """The training keys of `dudi stack`; asking for them imports torch."""
    from dudi.stacking.arguments import StackArguments

    return keys_of(StackArguments)


STACK = Schema(
    sections={
        "encoder": EncoderSection,
        "llm": LlmSection,
        "start": StartSection,
        "teacher": TunedSection,
        "task": TaskSection,
        "data": StackDataSection,
        "lora": LoraSection,
    },
    shorthand={"encoder": "model", "llm": "model", "start": "model", "teacher": "model", "data": "train"},
    training=stack_keys,
)


def readers_of(key: str) -> tuple[str, ...]:
    """The stages that read a key, as YAML names it; none where all of them do."""
    section, name = STACK.section_of(key)
    if section is not None:
        extra: Any = section.model_fields[name].json_schema_extra if name in section.model_fields else None
        return extra["read_by"] if extra else ()
    return stack_keys()[key].rule.read_by if key in stack_keys() else ()


def read_words(stage: str, words: Sequence[str]) -> list[str]:
    """Of `key=value` words that several stages share, those that this one reads."""
    keys = {word: readers_of(word.partition("=")[0]) for word in words}
    unread = unread_of(keys, stage.__eq__)
    return [word for word in words if word not in unread]


class StackConfig(Recipe):
    """Everything that a stage of `dudi stack` needs to know; `lora` None trains the whole LLM."""

    schema_: ClassVar[Schema] = STACK
    command: ClassVar[str] = "stack STAGE"
    required: ClassVar[tuple[tuple[str, str, str], ...]] = (("data", "train", "the rows to train on"),)

    encoder: EncoderSection = Field(default_factory=EncoderSection)
    llm: LlmSection = Field(default_factory=LlmSection)
    start: StartSection = Field(default_factory=StartSection)
    teacher: TunedSection = Field(default_factory=TunedSection)
    task: TaskSection = Field(default_factory=TaskSection)
    data: StackDataSection
    lora: LoraSection | None = Field(default_factory=LoraSection)

    def hold_together(self) -> None:
        """As of any recipe; and a word of the command line that the stage does not read is refused.

        What a file says may be for another stage that reads the same file.
        """
        if not self.stage:
            return super().hold_together()
        for key, off in (("eval_strategy", "no"), ("eval_on_start", False)):  # `transformers` wants rows for it
            if self.stage not in WITH_TASK and self.settings[key] != off:
                refused = f"{key}: {self.stage} evaluates nothing during training; set {key}={str(off).lower()}"
                raise ConfigError(self.placed(refused))
        super().hold_together()
        words = [key for key, setting in self._sources.items() if setting.origin == COMMAND_LINE]
        for key in unread_of({key: readers_of(key) for key in words}, self.stage.__eq__):
            value, default = self._value_and_default(key)
            if value != default:
                raise ConfigError(f"{self.place(key)}: {unread_message(key, self.stage, readers_of(key))}")

    def _value_and_default(self, key: str) -> tuple[Any, Any]:
        section, name = STACK.section_of(key)
        if section is None:
            return self.value(stack_keys()[key]), stack_keys()[key].default
        given = getattr(self, key.partition(".")[0])
        return getattr(given, name), section.model_fields[name].get_default(call_default_factory=True)

    def says(self, key: str) -> bool:
        """Whether somebody gave a key a value; null and an empty list in a file say nothing, as words they do."""
        if self.origin(key) == "default":
            return False
        value, _ = self._value_and_default(key)
        return self.origin(key) == COMMAND_LINE or value not in (None, [])

    def emptied(self, section: str) -> str | None:
        """The key by which somebody said that there is no `encoder`, or no `llm`; None where nobody did."""
        if section in self._sources and self._sources[section].value is None:
            return section
        model = f"{section}.model"
        return model if getattr(self, section).model is None and self.says(model) else None

    @property
    def stage(self) -> str:
        """The verb: adapt, align, teach, distill or finetune."""
        return str(self.training.get("stage") or "")

    @property
    def named_places(self) -> dict[str, str | None]:
        """What the stage reads, by the recipe's keys: names of models and of rows, which may be paths."""
        models = {
            "encoder.model": self.encoder.model,
            "llm.model": self.llm.model,
            "start.model": self.start.model,
            # A recipe for several stages names the run that `teach` itself makes.
            "teacher.model": None if self.stage == "teach" else self.teacher.model,
        }
        rows = ("train", "eval", "parallel", "bitext")
        return models | {f"data.{name}": getattr(self.data, name) for name in rows}

    @property
    def earlier(self) -> dict[str, str]:
        """The models of earlier stages that this one reads, by their sections' names."""
        read = {"start": self.stage not in ALONE, "teacher": self.stage == "distill"}
        named = {"start": self.start.model, "teacher": self.teacher.model}
        return {key: name for key, name in named.items() if read[key] and name is not None}

    def check_models(self) -> None:
        """Refuse a stage to which a model is missing: a ConfigError names the key."""
        alone, earlier = self.stage in ALONE, self.start.model is not None
        if self.llm.model is None and (alone or (self.stage == "align" and not earlier)):
            other = "" if alone else ", or an earlier stage with start"
            raise ConfigError(f"llm.model: name the language model{other}")
        if self.encoder.model is None and not alone and not earlier:
            raise ConfigError("encoder.model: name the encoder, or an earlier stage with start=FOLDER")
        if self.teacher.model is None and self.stage == "distill":
            raise ConfigError("teacher.model: name the run of `dudi stack teach` whose vectors are learned")

    def stack_arguments(self, output_dir: str | Path) -> StackArguments:
        """The run's `StackArguments`; errors as in `arguments`."""
        from dudi.stacking.arguments import StackArguments

        # Named afterwards: what the stage does not read has been refused, as far as it is no other stage's of the file.
        found: StackArguments = self.arguments(StackArguments, output_dir, stage=None)
        found.stage = self.training.get("stage")
        return found


def load_stack_config(path: Path | str, stage: str, overrides: Sequence[str] = ()) -> StackConfig:
    """Read a recipe for one stage, as `Recipe.load` does; a ConfigError too where the stage does not read a word."""
    return StackConfig.load(path, [*overrides, f"stage={stage}"])
