"""vLLM for one checkpoint: started when it is first needed, and always stopped."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dudi.errors import ConfigError, EnvironmentFault
from dudi.evaluation.seahelm import processes
from dudi.evaluation.seahelm.server import Server, status
from dudi.evaluation.source import source_of
from dudi.files import sha256_of_files
from dudi.models.load import locate

POLL, HOST = 0.5, "127.0.0.1"


class StartedServer(Server):
    """vLLM on a free port of this machine.

    Args:
        model: As `source_of` takes it.
        log: Takes its output.
        python: The interpreter that has it; None: ours.
        words: Further words of its command line.
        temperature: In place of the one in the checkpoint's generation config.
        timeout: Seconds until it must be healthy.

    Raises:
        ConfigError: a run that has no final model, or there is no such interpreter.
        EnvironmentFault: our interpreter has no vLLM.
    """

    def __init__(
        self,
        model: str,
        log: Path,
        python: Path | None = None,
        words: Sequence[str] = (),
        temperature: float | None = None,
        timeout: float = 900.0,
    ) -> None:
        place = str(Path(locate(source_of(model).model)).expanduser())
        super().__init__("", served_name(place))
        if python is None and importlib.util.find_spec("vllm") is None:
            raise EnvironmentFault("vllm is not installed here: give --base-url of a server, or --server-python")
        if python is not None and not python.is_file():
            raise ConfigError(f"--server-python {python}: no such file")
        own = [*words]
        if temperature is not None:  # else the checkpoint's generation config says how it samples
            own += ["--override-generation-config", json.dumps({"temperature": temperature})]
        self.decoding = {"server": "vllm", "words": own, "max_tokens": "of each task"}
        start = [str(python or sys.executable), "-m", "vllm.entrypoints.openai.api_server"]  # some builds lack `vllm`
        self.words = [*start, "--model", place, "--served-model-name", self.model, "--host", HOST, *own]
        self.log, self.timeout = log, timeout
        self.process: subprocess.Popen[bytes] | None = None

    def up(self) -> str:
        """Start it if it does not run, wait until it is healthy, and ask it one question."""
        if self.process is None:
            with socket.socket() as opened:
                opened.bind((HOST, 0))
                port = opened.getsockname()[1]
            self.url = f"http://{HOST}:{port}/v1"
            self.log.unlink(missing_ok=True)  # the errors of an earlier start are not this one's
            self.process = processes.start([*self.words, "--port", str(port)], self.log, cwd=Path.cwd())
            deadline = time.monotonic() + self.timeout
            while not self.is_healthy():
                if (code := self.process.poll()) is not None:
                    raise EnvironmentFault(f"vLLM ended with {processes.ending(code)} at start{self.end()}")
                if time.monotonic() > deadline:
                    late = f"not healthy after {self.timeout:.0f} s; see --startup-timeout"
                    raise EnvironmentFault(f"vLLM is {late}{self.end()}")
                time.sleep(POLL)
        return super().up()

    def trouble(self) -> str | None:
        code = None if self.process is None else self.process.poll()
        return super().trouble() if code is None else f"it ended with {processes.ending(code)}"

    def is_healthy(self) -> bool:
        return status(f"{self.url.removesuffix('/v1')}/health") == 200

    def stop(self) -> None:
        """It may be started again."""
        process, self.process = self.process, None
        if process is not None:
            processes.stop(process)

    def end(self) -> str:
        return f"\n{self.log} ends:\n{processes.last_lines(self.log)}"


def served_name(model: str) -> str:
    """`NAME-0123456789`: the folder's name and a hash over its files; of a hub name its last part.

    SEA-HELM files its results under the last part of a model's name: two checkpoints that are both called `model`
    would share answers. The place of the folder does not enter, what is in it does.
    """
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(model).name).strip("-.") or "model"
    files = sorted(file for file in Path(model).glob("*") if file.is_file() and file.name != "optimizer.safetensors")
    return f"{plain}-{sha256_of_files(files)[:10]}" if files else plain
