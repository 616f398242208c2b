"""Rollouts with `transformers`: our own loop for plain decoders, `generate` for the others and for sharded ones."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Cache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation import GenerateDecoderOnlyOutput

from dudi.errors import ConfigError
from dudi.models.attention import attends_to_all
from dudi.models.caches import cache_in, cache_name
from dudi.models.few_rows import few_rows
from dudi.models.limits import check_length
from dudi.rollouts.decoding import DecodingBatch
from dudi.rollouts.engine import Request, Rollout
from dudi.rollouts.noise import GumbelNoise
from dudi.rollouts.still import StillDecoding

LOOK_EVERY = 16
"""Tokens between two looks at which rows have ended, where looking costs time (on a device)."""
TRIED, PADS, MOVES = 4, 4, 0.02
"""Tokens and pads that are tried, and how far a logit may move in fp32, as a share of the largest one."""
FEW = 8
"""Batches below this are decoded to their end as they are: what another call costs would not come back."""


@dataclasses.dataclass(eq=False)
class _NoisyArgmax(LogitsProcessor):
    """logits / T without what top-k and top-p cut, plus counter-based Gumbel noise, so that a greedy pick is a draw."""

    noise: GumbelNoise
    temperature: float
    prompt_length: int
    vocabulary: int
    cuts: Sequence[LogitsProcessor] = ()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) logits -> (B, V) perturbed; ids beyond the shared vocabulary can never win."""
        noisy = scores / (self.temperature or 1.0)
        noisy[:, self.vocabulary :] = float("-inf")  # before the cuts: what is never drawn must not count in them
        if self.temperature:
            for cut in self.cuts:
                noisy = cut(input_ids, noisy)
            self.noise.add_to(noisy[:, : self.vocabulary], input_ids.shape[1] - self.prompt_length)
        return noisy


class _HalfEnded(StoppingCriteria):
    """Stops a batch once half of its rows have ended."""

    def __init__(self, stop_ids: Sequence[int], rows: int) -> None:
        self.stop_ids, self.ended = torch.tensor(stop_ids), torch.zeros(rows, dtype=torch.bool)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """(B, T) ids -> (B,) the same answer for every row."""
        last = input_ids[:, -1]
        self.ended = self.ended.to(last.device) | torch.isin(last, self.stop_ids.to(last.device))
        return (2 * self.ended.sum() >= len(last)).expand(len(last))


