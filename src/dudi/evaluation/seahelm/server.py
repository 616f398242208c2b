"""The model's OpenAI-compatible server: one that runs already, asked once and watched."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

from dudi.errors import EnvironmentFault

HEALTH_EVERY = 2.0
QUESTION = "Complete the sum without a word more: 4711 + 1 ="
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not know our 127.0.0.1


class Server:
    """A server that somebody else runs; it is never stopped.

    Args:
        url: Its base URL, with `/v1`.
        model: What it calls the model.
        patience: Seconds that it may stay silent while it works.

    Attributes:
        decoding: What decides its answers, for the record.
    """

    def __init__(self, url: str, model: str, patience: float = 60.0) -> None:
        self.url, self.model, self.patience = url.rstrip("/"), model, patience
        self.decoding: dict[str, Any] = {
            "server": "given",
            "sampling": "the server's own",
            "max_tokens": "of each task",
        }
        self._answered, self._next = time.monotonic(), 0.0

    def up(self) -> str:
        """`ask`; returns the base URL.

        Raises:
            EnvironmentFault: it does not answer as it should.
        """
        if (problem := ask(self.url, self.model, self.patience)) is not None:
            raise EnvironmentFault(f"{self.url}: does not answer for the model '{self.model}': {problem}{self.end()}")
        self._answered = time.monotonic()
        return self.url

    def trouble(self) -> str | None:
        """Why it can no longer answer; None while it can. It is looked at every two seconds."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + min(HEALTH_EVERY, self.patience)
            if self.is_healthy():
                self._answered = time.monotonic()
            elif (silent := time.monotonic() - self._answered) >= self.patience:
                return f"it was silent for {silent:.0f} s"
        return None

    def is_healthy(self) -> bool:
        """Whether it answers at all; a refusal will do."""
        return status(f"{self.url}/models") is not None

    def stop(self) -> None:
        """End it, where it is ours."""

    def end(self) -> str:
        """The last lines of its output, where they are ours to see."""
        return ""


def status(url: str, timeout: float = 5.0) -> int | None:
    """The HTTP status of a GET; None: no answer."""
    try:
        with _DIRECT.open(url, timeout=timeout) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


def ask(url: str, model: str, timeout: float) -> str | None:
    """Put one question of the form that SEA-HELM uses; returns what is wrong with the answer, None for nothing."""
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "seed": 0, "max_tokens": 2}
    headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
    try:
        with _DIRECT.open(request, timeout=timeout) as answer:
            content = json.loads(answer.read())
        text, _ = content["choices"][0]["message"]["content"], content["usage"]["total_tokens"]
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}: {error.read().decode('utf-8', errors='replace')[:300]}"
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    # What repeats its question holds the words that SEA-HELM looks for, and would be scored by them.
    repeats = "it puts the question into its answer; `transformers serve` does so with a model of a Qwen type: use vLLM"
    return repeats if QUESTION in text else None
