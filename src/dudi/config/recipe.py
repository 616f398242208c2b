"""What every kind of recipe is: typed sections, training keys, and where each value came from."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from dudi.config.layers import Origin, Settings, read_layers
from dudi.config.recipe_files import find_recipe, recipes_folder
from dudi.config.schema import Dtype, Schema, TrainingKey
from dudi.errors import ConfigError, did_you_mean
from dudi.files import sha256_of_json
from dudi.training.keys import YAML_NAMES
from dudi.training.values import fit, render


class Recipe(BaseModel):
    """A recipe that has been read; its subclasses have a field for each of their sections.

    Attributes:
        dtype: Precision of training; auto takes the best one that the device computes well.
        training: The given training keys by their Python names; what is not here has its default.
    """

    model_config = ConfigDict(extra="forbid")

    schema_: ClassVar[Schema]
    command: ClassVar[str]
    """The verb that reads such a recipe."""
    required: ClassVar[tuple[tuple[str, str, str], ...]] = ()
    """(section, key, what it is) without which there is no run."""

    dtype: Dtype = "auto"
    training: dict[str, Any] = Field(default_factory=dict)

    _sources: Settings = PrivateAttr(default_factory=dict)
    _file: Path = PrivateAttr(default_factory=lambda: Path("run.yaml"))

    def __eq__(self, other: object) -> bool:
        """Equal when every value is, given or default; where a value came from does not matter."""
        if not isinstance(other, type(self)):
            return NotImplemented
        own, theirs = self.model_dump(exclude={"training"}), other.model_dump(exclude={"training"})
        return own == theirs and self.settings == other.settings

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def load(cls, path: Path | str, overrides: Sequence[str] = ()) -> Self:
        """Read a recipe.

        Args:
            path: A YAML file, or the name of a shipped recipe (`smollm2`, `table2/dudi`).
            overrides: `key=value` words; the value is YAML, keys of sections have a dot.

        Raises:
            ConfigError: anything wrong with the recipe or the words: which key, which line, what was expected.
        """
        file = find_recipe(path)
        settings = read_layers(file, overrides, cls.schema_)
        tree = _tree(settings, cls.schema_)
        for section, key, what in cls.required:
            if not (tree.get(section) or {}).get(key):
                raise ConfigError(f"{path}: {section}.{key} is missing: name {what}")
        for section in cls.schema_.sections:
            # A section that was emptied is one with its defaults, unless none is a value of its own (`lora: null`).
            if tree.get(section, {}) is None and NoneType not in get_args(cls.model_fields[section].annotation):
                del tree[section]
        try:
            config = cls.model_validate(tree)
        except ValidationError as error:
            raise _as_config_error(error, settings) from error
        config._sources, config._file = settings, file
        config.hold_together()
        return config

    def hold_together(self) -> None:
        """Hold keys against each other, while their lines are still known.

        Raises:
            ConfigError: with file and line.
        """
        own, data = self.settings, self.model_dump()["data"]
        key = "eval_on_start" if own["eval_on_start"] else "eval_strategy"
        if own[key] not in (False, "no") and not (data["eval"] or data["eval_split"]):
            raise ConfigError(self.placed(f"{key}: there are no rows to evaluate on; set data.eval"))

    @property
    def recipe_name(self) -> str:
        """The recipe's name below `recipes/` (`table2/dudi`), or its file's stem."""
        try:
            return self._file.resolve().relative_to(recipes_folder().resolve()).with_suffix("").as_posix()
        except ValueError:
            return self._file.stem

    @property
    def settings(self) -> dict[str, Any]:
        """Every training key by its Python name: the given value, or the default."""
        return {key.name: copy.deepcopy(self.value(key)) for key in self.schema_.training().values()}

    def value(self, key: TrainingKey) -> Any:
        return self.training.get(key.name, key.default)

    def known(self, key: str) -> str:
        """A key as YAML names it; one that is not there is refused."""
        key = YAML_NAMES.get(key, key)
        if not self.schema_.knows(key):
            raise ConfigError(f"unknown key '{key}'{did_you_mean(key, self.schema_.known_keys())}")
        return key

    def origin(self, key: str) -> Origin:
        """Where the value of a key (`learning_rate`, `student.model`, `lambda` or `lmbda`) came from.

        Raises:
            ConfigError: there is no such key.
        """
        key = self.known(key)
        return self._sources[key].origin if key in self._sources else "default"

    def place(self, key: str) -> str | None:
        """`FILE:LINE` of a value that a recipe or a study gave, `command line`, or None for the defaults."""
        origin = self.origin(key)
        return self._sources[self.known(key)].place if origin in ("recipe", "command line") else None

    def digest(self) -> str:
        """Hash of every value, given or default: the same for equal recipes, also where 500 was given as 500.0."""
        settings = self.settings
        for name, value in settings.items():
            if isinstance(value, float) and value.is_integer():
                settings[name] = int(value)
        return sha256_of_json([self.model_dump(mode="json", exclude={"training"}), settings])

    def resolved_yaml(self, leave_out: Collection[str] = ()) -> str:
        """Every value of the run, defaults included, each with a comment on where it came from.

        The text is a recipe: `load` reads an equal one from it. Keys to `leave_out` have no line where they have their
        default, since it says nothing of the run.
        """
        untold = {key for key in leave_out if self.origin(key) == "default"}
        read = f"dudi {self.command} resolved.yaml"
        lines = [f"# Every value of this run and where it came from. This file is a recipe: {read}"]
        for name, section in self.schema_.sections.items():
            given = self.model_dump(include={name})[name]
            if given is None:
                lines.append(self._line(name, None, name))
                continue
            keys = [key for key in section.model_fields if f"{name}.{key}" not in untold]
            lines.append(f"{name}:" if keys else f"{name}: {{}}")
            lines += ["  " + self._line(key, given[key], f"{name}.{key}") for key in keys]
        for family, sections in self.model_dump(include=set(self.schema_.families)).items():
            lines.append(f"{family}:" if sections else self._line(family, None, family))
            for name, given in sections.items():
                lines.append(f"  {name}:")
                lines += [f"    {self._line(key, value, f'{family}.{name}.{key}')}" for key, value in given.items()]
        lines += ["", self._line("dtype", self.dtype, "dtype"), "", "# The method and its training"]
        for own in (True, False):
            told = [key for key in self.schema_.training().values() if key.own is own and key.yaml_name not in untold]
            lines += [self._line(key.yaml_name, self.value(key), key.yaml_name) for key in told]
            lines += ["", "# transformers.TrainingArguments"] if own else []
        return "\n".join(lines) + "\n"

    def _line(self, name: str, value: Any, key: str) -> str:
        origin = self.origin(key)
        place = f" {self.place(key)}" if origin == "recipe" else ""
        return f"{name}: {render(value)}  # {origin}{place}"

    def arguments(self, kind: type[Any], output_dir: str | Path, **changes: Any) -> Any:
        """The run's `TrainingArguments` of a kind, in the precision that `dtype` and the device ask for.

        Fields that are given as `changes` win over the recipe; `bf16` and `fp16` win over `dtype`.

        Raises:
            ConfigError: values out of range or against each other; with file and line where they were given.
        """
        from dudi.environment import choose_precision

        values = copy.deepcopy(self.training) | changes
        precision = choose_precision(self.dtype, use_cpu=bool(values.get("use_cpu")))
        flags = {"bf16": precision.dtype == "bfloat16", "fp16": precision.dtype == "float16"}
        try:
            return kind(**(flags | values), output_dir=str(output_dir))
        except ConfigError as error:
            raise ConfigError(self.placed(str(error))) from error
        except ValueError as error:
            message = " ".join(str(error).split())
            raise ConfigError(f"the training keys contradict each other: {message}") from error

    def placed(self, message: str) -> str:
        """`message` with the place of the key that it begins with, if somebody gave that key."""
        key = message.partition(":")[0]
        return f"{self.place(key)}: {message}" if key in self._sources else message


def _tree(settings: Settings, schema: Schema) -> dict[str, Any]:
    """The settings where the recipe has them, in the types that they have there."""
    tree: dict[str, Any] = {"training": {}}
    for key, setting in settings.items():
        section, _, name = key.partition(".")
        try:
            if section in schema.families:
                own, _, field = name.partition(".")
                family = tree.setdefault(section, {})
                if field:
                    family.setdefault(own, {})[field] = fit(setting.value, schema.hint(key), key)
                elif setting.value is not None:  # an emptied section is none
                    family.setdefault(own, {})
            elif key in schema.sections:
                tree.setdefault(key, None if setting.value is None else {})
            elif name:
                tree[section] = (tree.get(section) or {}) | {name: fit(setting.value, schema.hint(key), key)}
            elif key == "dtype":
                tree[key] = fit(setting.value, Dtype, key)
            else:
                declared = schema.training()[key]
                tree["training"][declared.name] = declared.read(setting.value)
        except ConfigError as error:
            raise ConfigError(f"{setting.place}: {error}") from error
    return tree


def _as_config_error(error: ValidationError, settings: Settings) -> ConfigError:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    place = f"{settings[key].place}: " if key in settings else ""
    message = problem["msg"].removeprefix("Input ")
    return ConfigError(f"{place}{key}: {message}, got {render(problem['input'])}")
