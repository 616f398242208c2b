"""Rollouts with `transformers`' own `generate`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from dudi.rollouts.engine import Request, Rollout
from dudi.rollouts.noise import GumbelNoise, NoiseKey


class _NoisyArgmax(LogitsProcessor):
    """logits / T plus counter-based Gumbel noise, so that a greedy pick is a draw."""

    def __init__(self, noise: GumbelNoise, temperature: float, prompt_length: int, vocabulary: int) -> None:
        self.noise, self.temperature = noise, temperature
        self.prompt_length, self.vocabulary = prompt_length, vocabulary

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) logits -> (B, V) perturbed; ids beyond the shared vocabulary can never win."""
        noisy = scores / (self.temperature or 1.0)
        if self.temperature:
            noisy[:, : self.vocabulary] += self.noise.at(input_ids.shape[1] - self.prompt_length)
        noisy[:, self.vocabulary :] = float("-inf")
        return noisy


class TransformersEngine:
    """Batched decoding with a KV cache, left-padded, longest prompts first.

    Args:
        model: Opens the model for generation, as a context: the student changes between calls and may be wrapped.
        stop_ids: Tokens that end a rollout.
        pad_id: Any valid id; pads are masked.
        max_new_tokens: Longest rollout.
        temperature: Of sampling; top-k and top-p are off. 0 takes the likeliest token.
        vocabulary: Ids from here on are padding of the embedding and are never drawn.
        batch_size: Most rollouts decoded together.
        same_count: Raises the number of batches to the largest of all ranks (sharded models decode in step).
    """

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
        same_count: Callable[[int], int] = lambda count: count,
    ) -> None:
        self.model = model
        self.stop_ids, self.pad_id = tuple(stop_ids), pad_id
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        self.vocabulary, self.batch_size = vocabulary, batch_size
        self.same_count = same_count

    @torch.no_grad()
    def generate(self, requests: Sequence[Request]) -> list[Rollout]:
        """One rollout for each request, in their order."""
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i].prompt))
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        extra = self.same_count(len(batches)) - len(batches)
        rollouts: dict[int, Rollout] = {}
        with self.model() as model:
            for batch in batches:
                rollouts |= dict(zip(batch, self._decode(model, [requests[i] for i in batch]), strict=True))
            for _ in range(extra):  # a sharded model decodes in step with the other ranks, with or without rows
                self._decode(model, [Request([self.pad_id], NoiseKey(0, "", 0, "idle"))])
        return [rollouts[i] for i in range(len(requests))]

    def _decode(self, model: PreTrainedModel, requests: Sequence[Request]) -> list[Rollout]:
        width = max(len(request.prompt) for request in requests)
        ids = torch.full((len(requests), width), self.pad_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(requests):
            length = len(request.prompt)
            ids[row, width - length :] = torch.as_tensor(request.prompt, dtype=torch.int64)
            mask[row, width - length :] = 1
        noise = GumbelNoise([request.key for request in requests], self.vocabulary, model.device)
        config = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=list(self.stop_ids),
            pad_token_id=self.pad_id,
        )
        with _only(model, config):
            written = model.generate(  # type: ignore[operator]  # a mixin that PreTrainedModel's type lacks
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                logits_processor=LogitsProcessorList([_NoisyArgmax(noise, self.temperature, width, self.vocabulary)]),
            )
        return [self._cut(tokens) for tokens in written[:, width:].tolist()]

    def _cut(self, tokens: list[int]) -> Rollout:
        for position, token in enumerate(tokens):
            if token in self.stop_ids:
                return Rollout(tokens[: position + 1], ended=True)
        return Rollout(tokens, ended=False)


@contextlib.contextmanager
def _only(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Generate with `config` alone: a model's own generation config would add its top-p and repetition penalty."""
    own, cache = model.generation_config, model.config.use_cache
    model.generation_config, model.config.use_cache = config, True
    try:
        yield
    finally:
        model.generation_config, model.config.use_cache = own, cache
