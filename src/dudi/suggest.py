"""The nearest valid name, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The member of `valid` closest to `word`, or None when nothing is close."""
    names = {name.lower(): name for name in valid}
    found = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=0.5)
    return names[found[0]] if found else None


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or an empty string when nothing is close."""
    name = nearest(word, valid)
    return f" (did you mean '{name}'?)" if name else ""