class TransformersEngine:
    """Batched decoding with a KV cache, left-padded, longest prompts first.

    Args:
        model: Opens the model for generation, as a context: the student changes between calls and may be wrapped.
        stop_ids: Tokens that end a rollout.
        pad_id: Any valid id; pads are masked.
        max_new_tokens: Longest rollout.
        temperature: Of sampling. 0 takes the likeliest token.
        vocabulary: Ids from here on are padding of the embedding and are never drawn.
        batch_size: Most rollouts decoded together.
        top_p: Draw among the likeliest tokens that together have this probability; None: among all.
        top_k: Draw among this many of the likeliest tokens; None: among all.

    Attributes:
        still: Decode plain models without a change of shapes, replayed as CUDA graphs on a GPU (`rollouts.still`). Off:
            whether it is the faster there has not been measured (`benchmarks/gpu.py`, part `decoding`).
    """

    still = False

    def __init__(
        self,
        model: Callable[[], AbstractContextManager[PreTrainedModel]],
        *,
        stop_ids: Sequence[int],
        pad_id: int,
        max_new_tokens: int,
        temperature: float,
        vocabulary: int,
        batch_size: int,
        top_p: float | None = None,
        top_k: int | None = None,
    ) -> None:
        self.model = model
        self.stop_ids, self.pad_id = tuple(stop_ids), pad_id
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        self.vocabulary, self.batch_size, self.decoding_checked = vocabulary, batch_size, False
        # In the order of transformers' own `generate`: after the temperature, top-k before top-p.
        self.cuts: list[LogitsProcessor] = [] if top_k is None else [TopKLogitsWarper(top_k)]
        self.cuts += [] if top_p is None else [TopPLogitsWarper(top_p)]

    @torch.no_grad()
    def generate(self, requests: Sequence[Request]) -> list[Rollout]:
        """One rollout for each request, in their order.

        Raises:
            ConfigError: the model has no positions for prompts and answers as long.
        """
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i].prompt))
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        rollouts: dict[int, Rollout] = {}
        with self.model() as model, few_rows(model):
            longest = max((len(request.prompt) for request in requests), default=0)
            check_length(model, longest + self.max_new_tokens, "the model", "max_new_tokens after the longest prompt")
            self._check_decoding(model, requests)
            for batch in batches:
                chosen = [requests[i] for i in batch]
                decode = self._decode_plainly if self._is_plain(model, chosen) else self._decode_with_generate
                rollouts |= dict(zip(batch, decode(model, chosen), strict=True))
        return [rollouts[i] for i in range(len(requests))]

    def _check_decoding(self, model: PreTrainedModel, requests: Sequence[Request]) -> None:
        """Look once whether `generate` draws from the model: token by token and padded as without a cache and alone."""
        if self.decoding_checked or not requests or self._is_plain(model, requests):
            return
        self.decoding_checked = True
        shortest = min(requests, key=lambda request: len(request.prompt))
        padded = self.batch_size > 1 and any(len(r.prompt) != len(shortest.prompt) for r in requests)
        limit = MOVES if model.dtype == torch.float32 else 10 * MOVES
        if not self._moved(model, shortest, 0) < limit:
            raise ConfigError(
                f"{type(model).__name__} writes with its cache what it does not predict without it: its rollouts would "
                "not be the student's; dudi cannot roll it out"
            )
        if padded and not self._moved(model, shortest, PADS) < limit:
            raise ConfigError(
                f"{type(model).__name__} reads a prompt otherwise with padding on its left: what a batch writes would "
                "not be the student's; set rollout_batch_size: 1"
            )

    def _moved(self, model: PreTrainedModel, request: Request, pads: int) -> float:
        """How far the logits of some decoded tokens are from those of one pass, as a share of the largest logit."""
        ids, mask = self._padded([request], len(request.prompt) + pads, model.device)
        with _only(model, self._generation_config(TRIED, output_logits=True)):
            out = model.generate(input_ids=ids, attention_mask=mask)  # type: ignore[operator]  # as below
        decoded = torch.cat(out.logits).float()
        whole = model(input_ids=out.sequences[:, pads:], use_cache=False).logits[0].float()
        straight = whole[len(request.prompt) - 1 :][: len(decoded)]
        return float((decoded - straight).abs().max() / straight.abs().max())

    def _is_plain(self, model: PreTrainedModel, requests: Sequence[Request]) -> bool:
        """Whether our own cache is what the model needs."""
        longest = max(len(request.prompt) for request in requests)
        return attends_to_all(model.config, longest + self.max_new_tokens)

    def _decode_plainly(self, model: PreTrainedModel, requests: Sequence[Request]) -> list[Rollout]:
        """One batch, with our own loop."""
        ids, mask = self._padded(requests, max(len(request.prompt) for request in requests), model.device)
        kind = StillDecoding if self.still else DecodingBatch
        decoding = kind(model, mask, self.max_new_tokens, self.vocabulary)
        noise = GumbelNoise([request.key for request in requests], self.vocabulary, model.device)
        stops = torch.tensor(self.stop_ids, dtype=torch.int64, device=model.device)
        written = ids.new_zeros((len(requests), self.max_new_tokens))
        alive = torch.arange(len(requests), device=model.device)  # (B,) the rows that are still decoded
        ended = torch.zeros_like(alive, dtype=torch.bool)
        logits, length = decoding.begin(ids), 0
        while True:
            tokens = self._draw(logits, noise, length)
            written[alive, length] = tokens
            ended |= torch.isin(tokens, stops)
            length += 1
            if length == self.max_new_tokens:
                break
            if model.device.type == "cpu" or length % LOOK_EVERY == 0:  # a look at a device waits for it
                left = (~ended).nonzero()[:, 0]
                if len(left) == 0:
                    break
                if decoding.shrinks and len(tokens) >= FEW and 2 * len(left) <= len(tokens):
                    tokens, alive, ended = tokens[left], alive[left], ended[left]
                    decoding.keep(left)
                    noise.keep(left)
            logits = decoding.step(tokens)
        return [self._cut(row) for row in written[:, :length].tolist()]

    def _draw(self, logits: Tensor, noise: GumbelNoise, position: int) -> Tensor:
        """(B, V) logits -> (B,) tokens."""
        if not self.temperature:
            return logits.argmax(-1)
        scores = logits.div_(self.temperature)
        for cut in self.cuts:
            scores = cut(None, scores)
        return noise.add_to(scores, position).argmax(-1)

    def _decode_with_generate(self, model: PreTrainedModel, requests: Sequence[Request]) -> list[Rollout]:
        """One batch. Rows that have ended are dropped whenever half of them have: the others decode the faster."""
        width = max(len(request.prompt) for request in requests)
        ids, mask = self._padded(requests, width, model.device)
        alive, cache = list(range(len(requests))), None
        written: dict[int, list[int]] = {}
        while alive and ids.shape[1] < width + self.max_new_tokens:
            noise = GumbelNoise([requests[i].key for i in alive], self.vocabulary, model.device)
            pick = _NoisyArgmax(noise, self.temperature, width, self.vocabulary, self.cuts)
            criteria = [_HalfEnded(self.stop_ids, len(alive))] if len(alive) >= FEW else []
            with _only(model, self._generation_config(width + self.max_new_tokens - ids.shape[1])):
                out: GenerateDecoderOnlyOutput = model.generate(  # type: ignore[operator]  # a mixin the type lacks
                    input_ids=ids,
                    attention_mask=mask,
                    logits_processor=LogitsProcessorList([pick]),
                    stopping_criteria=StoppingCriteriaList(criteria),
                    **{cache_name(model): cache},
                )
            tokens = out.sequences[:, width:]
            written |= dict(zip(alive, tokens.tolist(), strict=True))
            left = (~torch.isin(tokens, torch.tensor(self.stop_ids, device=tokens.device)).any(dim=1)).nonzero()[:, 0]
            alive, ids = [alive[row] for row in left.tolist()], out.sequences[left]
            mask = torch.nn.functional.pad(mask[left], (0, ids.shape[1] - mask.shape[1]), value=1)
            goes_on = alive and ids.shape[1] < width + self.max_new_tokens
            cache = _rows_of(cache_in(out), left) if goes_on else None
        return [self._cut(written[i]) for i in range(len(requests))]

    def _padded(self, requests: Sequence[Request], width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """(B, T) prompts, padded on the left, and their mask."""
        ids = torch.full((len(requests), width), self.pad_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(requests):
            length = len(request.prompt)
            ids[row, width - length :] = torch.as_tensor(request.prompt, dtype=torch.int64)
            mask[row, width - length :] = 1
        return ids.to(device), mask.to(device)

    def _generation_config(self, new_tokens: int, **more: Any) -> GenerationConfig:
        return GenerationConfig(
            max_new_tokens=new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=list(self.stop_ids),
            pad_token_id=self.pad_id,
            return_dict_in_generate=True,
            **more,
        )

    def _cut(self, tokens: list[int]) -> Rollout:
        for position, token in enumerate(tokens):
            if token in self.stop_ids:
                return Rollout(tokens[: position + 1], ended=True)
        return Rollout(tokens, ended=False)


def _rows_of(cache: Any, rows: Tensor) -> Cache | None:
    """The cache of some rows; None, which reads the prompts again, where states cannot be told apart by rows."""
    if not isinstance(cache, Cache) or not all(hasattr(layer, "batch_select_indices") for layer in cache.layers):
        return None
    cache.batch_select_indices(rows)
    return cache


@contextlib.contextmanager
def _only(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Generate with `config` alone: a model's own generation config would add its top-p and repetition penalty."""
    own, text = model.generation_config, model.config.get_text_config()
    cached = text.to_dict().get("use_cache")
    model.generation_config = config
    if cached is not None:
        text.use_cache = True
    try:
        yield
    finally:
        model.generation_config = own
        if cached is not None:
            text.use_cache = cached
