"""Stage 1 in two parts: bitext first, then texts in one language (MERLIN's order, arXiv 2509.08105)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

from torch.utils.data import ConcatDataset

from dudi.errors import ConfigError, DataError
from dudi.stacking.arguments import StackArguments
from dudi.stacking.rows import StackRow, fingerprint
from dudi.stacking.sampling import InTurn, LikeLength
from dudi.stacking.store import TextRows


class Curriculum(ConcatDataset[StackRow]):
    """The rows of Stage 1, bitext in front, and the order in which they come.

    The first `bitext_share` of the optimizer steps are bitext alone, the others texts alone. Each of the two comes by
    as often as its steps take, in a new order each time, drawn from the seed. `digest` is SHA-256 over all rows.

    Raises:
        ConfigError: `max_steps` does not say how many steps there are.
        DataError: a row of the bitext has no English.
    """

    def __init__(self, bitext: Sequence[StackRow], texts: Sequence[StackRow], args: StackArguments) -> None:
        if args.max_steps <= 0:
            raise ConfigError(
                "data.bitext: say with max_steps how long Stage 1 is; bitext_share is a share of its steps"
            )
        for row in bitext:
            if row.english is None:
                raise DataError(f"{row.name}: bitext needs the row's English")
        super().__init__(cast(Any, [bitext, texts]))
        self.bitext, self.texts, self.args = bitext, texts, args
        of_texts = texts.digest if isinstance(texts, TextRows) else fingerprint(texts)
        self.digest = hashlib.sha256(f"{fingerprint(bitext)} {of_texts}".encode()).hexdigest()

    def order(self, rows_a_step: int, seed: int) -> InTurn:
        """The places of the rows, for the whole of Stage 1: an epoch of the trainer is all of it.

        `rows_a_step` are those of one optimizer step, over all processes.
        """
        steps = self.args.max_steps
        first = round(self.args.bitext_share * steps)
        parts, begin = [], 0
        for rows, count in ((self.bitext, first), (self.texts, steps - first)):
            grouped = self.args.train_sampling_strategy == "group_by_length"
            lengths = lengths_of(rows) if grouped else [0] * len(rows)  # rows of one length stand in a random order
            parts.append((LikeLength(lengths, rows_a_step, seed), begin, count * rows_a_step))
            begin += len(rows)
        return InTurn(parts)


def lengths_of(rows: Sequence[StackRow]) -> list[int]:
    """How long each row is, in characters or bytes: its tokens are not known before it is read."""
    if isinstance(rows, TextRows):
        return rows.lengths()
    return [len(row.text) + len(row.pair or "") + len(row.answer or "") + sum(map(len, row.choices)) for row in rows]
