"""A recipe of `dudi stack`: its sections and keys."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dudi.config.recipe import Recipe
from dudi.config.schema import Schema, TrainingKey, keys_of
from dudi.config.sections import LoraSection, Section
from dudi.training.values import Place

if TYPE_CHECKING:
    from dudi.stacking.arguments import StackArguments


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
    eval: Place | None = Field(default=None, description="Rows for evaluation during training.")
    eval_split: str | None = Field(default=None, description="Their split; alone, it names a split of `data.train`.")
    parallel: Place | None = Field(
        default=None, description="align: texts with `english`, on which FVU and cosine of each language are measured."
    )
    parallel_split: str = Field(default="train", description="Their split.")
    parallel_language: str | None = Field(default=None, description="The language of those that do not name theirs.")
    parallel_columns: dict[str, str] = Field(
        default_factory=dict, description="Our columns to theirs: {english: en}; without it rows of one id are matched."
    )
    bitext: Place | None = Field(
        default=None,
        description="align: texts with `english` that Stage 1 learns from first: the LLM's side is the English.",
    )
    bitext_split: str = Field(default="train", description="Their split.")
    bitext_language: str | None = Field(default=None, description="The language of those that do not name theirs.")
    bitext_columns: dict[str, str] = Field(
        default_factory=dict, description="Our columns to theirs, as for `parallel_columns`."
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

    @property
    def stage(self) -> str:
        """The verb: adapt, align, teach, distill or finetune."""
        return str(self.training.get("stage") or "")

    def stack_arguments(self, output_dir: str | Path) -> StackArguments:
        """The run's `StackArguments`; errors as in `arguments`."""
        from dudi.stacking.arguments import StackArguments

        found: StackArguments = self.arguments(StackArguments, output_dir)
        return found


def load_stack_config(path: Path | str, stage: str, overrides: Sequence[str] = ()) -> StackConfig:
    """Read a recipe for one stage.

    Args:
        path: A YAML file, or the name of a shipped recipe (`stack/nllb-llm2vec/align`).
        stage: The verb.
        overrides: `key=value` words.

    Raises:
        ConfigError: as in `Recipe.load`.
    """
    return StackConfig.load(path, [*overrides, f"stage={stage}"])
