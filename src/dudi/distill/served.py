"""A teacher that a server holds: it is asked for the likeliest tokens at the completions, and for answers.

A server that reads a prompt says what it would have written at each place of it (`prompt_logprobs`). The prompt here is
the teacher's prompt and the completion, as token ids, so that nothing is tokenized anew.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import AutoConfig

from dudi.data.chat import Tokens
from dudi.errors import ConfigError, EnvironmentFault
from dudi.models.load import locate
from dudi.objective.top_tokens import TopTokens
from dudi.rollouts import Request, Rollout
from dudi.rollouts.completions import WAITS, CompletionServer
from dudi.rollouts.vllm import Sampling
from dudi.training.ranks import from_first, together

REQUEST_TOKENS = 8192
"""Most tokens of a request: with 64 tokens named at each, an answer of some 40 MB."""
REQUEST_PROMPTS = 512
"""Most prompts of a request; vLLM takes 1024."""
AT_ONCE = 64
"""Answers that are written at a time: each has a seed of its own, and so a request."""
SMALLEST_TAIL = 2.0**-20
"""What fp32 log-probabilities leave uncertain of the difference of their sum to 1."""


class ServedTeacher:
    """A teacher elsewhere, by its name and its server's address.

    Args:
        name: Its folder or hub name: of it the tokenizer and the config are read, and no weights.
        url: The server's address.
        timeout: Seconds to wait for an answer.
        waits: Seconds before each new attempt to reach the server.

    Attributes:
        name: As given.
        vocabulary: Ids that it gives a probability.
        served: The name under which the server knows it, once it was checked.
        longest: Tokens that the server reads and writes in one sequence, likewise; None where it does not say.
        account: What the server was asked for since the last step: requests, tokens that it read (prompts included),
            the summed probability of the tails, and tokens of completions (places).
    """

    def __init__(self, name: str, url: str, timeout: float = 600.0, waits: Sequence[float] = WAITS) -> None:
        self.server, self.name = CompletionServer(url, timeout, waits), name
        self.vocabulary = int(_text_config(name).vocab_size)
        self.served = name
        self.longest: int | None = None
        self.account = dict.fromkeys(("requests", "tokens", "tail", "places"), 0.0)

    def take_account(self) -> list[float]:
        """The account's numbers, to be summed over ranks; it is counted from zero again."""
        found = list(self.account.values())
        self.account = dict.fromkeys(self.account, 0.0)
        return found

    @property
    def identity(self) -> str:
        """What a run knows of it: not where it is served, and not its weights."""
        return f"served as {self.served}"

    def _look(self) -> tuple[str, int | None]:
        """The model's name on the server, and how long a sequence it reads."""
        models = {str(one["id"]): one for one in self.server.models()}
        name = self.name if self.name in models else next(iter(models), "")
        if len(models) != 1 and self.name not in models:
            raise ConfigError(
                f"teacher.server: {self.server.url} serves {', '.join(models) or 'nothing'}, and not {self.name}: "
                f"start it with --served-model-name {self.name}"
            )
        longest = models[name].get("max_model_len")
        return name, None if longest is None else int(longest)

    def check(self, top_k: int, vocabulary: int, *, reads_tokens: bool) -> None:
        """Look for the model, and ask for two tokens as a step will for all: what is refused is refused at the start.

        One of which answers alone are wanted (`reads_tokens` is False) is asked for no tokens.

        Raises:
            ConfigError: the server refuses, or nearly all ids are asked for.
            EnvironmentFault: it does not answer, or not with log-probabilities.
        """
        self.served, self.longest = from_first(self._look)
        if not reads_tokens:
            return
        if top_k > vocabulary - 2 and not top_k >= vocabulary == self.vocabulary:
            raise ConfigError(
                f"teacher_top_k: {top_k} of the {vocabulary} ids that student and teacher share leave no tail; lower it"
            )
        from_first(lambda: len(self.read([([0], [0])], top_k, vocabulary)))
        self.take_account()

    def check_length(self, tokens: int, who: str, what: str) -> None:
        """Refuse sequences that the server does not read; arguments and errors as in `models.limits`."""
        if self.longest is not None and tokens + 1 > self.longest:  # it always writes a token
            raise ConfigError(
                f"{who} is served with sequences of {self.longest:,} tokens, and {what} makes some of {tokens + 1:,}: "
                "start it with a larger --max-model-len, or lower the key or teacher_max_length"
            )

    def read(self, pairs: Sequence[tuple[Tokens, Tokens]], top_k: int, vocabulary: int) -> list[TopTokens]:
        """What the teacher would have written at the completions, in as few requests as the limits allow.

        Args:
            pairs: S prompts with their completions.
            top_k: Tokens that are named at a place.
            vocabulary: Ids that student and teacher share; the others belong to the tail.

        Returns:
            For each completion (T, ...), on the CPU.
        """
        found: list[TopTokens] = []
        named = min(top_k, self.vocabulary)
        for part in _portions([len(prompt) + len(completion) for prompt, completion in pairs]):
            prompts = [[*map(int, itertools.chain(*pairs[place]))] for place in part]
            asked = {"prompt_logprobs": named, "max_tokens": 1, "temperature": 0.0}
            answers = self.server.complete({"model": self.served, "prompt": prompts, **asked})
            for ids, place, answer in zip(prompts, part, answers, strict=True):
                at = answer.get("prompt_logprobs") or []
                if len(at) != len(ids):
                    raise self.server.misunderstood(f"prompt_logprobs of {len(at)} tokens for a prompt of {len(ids)}")
                labels = ids[-len(pairs[place][1]) :]
                try:
                    top = self._top_tokens(labels, at[-len(labels) :], named, vocabulary)
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise self.server.misunderstood("its prompt_logprobs are of another form") from error
                found.append(top)
                self.account["tokens"] += len(ids)
                self.account["tail"] += float(top.log_probs[:, -1].exp().sum())
                self.account["places"] += len(top)
            self.account["requests"] += 1
        return found

    def _top_tokens(
        self, labels: Sequence[int], places: Sequence[Mapping[str, Any]], named: int, vocabulary: int
    ) -> TopTokens:
        """One completion: the label at each place, and what the server names there, more than which it may not be."""
        ids, log_probs = [], []
        for label, place in zip(labels, places, strict=True):
            at = {int(token): float(one["logprob"]) for token, one in place.items()}
            if label not in at:
                raise self.server.misunderstood("its answer does not name the prompt's own tokens")
            tokens = [label, *(token for token in at if token != label and token < vocabulary)][: named + 1]
            values = [at[token] for token in tokens]
            total = math.fsum(map(math.exp, values))
            if not all(map(math.isfinite, values)) or total > 1.01:
                raise self.server.misunderstood("its numbers are no log-probabilities of temperature 1")
            void = named + 1 - len(tokens)
            tail = math.log(max(1.0 - total, SMALLEST_TAIL)) if named < vocabulary else -math.inf
            ids.append(tokens + [label] * void)
            log_probs.append([*values, *[-math.inf] * void, tail])
        return TopTokens(torch.tensor(ids), torch.tensor(log_probs))


