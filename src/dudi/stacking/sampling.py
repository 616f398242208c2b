"""Orders of rows: of like length within a batch, and so little padding; or one set of rows after another."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import torch

POOL = 50
"""Batches that are sorted together: of more, the same rows would meet in every epoch."""


@dataclasses.dataclass(eq=False)
class LikeLength(torch.utils.data.Sampler[int]):
    """`train_sampling_strategy: group_by_length`, drawn from the seed and the epoch: a resumed run draws the same.

    The batches of a pool come in a random order, while `transformers` sends the long ones first. A batch is the rows of
    one optimizer step; lengths may have any unit.
    """

    lengths: Sequence[int]
    batch: int
    seed: int
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw another order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        rows = torch.randperm(len(self.lengths), generator=generator).tolist()
        size = POOL * self.batch
        for begin in range(0, len(rows), size):
            pool = sorted(rows[begin : begin + size], key=lambda row: self.lengths[row])
            batches = [pool[start : start + self.batch] for start in range(0, len(pool), self.batch)]
            full = len(pool) // self.batch
            # A short batch comes last: in the middle it would shift all others.
            for number in [*torch.randperm(full, generator=generator).tolist(), *range(full, len(batches))]:
                yield from batches[number]


@dataclasses.dataclass(eq=False)
class InTurn(torch.utils.data.Sampler[int]):
    """One set of rows after another, each passed over until it has given as many rows as it is to.

    Of each set, which has rows, `parts` are its order, the place of its first row, and how many rows it gives.
    """

    parts: Sequence[tuple[LikeLength, int, int]]

    def __len__(self) -> int:
        return sum(count for _, _, count in self.parts)

    def __iter__(self) -> Iterator[int]:
        for order, begin, count in self.parts:
            for epoch, done in enumerate(range(0, count, len(order))):
                order.set_epoch(epoch)
                yield from (begin + place for place in itertools.islice(order, count - done))
