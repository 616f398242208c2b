"""Starts the contestants, each in its own process, and lets them take turns, step by step, in alternating order."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.contestants import CONTESTANTS, compared_with
from benchmarks.sizes import Size


class Failed(Exception):
    """A contestant's process ended before its time."""


@dataclasses.dataclass(slots=True)
class Worker:
    """A contestant's process, or its processes where several share a step."""

    name: str
    processes: list[subprocess.Popen[str]]
    log: Any

    def listen(self) -> dict[str, Any]:
        """Its next message; of several processes that of the slowest.

        Raises:
            Failed: it has ended.
        """
        return max((self._message(process) for process in self.processes), key=lambda said: said.get("seconds", 0.0))

    def _message(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        line = process.stdout.readline() if process.stdout is not None else ""
        message: dict[str, Any] = json.loads(line) if line else {"failed": f"no word from {self.name}"}
        if "failed" in message:
            self.log.seek(0)
            raise Failed(f"{self.name}: {message['failed']}\n{self.log.read()[-2000:]}")
        return message

    def go(self) -> None:
        """Let it take a step.

        Raises:
            Failed: it has ended.
        """
        for process in self.processes:
            if process.stdin is None or process.poll() is not None:
                raise Failed(self.name)
            process.stdin.write("\n")
            process.stdin.flush()

    def end(self) -> None:
        """Wait for its last word."""
        for process in self.processes:
            process.communicate()
        self.log.close()

    def stop(self) -> None:
        """End it, wherever it is."""
        for process in self.processes:
            process.kill()
        self.end()


def start(name: str, size: Size, options: dict[str, Any] | None = None) -> Worker:
    """Start a contestant and wait until it has warmed up.

    Raises:
        Failed: it did not get there.
    """
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by `end`
    if size.processes > 1:  # they share a folder, as they would in any run
        options = {"output_dir": tempfile.mkdtemp(prefix="dudi-bench-"), **(options or {})}
    command = [sys.executable, "-m", "benchmarks.worker", name, "--size", size.name]
    command += ["--changes", json.dumps(size.changes()), "--options", json.dumps(options or {})]
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | extra
        )
        for extra in environments(size)
    ]
    worker = Worker(name, processes, log)
    try:
        worker.listen()
    except Failed:
        worker.stop()
        raise
    return worker


def environments(size: Size) -> list[dict[str, str]]:
    """What each process of a worker finds in its environment beside ours."""
    common = {} if size.threads is None else {"OMP_NUM_THREADS": str(size.threads)}
    if size.processes == 1:
        return [common]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size.processes)}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size.processes)]


def take_turns(workers: Sequence[Worker], size: Size, failed: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Every worker's steps, one at a time; each round runs in the other direction than the one before.

    One that fails on the way is written down and left out from there on.
    """
    taken: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker in workers}
    alive = list(workers)
    for round_ in range(size.steps + 1):  # the last word lets them end
        for worker in alive[:: 1 if round_ % 2 == 0 else -1]:
            try:
                worker.go()
                if round_ < size.steps:
                    taken[worker.name].append(worker.listen())
                else:
                    worker.end()
            except Failed as error:
                failed[worker.name] = str(error)
                print(error, file=sys.stderr)
                worker.stop()
                alive.remove(worker)
    return taken


def sittings(names: Sequence[str], together: int) -> list[tuple[str, ...]]:
    """Who lives at the same time, sitting by sitting.

    A sitting has contestants of one method and the one that they are compared with, which comes back for each: every
    ratio is one of neighbours. Where there is room for one only, all come twice, forwards and backwards, so that what
    drifts does not favour anybody.
    """
    if together == 1:
        return [(name,) for name in (*names, *reversed(names))]
    found: list[tuple[str, ...]] = []
    for method in dict.fromkeys(CONTESTANTS[name].group for name in names):
        group = [name for name in names if CONTESTANTS[name].group == method]
        others = [name for name in group if name != compared_with(name)]
        beside = {compared_with(name) for name in others} & set(names)
        room = together - len(beside)
        for first in range(0, len(others), room):
            present = beside.union(others[first : first + room])
            found.append(tuple(name for name in names if name in present))
    return found + [(name,) for name in names if not any(name in sitting for sitting in found)]


def run(names: Sequence[str], size: Size) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """All contestants, `size.together` of them at a time.

    Returns:
        Each one's steps, with the number of their sitting; and who failed, with what it said.
    """
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    for number, sitting in enumerate(sittings(names, size.together)):
        workers = []
        for name in sitting:
            if name in failed:
                continue
            print(f"starting {CONTESTANTS[name].title}", file=sys.stderr, flush=True)
            try:
                workers.append(start(name, size))
            except Failed as error:
                failed[name] = str(error)
                print(error, file=sys.stderr)
        for name, steps in take_turns(workers, size, failed).items():
            taken[name] += [{**step, "sitting": number} for step in steps]
    return {name: steps for name, steps in taken.items() if steps}, failed
