"""A KV cache with room for everything that will be written: no token costs a copy of all before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PretrainedConfig
from transformers.cache_utils import CacheLayerMixin


class RoomyLayer(CacheLayerMixin):
    """Keys and values (B, heads, room, width) of one layer, of which the first `length` positions are written."""

    is_sliding = False

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.length = room, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate once the shapes are known."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_empty((*key_states.shape[:2], self.room, key_states.shape[3]))
        self.values = value_states.new_empty((*value_states.shape[:2], self.room, value_states.shape[3]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write new positions; returns views of all that is written."""
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states  # type: ignore[index]  # allocated above
        self.values[:, :, self.length : end] = value_states  # type: ignore[index]
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]  # type: ignore[index]

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows of the batch."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what a mask covers."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Positions that are written."""
        return self.length

    def get_max_length(self) -> int:
        """Positions that there is room for."""
        return self.room


class RoomyCache(Cache):
    """One `RoomyLayer` for each layer of a model.

    Args:
        config: The model's.
        room: Prompt and completion of the longest row, in tokens.
    """

    def __init__(self, config: PretrainedConfig, room: int) -> None:
        super().__init__(layers=[RoomyLayer(room) for _ in range(config.get_text_config().num_hidden_layers)])

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows of the batch."""
        for layer in self.layers:
            if isinstance(layer, RoomyLayer):  # all of them are; the type of `layers` does not say so
                layer.keep(rows)


def true_mask(mask: Tensor, room: int) -> Tensor:
    """(B, T) of 0 and 1 -> (B, room) of bool, true where it goes on."""
    whole = torch.ones((mask.shape[0], room), dtype=torch.bool, device=mask.device)
    whole[:, : mask.shape[1]] = mask.bool()
    return whole
