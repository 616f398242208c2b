"""Parts of a sequence one behind the other, without the padding between them."""

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
