"""Distil a large multilingual language model into a small one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dudi.arguments import DudiConfig
    from dudi.trainer import DudiTrainer

__version__ = "0.1.0"
__all__ = ["DudiConfig", "DudiTrainer", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the heavy names when they are asked for: `dudi --help` must not wait for torch."""
    if name == "DudiConfig":
        from dudi.arguments import DudiConfig

        return DudiConfig
    if name == "DudiTrainer":
        from dudi.trainer import DudiTrainer

        return DudiTrainer
    raise AttributeError(f"module 'dudi' has no attribute {name!r}")
