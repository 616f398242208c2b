"""What a run depends on and lies on this disk: a model that is made anew is another, and so are rows that changed."""

from __future__ import annotations

import functools
import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dudi.config.recipe import Recipe
from dudi.evaluation.source import weights_of
from dudi.files import sha256_of

weights = functools.cache(weights_of)
"""The hash of a model's weights; None where they do not lie here."""


@functools.cache
def files_of(source: str) -> list[str]:
    """The hashes of a source's files; none of what is built in, or on the hub."""
    place = Path(source).expanduser()
    if place.is_file():
        return [sha256_of(place)]
    files = place.rglob("*") if place.is_dir() else map(Path, glob.glob(str(place), recursive=True))
    return [sha256_of(file) for file in sorted(files) if file.is_file()]


def own_settings(
    config: Recipe, values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What differs from the defaults: a key that a later version adds leaves finished runs what they are.

    `values` are the recipe's training keys by their Python names, `defaults` those that are not as the key declares.
    """
    own = {}
    for key in config.schema_.training().values():
        value, default = values[key.name], (defaults or {}).get(key.name, key.default)
        if key.name != "seed" and key.rule.resume != "free" and value != default:
            own[key.name] = value
    return own
