"""The keys that teachers are given under: those of one model belong together, under one name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

DEFAULT = "default"
"""The key of whoever judges what nobody else is named for."""
M = TypeVar("M")


def keys_together(given: Mapping[str, Any], keys: Iterable[str] | None = None) -> list[list[str]]:
    """The keys of a mapping, those of equal values together, in its own order or another."""
    found: list[list[str]] = []
    for key in given if keys is None else keys:
        same = next((own for own in found if given[own[0]] == given[key]), None)
        found.append([key]) if same is None else same.append(key)
    return found


def merge_keys(given: Mapping[str, M]) -> tuple[dict[str, M], dict[str, str]]:
    """Teachers by name (`my+ta`) from teachers by key, each once and the default one in front; and each key's name."""
    keys = keys_together(given, sorted(given, key=lambda key: key != DEFAULT))
    names = {key: "+".join(own) for own in keys for key in own}
    return {names[own[0]]: given[own[0]] for own in keys}, names


def by_key(merged: Mapping[str, M]) -> dict[str, M]:
    """What stands under the names of `merge_keys` by their keys: `my+ta` is `my` and `ta`."""
    return {key: one for name, one in merged.items() for key in name.split("+")}
