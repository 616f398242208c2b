"""A recipe, its bases and the words of the command line, laid over each other key by key.

Each layer becomes flat settings (`student.model`, `learning_rate`) that know where they were written. A section
given as a mapping adds to the layer below; given as text or null it replaces the section.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

from dudi.config.recipe_files import list_recipes, recipes_folder
from dudi.config.schema import REFUSED, Schema
from dudi.config.yaml_tree import Node, parse_yaml, read_yaml
from dudi.errors import ConfigError, nearest
from dudi.training.keys import YAML_NAMES
from dudi.training.values import describe, takes_list, takes_text_alone

EXTENDS = "extends"
COMMAND_LINE: Final = "command line"
MAX_CHAIN = 16
_NAME = re.compile(r"[\w-]+")
_FAMILIAR = {"lr": "learning_rate", "epochs": "num_train_epochs", "batch_size": "per_device_train_batch_size"}

Origin = Literal["default", "method", "recipe", "command line"]


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """A value that somebody wrote.

    Attributes:
        value: Plain values, as yet unchecked.
        origin: `recipe` or `command line`.
        place: `FILE:LINE` (of a word, where a file gave it), or `command line`; what messages begin with.
        layer: The number of its file in the chain, the deepest base first; words come last.
    """

    value: Any
    origin: Origin
    place: str
    layer: int


Settings = dict[str, Setting]


class PlacedWord(str):
    """A `key=value` word that a file gave, such as a study's: messages begin with its `FILE:LINE`."""

    place: str

    def __new__(cls, word: str, place: str = COMMAND_LINE) -> Self:
        made = super().__new__(cls, word)
        made.place = place
        return made


@dataclasses.dataclass(frozen=True, slots=True)
class _Layer:
    """One file, or the words, while it is laid over those below it."""

    name: str
    number: int
    schema: Schema
    settings: Settings
    origin: Origin = "recipe"

    def place(self, node: Node) -> str:
        return self.name if self.origin == COMMAND_LINE else f"{self.name}:{node.line}"

    def setting(self, value: Any, node: Node) -> Setting:
        return Setting(value, self.origin, self.place(node), self.number)

    def drop(self, section: str) -> None:
        """Forget what the layers below say of a section."""
        for key in list(self.settings):
            if key == section or key.startswith(f"{section}."):
                del self.settings[key]


def read_layers(path: Path, overrides: Sequence[str], schema: Schema) -> Settings:
    """Settings of a recipe file over its bases, under `key=value` words, each perhaps a `PlacedWord`; later ones win.

    Raises:
        ConfigError: unreadable YAML, unknown keys, a circle of `extends`; EnvironmentFault: a file cannot be read.
    """
    settings: Settings = {}
    chain = _chain(path)
    for number, (file, root) in enumerate(chain):
        _lay(_Layer(_shown(file), number, schema, settings), root)
    for word in overrides:
        place = word.place if isinstance(word, PlacedWord) else COMMAND_LINE
        key, value = _override(word, place, schema)
        _lay(_Layer(place, len(chain), schema, settings, COMMAND_LINE), Node({key: value}, 1))
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
        root = read_yaml(following, name, f"{asked_by}: {EXTENDS}" if asked_by else "")
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
    beside = path.parent / os.path.expanduser(base.value)
    shipped = [*list_recipes(), *list_recipes(stacks=True)]
    return recipes_folder() / f"{base.value}.yaml" if not beside.exists() and base.value in shipped else beside


def _shown(path: Path) -> str:
    """The path as short as it can be: a shipped recipe's from `recipes/`, others relative to the working directory."""
    shipped = recipes_folder().resolve()
    if path.resolve().is_relative_to(shipped):
        return f"recipes/{path.resolve().relative_to(shipped).as_posix()}"
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _override(word: str, place: str, schema: Schema) -> tuple[str, Node]:
    """Key and value of a word: YAML, but as it stands where the key takes text alone (`my rows #2.jsonl`, `123`)."""
    key, equals, text = (part.strip() for part in word.partition("="))
    if not equals or not key:
        raise ConfigError(f"{place}: '{word}' is not of the form key=value")
    hint = schema.hint(YAML_NAMES.get(key, key))
    mapping = schema.section_of(key)[0] is not None and text.startswith("{")
    quoted = text[:1] in "'\"" and text[-1:] == text[:1]
    if text.lower() in ("", "~", "null"):
        return key, Node(None, 1)
    if takes_text_alone(hint) and not mapping and not quoted:
        return key, Node(text, 1)
    return key, parse_yaml(text, f"{place}: {key}", comments=False)


