"""How good a student is: the built-in benchmark, its scores, and whether a difference is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dudi.evaluation.significance import aso

__all__ = ["aso"]


def __getattr__(name: str) -> Any:
    """Import numpy when a test is asked for: the package itself stays free to import."""
    if name == "aso":
        from dudi.evaluation.significance import aso

        return aso
    raise AttributeError(f"module 'dudi.evaluation' has no attribute {name!r}")
