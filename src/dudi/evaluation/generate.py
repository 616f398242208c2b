"""A model's answers to prompts, and the bits that references cost it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from dudi.data.chat import ChatFormat
from dudi.data.rows import Row
from dudi.errors import ConfigError
from dudi.evaluation.entry import Wanted, check_once_each
from dudi.evaluation.likelihood import text_nats
from dudi.models.frozen import evaluating
from dudi.objective.heads import head_of
from dudi.rollouts import NoiseKey, Request, TransformersEngine


@dataclasses.dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are decoded.

    Attributes:
        max_new_tokens: Longest answer; the rest is cut.
        temperature: Of sampling; 0 takes the likeliest token.
        top_p: Sample among the likeliest tokens that together have this probability; None: all.
        top_k: Sample among this many of the likeliest tokens; None: all.

    Raises:
        ConfigError: a value out of its range, or one that greedy decoding has no use for.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None

    @classmethod
    def of(cls, wanted: Wanted, max_new_tokens: int) -> Decoding:
        """As it is wanted; `max_new_tokens` where nobody says how long."""
        longest = max_new_tokens if wanted.max_new_tokens is None else wanted.max_new_tokens
        return cls(longest, wanted.temperature, wanted.top_p, wanted.top_k)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature must be 0 (greedy) or above, got {self.temperature}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k must be at least 1, got {self.top_k}")
        if not self.temperature and (self.top_p, self.top_k) != (None, None):
            raise ConfigError("top_p and top_k choose what is sampled from, and temperature 0 samples nothing")

    def check_seeds(self, seeds: Sequence[int]) -> None:
        """Refuse seeds that make no sense.

        Raises:
            ConfigError: none, one named twice, or several for greedy decoding.
        """
        check_once_each(seeds)
        if len(seeds) > 1 and not self.temperature:
            raise ConfigError(
                f"{len(seeds)} seeds with temperature 0 give {len(seeds)} times the same answers, for greedy decoding "
                "draws nothing; set --temperature, or leave one seed"
            )

    def described(self) -> dict[str, Any]:
        """As records keep it: what is off is left out."""
        every: dict[str, Any] = {"temperature": self.temperature, "max_new_tokens": self.max_new_tokens}
        every |= {"top_p": self.top_p, "top_k": self.top_k}
        return {name: value for name, value in every.items() if value is not None}


@dataclasses.dataclass(frozen=True, slots=True)
class Generated:
    """What a model wrote.

    Attributes:
        text: Without special tokens and space at its ends.
        length: Its tokens, without the one that ended it.
        ended: Whether the model ended it by itself.
    """

    text: str
    length: int
    ended: bool


def generate(
    model: PreTrainedModel,
    chat: ChatFormat,
    rows: Sequence[Row],
    decoding: Decoding,
    *,
    seed: int = 0,
    batch_size: int = 64,
) -> list[Generated]:
    """The model's answer to each row's prompt, in their order.

    Sampled answers are a function of seed and row id (`dudi.rollouts.noise`), whatever else is in their batch.
    """
    engine = TransformersEngine(
        functools.partial(evaluating, model),
        stop_ids=chat.stop_ids,
        pad_id=chat.end_of_turn,
        max_new_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        vocabulary=len(head_of(model)),
        batch_size=batch_size,
    )
    requests = [Request(chat.prompt_ids(row.prompt), NoiseKey(seed, row.id, 0, "eval")) for row in rows]
    return [
        Generated(chat.text(rollout.ids).strip(), len(rollout.ids) - rollout.ended, rollout.ended)
        for rollout in engine.generate(requests)
    ]


def reference_bits(model: PreTrainedModel, chat: ChatFormat, rows: Sequence[Row]) -> list[float]:
    """-log2 pi(reference | prompt) of each row, the end of turn included."""
    pairs = [(chat.prompt_ids(row.prompt), chat.answer_ids(row.completion)) for row in rows]
    with evaluating(model):
        return [nats / math.log(2) for nats in text_nats(model, pairs)]
