"""Padded sequences of states: joined without the padding between them, and in Stage 1 without their word order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Packed:
    """A batch of sequences, their real positions beside each other, so that positions count on without a gap.

    Attributes:
        embeds: (B, T, D).
        mask: (B, T) 1 for what is there.
        columns: (B, T) the column of the parts, written side by side, that each position comes from.
    """

    embeds: Tensor
    mask: Tensor
    columns: Tensor

    def spread(self, states: Tensor, length: int) -> Tensor:
        """(B, T, D) of the packed positions to (B, length, D) in the columns of the parts; zeros where nothing was."""
        empty = states.new_zeros(len(states), length, states.shape[-1])
        return empty.scatter(1, self.columns[..., None].expand_as(states), states)


def pack(parts: Sequence[Tensor], masks: Sequence[Tensor], *, left: bool = False) -> Packed:
    """Join parts (B, T_i, D), padded on any side, and their masks (B, T_i), to the width of the longest row.

    What is written on has to be padded on the left.
    """
    states, mask = torch.cat(list(parts), dim=1), torch.cat(list(masks), dim=1)
    width = int(mask.sum(dim=1).max())
    columns = mask.argsort(dim=1, descending=not left, stable=True)
    columns = columns[:, mask.shape[1] - width :] if left else columns[:, :width]
    embeds = states.gather(1, columns[..., None].expand(-1, -1, states.shape[-1]))
    return Packed(embeds, mask.gather(1, columns), columns)


@dataclasses.dataclass(frozen=True, slots=True)
class Disturbance:
    """What is done to the encoder's states of a text before the connector reads them: shuffled, doubled and with gaps.

    Stage 1 sees English, and other languages say the same in another order and with more or fewer tokens. The target,
    the mean of the LLM's states, does not move. This is ours, not the paper's.

    Attributes:
        shuffle: Share of the texts whose states are put in a random order.
        repeat: Share of the states that stand twice.
        drop: Share of the states that are left out; one stays always.
    """

    shuffle: float = 0.0
    repeat: float = 0.0
    drop: float = 0.0

    def __bool__(self) -> bool:
        return max(self.shuffle, self.repeat, self.drop) > 0

    def __call__(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, T, E) and mask (B, T), padded right, to states (B, U, E) and mask (B, U), U at most 2T."""
        draws = torch.rand(4, *mask.shape, device=mask.device)
        present = mask.bool()
        kept = present & (draws[0] >= self.drop)
        # Where a text lost all: the first of its states.
        kept[:, 0] |= present[:, 0] & ~kept.any(dim=1)
        copies = kept.long() + (kept & (draws[1] < self.repeat)).long()
        mixed = draws[2, :, :1] < self.shuffle
        order = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        place = torch.where(mixed, draws[3] * mask.shape[1], order.float())
        # Copies of a state stand beside each other; what is absent goes behind everything.
        place = place.repeat_interleave(2, dim=1)
        column = order.repeat_interleave(2, dim=1)
        chosen = torch.stack([copies >= 1, copies >= 2], dim=2).flatten(1)
        ranked = place.masked_fill(~chosen, float("inf")).argsort(dim=1, stable=True)
        width = int(chosen.sum(dim=1).max())
        columns = column.gather(1, ranked)[:, :width]
        chosen = chosen.gather(1, ranked)[:, :width]
        return states.gather(1, columns[..., None].expand(-1, -1, states.shape[-1])), chosen.to(mask.dtype)
