"""A recipe, its bases and the words of the command line, laid over each other key by key.

Each layer becomes flat settings (`student.model`, `learning_rate`) that know where they were written. A section
given as a mapping adds to the layer below; given as text or null it replaces the section.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from dudi.config.recipe_files import list_recipes, recipes_folder
from dudi.config.schema import REFUSED, YAML_NAMES, Schema
from dudi.config.yaml_tree import Node, parse_yaml
from dudi.errors import ConfigError, EnvironmentFault, nearest

EXTENDS = "extends"
COMMAND_LINE: Final = "command line"
MAX_CHAIN = 16
MAX_BYTES = 1 << 20
_FAMILIAR = {"lr": "learning_rate", "epochs": "num_train_epochs", "batch_size": "per_device_train_batch_size"}

Origin = Literal["default", "method", "recipe", "command line"]


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """A value that somebody wrote.

    Attributes:
        value: Plain values, as yet unchecked.
        origin: `recipe` or `command line`.
        place: `FILE:LINE`, or `command line`; what messages begin with.
    """

    value: Any
    origin: Origin
    place: str


Settings = dict[str, Setting]


def read_layers(path: Path, overrides: Sequence[str], schema: Schema) -> Settings:
    """Settings of a recipe file over its bases, under the overrides.

    Args:
        path: The recipe.
        overrides: Words of the form `key=value`, the later one wins.
        schema: Which keys there are.

    Raises:
        ConfigError: unreadable YAML, unknown keys, a circle of `extends`; EnvironmentFault: a file cannot be read.
    """
    settings: Settings = {}
    for file, root in _chain(path):
        _lay(settings, root, "recipe", _shown(file), schema)
    for word in overrides:
        key, value = _override(word)
        _lay(settings, Node({key: value}, 1), COMMAND_LINE, COMMAND_LINE, schema)
    return settings


def _chain(path: Path) -> list[tuple[Path, Node]]:
    """The recipe and its bases, the deepest base in front."""
    chain: list[tuple[Path, Node]] = []
    seen: list[Path] = []
    following: Path | None = path
    asked_by = ""
    while following is not None:
        if following.resolve() in seen or len(seen) > MAX_CHAIN:
            raise ConfigError(f"{asked_by}: {EXTENDS}: {_shown(following)} is already part of the chain: a circle")
        seen.append(following.resolve())
        name = _shown(following)
        root = parse_yaml(_read(following, asked_by), name)
        if not isinstance(root.value, dict):
            raise ConfigError(f"{name}:{root.line}: a recipe is a mapping of `key: value` lines")
        chain.append((following, root))
        base = root.value.pop(EXTENDS, None)
        asked_by = f"{name}:{base.line}" if base else ""
        following = _base_of(following, base, asked_by)
    return chain[::-1]


def _base_of(path: Path, base: Node | None, place: str) -> Path | None:
    if base is None:
        return None
    if not isinstance(base.value, str):
        raise ConfigError(f"{place}: {EXTENDS}: expected the path of one file, relative to this one")
    beside = path.parent / base.value
    return recipes_folder() / f"{base.value}.yaml" if not beside.exists() and base.value in _shipped() else beside


def _shipped() -> list[str]:
    return [*list_recipes(), *list_recipes(stacks=True)]


def _read(path: Path, asked_by: str) -> str:
    prefix = f"{asked_by}: {EXTENDS}: " if asked_by else ""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{prefix}{_shown(path)}: is no file")
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{prefix}{_shown(path)}: more than {MAX_BYTES:,} bytes are too many for a recipe")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{_shown(path)}:{line}: not UTF-8; save the recipe as UTF-8 text") from error
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ConfigError(f"{prefix}{_shown(path)}: no such file") from error
    except OSError as error:
        raise EnvironmentFault(f"{prefix}{_shown(path)}: cannot be read: {error.strerror}") from error


def _shown(path: Path) -> str:
    """The path as short as it can be: a shipped recipe's from `recipes/`, others relative to the working directory."""
    shipped = recipes_folder().resolve()
    if path.resolve().is_relative_to(shipped):
        return f"recipes/{path.resolve().relative_to(shipped).as_posix()}"
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _override(word: str) -> tuple[str, Node]:
    key, equals, text = word.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"{COMMAND_LINE}: '{word}' is not of the form key=value")
    return key, parse_yaml(text, f"{COMMAND_LINE}: {key}") if text.strip() else Node(None, 1)


