"""Whether a server answers: its health, one question of the form that SEA-HELM sends, and how long it is silent."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

HOST = "127.0.0.1"
HEALTH_EVERY = 2.0
QUESTION = "Complete the sum without a word more: 4711 + 1 ="
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not know our 127.0.0.1


class Silence:
    """How long a server has not answered, looked at no more often than every two seconds.

    Args:
        patience: Seconds of silence that are still none.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: float | None = None
        self._next = 0.0

    def seconds(self, answers: Callable[[], bool]) -> float | None:
        """The silence in seconds, once it is longer than `patience`; None before."""
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + min(HEALTH_EVERY, self._patience)
        if answers():
            self._since = None
            return None
        self._since = self._since or time.monotonic()
        silent = time.monotonic() - self._since
        return silent if silent >= self._patience else None


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as opened:
        opened.bind((HOST, 0))
        return int(opened.getsockname()[1])


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
    """Put one question of the form that SEA-HELM uses.

    Returns:
        What is wrong with the answer; None: nothing.
    """
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "seed": 0}
    request = urllib.request.Request(
        f"{url}/chat/completions",
        data=json.dumps({**body, "max_tokens": 2}).encode(),
        headers={"Content-Type": "application/json", "Authorization": "Bearer none"},
    )
    try:
        with _DIRECT.open(request, timeout=timeout) as answer:
            content = json.loads(answer.read())
        text, _ = content["choices"][0]["message"]["content"], content["usage"]["total_tokens"]
        return _wrong_with(text)
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}: {error.read().decode('utf-8', errors='replace')[:300]}"
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def _wrong_with(text: Any) -> str | None:
    """An answer that repeats its question holds the words that SEA-HELM looks for, and would be scored by them."""
    if not isinstance(text, str):
        return "its answer has no content"
    if QUESTION in text:
        return (
            "it puts the question into its answer; `transformers serve` does so with a model of a Qwen type whose chat "
            "template is not ChatML: use --server vllm"
        )
    return None
