"""The sections of a recipe: student, teacher, data and lora. No torch here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class Section(BaseModel):
    """A part of the tree; a key that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ModelSection(Section):
    """The student: which model, and how it is loaded."""

    model: str = Field(description="A hub name, a folder, or `package:NAME`: an installed Python package's folder.")
    revision: str | None = Field(default=None, description="Commit, tag or branch on the hub.")
    dtype: Dtype = Field(
        default="auto", description="Precision of the weights; auto follows the precision of training."
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
    chat_template: str | None = Field(
        default=None, description="`teacher`, or a path to a jinja file; null: the model's own."
    )
    trust_remote_code: bool = Field(default=False, description="Run Python code that the model's repository brings.")


class TeacherSection(ModelSection):
    """The teacher; methods without one leave `model` empty."""

    model: str | None = Field(default=None, description="As `student.model`; null: no second model.")  # type: ignore[assignment]
    device: str = Field(
        default="auto", description="Where the teacher lives: auto (the student's device), cpu, cuda:1 ..."
    )
    quantization: dict[str, Any] | None = Field(
        default=None, description="transformers' quantization config: {load_in_4bit: true}, {quant_method: gptq, ...}."
    )


class DataSection(Section):
    """The rows to train and evaluate on."""

    train: str = Field(description="A JSONL or Parquet file, a folder, a hub name, or built in: `cldr`, `cldr-qa-1`.")
    eval: str | None = Field(default=None, description="The same, for evaluation during training.")
    split: str = Field(default="train", description="Split of `data.train` on the hub or in a `datasets` folder.")
    eval_split: str | None = Field(
        default=None, description="Split of `data.eval`; alone, it names a split of `data.train`."
    )
    language: str | None = Field(default=None, description="The language of every row, where rows do not say it.")
    language_column: str = Field(default="language", description="The column that holds each row's language code.")
    max_rejected_share: float = Field(
        default=0.05, ge=0, le=1, description="The run stops when more rows than this are bad."
    )
    max_rows: int | None = Field(default=None, ge=1, description="Read at most this many rows.")
    rows_per_language: int | None = Field(
        default=None, ge=1, description="Rows per language of a built-in source; null: 200 of `cldr`, all of the other."
    )
    tasks: list[str] | None = Field(
        default=None, description="Tasks of `cldr-qa-1` (docs/benchmark.md) to train on; null: all."
    )


class BenchmarkSection(Section):
    """The built-in questions that a finished run is asked, and its base, cold start and teacher beside it."""

    name: Literal["cldr-qa-1"] = Field(default="cldr-qa-1", description="Which benchmark; docs/benchmark.md.")
    part: Literal["test", "validation"] = Field(
        default="test", description="`validation` to choose hyperparameters, `test` to report."
    )
    tasks: list[str] | None = Field(default=None, description="Tasks to ask about; null: those of `data.tasks`.")
    per_split: int | None = Field(
        default=None, ge=1, description="At most this many questions per language and split; null: all."
    )
    max_new_tokens: int = Field(default=64, ge=1, description="Longest answer; the rest is cut.")
    batch_size: int = Field(default=64, ge=1, description="Questions that are decoded together.")


class LoraSection(Section):
    """Train low-rank adapters instead of all weights (needs the extra `peft`)."""

    r: int = Field(default=16, ge=1, description="Rank of the adapters.")
    alpha: int = Field(default=32, ge=1, description="Scale of the adapters: alpha / r.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout in front of the adapters.")
    target_modules: str | list[str] = Field(default="all-linear", description="Which linear layers get an adapter.")


SECTIONS: dict[str, type[Section]] = {
    "student": ModelSection,
    "teacher": TeacherSection,
    "data": DataSection,
    "lora": LoraSection,
    "benchmark": BenchmarkSection,
}
SHORTHAND: dict[str, str] = {"student": "model", "teacher": "model", "data": "train", "benchmark": "name"}
"""A section given as text sets this key of it, and nothing else."""
