"""Decoding in which no shape changes from token to token, so that a GPU can replay a step without Python (CUDA graphs).

Every step attends to the whole room of the cache, of which a mask hides what is not written yet; rows that have ended
stay in the batch. On a CPU the same step runs as it is, which is how it is tested: there it is no gain.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Cache, PreTrainedModel

from dudi.rollouts.decoding import DecodingBatch, RoomyLayer

WARM_UP = 3
"""Steps on a stream of their own before one is captured, in which libraries choose and allocate."""


class StillLayer(RoomyLayer):
    """Keys and values of one layer; a token is written where a tensor (1,) says, and everything is read."""

    def __init__(self, room: int, place: Tensor) -> None:
        super().__init__(room)
        self.place = place

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The prompts first, which are attended to as they are; then single tokens among all that there is room for."""
        if self.keys is None or self.values is None:
            found = super().update(key_states, value_states, *args, **kwargs)
            self.keys[:, :, self.length :] = 0  # type: ignore[index]  # hidden by the mask, and 0 times NaN is NaN
            self.values[:, :, self.length :] = 0  # type: ignore[index]
            return found
        self.keys.index_copy_(2, self.place, key_states)
        self.values.index_copy_(2, self.place, value_states)
        return self.keys, self.values


class StillDecoding(DecodingBatch):
    """`DecodingBatch` of which the shapes stay: on a GPU its step is captured once and replayed.

    Raises:
        ValueError: the model's attention is not `sdpa`, whose masks are ready-made.
    """

    shrinks = False

    def __init__(self, model: PreTrainedModel, mask: Tensor, longest: int, vocabulary: int) -> None:
        super().__init__(model, mask, longest, vocabulary)
        if not self.ready_made:
            raise ValueError("only sdpa's attention takes a mask that is ready-made")
        self.place = torch.full((1,), mask.shape[1], dtype=torch.int64, device=mask.device)  # of the next token
        self.layers = [StillLayer(self.room, self.place) for _ in self.layers]
        self.cache = Cache(layers=[*self.layers])
        self.seen = F.pad(mask.bool(), (0, longest))[:, None, None]  # (B, 1, 1, room)
        self.ids = torch.zeros((len(mask), 1), dtype=torch.int64, device=mask.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.logits = torch.empty(0)

    def step(self, ids: Tensor) -> Tensor:
        """As of a `DecodingBatch`; the logits are overwritten by the next step."""
        self.ids.copy_(ids.unsqueeze(1))
        if self.ids.device.type != "cuda":
            return self._once()
        if self.graph is None:
            self.graph = self._captured()
        self.graph.replay()
        return self.logits

    def _once(self) -> Tensor:
        self.seen.index_fill_(3, self.place, True)
        logits = self._logits(self.ids, self.seen, self.places)
        self.places.add_(1)
        self.place.add_(1)
        return logits

    def _captured(self) -> torch.cuda.CUDAGraph:
        """A step as a graph; those that warm up leave nothing behind but keys and values that are overwritten."""
        kept = [tensor.clone() for tensor in (self.place, self.places, self.seen)]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._once()
                self._back_to(kept)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.logits = self._once()
        self._back_to(kept)
        return graph

    def _back_to(self, kept: list[Tensor]) -> None:
        for tensor, own in zip((self.place, self.places, self.seen), kept, strict=True):
            tensor.copy_(own)
