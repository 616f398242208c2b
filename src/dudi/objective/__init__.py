"""The objective, to be read first: losses on tensors, heads, signals, and the methods as data (docs/method.md).

The names below are imported when they are asked for, so that `methods`, which knows words and numbers only, stays free
of torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dudi.objective.losses import chunked_divergence, cross_entropy, spin, token_divergence

__all__ = ["chunked_divergence", "cross_entropy", "spin", "token_divergence"]


def __getattr__(name: str) -> Any:
    """A function of `losses`."""
    if name in __all__:
        return getattr(importlib.import_module("dudi.objective.losses"), name)
    raise AttributeError(f"module 'dudi.objective' has no attribute {name!r}")
