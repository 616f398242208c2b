"""How the report and the card put values into words and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from dudi.languages.registry import LANGUAGES
from dudi.report.scales import short
from dudi.tables import DASH

GIB = 2**30


def said(value: Any) -> str:
    """A value as text; a dash for none."""
    return DASH if value in (None, "") else str(value)


def plain_name(name: object) -> str:
    """A name without what is no letter, digit or one of a few signs: front matter is no place for others' markup."""
    return re.sub(r"[^\w .@/:-]", "", " ".join(str(name).split()))[:100]


def shown(value: float | None, form: str = "") -> str:
    """A number in a format (such as `.1%`; empty: as on an axis); a dash for none."""
    if value is None:
        return DASH
    return format(value, form) if form else short(value)


def gibibytes(value: float | None) -> str:
    """Bytes in GiB; a dash for none."""
    return DASH if value is None else f"{value / GIB:.2f} GiB"


def in_unit(unit: str, points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points whose values are shares where the unit is %, and bytes where it is GiB; as they are in any other."""
    scale = {"%": 100.0, "GiB": 1 / GIB}.get(unit, 1.0)
    return [(x, scale * y) for x, y in points]


def lasted(seconds: float | None) -> str:
    """A duration: `7.4 s`, `3 min 35 s`, `2 h 05 min`; `0 s` below a twentieth of a second; a dash for none."""
    if seconds is None:
        return DASH
    if seconds < 0.05:
        return "0 s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def in_order(codes: Iterable[str]) -> list[str]:
    """Each language once, in the order of the paper's tables, others behind."""
    order = {code: place for place, code in enumerate(LANGUAGES)}
    return sorted(set(codes), key=lambda code: (order.get(code, len(order)), code))
