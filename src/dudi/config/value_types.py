"""Values from YAML fitted to Python type annotations, with words for people when they do not fit."""

from __future__ import annotations

import enum
import types
import typing
from typing import Any, Literal

from dudi.config.yaml_tree import Word, render
from dudi.errors import ConfigError

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

_PLURALS: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "text"}


class _MisfitError(Exception):
    """The value does not fit; the caller knows the key and the place."""


def fit(value: Any, hint: Any, key: str, place: str) -> Any:
    """Check that `value` fits the annotation `hint`, and convert what YAML could not know.

    A whole-valued number fits an int (`1e3`), an int fits a float; `yes` and `off` are booleans where a boolean is
    wanted and text where text is.

    Args:
        value: Plain values as `yaml_tree.Node.plain` gives them.
        hint: A type annotation: scalars, list, dict, Literal, enums (by value), unions, Any.
        key: The key's full name, for the message.
        place: Where it was given, for the message.

    Raises:
        ConfigError: it does not fit: key, place, what was expected and what was given.
    """
    try:
        return _fit(value, hint)
    except _MisfitError as error:
        given = f"{_shortened(render(value))} ({_NAMES.get(_kind(value), type(value).__name__)})"
        advice = _advice(value, hint, key)
        raise ConfigError(f"{place}: {key}: expected {describe(hint)}, got {given}{advice}") from error


def describe(hint: Any) -> str:
    """An annotation in words: `list[str] | None` -> 'a list of text or null'."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        named = dict.fromkeys(describe(member) for member in arguments if not _is_enum(member))
        return " or ".join(named)
    if origin is Literal:
        return "one of " + ", ".join(render(member) for member in arguments)
    if origin is list:
        return f"a list of {_PLURALS.get(arguments[0], 'values')}"
    if origin is dict:
        return "a mapping"
    if _is_enum(hint):
        return "one of " + ", ".join(str(member.value) for member in hint)
    return _NAMES.get(hint, "nothing (it cannot be given in a recipe)")


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


def _kind(value: Any) -> Any:
    return str if isinstance(value, str) else type(value)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _advice(value: Any, hint: Any, key: str) -> str:
    wants_list = "a list" in describe(hint)
    return f"; write {key}: [{value}]" if wants_list and isinstance(value, str) else ""


def _fit(value: Any, hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return _free(value)
    if origin in (typing.Union, types.UnionType):
        return _fit_union(value, typing.get_args(hint))
    if origin is Literal:
        return _fit_literal(value, typing.get_args(hint))
    if hint is list or origin is list:
        return _fit_list(value, hint)
    if hint is dict or origin is dict:
        return _fit_dict(value, hint)
    if _is_enum(hint):
        return _fit_literal(value, tuple(member.value for member in hint))
    return _fit_scalar(value, hint)


def _fit_union(value: Any, hints: tuple[Any, ...]) -> Any:
    for hint in hints:
        try:
            return _fit(value, hint)
        except _MisfitError:
            continue
    raise _MisfitError


def _fit_literal(value: Any, allowed: tuple[Any, ...]) -> Any:
    if not isinstance(value, bool) and value in allowed:
        return allowed[allowed.index(value)]
    if isinstance(value, bool) and any(value is member for member in allowed):
        return value
    raise _MisfitError


def _fit_list(value: Any, hint: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _MisfitError
    (member,) = typing.get_args(hint) or (Any,)
    return [_fit(child, member) for child in value]


def _fit_dict(value: Any, hint: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _MisfitError
    _, member = typing.get_args(hint) or (str, Any)
    return {str(key): _fit(child, member) for key, child in value.items()}


def _fit_scalar(value: Any, hint: Any) -> Any:
    if hint is bool and isinstance(value, Word):
        return value.truth
    if hint is str and isinstance(value, str):
        return str(value)
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is hint:
        return value
    raise _MisfitError


def _free(value: Any) -> Any:
    """Values of a key without a schema: there a bare yes or no means a boolean, as in YAML 1.1."""
    if isinstance(value, Word):
        return value.truth
    if isinstance(value, dict):
        return {str(key): _free(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_free(child) for child in value]
    return value
