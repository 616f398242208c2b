"""Rollouts with vLLM, in the training process or on a server of its own.

Prompts go in as token ids and rollouts come back as token ids: no text is read again. Before the rollouts of each
optimizer step the weights are sent. vLLM computes in its own kernels, so that its log-probabilities are not quite the
trainer's: the difference is measured in every step. Importing this file does not import vLLM.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dudi.data.chat import Tokens
from dudi.errors import ConfigError, NumericError
from dudi.rollouts.engine import Request, Rollout

MEASURED = 8
"""Rollouts of a rank and call whose log-probabilities are held against the trainer's."""
STALE = 0.5
"""Nats a token. Kernels of 16 bits differ by some hundredths; weights that never arrived by several."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sampling:
    """How rollouts are drawn, in full: nothing is left to the model's own generation config.

    One of the `stop_ids` is the last token of a rollout that it ends; ids that are `never` drawn are padding of the
    embedding.
    """

    temperature: float
    max_new_tokens: int
    stop_ids: tuple[int, ...]
    never: range

    def parameters(self, seed: int) -> dict[str, Any]:
        """One request's, as `SamplingParams` and the server's `/v1/completions` name them."""
        return {
            "n": 1,
            "seed": seed,
            "temperature": self.temperature,
            "top_k": 0,
            "top_p": 1.0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "max_tokens": self.max_new_tokens,
            "ignore_eos": True,  # the model's own end tokens; ours are these:
            "stop_token_ids": list(self.stop_ids),
            "logit_bias": dict.fromkeys(self.never, -100.0) or None,
            "logprobs": 0,  # of the drawn token alone
        }


Written = tuple[list[int], list[float]]
"""What vLLM wrote for one prompt: its tokens, the one it stopped at included, and their log-probabilities."""


class Backend(Protocol):
    """A running vLLM."""

    longest: int
    """Tokens of a prompt and its rollout."""
    forgets: bool
    """Whether the weights are gone after each call."""
    processed: bool
    """Whether log-probabilities are those at the sampling temperature, else those at temperature 1."""

    def send_weights(self) -> None:
        """Give it the student's weights; all ranks call it together."""
        ...

    def write(self, prompts: Sequence[Tokens], parameters: Sequence[dict[str, Any]]) -> list[Written]:
        """One rollout a prompt, in their order."""
        ...


class VLLMEngine:
    """Rollouts of the student as it is at the time of the call.

    Args:
        open_backend: Starts vLLM, or connects to it; called once, before the first rollout.
        sampling: How rollouts are drawn.
        version: Changes whenever the student does.
        log_probs: The trainer's log-probabilities: S (prompt, completion) pairs and a temperature -> (N,), one
            completion after the other. A call is a collective of all ranks.
        idle: A pair for a rank without rollouts.

    Raises:
        ConfigError: vLLM is not installed.
    """

    def __init__(
        self,
        open_backend: Callable[[], Backend],
        sampling: Sampling,
        version: Callable[[], Hashable],
        log_probs: Callable[[Sequence[tuple[Tokens, Tokens]], float], Tensor],
        idle: tuple[Tokens, Tokens],
    ) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError("use_vllm: needs the package vllm; run: pip install 'dudi[vllm]', or set use_vllm: false")
        self.open_backend, self.sampling, self.version = open_backend, sampling, version
        self.log_probs, self.idle = log_probs, idle
        self.backend: Backend | None = None
        self.sent: Hashable = None
        self.gap = torch.zeros(3, dtype=torch.float64)
        """Sum and number of the tokens' absolute differences since `take_gap`, and the largest."""
        self.sync_seconds = 0.0

    def generate(self, requests: Sequence[Request]) -> list[Rollout]:
        """One rollout for each request, in their order; every rank calls it together."""
        if self.backend is None:
            self.backend = self.open_backend()
        backend, sampling = self.backend, self.sampling
        for request in requests:
            if len(request.prompt) + sampling.max_new_tokens > backend.longest:
                raise ConfigError(
                    f"vllm_max_model_length: row {request.key.row_id} needs {len(request.prompt)} tokens of prompt and "
                    f"{sampling.max_new_tokens} of rollout, and vLLM takes {backend.longest}; raise it"
                )
        now = self.version()
        if now != self.sent or backend.forgets:
            begin = time.perf_counter()
            backend.send_weights()
            self.sync_seconds += time.perf_counter() - begin
            self.sent = now
        parameters = [sampling.parameters(request.key.seed_of_request()) for request in requests]
        written = backend.write([request.prompt for request in requests], parameters)
        rollouts = [Rollout(ids, ids[-1] in sampling.stop_ids, log_probs) for ids, log_probs in written]
        self._measure(requests, rollouts, sampling.temperature if backend.processed else 1.0)
        return rollouts

    def _measure(self, requests: Sequence[Request], rollouts: Sequence[Rollout], temperature: float) -> None:
        """Hold some rollouts' log-probabilities against the trainer's: far apart, vLLM cannot hold the student."""
        chosen = range(0, len(rollouts), max(1, len(rollouts) // MEASURED))[:MEASURED]
        pairs = [(requests[i].prompt, rollouts[i].ids) for i in chosen]
        ours = self.log_probs(pairs or [self.idle], temperature).double().cpu()
        if not pairs:
            return
        theirs = torch.tensor([value for i in chosen for value in rollouts[i].log_probs or []], dtype=torch.float64)
        apart = (ours - theirs).abs()
        if apart.mean() > STALE:
            raise NumericError(
                f"vLLM's log-probabilities are {apart.mean():.3g} nats a token away from the trainer's: it writes with "
                "other weights, or does not compute this model as transformers does (docs/vllm.md)"
            )
        self.gap[:2] += torch.stack([apart.sum(), torch.tensor(len(apart), dtype=torch.float64)])
        self.gap[2] = torch.maximum(self.gap[2], apart.max())

    def take_gap(self) -> tuple[Tensor, float]:
        """(3,) fp64 `gap` and the seconds that sending the weights took, since the last call."""
        gap, seconds = self.gap, self.sync_seconds
        self.gap, self.sync_seconds = torch.zeros(3, dtype=torch.float64), 0.0
        return gap, seconds
