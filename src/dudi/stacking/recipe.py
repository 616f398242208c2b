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

# For a key of a section that not every stage reads.
_ALIGN: dict[str, Any] = {"read_by": ("align",)}
_TASKS: dict[str, Any] = {"read_by": ("teach", "distill", "finetune")}


class EncoderSection(Section):
    """The MT encoder; null: an LLM that reads its own tokens."""

    model: Place | None = Field(
        default=None, description="A hub name, a folder, or `package:NAME`: NLLB, M2M100, MT5, XLM-R, E5 ..."
    )
    revision: str | None = Field(default=None, description="Commit, tag or branch on the hub.")
    codes: dict[str, str] = Field(
        default_factory=dict, description="The tokenizer's code for each code in the rows: {id: ind_Latn}."
    )


class LlmSection(Section):
    """The decoder on top; null: the encoder alone."""

    model: Place | None = Field(
        default=None, description="A hub name, a folder or `package:NAME`; a folder of adapters brings its base along."
    )
    revision: str | None = Field(default=None, description="Commit, tag or branch on the hub.")
    adapters: list[Place] = Field(
        default_factory=list, description="LoRA adapters merged into it, in this order (LLM2Vec: MNTP, SimCSE)."
    )
    attention: Literal["bidirectional", "causal"] = Field(
        default="bidirectional", description="Which tokens each token sees."
    )
    attn_implementation: str | None = Field(
        default=None, description="sdpa, flash_attention_2, eager; null: transformers'."
    )
    gguf_file: str | None = Field(
        default=None, description="A GGUF file inside the folder; it is read as full weights."
    )
    keep_layers: int | list[int] | None = Field(
        default=None,
        description="Cut the LLM down to these layers; a number means that many, evenly spaced, both ends included.",
    )


class StartSection(Section):
    """An earlier stage to go on from, in the place of encoder and llm."""

    model: Place | None = Field(default=None, description="The folder of its run, or of its model.")


class TunedSection(Section):
    """The LLM that `dudi stack teach` has tuned."""

    model: Place | None = Field(default=None, description="The folder of its run.")


class StackDataSection(Section):
    """The rows."""

    train: Place | None = Field(default=None, description="A JSONL or Parquet file, a folder, or a hub name.")
    split: str = Field(default="train", description="Its split on the hub.")
    eval: Place | None = Field(
        default=None, description="Rows for evaluation during training.", json_schema_extra=_TASKS
    )
    eval_split: str | None = Field(
        default=None, description="Their split; alone, it names a split of `data.train`.", json_schema_extra=_TASKS
    )
    parallel: Place | None = Field(
        default=None,
        description="Texts with `english`, on which FVU and cosine of each language are measured.",
        json_schema_extra=_ALIGN,
    )
    parallel_split: str = Field(default="train", description="Their split.", json_schema_extra=_ALIGN)
    parallel_language: str | None = Field(
        default=None, description="The language of those that do not name theirs.", json_schema_extra=_ALIGN
    )
    parallel_columns: dict[str, str] = Field(
        default_factory=dict,
        description="Our columns to theirs: {english: en}; without it rows of one id are matched.",
        json_schema_extra=_ALIGN,
    )
    bitext: Place | None = Field(
        default=None,
        description="Texts with `english` that Stage 1 learns from first: the LLM's side is the English.",
        json_schema_extra=_ALIGN,
    )
    bitext_split: str = Field(default="train", description="Their split.", json_schema_extra=_ALIGN)
    bitext_language: str | None = Field(
        default=None, description="The language of those that do not name theirs.", json_schema_extra=_ALIGN
    )
    bitext_columns: dict[str, str] = Field(
        default_factory=dict, description="Our columns to theirs, as for `parallel_columns`.", json_schema_extra=_ALIGN
    )
    language: str | None = Field(default=None, description="The source language of rows that do not name theirs.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="Our columns to the rows' own: {text: premise, pair: hypothesis}."
    )
    max_rows: int | None = Field(default=None, ge=1, description="Read at most this many training rows.")


