"""Distil a large multilingual language model into a small one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dudi.comparison.significance import aso
    from dudi.distill.arguments import DudiConfig
    from dudi.distill.metrics import top_k_overlap
    from dudi.distill.served import ServedTeacher
    from dudi.distill.trainer import DudiTrainer
    from dudi.distill.verbalizer import Verbalizer

__version__ = "0.1.0"
__all__ = ["DudiConfig", "DudiTrainer", "ServedTeacher", "Verbalizer", "__version__", "aso", "top_k_overlap"]

_HOMES = {
    "DudiConfig": "dudi.distill.arguments",
    "DudiTrainer": "dudi.distill.trainer",
    "ServedTeacher": "dudi.distill.served",
    "Verbalizer": "dudi.distill.verbalizer",
    "aso": "dudi.comparison.significance",
    "top_k_overlap": "dudi.distill.metrics",
}


def __getattr__(name: str) -> Any:
    """Import the heavy names when they are asked for: `dudi --help` must not wait for torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dudi' has no attribute {name!r}")
