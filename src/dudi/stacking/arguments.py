"""`StackArguments`: the keys of every stage of a stack, as a `transformers.TrainingArguments`."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Literal

from dudi.errors import ConfigError
from dudi.training.arguments import RunArguments
from dudi.training.keys import default_of, key, rules_of, unread_message, unread_of

ConnectorStart = Literal["least_squares", "random"]
_key = functools.partial(key, stage="any", resume="binding")
_align = functools.partial(_key, read_by="align")


@dataclass
class StackArguments(RunArguments):
    """What the stages can be told, beside the fields of `TrainingArguments`.

    Raises:
        ConfigError: a value is outside its choices or range, or `stage` is named and does not read it.
    """

    stage: Literal["adapt", "align", "teach", "distill", "finetune"] | None = _key(
        None, "Which stage this is; the verb says it: adapt, align, teach, distill, finetune."
    )
    max_length: int = _key(256, "Longest text, in tokens of whichever tokenizer reads it; the rest is cut.", above=4)
    connector_start: ConnectorStart = _align("least_squares", "Where a new connector starts: least_squares or random.")
    start_rows: int = _align(1024, "Texts that the least-squares start is computed from.", at_least=1)
    merge_lora: bool = _align(True, "Merge the adapter at the end; false: later stages go on with the same one.")
    train_connector: bool = _key(
        True,
        "Train the connector too; the paper's Stage 2 leaves it as Stage 1 made it.",
        read_by="distill finetune",
    )
    llm_tokens: bool = _key(
        False,
        "The LLM reads its own tokens of a text too, behind the encoder's states and one learned embedding.",
        read_by="align distill finetune",
    )
    bitext_share: float = _align(
        0.5, "Share of the steps, the first ones, that learn from `data.bitext`.", at_least=0, at_most=1
    )
    save_parents: bool = _key(False, "Save the parents' frozen weights in model/ too: it then loads without them.")
    muon: bool = _key(False, "Muon for the matrices and Adam for the rest, instead of `optim`.")
    state_shuffle: float = _align(
        0.0, "Share of the texts whose encoder states reach the LLM in a random order.", at_least=0, at_most=1
    )
    state_repeat: float = _align(0.0, "Share of the encoder states that reach the LLM twice.", at_least=0, at_most=1)
    state_drop: float = _align(0.0, "Share of the encoder states that do not reach the LLM.", at_least=0, below=1)
    mask_share: float = _key(
        0.2, "Share of the tokens that are masked and predicted.", read_by="adapt", above=0, below=1
    )
    probe_steps: int = _align(
        0, "Measure FVU and cosine of each language every so many steps; 0: at the end.", at_least=0
    )
    probe_rows: int = _align(256, "Parallel rows of each language that are measured.", at_least=2)

    learning_rate: float = _key(2e-4, "The authors' learning rate of Stage 1.", at_least=0)
    weight_decay: float = _key(0.01, "The authors' weight decay.", at_least=0)
    warmup_steps: float = _key(0.01, "Steps, or below 1 a share of all steps.", at_least=0)
    per_device_train_batch_size: int = _key(32, "Rows a device reads at a time.", at_least=1)
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = _key(
        "random", "The order of the rows: random, sequential, or group_by_length: texts of like length together."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage is not None:
            self._refuse_unread(self.stage)

    def begin(self, stage: str) -> None:
        """Hold the keys against the stage that is about to run, where they do not name theirs.

        Raises:
            ConfigError: a key has another value than its default, and the stage does not read it.
        """
        if self.stage is None:
            self._refuse_unread(stage)

    def _refuse_unread(self, stage: str) -> None:
        fields, rules = dataclasses.fields(self), rules_of(type(self))
        given = [one.name for one in fields if one.name in rules and getattr(self, one.name) != default_of(one)]
        for name in unread_of({name: rules[name].read_by for name in given}, stage.__eq__):
            raise ConfigError(unread_message(name, stage, rules[name].read_by))