def _portions(lengths: Sequence[int]) -> Iterator[range]:
    """Neighbours that go into one request: one at least, and no more than the limits allow."""
    start = size = 0
    for place, length in enumerate(lengths):
        if place > start and (size + length > REQUEST_TOKENS or place - start == REQUEST_PROMPTS):
            yield range(start, place)
            start, size = place, 0
        size += length
    if lengths:
        yield range(start, len(lengths))


def _text_config(name: str) -> Any:
    try:
        return AutoConfig.from_pretrained(locate(name)).get_text_config()
    except (OSError, ValueError) as error:
        raise EnvironmentFault(
            f"teacher.model: of a served teacher the tokenizer and the config are read here, and '{name}' has none "
            f"({' '.join(str(error).split())[:120]})"
        ) from error


@dataclasses.dataclass(frozen=True, slots=True)
class ServedEngine:
    """Answers of a served teacher, sampled as rollouts are.

    Attributes:
        teacher: Who writes.
        sampling: How.
    """

    teacher: ServedTeacher
    sampling: Sampling

    def generate(self, requests: Sequence[Request]) -> list[Rollout]:
        """One answer for each request, in their order; every rank calls it together.

        Raises:
            ConfigError: the server refuses.
            EnvironmentFault: it does not answer, on any rank.
        """
        written: list[Rollout] = []

        def write() -> None:
            with ThreadPoolExecutor(AT_ONCE) as threads:
                written.extend(threads.map(self._write, requests))

        together(write)
        return written

    def _write(self, request: Request) -> Rollout:
        server = self.teacher.server
        body = {"model": self.teacher.served, "prompt": [[int(token) for token in request.prompt]]}
        body |= self.sampling.parameters(request.key.seed_of_request()) | {"return_token_ids": True}
        (answer,) = server.complete(body)
        ids = answer.get("token_ids")
        if not ids:
            raise server.misunderstood("its answer has no token_ids")
        return Rollout(ids, ids[-1] in self.sampling.stop_ids)
