"""What every trainer of the house can be told: `TrainingArguments` whose every field is honoured or refused."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations.integration_utils import (
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
)
from transformers.utils import is_liger_kernel_available

from dudi.environment import device_type
from dudi.errors import ConfigError
from dudi.training.keys import YAML_NAMES, RunKeys, declared_rule, default_of, rules_of
from dudi.training.ranks import close_group_at_exit
from dudi.training.values import fit, hints_of


@dataclass
class RunArguments(RunKeys, TrainingArguments):
    """The keys of a run, whatever is trained.

    Raises:
        ConfigError: a value has the wrong type, is outside its choices or range, or would have no effect; a package or
            file that a key needs is missing. The message begins with the key.
    """

    def __post_init__(self) -> None:
        self._check_keys()
        if self.max_steps == 0:
            raise ConfigError("max_steps: 0 steps train nothing; take it out for num_train_epochs, or set at least 1")
        self.disable_tqdm = bool(self.disable_tqdm)  # left open, transformers hides the bar with its own warnings
        for name in ("deepspeed", "fsdp_config", "accelerator_config"):
            given = getattr(self, name)
            if isinstance(given, str) and not given.lstrip().startswith("{"):
                setattr(self, name, os.path.expanduser(given))
                if not Path(getattr(self, name)).is_file():  # it is read once models are loaded
                    raise ConfigError(f"{name}: there is no file {given}")
        several = "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
        # transformers wants to be told; processes that a launcher started would not join, each a run of its own.
        self.use_cpu = self.use_cpu or ((self.bf16 or several) and device_type() == "cpu")
        if self.use_cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
            # transformers gives `ddp_timeout` to processes on GPUs alone; those on CPUs would wait half an hour for one
            # that died before they met. It makes the state anew, and the process group stays.
            PartialState(cpu=True, backend=self.ddp_backend, timeout=timedelta(seconds=self.ddp_timeout))
        super().__post_init__()
        close_group_at_exit()
        # accelerate's launcher may have asked for a precision: from here on it is this run's, and part of its identity.
        self.bf16, self.fp16 = self.mixed_precision == "bf16", self.mixed_precision == "fp16"
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise ConfigError(f"ACCELERATE_MIXED_PRECISION: {self.mixed_precision} is not one of no, bf16, fp16")
        self._try_out()

    def _check_keys(self) -> None:
        """Hold each value against its key: types of our own keys, every range, and what has no effect."""
        kind: Any = type(self)
        rules, hints = rules_of(kind), hints_of(kind)
        for field in dataclasses.fields(self):
            if field.name not in rules:
                continue
            rule, name, value = rules[field.name], YAML_NAMES.get(field.name, field.name), getattr(self, field.name)
            if declared_rule(field) is not None:
                value = fit(value, hints[field.name], name)
                setattr(self, field.name, value)
            rule.check(value, default_of(field), name)

    def _try_out(self) -> None:
        """Make what `Trainer` will make once models are loaded, to find out now what is missing or contradictory."""
        if self.use_liger_kernel and not is_liger_kernel_available():
            raise ConfigError("use_liger_kernel: needs the package liger-kernel")
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        kwargs: Any = self.lr_scheduler_kwargs
        made: dict[str, Callable[[], Any]] = {
            "optim": lambda: Trainer.get_optimizer_cls_and_kwargs(self),
            "lr_scheduler_type": lambda: get_scheduler(self.lr_scheduler_type, optimizer, 1, 10, kwargs),
            "report_to": lambda: get_reporting_integration_callbacks(self.report_to),
        }
        for name, make in made.items():
            if name == "optim" and (self.optim_target_modules or "lomo" in self.optim):
                continue  # these look for their parts in the model
            try:
                make()
            except (ImportError, ValueError, TypeError, KeyError, RuntimeError) as error:
                raise ConfigError(f"{name}: {' '.join(str(error).split())}") from error
        missing = sorted({*(self.report_to or [])} - {*get_available_reporting_integrations()})
        if missing:
            raise ConfigError(f"report_to: {missing[0]} is not installed; install it, or set report_to: none")

    @property
    def folder(self) -> Path:
        """`output_dir` as a path; `TrainingArguments` gives it a name where nobody did."""
        return Path(self.output_dir or "trainer_output")


def binding_keys(args: RunArguments) -> dict[str, Any]:
    """The keys that decide a run's numbers, as JSON values: a resumed run has the same."""
    values = args.to_dict()
    names = [name for name, rule in rules_of(type(args)).items() if rule.resume == "binding" and not rule.refused]
    return {name: values[name] for name in sorted(names)}


def training_dtype(args: RunArguments) -> str:
    """The precision that frozen models are held in."""
    return "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
