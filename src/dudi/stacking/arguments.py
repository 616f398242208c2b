"""`StackArguments`: the keys of every stage of a stack, as a `transformers.TrainingArguments`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from dudi.errors import ConfigError, did_you_mean
from dudi.training.arguments import RunArguments
from dudi.training.arguments import key as _key

Start = Literal["least_squares", "random"]
STARTS: tuple[str, ...] = get_args(Start)


@dataclass
class StackArguments(RunArguments):
    """What the stages can be told, beside the fields of `TrainingArguments`.

    Raises:
        ConfigError: a value is outside its choices or range.
    """

    stage: str | None = _key(None, "Which stage this is; the verb says it: adapt, align, teach, distill, finetune.")
    max_length: int = _key(256, "Longest text, in tokens of whichever tokenizer reads it; the rest is cut.")
    connector_start: str = _key("least_squares", "align: where the connector starts: least_squares or random.")
    start_rows: int = _key(1024, "align: texts that the least-squares start is computed from.")
    merge_lora: bool = _key(True, "align: merge the adapter at the end; false: later stages go on with the same one.")
    train_connector: bool = _key(True, "Train the connector too; the paper's Stage 2 leaves it as Stage 1 made it.")
    muon: bool = _key(False, "Muon for the matrices and Adam for the rest, instead of `optim`.")
    state_shuffle: float = _key(0.0, "align: share of the texts whose encoder states reach the LLM in a random order.")
    state_repeat: float = _key(0.0, "align: share of the encoder states that reach the LLM twice.")
    state_drop: float = _key(0.0, "align: share of the encoder states that do not reach the LLM.")
    mask_share: float = _key(0.2, "adapt: share of the tokens that are masked and predicted.")
    probe_steps: int = _key(0, "align: measure FVU and cosine of each language every so many steps; 0: at the end.")
    probe_rows: int = _key(256, "align: parallel rows of each language that are measured.")

    learning_rate: float = _key(2e-4, "The authors' learning rate of Stage 1.")
    weight_decay: float = _key(0.01, "The authors' weight decay.")
    warmup_steps: float = _key(0.01, "Steps, or below 1 a share of all steps.")
    per_device_train_batch_size: int = _key(32, "Rows a device reads at a time.")

    def __post_init__(self) -> None:
        if self.connector_start not in STARTS:
            hint = did_you_mean(self.connector_start, STARTS)
            raise ConfigError(f"connector_start: '{self.connector_start}' is not one of {', '.join(STARTS)}{hint}")
        checks: tuple[tuple[str, bool, str], ...] = (
            ("max_length", self.max_length > 4, "above 4"),
            ("start_rows", self.start_rows >= 1, "at least 1"),
            ("mask_share", 0 < self.mask_share < 1, "between 0 and 1, both excluded"),
            ("state_shuffle", 0 <= self.state_shuffle <= 1, "between 0 and 1"),
            ("state_repeat", 0 <= self.state_repeat <= 1, "between 0 and 1"),
            ("state_drop", 0 <= self.state_drop < 1, "at least 0 and below 1"),
            ("probe_steps", self.probe_steps >= 0, "at least 0"),
            ("probe_rows", self.probe_rows >= 2, "at least 2"),
        )
        for name, holds, wanted in checks:
            if not holds:
                raise ConfigError(f"{name}: must be {wanted}, got {self.__dict__[name]}")
        super().__post_init__()
