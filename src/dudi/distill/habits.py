"""What people bring from other trainers of `transformers` and TRL: taken as there, or refused by its name."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import TrainingArguments

from dudi.distill.arguments import DudiConfig
from dudi.errors import ConfigError

T = TypeVar("T")

REFUSED: dict[str, str] = {
    "compute_metrics": "logits are never held whole; evaluate() gives losses, and `dudi eval` asks questions",
    "preprocess_logits_for_metrics": "logits are never held whole",
    "compute_loss_func": "the loss is the sum of a method's signals; choose them with method, alpha, lmbda and without",
    "data_collator": "rows are lined up once their rollouts are there; give prompts with completions, or messages",
    "formatting_func": "give rows with prompt and completion, or with messages; the chat template makes the text",
    "model_init": "a search over hyperparameters is a study of several runs (`dudi study`); give a model",
    "tokenizer": "it is called processing_class",
    "teacher_tokenizer": "it is called teacher_processing_class",
    "quantization_config": "load the model with it, and give the model",
    "reward_funcs": "no method here has a reward",
    "ref_model": "the reference is the policy that the method starts from",
}
"""Arguments of other trainers, and what to do instead."""
_MUST_STAY_OFF = ("remove_unused_columns", "logging_nan_inf_filter")


def refuse_habits(given: Mapping[str, Any]) -> None:
    """Refuse arguments that other trainers take.

    Raises:
        ConfigError: one that could be meant, with what to do.
        TypeError: any other, as Python does.
    """
    for name, value in given.items():
        if name not in REFUSED:
            raise TypeError(f"DudiTrainer.__init__() got an unexpected keyword argument '{name}'")
        if value is not None:
            raise ConfigError(f"{name}: is not taken: {REFUSED[name]}")


def as_config(args: TrainingArguments | None) -> DudiConfig:
    """The arguments as a `DudiConfig`: plain `TrainingArguments` are converted as TRL's SFT trainer converts them.

    Raises:
        ConfigError: the arguments of another trainer.
    """
    if args is None:
        return DudiConfig(output_dir="dudi-run")
    if isinstance(args, DudiConfig):
        return args
    if type(args) is not TrainingArguments:
        raise ConfigError(
            f"args: a {type(args).__name__} belongs to another trainer; make a DudiConfig, whose method says what is "
            "trained"
        )
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(args) if field.init}
    return DudiConfig(**{name: value for name, value in values.items() if name not in _MUST_STAY_OFF})


def warn_of_rounding(model: nn.Module) -> None:
    """Warn where trained weights are in 16 bits: a model object comes in its files' precision, a name as float32."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    coarse = {one.dtype for one in trained if one.dtype in (torch.bfloat16, torch.float16)}
    if coarse:
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in coarse))
        warnings.warn(
            f"model: its trained weights are {names}, which rounds small steps away; load it with dtype=torch.float32, "
            "or give its name (student.dtype in a recipe). The key dtype is what 16 bits are computed with",
            stacklevel=3,
        )


def as_name(model: T | Path) -> T | str:
    """A path as the text that `from_pretrained` reads."""
    return str(model) if isinstance(model, Path) else model
