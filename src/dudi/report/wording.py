"""How the report and the card put values into words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dudi.languages import LANGUAGES

DASH = "–"
"""What was not measured."""


def said(value: Any) -> str:
    """A value as text; a dash for none."""
    return DASH if value in (None, "") else str(value)


def whole_percent(value: float | None) -> str:
    """A share as a whole percentage without its sign; a dash for none."""
    return DASH if value is None else f"{100 * value:.0f}"


def language_name(code: str) -> str:
    """A language's English name; the code where it is not known."""
    return LANGUAGES[code].name if code in LANGUAGES else code


def in_order(codes: Iterable[str]) -> list[str]:
    """Each language once, in the order of the paper's tables, others behind."""
    order = {code: place for place, code in enumerate(LANGUAGES)}
    return sorted(set(codes), key=lambda code: (order.get(code, len(order)), code))
