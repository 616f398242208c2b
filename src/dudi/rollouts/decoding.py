"""Decoding, one token a step, with what `generate` does around each step left out, and the cache that it fills.

`transformers`' `generate` prepares inputs, concatenates ids, masks and the whole cache, and calls processors and
criteria for every token. Here a step is the decoder, the head and the draw, and the cache has room for everything that
will be written: no token costs a copy of all before it. A test holds both equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from dudi.models.caches import cache_name
from dudi.objective.heads import backbone, head_of


class RoomyLayer(CacheLayerMixin):
    """Keys and values (B, heads, room, width) of one layer, of which the first `length` positions are written."""

    is_sliding = False

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.length = room, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
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
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.room


class DecodingBatch:
    """A batch that is being decoded.

    Args:
        model: In eval mode.
        mask: (B, T) 1 at the prompts' tokens, 0 at the pads on their left.
        longest: Most tokens that will be decoded.
        vocabulary: Ids from here on are not looked at.
    """

    shrinks = True
    """Whether rows that have ended can leave the batch (`keep`)."""

    def __init__(self, model: PreTrainedModel, mask: Tensor, longest: int, vocabulary: int) -> None:
        self.backbone, self.prompt_mask = backbone(model), mask
        self.head = head_of(model).shared_with(vocabulary)
        self.padded = not bool(mask.all())
        self.ready_made = model.config.get_text_config()._attn_implementation == "sdpa"
        self.room = mask.shape[1] + longest
        self.mask = F.pad(mask.bool(), (0, longest), value=True)  # (B, room)
        self.places = mask.sum(-1, keepdim=True)  # (B, 1) where the next token stands
        number = model.config.get_text_config().num_hidden_layers
        self.layers: Sequence[RoomyLayer] = [RoomyLayer(self.room) for _ in range(number)]
        self.cache = Cache(layers=[*self.layers])
        self.cache_name = cache_name(self.backbone)

    def begin(self, ids: Tensor) -> Tensor:
        """(B, T) prompts -> (B, V) fp32 logits of their first tokens."""
        places = (self.prompt_mask.cumsum(-1) - 1).clamp_min(0)
        return self._logits(ids, self.prompt_mask if self.padded else None, places)

    def step(self, ids: Tensor) -> Tensor:
        """(B,) the tokens that were drawn -> (B, V) fp32 logits of the next."""
        length, mask = self.cache.get_seq_length() + 1, None
        if self.padded:
            # Four dimensions tell transformers that a mask is ready: for sdpa, booleans. Eager attention would add them
            # to its scores, and flash attention counts the tokens of two dimensions: for them transformers makes it.
            mask = self.mask[:, None, None, :length] if self.ready_made else self.mask[:, :length].long()
        logits = self._logits(ids.unsqueeze(1), mask, self.places)
        self.places = self.places + 1
        return logits

    def _logits(self, ids: Tensor, mask: Tensor | None, places: Tensor) -> Tensor:
        cached = {self.cache_name: self.cache, "use_cache": True}
        out = self.backbone(input_ids=ids, attention_mask=mask, position_ids=places, **cached)
        return self.head.logits_of_few(out.last_hidden_state[:, -1])

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows."""
        self.mask, self.places = self.mask[rows], self.places[rows]
        for layer in self.layers:
            layer.keep(rows)