def _lay(settings: Settings, root: Node, origin: Origin, name: str, schema: Schema) -> None:
    """Put one layer over `settings`."""
    written: dict[str, str] = {}
    for key, node in root.value.items():
        place = name if origin == COMMAND_LINE else f"{name}:{node.line}"
        section, dot, rest = key.partition(".")
        if section not in schema.sections:
            _lay_training(settings, written, key, Setting(node.plain(), origin, place), schema)
        elif dot:
            inner = Node({rest: node}, node.line)
            _lay_section(settings, section, inner, origin, name, schema)
        else:
            _lay_section(settings, section, node, origin, name, schema)


def _lay_training(settings: Settings, written: dict[str, str], key: str, setting: Setting, schema: Schema) -> None:
    key = YAML_NAMES.get(key, key)
    _check_key(key, "", setting.place, schema)
    if key in written:
        raise ConfigError(f"{setting.place}: '{key}' is given twice (before at {written[key]})")
    written[key] = setting.place
    settings[key] = setting


def _lay_section(settings: Settings, section: str, node: Node, origin: Origin, name: str, schema: Schema) -> None:
    place = name if origin == COMMAND_LINE else f"{name}:{node.line}"
    given = node.value
    if isinstance(given, str | list) and section in schema.shorthand:
        _drop(settings, section)
        settings[f"{section}.{schema.shorthand[section]}"] = Setting(
            str(given) if isinstance(given, str) else node.plain(), origin, place
        )
    elif given is None:
        _drop(settings, section)
        settings[section] = Setting(None, origin, place)
    elif isinstance(given, dict):
        settings[section] = Setting({}, origin, place)
        for key, child in given.items():
            child_place = name if origin == COMMAND_LINE else f"{name}:{child.line}"
            _check_key(key, section, child_place, schema)
            settings[f"{section}.{key}"] = Setting(child.plain(), origin, child_place)
    else:
        raise ConfigError(f"{place}: {section}: expected a mapping{_or_text(section, schema)}")


def _or_text(section: str, schema: Schema) -> str:
    key = schema.shorthand.get(section)
    return f", or text for {section}.{key}" if key else " or null"


def _drop(settings: Settings, section: str) -> None:
    for key in [key for key in settings if key == section or key.startswith(f"{section}.")]:
        del settings[key]


def _check_key(key: str, section: str, place: str, schema: Schema) -> None:
    if section and key in schema.sections[section].model_fields:
        return
    if not section and key in schema.top_level_keys():
        return
    full = f"{section}.{key}" if section else key
    if not section and key in REFUSED:
        raise ConfigError(f"{place}: {key}: not a key of a recipe: {REFUSED[key]}")
    if not section and key == EXTENDS:
        raise ConfigError(f"{place}: {EXTENDS} belongs inside a recipe file")
    found = suggest_key(key, section, schema)
    raise ConfigError(f"{place}: unknown key '{full}'" + (f" (did you mean '{found}'?)" if found else ""))


def suggest_key(key: str, section: str, schema: Schema) -> str | None:
    """The known key that `key` was probably meant to be, across all sections.

    Args:
        key: What was written, without its section.
        section: Where it was written; empty for the top level.
        schema: Which keys there are.
    """
    last = key.rpartition(".")[2]
    if last in _FAMILIAR:
        return _FAMILIAR[last]
    names = _last_parts(schema.known_keys(), section)
    if last in names:
        return names[last]
    inside = nearest(last, schema.sections[section].model_fields) if section else None
    if inside:
        return f"{section}.{inside}"
    found = nearest(last, names)
    return names[found] if found else None


def _last_parts(keys: Iterable[str], section: str) -> Mapping[str, str]:
    """`model` -> `student.model`; where several keys end alike, the section's own, else the one in front."""
    names: dict[str, str] = {}
    for key in keys:
        last = key.rpartition(".")[2]
        if last not in names or key.startswith(f"{section}."):
            names[last] = key
    return names
