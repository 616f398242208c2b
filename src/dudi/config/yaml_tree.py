"""YAML as a tree that remembers its lines: read strictly, written so that any YAML reader agrees.

Numbers follow YAML 1.2 (`2e-5` is a number, `010` is ten, `1:30` and dates are text). An unquoted yes, no, on or off
stays a `Word`: the key's type decides whether it is a boolean (`bf16_full_eval: no`) or text (`eval_strategy: no`).
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import yaml

from dudi.errors import ConfigError

MAX_CHARACTERS = 262_144
MAX_NODES = 20_000
MAX_DEPTH = 32

_CORE = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./+-]*(?::[A-Za-z0-9_./+-]+)*")
_CONSTANTS: dict[str, Any] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_CONSTANTS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WORDS = {"yes": True, "on": True, "no": False, "off": False}


class Word(str):
    """An unquoted yes, no, on or off (any case): a boolean where one is wanted, text elsewhere."""

    __slots__ = ()

    @property
    def truth(self) -> bool:
        """The boolean that the word stands for."""
        return _WORDS[self.lower()]


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


def parse_scalar(text: str) -> Any:
    """The value of an unquoted scalar: None, bool, int, float, `Word` or text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text.lower() in _WORDS:
        return Word(text)
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".nan", "nan") if "n" in text.lower() else text)
    return text


class _Reader:
    """Walks composed nodes once, counting them, so that nested aliases cannot grow without end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.visited = 0

    def fail(self, node: yaml.Node, problem: str) -> ConfigError:
        return ConfigError(f"{self.name}:{node.start_mark.line + 1}: {problem}")

    def read(self, node: yaml.Node, depth: int = 0) -> Node:
        self.visited += 1
        if self.visited > MAX_NODES or depth > MAX_DEPTH:
            raise self.fail(node, "too many or too deeply nested values (do anchors refer to each other?)")
        if isinstance(node, yaml.MappingNode):
            value: Any = self._mapping(node, depth)
        elif isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "seq")
            value = [self.read(child, depth + 1) for child in node.value]
        elif isinstance(node, yaml.ScalarNode):
            value = self._scalar(node)
        else:
            raise TypeError(f"PyYAML composed a {type(node).__name__}")
        return Node(value, node.start_mark.line + 1)

    def _check_tag(self, node: yaml.Node, *allowed: str) -> None:
        if node.tag not in {_CORE + name for name in allowed}:
            raise self.fail(node, f"the tag '{node.tag.replace(_CORE, '!!')}' is refused: a recipe holds plain values")

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        self._check_tag(node, "map")
        found: dict[str, Node] = {}
        for key_node, child in node.value:
            key = self._key(key_node)
            if key in found:
                raise self.fail(key_node, f"'{key}' is given twice (before on line {found[key].line})")
            found[key] = dataclasses.replace(self.read(child, depth + 1), line=key_node.start_mark.line + 1)
        return found

    def _key(self, node: yaml.Node) -> str:
        key = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            raise self.fail(node, "a key must be text (quote it if it is meant to be)")
        return str(key)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        self._check_tag(node, "str")
        return parse_scalar(node.value) if node.style is None else node.value


class _Loader(yaml.SafeLoader):
    """A SafeLoader that leaves every scalar as text, for `parse_scalar` to read."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML declares it so


def parse_yaml(text: str, name: str) -> Node:
    """Read one YAML document of plain values.

    Args:
        text: The document.
        name: What error messages call it, usually the file's path.

    Returns:
        The root; an empty document is an empty mapping.

    Raises:
        ConfigError: syntax, tags, duplicate or non-text keys, too much of anything; with name and line.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{name}: {len(text):,} characters are too many for a recipe (at most {MAX_CHARACTERS:,})")
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{name}:{mark.line + 1 if mark else 1}: not valid YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: a character that YAML does not allow (U+{error.character:04X})") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: values are nested too deeply") from error
    return _Reader(name).read(root) if root is not None else Node({}, 1)


def render(value: Any) -> str:
    """One line of YAML that `parse_yaml` and YAML 1.1 readers both read back as `value`.

    Args:
        value: None, bool, int, float, text, or lists and text-keyed dicts of them.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _render_float(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{render(str(key))}: {render(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(render(child) for child in value) + "]"
    return _render_text(str(value))


def _render_float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = repr(value)
    # YAML 1.1 takes an exponent for a number only after a decimal point.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _render_text(text: str) -> str:
    readable = _PLAIN.fullmatch(text) and text.lower() not in {"y", "n"} and type(parse_scalar(text)) is str
    return text if readable else '"' + "".join(_escape(character) for character in text) + '"'


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    if code > 0xFFFF:
        return f"\\U{code:08X}"
    return f"\\u{code:04X}" if code > 0xFF else f"\\x{code:02X}"
