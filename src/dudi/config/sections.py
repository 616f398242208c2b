"""The sections of a recipe: student, teacher, data and lora. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dudi.training.values import Place

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


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
