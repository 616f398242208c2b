"""`StackConfig`: the recipe of `dudi stack`. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from pydantic import Field

from dudi.config.recipe import Recipe
from dudi.config.schema import STACK, Schema
from dudi.config.sections import LoraSection
from dudi.config.stack_sections import (
    EncoderSection,
    LlmSection,
    StackDataSection,
    StartSection,
    TaskSection,
    TunedSection,
)
from dudi.errors import ConfigError
from dudi.suggest import did_you_mean

if TYPE_CHECKING:
    from dudi.stacking.arguments import StackArguments

StageName = Literal["adapt", "align", "teach", "distill", "finetune"]
STAGE_NAMES: tuple[str, ...] = get_args(StageName)


class StackConfig(Recipe):
    """Everything that a stage of `dudi stack` needs to know.

    Attributes:
        encoder: The MT encoder; without a model: an LLM alone.
        llm: The decoder; without a model: the encoder alone.
        start: The earlier stage to go on from, in the place of the two.
        teacher: The tuned LLM of Stage 2.
        task: What is asked about a row.
        data: The rows.
        lora: The adapter; None trains the whole LLM.
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
    lora: LoraSection | None = None

    @classmethod
    def complete(cls, tree: dict[str, Any]) -> None:
        """A section that was emptied is one without a model."""
        for name in ("encoder", "llm", "start", "teacher", "task"):
            if tree.get(name, {}) is None:
                del tree[name]

    @property
    def stage(self) -> str:
        """The verb: one of `STAGE_NAMES`."""
        return str(self.training.get("stage") or "")

    def check_words(self) -> None:
        """The words of `stage` and `llm.attention`.

        Raises:
            ConfigError: with file and line.
        """
        for key, value, allowed in (
            ("stage", self.training.get("stage"), STAGE_NAMES),
            ("llm.attention", self.llm.attention, ("bidirectional", "causal")),
        ):
            if value is not None and value not in allowed:
                hint = did_you_mean(value, allowed)
                raise ConfigError(f"{self.place(key)}: {key}: '{value}' is not one of {', '.join(allowed)}{hint}")

    def stack_arguments(self, output_dir: str | Path) -> StackArguments:
        """The run's `StackArguments`; errors as in `arguments`."""
        from dudi.stacking.arguments import StackArguments

        found: StackArguments = self.arguments(StackArguments, output_dir)
        return found


def load_stack_config(path: Path | str, stage: str, overrides: Sequence[str] = ()) -> StackConfig:
    """Read a recipe for one stage.

    Args:
        path: A YAML file, or the name of a shipped recipe (`stack/nllb-llm2vec/align`).
        stage: One of `STAGE_NAMES`.
        overrides: `key=value` words.

    Raises:
        ConfigError: as in `Recipe.load`.
    """
    return StackConfig.load(path, [*overrides, f"stage={stage}"])
