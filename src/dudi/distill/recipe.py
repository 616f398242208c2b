"""A recipe of `dudi train`: its sections and keys."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dudi.config.layers import Origin, Settings
from dudi.config.recipe import FIELDS, Recipe
from dudi.config.schema import YAML_NAMES, Schema, TrainingKey, keys_of
from dudi.config.sections import LoraSection, ModelSection, Section
from dudi.errors import ConfigError, did_you_mean, nearest
from dudi.objective.methods import METHOD_KEYS, METHODS, method_default

if TYPE_CHECKING:
    from dudi.distill.arguments import DudiConfig


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

    train: str = Field(
        description="A JSONL or Parquet file, a folder, a hub name, or a built-in source (docs/data.md)."
    )
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
        default=None, ge=1, description="Rows per language of a built-in source; null: the source's own number."
    )
    tasks: list[str] | None = Field(
        default=None, description="Tasks of a built-in source (docs/benchmark.md) to train on; null: all."
    )


class BenchmarkSection(Section):
    """What a finished run is asked, and its base, cold start and teacher beside it."""

    name: str | list[str] = Field(
        description="A benchmark of `dudi eval` or a file of questions, or a list of them (docs/eval.md)."
    )
    part: Literal["test", "validation"] | None = Field(
        default=None, description="Of a benchmark in parts: `validation` to choose hyperparameters, `test` to report."
    )
    tasks: list[str] | None = Field(
        default=None, description="Tasks to ask about; null: those of `data.tasks`, or all."
    )
    per_split: int | None = Field(
        default=None, ge=1, description="At most this many questions per language and split; null: all."
    )
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Longest answer, the rest is cut; null: the benchmark's own."
    )
    batch_size: int = Field(default=64, ge=1, description="Questions that are decoded together.")


SECTIONS: dict[str, type[Section]] = {
    "student": ModelSection,
    "teacher": TeacherSection,
    "data": DataSection,
    "lora": LoraSection,
    "benchmark": BenchmarkSection,
}


SHORTHAND: dict[str, str] = {"student": "model", "teacher": "model", "data": "train", "benchmark": "name"}
"""A section given as text sets this key of it, and nothing else."""


@functools.lru_cache(maxsize=1)
def training_keys() -> Mapping[str, TrainingKey]:
    """All keys of `dudi train` by the name that YAML uses, its own in front of those of `TrainingArguments`."""
    from dudi.distill.arguments import DudiConfig

    return keys_of(DudiConfig)


DUDI = Schema(SECTIONS, SHORTHAND, training_keys)


class RunConfig(Recipe):
    """Everything that `dudi train` needs to know.

    Attributes:
        student: The model to train.
        teacher: The larger model; `teacher.model` is None for methods without one.
        data: The rows.
        lora: Adapters; None trains all weights.
        benchmark: The questions asked after training; None asks nothing.
        training: The given keys of `DudiConfig`, by their Python names (`lmbda`); what is not here has its default.
    """

    schema_: ClassVar[Schema] = DUDI
    command: ClassVar[str] = "train"
    required: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("student", "model", "the model to train"),
        ("data", "train", "the rows to train on"),
    )

    student: ModelSection
    teacher: TeacherSection = Field(default_factory=TeacherSection)
    data: DataSection
    lora: LoraSection | None = None
    benchmark: BenchmarkSection | None = None

    @classmethod
    def complete(cls, tree: dict[str, Any]) -> None:
        """`teacher: null` is a teacher without a model."""
        if tree.get("teacher", {}) is None:
            del tree["teacher"]

    @property
    def method(self) -> str:
        """The method's name: a key of `dudi.objective.methods.METHODS`."""
        return str(self.training.get("method", training_keys()["method"].default))

    def value(self, key: TrainingKey) -> Any:
        """The value of a training key: the given one, the method's own, or the default."""
        if key.name == "num_train_epochs" and METHODS[self.method].iterated:
            return float(self.training.get("spin_iterations", training_keys()["spin_iterations"].default))
        value = self.training.get(key.name)
        if value is None and key.name in METHOD_KEYS:
            return method_default(self.method, key.name)
        return self.training.get(key.name, key.default)

    def origin(self, key: str) -> Origin:
        """As of any recipe; what was left open comes from the `method`."""
        key = self.known(key)
        name = FIELDS.get(key, key)
        if name == "num_train_epochs" and METHODS[self.method].iterated:
            return "method"
        if name in METHOD_KEYS and self.training.get(name) is None:
            return "method"
        return super().origin(key)

    def refuse_untold_code(self, told: Origin | None = "command line") -> None:
        """Let a model run code of its own only where a person says so: recipes are passed from hand to hand.

        Args:
            told: Where it may be said; None: nowhere.

        Raises:
            ConfigError: it is said elsewhere.
        """
        for key in ("student.trust_remote_code", "teacher.trust_remote_code"):
            section = self.student if key.startswith("student") else self.teacher
            if section.trust_remote_code and self.origin(key) != told:
                raise ConfigError(
                    f"{self.place(key)}: {key}: a file may not let a model run its own code; if you trust the model, "
                    f"say {key}=true on the command line of `dudi train`"
                )

    def check_words(self) -> None:
        """Words that are not among a key's choices, while their line is still known."""
        _check_choices(self, self._sources)

    def dudi_config(self, output_dir: str | Path, **changes: Any) -> DudiConfig:
        """The run's `DudiConfig`; arguments and errors as in `arguments`."""
        from dudi.distill.arguments import DudiConfig

        return self.arguments(DudiConfig, output_dir, **changes)


def load_run_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe of `dudi train`; arguments and errors as in `Recipe.load`."""
    return RunConfig.load(path, overrides)


def _check_choices(config: RunConfig, settings: Settings) -> None:
    """Words that are not among a key's choices, while their line is still known."""
    from dudi.distill.arguments import CHOICES, COLD_STARTS

    for name, choices in CHOICES.items():
        value = config.training.get(name)
        if value is not None and value not in choices:
            hint = did_you_mean(value, choices)
            raise ConfigError(f"{_where(settings, name)}: '{value}' is not one of {', '.join(choices)}{hint}")
    start = config.training.get("cold_start")
    if start is not None and start not in COLD_STARTS and nearest(start, COLD_STARTS) and not Path(start).exists():
        hint = did_you_mean(start, COLD_STARTS)
        raise ConfigError(
            f"{_where(settings, 'cold_start')}: '{start}' is neither one of {', '.join(COLD_STARTS)} nor a folder{hint}"
        )


def _where(settings: Settings, name: str) -> str:
    key = YAML_NAMES.get(name, name)
    return f"{settings[key].place}: {key}"
