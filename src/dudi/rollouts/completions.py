"""A server with OpenAI's completions, such as `vllm serve`: asked, asked again where that can help, and explained."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from dudi.errors import ConfigError, EnvironmentFault, plain

KEY = "DUDI_TEACHER_KEY"
"""The environment variable of the server's key: it is in no recipe, no log and no checkpoint."""
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before each new attempt; after the last one a server is given up."""
BUSY = 429
"""The one refusal that another attempt may help against."""
HINTS = {
    401: f"its key is read from the environment variable {KEY}",
    403: f"its key is read from the environment variable {KEY}",
    404: "is it the address without /v1, and the name under which the model is served?",
}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A key goes to the server that was named, and to no other."""

    def redirect_request(self, *given: Any, **named: Any) -> None:
        return None


class CompletionServer:
    """A server, by its address: `http://host:port` or `https://...`, without /v1.

    The timeout is in seconds, as are the waits before each new attempt.

    Raises:
        ConfigError: no such address.
    """

    def __init__(self, url: str, timeout: float, waits: Sequence[float] = WAITS) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"teacher.server: '{url}' is no address; write http://HOST:PORT")
        if parts.username or parts.password or parts.query or parts.fragment:
            plain_url = f"{parts.scheme}://{parts.hostname}"
            told = f"an address and nothing else; a key is read from the environment variable {KEY}"
            raise ConfigError(f"teacher.server: {plain_url}: {told}")
        self.url = url.rstrip("/").removesuffix("/v1")
        self.timeout, self.waits = timeout, tuple(waits)
        direct = [urllib.request.ProxyHandler({})] if _is_here(parts.hostname) else []
        self._opener = urllib.request.build_opener(_NoRedirects(), *direct)

    def models(self) -> list[dict[str, Any]]:
        """What the server serves, each model with its `id`."""
        return self._listed(self._ask("/v1/models"), "data", "id")

    def complete(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The answers to the prompts of a request's body (`prompt`, lists of ids), in their order.

        Raises:
            EnvironmentFault: the server does not answer, or not with that.
            ConfigError: it refuses.
        """
        given = self._listed(self._ask("/v1/completions", body), "choices", "index")
        found = sorted(given, key=lambda choice: int(choice["index"]))
        if len(found) != len(body["prompt"]):
            raise self.misunderstood(f"{len(found)} answers to {len(body['prompt'])} prompts")
        return found

    def misunderstood(self, what: str) -> EnvironmentFault:
        """The error for an answer that is none."""
        return EnvironmentFault(f"teacher.server: {self.url}: {what}; is it vLLM (docs/served-teacher.md)?")

    def _listed(self, answer: Any, name: str, field: str) -> list[dict[str, Any]]:
        """A list of objects in an answer, each with a field."""
        given = answer.get(name) if isinstance(answer, dict) else None
        if not isinstance(given, list) or not all(isinstance(one, dict) and field in one for one in given):
            raise self.misunderstood(f"its answer has no `{name}`: {plain(' '.join(json.dumps(answer).split())[:120])}")
        return given

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        reason = ""
        for wait in (0.0, *self.waits):
            time.sleep(wait)
            try:
                return self._once(path, body)
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code != BUSY:
                    raise ConfigError(self._refusal(error)) from error
                reason = f"HTTP {error.code}"
            except (OSError, http.client.HTTPException, ValueError) as error:  # a body that is torn, or no JSON
                reason = plain(str(getattr(error, "reason", error)) or type(error).__name__)
        raise EnvironmentFault(
            f"teacher.server: {self.url} does not answer ({reason}), {len(self.waits) + 1} times in a row; is it up?"
        )

    def _once(self, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json"}
        if os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {os.environ[KEY]}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        with self._opener.open(request, timeout=self.timeout) as answer:
            kind = str(answer.headers.get("Content-Type", ""))
            if kind.startswith("text/"):  # a page: another attempt would bring it again
                raise self.misunderstood(f"answers {path} with {plain(kind)}")
            return json.load(answer)

    def _refusal(self, error: urllib.error.HTTPError) -> str:
        """What it says in a line, and what to do."""
        said = error.read(4096).decode("utf-8", "replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = json.loads(said)["error"]["message"]
        said = plain(" ".join(str(said).split())[:300])
        hint = HINTS.get(error.code)
        if moved := error.headers.get("Location"):
            hint = f"it points to {plain(moved[:200])}; name that server, no redirect is followed"
        if "max allowed" in said:
            hint = "start it with --max-logprobs as large as teacher_top_k (vLLM's default is 20), or lower the key"
        return f"teacher.server: {self.url} refuses ({error.code}): {said}" + (f"; {hint}" if hint else "")


def _is_here(host: str) -> bool:
    """Whether a host is this machine, to which no proxy leads."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
