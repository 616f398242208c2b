"""Sampling noise as a function of where it is used, not of a global generator.

A token is drawn as argmax(logits / T + g) with Gumbel noise g (Gumbel-max: exactly a draw from the softmax). g is a
hash of (seed, row id, epoch, kind of rollout, token position, token id), so that a rollout depends neither on the
batch it is decoded in, nor on the order, the rank, or on resuming: only on the logits.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

_CACHED = 4096
"""Ids from which a CPU adds the noise row by row."""
_ODD_1 = 0x7FEB352D
_ODD_2 = 0x846CA68B - 2**32  # as a signed 32-bit integer; products wrap modulo 2**32


@dataclasses.dataclass(frozen=True, slots=True)
class NoiseKey:
    """What a rollout's noise is a function of, beside position and token id.

    The epoch is the pass over the data, or the iteration of SPIN; the kind is what the rollout is for (`plain`,
    `verbalized`, `teacher`, ...): each kind is an independent draw.
    """

    seed: int
    row_id: str
    epoch: int
    kind: str

    def words(self) -> tuple[int, int]:
        """Two signed 32-bit words of its SHA-256."""
        text = repr((self.seed, self.row_id, self.epoch, self.kind)).encode("utf-8", "backslashreplace")
        digest = hashlib.sha256(text).digest()
        return int.from_bytes(digest[:4], "little", signed=True), int.from_bytes(digest[4:8], "little", signed=True)

    def seed_of_request(self) -> int:
        """63 bits of it, for an engine that takes one seed a request."""
        first, second = self.words()
        return (first & 0x7FFFFFFF) << 32 | (second & 0xFFFFFFFF)


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers, in place, whose output bits each depend on all input bits.

    The masks make the arithmetic shifts of int32 logical ones.
    """
    x ^= (x >> 16) & 0xFFFF
    x *= _ODD_1
    x ^= (x >> 15) & 0x1FFFF
    x *= _ODD_2
    x ^= (x >> 16) & 0xFFFF
    return x


class GumbelNoise:
    """Gumbel noise for a batch of rollouts, one token position at a time."""

    def __init__(self, keys: Sequence[NoiseKey], vocabulary: int, device: torch.device) -> None:
        words = torch.tensor([key.words() for key in keys], dtype=torch.int32, device=device)
        self._first, self._second = words[:, :1], words[:, 1:]
        self._tokens = _mix(torch.arange(1, vocabulary + 1, dtype=torch.int32, device=device)).unsqueeze(0)

    def keep(self, rows: Tensor) -> None:
        """Go on with some rollouts of the batch."""
        self._first, self._second = self._first[rows], self._second[rows]

    def bits(self, position: int) -> Tensor:
        """(B, V) int32, uniform over 0 ... 2**31 - 1."""
        row = _mix(_mix(self._second + position) ^ self._first)
        return _mix(self._tokens ^ row) & 0x7FFFFFFF

    def add_to(self, scores: Tensor, position: int) -> Tensor:
        """(B, V) fp32 scores plus `at(position)`, in place, bit for bit.

        On a CPU row by row, so that a row stays in the cache; and with fewer passes: signs and powers of two are exact.
        """
        per_row = scores.device.type == "cpu" and scores.shape[1] > _CACHED
        keys = _mix(_mix(self._second + position) ^ self._first)
        for rows in range(len(scores)) if per_row else (slice(None),):
            bits = _mix(self._tokens ^ keys[rows]) & 0x7FFFFFFF
            minus_uniform = torch.add(-(2.0**-32), bits.to(torch.float32), alpha=-(2.0**-31))
            scores[rows] -= minus_uniform.clamp_min_(-1 + 2.0**-24).log1p_().neg_().log_().view_as(scores[rows])
        return scores

    def at(self, position: int) -> Tensor:
        """(B, V) fp32 standard Gumbel noise of the token at `position` of each rollout, counted from 0.

        u = (bits + 1/2) / 2**31 lies inside (0, 1). -log(-log1p(-u)) keeps full precision at small u, which is where
        the noise is large; the cap keeps fp32 from rounding u up to 1.
        """
        uniform = self.bits(position).to(torch.float32).add_(0.5).mul_(2.0**-31).clamp_max_(1 - 2.0**-24)
        return uniform.neg_().log1p_().neg_().log_().neg_()