def _lay(layer: _Layer, root: Node) -> None:
    """Put one layer over those below it."""
    written: dict[str, str] = {}
    for given, node in root.value.items():
        section, _, rest = given.partition(".")
        lay = _lay_family if section in layer.schema.families else _lay_section
        if section in (*layer.schema.families, *layer.schema.sections):
            lay(layer, section, Node({rest: node}, node.line) if rest else node)
            continue
        key = YAML_NAMES.get(given, given)
        _check_key(layer, key, "", node)
        if key in written:
            raise ConfigError(f"{layer.place(node)}: '{key}' is given twice (before at {written[key]})")
        written[key] = layer.place(node)
        layer.settings[key] = layer.setting(node.plain(), node)


def _lay_family(layer: _Layer, family: str, node: Node) -> None:
    """Sections by names of the recipe's own, each laid as any section is; null empties them all."""
    if node.value is None:
        layer.drop(family)
        layer.settings[family] = layer.setting(None, node)
        return
    if not isinstance(node.value, dict):
        raise ConfigError(f"{layer.place(node)}: {family}: expected a mapping of names, {{default: A, my: B}}, or null")
    for given, child in node.value.items():
        name, _, key = given.partition(".")
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{layer.place(child)}: {family}: '{name}' is no name: letters, digits, - and _ make one")
        _lay_section(layer, f"{family}.{name}", Node({key: child}, child.line) if key else child)


def _lay_section(layer: _Layer, section: str, node: Node) -> None:
    given, settings, text = node.value, layer.settings, layer.schema.shorthand.get(section.partition(".")[0])
    if isinstance(given, dict):
        settings[section] = layer.setting({}, node)
        for key, child in given.items():
            _check_key(layer, key, section, child)
            settings[f"{section}.{key}"] = layer.setting(child.plain(), child)
        return
    fits = isinstance(given, str) or (isinstance(given, list) and takes_list(layer.schema.hint(section)))
    if given is not None and not (text and fits):
        wanted = f", or text for {section}.{text}" if text else " or null"
        raise ConfigError(f"{layer.place(node)}: {section}: expected a mapping{wanted}")
    layer.drop(section)
    value = node.plain() if isinstance(given, list) else given
    settings[section if given is None else f"{section}.{text}"] = layer.setting(value, node)


def _check_key(layer: _Layer, key: str, section: str, node: Node) -> None:
    schema, full = layer.schema, f"{section}.{key}" if section else key
    if schema.knows(full) and full not in (*schema.sections, *schema.families):
        return
    place = layer.place(node)
    if key in REFUSED and not section:
        raise ConfigError(f"{place}: {key}: not a key of a recipe: {REFUSED[key]}")
    if key == EXTENDS and not section:
        raise ConfigError(f"{place}: {EXTENDS} belongs inside a recipe file")
    whole = full.partition(".")[0]
    if whole != full and schema.knows(whole) and "a mapping" in describe(schema.hint(whole)):
        name = full.removeprefix(f"{whole}.")
        raise ConfigError(f"{place}: unknown key '{full}'; {whole} is one value: {whole}={{{name}: ...}}")
    found = suggest_key(key, section, schema)
    raise ConfigError(f"{place}: unknown key '{full}'" + (f" (did you mean '{found}'?)" if found else ""))


def suggest_key(key: str, section: str, schema: Schema) -> str | None:
    """The known key, across all sections, that `key` in this section (empty: the top level) was to be, probably."""
    last = key.rpartition(".")[2]
    if last in _FAMILIAR:
        return _FAMILIAR[last]
    # Where several keys end alike, the section's own, else the one in front.
    kind, names = schema.section_of(section)[0], dict[str, str]()
    for known in schema.known_keys():
        end = known.rpartition(".")[2]
        if end not in names or known.startswith(f"{section}."):
            names[end] = known
    if kind is not None and section not in schema.sections:
        names |= {name: f"{section}.{name}" for name in kind.model_fields}
    own = {} if kind is None else kind.model_fields
    found = last if last in names else nearest(last, own) or nearest(last, names)
    return names[found] if found else None
