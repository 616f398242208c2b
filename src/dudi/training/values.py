"""The value of a key: held against its type by pydantic, with words for people, and written as YAML. No torch here."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import re
import types
import typing
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from dudi.errors import ConfigError, did_you_mean

Place = Annotated[str, AfterValidator(os.path.expanduser)]
"""A file or a folder, or a name of something else: a leading `~` is expanded once, when the key is read."""


@dataclasses.dataclass(frozen=True)
class Exactly:
    """The type of a key in `Annotated[plain, Exactly(hint)]`: `HfArgumentParser` reads the plain one."""

    hint: Any


@functools.cache
def hints_of(kind: Any) -> dict[str, Any]:
    """The types of a class's fields, exactly; those of our keys with what is done to a value when it is read."""
    found = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        told = [part.hint for part in getattr(hint, "__metadata__", ()) if isinstance(part, Exactly)]
        found[name] = told[0] if told else hint
    return found


WORDS = {"yes": True, "on": True, "no": False, "off": False}
_RESERVED = {"y", "n", "true", "false", "null", *WORDS}
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./+-]*(?::[A-Za-z0-9_./+-]+)*")
_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a mapping",
    list: "a list",
    types.NoneType: "null",
    Any: "anything",
}
_PLURALS = {"a whole number": "whole numbers", "a number": "numbers", "text": "text"}


class Word(str):
    """An unquoted yes, no, on or off (any case) of a YAML file: a boolean where one is wanted, text elsewhere."""

    __slots__ = ()


@functools.cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True))


def fit(value: Any, hint: Any, key: str) -> Any:
    """Hold a plain value against a type, and convert what YAML could not know; `key` is its full name.

    A whole-valued number fits an int (`1e3`), an int fits a float; `yes` and `off` are booleans where a boolean is
    wanted, or where anything is, and text where text is.

    Raises:
        ConfigError: it does not fit: the key, what was expected and what was given.
    """
    for wanted in ("truth", "text", "whole"):
        with contextlib.suppress(ValidationError):
            return _adapter(hint).validate_python(_converted(value, wanted))
    allowed, listed = choices(hint), takes_list(hint)
    words = value if isinstance(value, list) and listed else [value]
    for word in words if allowed else []:
        if isinstance(word, str) and word not in allowed:
            raise ConfigError(f"{key}: '{word}' is not one of {', '.join(allowed)}{did_you_mean(word, allowed)}")
    given = render(value)
    given = given if len(given) <= 60 else given[:57] + "..."
    advice = f"; write {key}: [{value}]" if listed and isinstance(value, str) else ""
    kind = "text" if isinstance(value, str) else _NAMES.get(type(value), type(value).__name__)
    raise ConfigError(f"{key}: expected {describe(hint)}, got {given} ({kind}){advice}")


def _converted(value: Any, wanted: Literal["truth", "text", "whole"]) -> Any:
    """A value whose words are booleans or text, and whose paths are text; `whole`: and whose whole floats are ints."""
    if isinstance(value, dict):
        return {str(key): _converted(child, wanted) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_converted(child, wanted) for child in value]
    if isinstance(value, Word):
        return WORDS[value.lower()] if wanted == "truth" else str(value)
    if isinstance(value, os.PathLike) and wanted != "truth":
        return os.fspath(value)
    return int(value) if wanted == "whole" and type(value) is float and value.is_integer() else value


def choices(hint: Any) -> tuple[str, ...]:
    """The words that a type allows, in a `Literal` anywhere inside it; none where any text will do."""
    if typing.get_origin(hint) is Literal:
        return tuple(word for word in typing.get_args(hint) if isinstance(word, str))
    return tuple(word for part in typing.get_args(hint) for word in choices(part))


def takes_text_alone(hint: Any) -> bool:
    """Whether a type takes text and perhaps null, and nothing else."""
    parts = describe(hint).removesuffix(" or null")
    return parts == "text" or (parts.startswith("one of") and " or " not in parts)


def takes_list(hint: Any) -> bool:
    """Whether a type takes a list."""
    return "a list" in describe(hint)


def describe(hint: Any) -> str:
    """A type in words: `list[str] | None` -> 'a list of text or null'."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return describe(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(describe, arguments)))
    if origin is Literal:
        return "one of " + ", ".join(map(render, arguments))
    if origin is list:
        return "a list of " + (", ".join(choices(hint)) or _PLURALS.get(describe(arguments[0]), "values"))
    if origin is dict and (of := _PLURALS.get(describe(arguments[1]))):
        return f"a mapping to {of}"
    return _NAMES.get(origin or hint, "an object of Python")


def render(value: Any) -> str:
    """One line of YAML that our reader and readers of YAML 1.1 both read back as `value`, which is of plain values."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return _render_float(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{render(str(key))}: {render(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(render, value)) + "]"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    return '"' + "".join(map(_escape, text)) + '"'


def _render_float(value: float) -> str:
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    text = repr(float(value))
    # YAML 1.1 takes an exponent for a number only after a decimal point.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02X}" if code <= 0xFF else f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
