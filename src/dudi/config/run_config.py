"""`RunConfig`: one typed tree for a run, from a YAML recipe and `key=value` words, that knows where each value is from.

Importing this file does not import torch; loading a recipe does, since its keys are the fields of `DudiConfig`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from dudi.config.layers import Origin, Setting, Settings, known_keys, read_layers
from dudi.config.recipe_files import find_recipe, recipes_folder
from dudi.config.sections import (
    SECTIONS,
    BenchmarkSection,
    DataSection,
    Dtype,
    LoraSection,
    ModelSection,
    TeacherSection,
)
from dudi.config.training_keys import YAML_NAMES, TrainingKey, training_keys
from dudi.config.value_types import fit
from dudi.config.yaml_tree import render
from dudi.errors import ConfigError
from dudi.methods import METHOD_KEYS, METHODS, method_default
from dudi.suggest import did_you_mean, nearest

if TYPE_CHECKING:
    from dudi.arguments import DudiConfig

_FIELDS = {python: text for text, python in YAML_NAMES.items()}


class RunConfig(BaseModel):
    """Everything that `dudi train` needs to know.

    Attributes:
        student: The model to train.
        teacher: The larger model; `teacher.model` is None for methods without one.
        data: The rows.
        lora: Adapters; None trains all weights.
        benchmark: The built-in questions asked after training; None asks nothing.
        dtype: Precision of training; auto takes the best one that the device computes well.
        training: The given keys of `DudiConfig`, by their Python names (`lmbda`); what is not here has its default.
    """

    model_config = ConfigDict(extra="forbid")

    student: ModelSection
    teacher: TeacherSection = Field(default_factory=TeacherSection)
    data: DataSection
    lora: LoraSection | None = None
    benchmark: BenchmarkSection | None = None
    dtype: Dtype = "auto"
    training: dict[str, Any] = Field(default_factory=dict)

    _sources: Settings = PrivateAttr(default_factory=dict)
    _file: Path = PrivateAttr(default_factory=lambda: Path("run.yaml"))

    def __eq__(self, other: object) -> bool:
        """Equal when every value is, given or default; where a value came from does not matter."""
        if not isinstance(other, RunConfig):
            return NotImplemented
        own, theirs = self.model_dump(exclude={"training"}), other.model_dump(exclude={"training"})
        return own == theirs and self.settings == other.settings

    __hash__ = None  # type: ignore[assignment]

    @property
    def recipe_name(self) -> str:
        """The recipe's name below `recipes/` (`table2/dudi`), or its file's stem."""
        try:
            return self._file.resolve().relative_to(recipes_folder().resolve()).with_suffix("").as_posix()
        except ValueError:
            return self._file.stem

    @property
    def method(self) -> str:
        """The method's name: a key of `dudi.methods.METHODS`."""
        return str(self.training.get("method", training_keys()["method"].default))

    @property
    def settings(self) -> dict[str, Any]:
        """Every training key by its Python name: the given value, the method's own, or the default."""
        return {key.name: copy.deepcopy(self._value(key)) for key in training_keys().values()}

    def _value(self, key: TrainingKey) -> Any:
        if key.name == "num_train_epochs" and METHODS[self.method].iterated:
            return float(self.training.get("spin_iterations", training_keys()["spin_iterations"].default))
        value = self.training.get(key.name)
        if value is None and key.name in METHOD_KEYS:
            return method_default(self.method, key.name)
        return self.training.get(key.name, key.default)

    def origin(self, key: str) -> Origin:
        """Where a value came from: `default`, `method`, `recipe` or `command line`.

        Args:
            key: `learning_rate`, `student.model`, `lambda` (or `lmbda`) ...

        Raises:
            ConfigError: there is no such key.
        """
        key = YAML_NAMES.get(key, key)
        if key not in known_keys() and key not in SECTIONS:
            raise ConfigError(f"unknown key '{key}'{did_you_mean(key, known_keys())}")
        name = _FIELDS.get(key, key)
        if name == "num_train_epochs" and METHODS[self.method].iterated:
            return "method"
        if key in self._sources and not (name in METHOD_KEYS and self.training.get(name) is None):
            return self._sources[key].origin
        return "method" if name in METHOD_KEYS and self.training.get(name) is None else "default"

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

    def place(self, key: str) -> str | None:
        """`FILE:LINE` of a value that a recipe gave, `command line`, or None for the defaults."""
        origin = self.origin(key)
        return self._sources[YAML_NAMES.get(key, key)].place if origin in ("recipe", "command line") else None

    def resolved_yaml(self) -> str:
        """Every value of the run, defaults included, each with a comment on where it came from.

        The text is a recipe: `load_run_config` reads an equal `RunConfig` from it.
        """
        lines = ["# Every value of this run and where it came from. This file is a recipe: dudi train resolved.yaml"]
        for name, section in SECTIONS.items():
            given = self.model_dump(include={name})[name]
            if given is None:
                lines.append(self._line(name, None, name))
                continue
            lines.append(f"{name}:")
            lines += ["  " + self._line(key, given[key], f"{name}.{key}") for key in section.model_fields]
        lines += ["", self._line("dtype", self.dtype, "dtype"), "", "# The method and its training"]
        for own in (True, False):
            keys = [key for key in training_keys().values() if key.own is own]
            lines += [self._line(key.yaml_name, self._value(key), key.yaml_name) for key in keys]
            lines += ["", "# transformers.TrainingArguments"] if own else []
        return "\n".join(lines) + "\n"

    def _line(self, name: str, value: Any, key: str) -> str:
        origin = self.origin(key)
        place = f" {self.place(key)}" if origin == "recipe" else ""
        return f"{name}: {render(value)}  # {origin}{place}"

    def dudi_config(self, output_dir: str | Path, **changes: Any) -> DudiConfig:
        """The run's `DudiConfig`, in the precision that `dtype` and the device ask for.

        Args:
            output_dir: The run's folder.
            changes: Fields that win over the recipe; `bf16` and `fp16` win over `dtype`.

        Raises:
            ConfigError: values out of range or against each other; with file and line where they were given.
        """
        from dudi.arguments import DudiConfig
        from dudi.environment import choose_precision

        values = copy.deepcopy(self.training) | changes
        precision = choose_precision(self.dtype, use_cpu=bool(values.get("use_cpu")))
        flags = {"bf16": precision.dtype == "bfloat16", "fp16": precision.dtype == "float16"}
        try:
            return DudiConfig(**(flags | values), output_dir=str(output_dir))
        except ConfigError as error:
            raise ConfigError(self._placed(str(error))) from error
        except ValueError as error:
            message = " ".join(str(error).split())
            raise ConfigError(f"the training keys contradict each other: {message}") from error

    def _placed(self, message: str) -> str:
        """`message` with the place of the key that it begins with, if somebody gave that key."""
        key = message.partition(":")[0]
        return f"{self.place(key)}: {message}" if key in self._sources else message