class TaskSection(Section):
    """What is asked about a row."""

    kind: Literal["classification", "choice", "generation"] = Field(
        default="classification",
        description="A class of a text or a pair, one of the row's `choices`, or a written `answer` (finetune).",
    )
    labels: list[str] = Field(default_factory=list, description="Names of the classes, in the order of their numbers.")
    separator: str = Field(
        default="\n",
        description="Between the texts of a pair, where the tokenizer sets nothing (GPT-2, Qwen); the authors: ''.",
    )
    prompt: str = Field(
        default="", description="generation: what the LLM is asked, in its own tokens, behind the text."
    )


STACK_SECTIONS: dict[str, type[Section]] = {
    "encoder": EncoderSection,
    "llm": LlmSection,
    "start": StartSection,
    "teacher": TunedSection,
    "task": TaskSection,
    "data": StackDataSection,
    "lora": LoraSection,
}


STACK_SHORTHAND: dict[str, str] = {
    "encoder": "model",
    "llm": "model",
    "start": "model",
    "teacher": "model",
    "data": "train",
}


@functools.cache
def stack_keys() -> Mapping[str, TrainingKey]:
    """All keys of `dudi stack`, likewise."""
    from dudi.stacking.arguments import StackArguments

    return keys_of(StackArguments)


STACK = Schema(STACK_SECTIONS, STACK_SHORTHAND, stack_keys)


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
    """Everything that a stage of `dudi stack` needs to know.

    Attributes:
        encoder: The MT encoder; without a model: an LLM alone.
        llm: The decoder; without a model: the encoder alone.
        start: The earlier stage to go on from, in the place of the two.
        teacher: The tuned LLM of Stage 2.
        task: What is asked about a row.
        data: The rows.
        lora: The adapter, the authors' where nothing is said; None trains the whole LLM.
    """

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
        self._refuse_evaluation()
        super().hold_together()
        words = [key for key, setting in self._sources.items() if setting.origin == COMMAND_LINE]
        for key in unread_of({key: readers_of(key) for key in words}, self.stage.__eq__):
            if self._differs(key):
                raise ConfigError(f"{self.place(key)}: {unread_message(key, self.stage, readers_of(key))}")

    def _refuse_evaluation(self) -> None:
        """Stages without a task have no rows for it, and `transformers` wants some."""
        tasks = readers_of("data.eval")
        for key, off in (("eval_strategy", "no"), ("eval_on_start", False)):
            if self.stage not in tasks and self.settings[key] != off:
                raise ConfigError(
                    self.placed(f"{key}: {self.stage} evaluates nothing during training; set {key}={str(off).lower()}")
                )

    def _differs(self, key: str) -> bool:
        """Whether a key has another value than its default."""
        section, name = STACK.section_of(key)
        if section is None:
            return bool(self.value(stack_keys()[key]) != stack_keys()[key].default)
        given = getattr(self, key.partition(".")[0])
        return bool(getattr(given, name) != section.model_fields[name].get_default(call_default_factory=True))

    def says(self, key: str) -> bool:
        """Whether somebody gave a key a value; null and an empty list in a file say nothing, as words they do."""
        if self.origin(key) == "default":
            return False
        section, name = STACK.section_of(key)
        own = key.partition(".")[0]
        value = self.value(stack_keys()[key]) if section is None else getattr(getattr(self, own), name)
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
        """Refuse a stage to which a model is missing: before rows are read, and by a dry run.

        Raises:
            ConfigError: naming the key.
        """
        alone, earlier = self.stage in ALONE, self.start.model is not None
        if self.llm.model is None and (alone or (self.stage == "align" and not earlier)):
            raise ConfigError(
                "llm.model: name the language model" + ("" if alone else ", or an earlier stage with start")
            )
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
    """Read a recipe for one stage.

    Args:
        path: A YAML file, or the name of a shipped recipe (`stack/nllb-llm2vec/align`).
        stage: The verb.
        overrides: `key=value` words.

    Raises:
        ConfigError: as in `Recipe.load`; or the stage does not read a word.
    """
    return StackConfig.load(path, [*overrides, f"stage={stage}"])
