"""Starts the contestants, each in its own process, and lets them take turns, step by step, in alternating order."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.contestants import CONTESTANTS
from benchmarks.sizes import Size


class Failed(Exception):
    """A contestant's process ended before its time."""


@dataclasses.dataclass(slots=True)
class Worker:
    """A contestant's process."""

    name: str
    process: subprocess.Popen[str]
    log: Any

    def listen(self) -> dict[str, Any]:
        """Its next message.

        Raises:
            Failed: it has ended.
        """
        if self.process.stdout is None:
            raise Failed(self.name)
        line = self.process.stdout.readline()
        message = json.loads(line) if line else {"failed": f"no word from {self.name}"}
        if "failed" in message:
            self.log.seek(0)
            raise Failed(f"{self.name}: {message['failed']}\n{self.log.read()[-2000:]}")
        return message

    def go(self) -> None:
        """Let it take a step."""
        if self.process.stdin is None:
            raise Failed(self.name)
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Wait for its last word."""
        self.process.communicate()
        self.log.close()


def start(name: str, size: Size, options: dict[str, Any] | None = None) -> Worker:
    """Start a contestant and wait until it has warmed up.

    Raises:
        Failed: it did not get there.
    """
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by `end`
    command = [sys.executable, "-m", "benchmarks.worker", name, "--size", size.name]
    changes = {key: getattr(size, key) for key in ("device", "dtype", "steps")}
    command += ["--changes", json.dumps(changes)]
    command += ["--options", json.dumps(options or {})]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    worker = Worker(name, process, log)
    worker.listen()
    return worker


def take_turns(workers: Sequence[Worker], size: Size) -> dict[str, list[dict[str, Any]]]:
    """Every worker's steps, one at a time; each round runs in the other direction than the one before."""
    taken: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker in workers}
    for round_ in range(size.steps):
        for worker in workers if round_ % 2 == 0 else list(reversed(workers)):
            worker.go()
            taken[worker.name].append(worker.listen())
    for worker in workers:
        worker.go()
        worker.end()
    return taken


def run(names: Sequence[str], size: Size) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """All contestants; `size.together` of them live at a time.

    Fewer than all at a time run twice, forwards and backwards, so that what drifts does not favour anybody.

    Returns:
        Each one's steps; and who failed, with what it said.
    """
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    orders = [list(names)] if size.together >= len(names) else [list(names), list(reversed(names))]
    for order in orders:
        for first in range(0, len(order), size.together):
            group = [name for name in order[first : first + size.together] if name not in failed]
            workers = []
            for name in group:
                print(f"starting {CONTESTANTS[name].title}", file=sys.stderr, flush=True)
                try:
                    workers.append(start(name, size))
                except Failed as error:
                    failed[name] = str(error)
                    print(error, file=sys.stderr)
            for name, steps in take_turns(workers, size).items():
                taken[name] += steps
    return {name: steps for name, steps in taken.items() if steps}, failed