def load_run_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe.

    Args:
        path: A YAML file, or the name of a shipped recipe (`smollm2`, `table2/dudi`).
        overrides: `key=value` words; the value is YAML, keys of sections have a dot.

    Raises:
        ConfigError: anything wrong with the recipe or the words: which key, which line, what was expected.
    """
    file = find_recipe(path)
    settings = read_layers(file, overrides)
    tree: dict[str, Any] = {"training": {}}
    for key, setting in settings.items():
        _put(tree, key, setting)
    _check_required(tree, str(path))
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        raise _as_config_error(error, settings) from error
    config._sources, config._file = settings, file
    _check_choices(config, settings)
    return config


def _put(tree: dict[str, Any], key: str, setting: Setting) -> None:
    """Put one setting where `RunConfig` has it, in the type that it has there."""
    section, dot, name = key.partition(".")
    if key in SECTIONS:
        tree.setdefault(key, None if setting.value is None else {})
        return
    if dot:
        tree[section] = tree.get(section) or {}
        tree[section][name] = fit(setting.value, SECTIONS[section].model_fields[name].annotation, key, setting.place)
    elif key == "dtype":
        tree[key] = fit(setting.value, Dtype, key, setting.place)
    else:
        field = training_keys()[key]
        tree["training"][field.name] = fit(setting.value, field.hint, key, setting.place)


def _check_required(tree: dict[str, Any], name: str) -> None:
    if tree.get("teacher", {}) is None:
        del tree["teacher"]
    for section, key, what in (("student", "model", "the model to train"), ("data", "train", "the rows to train on")):
        if not (tree.get(section) or {}).get(key):
            raise ConfigError(f"{name}: {section}.{key} is missing: name {what}")


def _as_config_error(error: ValidationError, settings: Settings) -> ConfigError:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    place = f"{settings[key].place}: " if key in settings else ""
    message = problem["msg"].removeprefix("Input ")
    return ConfigError(f"{place}{key}: {message}, got {render(problem['input'])}")


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
