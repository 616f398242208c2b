"""What every rollout engine takes and gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from dudi.data.chat import Tokens
from dudi.rollouts.noise import NoiseKey


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One answer that a model should write: to a prompt, with noise of a key."""

    prompt: Tokens
    key: NoiseKey


@dataclasses.dataclass(frozen=True, slots=True)
class Rollout:
    """An answer as it was written.

    Attributes:
        ids: Its tokens, the one it stopped at included; never empty.
        ended: Whether it stopped by itself rather than at the length limit.
        log_probs: Each token's log-probability under the distribution it was drawn from, where the engine tells.
    """

    ids: list[int]
    ended: bool
    log_probs: list[float] | None = None


class Engine(Protocol):
    """Writes answers."""

    def generate(self, requests: Sequence[Request]) -> list[Rollout]:
        """One rollout for each request, in their order; under several ranks every rank calls it together."""
        ...
