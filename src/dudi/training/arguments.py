"""What every trainer of the house can be told: `TrainingArguments` with the defaults that its run folder needs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainingArguments


def key(default: Any, text: str) -> Any:
    """A field with a line of help; a list or a mapping is made anew for each object."""
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class RunArguments(TrainingArguments):
    """The keys whose defaults are the house's own, whatever is trained."""

    logging_steps: float = key(1, "Optimizer steps between two reports to the bar and to `report_to`.")
    save_total_limit: int | None = key(2, "Checkpoints that are kept; the newest always is.")
    dataloader_pin_memory: bool = key(False, "Rows arrive as ids, not as tensors: there is nothing to pin.")
    remove_unused_columns: bool = key(False, "Must stay off: rows carry their text to the verbalizer.")
    logging_nan_inf_filter: bool = key(False, "Must stay off: a non-finite loss stops the run.")
    hub_logs: bool = key(False, "Let `push_to_hub` send metrics.jsonl and eval.jsonl beside model, card and recipe.")
    # HfArgumentParser reads this union only in the order in which TrainingArguments writes it.
    report_to: None | str | list[str] = key(  # noqa: RUF036
        "none", "tensorboard, trackio and the other integrations of Trainer."
    )

    def __post_init__(self) -> None:
        self.disable_tqdm = bool(self.disable_tqdm)  # left open, transformers hides the bar with its own warnings
        if self.use_cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
            # transformers gives `ddp_timeout` to processes on GPUs alone; those on CPUs would wait half an hour for one
            # that died before they met. It makes the state anew, and the process group stays.
            PartialState(cpu=True, backend=self.ddp_backend, timeout=timedelta(seconds=self.ddp_timeout))
        super().__post_init__()

    @classmethod
    def free_to_change(cls) -> frozenset[str]:
        """Its own keys that move no weight: a resumed run may change them."""
        return frozenset()

    @property
    def folder(self) -> Path:
        """`output_dir` as a path; `TrainingArguments` gives it a name where nobody did."""
        return Path(self.output_dir or "trainer_output")


def training_dtype(args: RunArguments) -> str:
    """The precision that frozen models are held in."""
    return "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
