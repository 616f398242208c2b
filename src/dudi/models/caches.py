"""A cache of keys and values under the name that a model's own code has for it.

It is `cache` in transformers from 5.24 on and `past_key_values` before, and in models that bring code of their own.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from transformers.utils import ModelOutput

NAME, FORMER = "cache", "past_key_values"


def cache_name(module: nn.Module) -> str:
    """The keyword under which a module's `forward`, or `generate` on top of it, takes a cache."""
    return NAME if NAME in inspect.signature(module.forward).parameters else FORMER


def cache_in(out: ModelOutput) -> Any:
    """The cache that an output holds."""
    return out[NAME] if NAME in out else out[FORMER]
