"""YAML as a tree that remembers its lines, read strictly.

Scalars follow YAML 1.2 (`2e-5` is a number, `010` is ten, `1:30` and dates are text). An unquoted yes, no, on or off
stays a `Word`: the key's type decides whether it is a boolean (`share_rollouts: no`) or text (`eval_strategy: no`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.resolver import VersionedResolver

from dudi.errors import ConfigError, EnvironmentFault
from dudi.training.values import WORDS, Word

MAX_BYTES = 1 << 20
MAX_CHARACTERS = 262_144
MAX_NODES = 20_000
MAX_DEPTH = 32
MAX_OPEN = 256

_CORE = "tag:yaml.org,2002:"
_PLAIN = {_CORE + name for name in ("map", "seq", "str", "int", "float", "bool", "null")}


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """A value with its line (counted from 1); a mapping is `dict[str, Node]`, a list is `list[Node]`."""

    value: Any
    line: int

    def plain(self) -> Any:
        """The value without lines: dicts, lists and scalars all the way down."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


class _Resolver(VersionedResolver):
    """Dates, `<<` and `=` are text."""

    def add_version_implicit_resolver(self, version: Any, tag: str, regexp: Any, first: Any) -> None:
        if tag in _PLAIN:
            super().add_version_implicit_resolver(version, tag, regexp, first)


def read_yaml(path: Path, name: str = "", asked_by: str = "") -> Node:
    """Read a file that holds one YAML document of plain values.

    Args:
        path: The file.
        name: What error messages call it; its path when empty.
        asked_by: What names it, in front of a message that it cannot be read.

    Raises:
        ConfigError: no such file, not UTF-8, or as `parse_yaml`; EnvironmentFault: it cannot be read.
    """
    name = name or str(path)
    prefix = f"{asked_by}: " if asked_by else ""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{prefix}{name}: is no file")
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{prefix}{name}: more than {MAX_BYTES:,} bytes are too many for a recipe or a study")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: not UTF-8; save the file as UTF-8 text") from error
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ConfigError(f"{prefix}{name}: no such file") from error
    except OSError as error:
        raise EnvironmentFault(f"{prefix}{name}: cannot be read: {error.strerror}") from error
    return parse_yaml(text, name)


def parse_yaml(text: str, name: str, *, comments: bool = True) -> Node:
    """Read one YAML document of plain values, of which error messages have the name; an empty one is an empty mapping.

    Without `comments` nothing may follow the value.

    Raises:
        ConfigError: syntax, tags, duplicate or non-text keys, too much of anything; with name and line.
    """
    if len(text) > MAX_CHARACTERS:
        most = f"at most {MAX_CHARACTERS:,}"
        raise ConfigError(f"{name}: {len(text):,} characters are too many for a recipe or a study ({most})")
    opened = itertools.accumulate((character in "[{") - (character in "]}") for character in text)
    if max(opened, default=0) > MAX_OPEN:  # ruamel takes seconds to find out
        raise ConfigError(f"{name}: values are nested too deeply")
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _Resolver
    try:
        root = yaml.compose(text)
        if root is None:
            return Node({}, 1)
        if not comments and text[root.end_mark.index :].strip():
            raise ConfigError(f"{name}: '#' begins a comment in YAML, which would be lost; put the value into quotes")
        return _read(root, name, yaml.constructor, itertools.count(), 0)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{name}:{mark.line + 1 if mark else 1}: not valid YAML: {error.problem}") from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: a character that YAML does not allow (U+{error.character:04X})") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: values are nested too deeply") from error
    except (YAMLError, ValueError, AssertionError) as error:  # a number of 5,000 digits, %YAML 1.3
        raise ConfigError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error


def _read(node: Any, name: str, constructor: SafeConstructor, counter: Iterator[int], depth: int) -> Node:
    """The tree of a composed node; counted on the way, so that nested aliases cannot grow without end."""
    line = node.start_mark.line + 1
    if next(counter) > MAX_NODES or depth > MAX_DEPTH:
        raise ConfigError(f"{name}:{line}: too many or too deeply nested values (do anchors refer to each other?)")
    if str(node.tag) not in _PLAIN:
        tag = str(node.tag).replace(_CORE, "!!")
        raise ConfigError(f"{name}:{line}: the tag '{tag}' is refused: only plain values are read")
    if isinstance(node, SequenceNode):
        return Node([_read(child, name, constructor, counter, depth + 1) for child in node.value], line)
    if not isinstance(node, MappingNode):
        return Node(_scalar(node, constructor), line)
    found: dict[str, Node] = {}
    for key_node, child in node.value:
        place, line_of_key = f"{name}:{key_node.start_mark.line + 1}", key_node.start_mark.line + 1
        key = _scalar(key_node, constructor) if isinstance(key_node, ScalarNode) else None
        if not isinstance(key, str):
            raise ConfigError(f"{place}: a key must be text (quote it if it is meant to be)")
        if key == "<<" and key_node.style is None:
            raise ConfigError(f"{place}: '<<' merges nothing here; write the keys out (an alias gives a whole value)")
        if key in found:
            raise ConfigError(f"{place}: '{key}' is given twice (before on line {found[key].line})")
        value = _read(child, name, constructor, counter, depth + 1)
        found[str(key)] = dataclasses.replace(value, line=line_of_key)
    return Node(found, line)


def _scalar(node: ScalarNode, constructor: SafeConstructor) -> Any:
    if node.tag == _CORE + "str":
        return Word(node.value) if node.style is None and node.value.lower() in WORDS else node.value
    return constructor.construct_object(node)
