"""The sections of a recipe of `dudi stack`. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dudi.config.sections import LoraSection, Section


class EncoderSection(Section):
    """The MT encoder; null: an LLM that reads its own tokens."""

    model: str | None = Field(
        default=None, description="A hub name, a folder, or `package:NAME`: NLLB, M2M100, MT5 ..."
    )
    revision: str | None = Field(default=None, description="Commit, tag or branch on the hub.")
    codes: dict[str, str] = Field(
        default_factory=dict, description="The tokenizer's code for each code in the rows: {id: ind_Latn}."
    )


class LlmSection(Section):
    """The decoder on top; null: the encoder alone."""

    model: str | None = Field(
        default=None, description="A hub name, a folder or `package:NAME`; a folder of adapters brings its base along."
    )
    revision: str | None = Field(default=None, description="Commit, tag or branch on the hub.")
    adapters: list[str] = Field(
        default_factory=list, description="LoRA adapters merged into it, in this order (LLM2Vec: MNTP, SimCSE)."
    )
    attention: str = Field(default="bidirectional", description="bidirectional, or causal.")
    attn_implementation: str | None = Field(
        default=None, description="sdpa, flash_attention_2, eager; null: transformers'."
    )


class StartSection(Section):
    """An earlier stage to go on from, in the place of encoder and llm."""

    model: str | None = Field(default=None, description="The folder of its run, or of its model.")


class TunedSection(Section):
    """The LLM that `dudi stack teach` has tuned."""

    model: str | None = Field(default=None, description="The folder of its run.")


class StackDataSection(Section):
    """The rows."""

    train: str | None = Field(default=None, description="A JSONL or Parquet file, a folder, or a hub name.")
    split: str = Field(default="train", description="Its split on the hub.")
    eval: str | None = Field(default=None, description="Rows for evaluation during training.")
    eval_split: str | None = Field(default=None, description="Their split; alone, it names a split of `data.train`.")
    parallel: str | None = Field(
        default=None, description="align: texts with `english`, on which FVU and cosine of each language are measured."
    )
    parallel_split: str = Field(default="train", description="Their split.")
    language: str | None = Field(default=None, description="The source language of rows that do not name theirs.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="Our columns to the rows' own: {text: premise, pair: hypothesis}."
    )
    max_rows: int | None = Field(default=None, ge=1, description="Read at most this many rows.")


class TaskSection(Section):
    """What is asked about a row."""

    kind: Literal["classification", "choice"] = Field(
        default="classification", description="A class of a text or a pair, or one of the row's `choices`."
    )
    labels: list[str] = Field(default_factory=list, description="Names of the classes, in the order of their numbers.")


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
