"""`RunConfig`: the recipe of `dudi train`.

Importing this file does not import torch; loading a recipe does, since its keys are the fields of `DudiConfig`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dudi.config.layers import Origin, Settings
from dudi.config.recipe import FIELDS, Recipe
from dudi.config.schema import DUDI, Schema
from dudi.config.sections import BenchmarkSection, DataSection, LoraSection, ModelSection, TeacherSection
from dudi.config.training_keys import YAML_NAMES, TrainingKey, training_keys
from dudi.errors import ConfigError
from dudi.methods import METHOD_KEYS, METHODS, method_default
from dudi.suggest import did_you_mean, nearest

if TYPE_CHECKING:
    from dudi.arguments import DudiConfig


class RunConfig(Recipe):
    """Everything that `dudi train` needs to know.

    Attributes:
        student: The model to train.
        teacher: The larger model; `teacher.model` is None for methods without one.
        data: The rows.
        lora: Adapters; None trains all weights.
        benchmark: The built-in questions asked after training; None asks nothing.
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
        """The method's name: a key of `dudi.methods.METHODS`."""
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
        from dudi.arguments import DudiConfig

        return self.arguments(DudiConfig, output_dir, **changes)


def load_run_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe of `dudi train`; arguments and errors as in `Recipe.load`."""
    return RunConfig.load(path, overrides)


def _check_choices(config: RunConfig, settings: Settings) -> None:
    """Words that are not among a key's choices, while their line is still known."""
    from dudi.arguments import CHOICES, COLD_STARTS

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
