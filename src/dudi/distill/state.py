"""A run as the passes, the engines, the stages and the validation read it; it knows no trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from transformers import PreTrainedModel

from dudi.data.chat import Tokens
from dudi.data.examples import ExampleSet
from dudi.distill.arguments import DudiConfig
from dudi.distill.batch import Scored
from dudi.distill.collect import Collector
from dudi.distill.setup import Setup
from dudi.distill.teachers import Trust
from dudi.errors import ConfigError
from dudi.models.adapters import innermost
from dudi.models.frozen import Policy
from dudi.objective.forward import summed_log_probs
from dudi.objective.signals import Signal
from dudi.training.runlog import RunLog


@dataclasses.dataclass(slots=True)
class Run:
    """What is known of a run between its steps.

    Attributes:
        model: The student, with its adapters, outside of what distributes it; as it is at the time of the call.
        wrapped: The student inside of what distributes it, likewise.
        step: Optimizer steps made so far.
        write_once: Lets the rank that saves write, and all ranks wait.
        teacher: The model that divergences read, or None; of several, the default one.
        policies: The second models by their names (`Teachers.members`).
        reference: The frozen policy of the sequence signal, or None.
        gold_reference: log pi_ref(y | x) of each training row, by row id.
        balance: Factor on each language's divergence on rollouts (`language_balance`); 1 where nothing is said.
        ratios: (L, 3) what the balance is made of, summed over the first steps (`by_language.balance`).
        kept_states: A target's states where they are kept (`teacher_cache`), None for any other sequence; or None.
        collector: Rolls out; set once its engine can be made.
    """

    args: DudiConfig
    setup: Setup
    accelerator: Accelerator
    signals: Mapping[str, Signal]
    model: Callable[[], nn.Module]
    wrapped: Callable[[], nn.Module]
    step: Callable[[], int]
    write_once: Callable[[Callable[[], None]], None]
    log: RunLog
    teacher: Policy | None = None
    policies: dict[str, Policy] = dataclasses.field(default_factory=dict)
    reference: Policy | None = None
    gold_reference: dict[str, float] = dataclasses.field(default_factory=dict)
    trust: Trust = dataclasses.field(default_factory=Trust)
    balance: dict[str, float] = dataclasses.field(default_factory=dict)
    ratios: Tensor | None = None
    kept_states: Callable[[Scored], Tensor | None] | None = None
    collector: Collector = dataclasses.field(init=False)

    @property
    def rows(self) -> ExampleSet:
        """The training rows; a `ConfigError` where there are none."""
        if self.setup.train is None:
            raise ConfigError("train_dataset: there is none")
        return self.setup.train

    @property
    def sharded(self) -> bool:
        """Whether the student's weights are spread over the ranks (FSDP)."""
        return self.accelerator.distributed_type == DistributedType.FSDP

    @property
    def peft_model(self) -> Any:
        """The student with its adapters, taken out of what distributes it."""
        return self.accelerator.unwrap_model(self.wrapped(), keep_torch_compile=False)

    @property
    def inner_model(self) -> PreTrainedModel:
        """The causal language model inside every wrapper and adapter."""
        return innermost(self.peft_model)

    def reference_log_probs(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> Tensor:
        """(S,) summed log-probabilities under the reference of S prompts with their completions."""
        if self.reference is None:
            raise RuntimeError("this method has no reference")
        with self.reference.opened() as module, self.accelerator.autocast():
            return summed_log_probs(module, pairs, self.setup.vocabulary, self.args.loss_kernel)
