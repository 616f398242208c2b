"""`dudi eval --benchmark seahelm`."""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
from pathlib import Path
from types import FrameType

from dudi.command import say, words_of
from dudi.errors import ConfigError
from dudi.evaluation.records import FILE
from dudi.evaluation.seahelm.catalogue import DEFAULT_SET, read_catalogue, select
from dudi.evaluation.seahelm.evaluate import SeaHelm
from dudi.evaluation.seahelm.server import Server
from dudi.evaluation.seahelm.table import seahelm_table
from dudi.evaluation.seahelm.vllm import StartedServer
from dudi.program.eval_options import FOLDER, check_numbers, seeds_of, unread

READ = (
    *("model", "backend", "model_args", "benchmark", "name", "output", "force", "dtype", "log_samples"),
    *("tasks", "languages", "seed", "seeds", "limit"),
    *("seahelm", "seahelm_python", "skip_tasks", "judges", "count_all", "workers"),
)
"""Options of `dudi eval` that are read here; the others a server or SEA-HELM decides."""
STARTED = ("server_python", "server_args", "startup_timeout", "temperature")
"""Those of a server that is started here."""


def run(given: argparse.Namespace) -> int:
    """Evaluate as the command line of `dudi eval` says, print the table, and write `evaluation.json`.

    Tasks that are missing are no error: the table says which.
    """
    if given.seahelm is None:
        raise ConfigError("--benchmark seahelm: name a checkout of SEA-HELM with --seahelm DIR (docs/seahelm.md)")
    if word := unread(given, (*READ, *(STARTED if given.base_url is None else ["base_url"]))):
        raise ConfigError(f"{word} does nothing here: the server decides (docs/seahelm.md)")
    check_numbers(given)
    if (python := given.seahelm_python or given.seahelm / ".venv/bin/python") and not python.is_file():
        raise ConfigError(f"{python}: no such file; name SEA-HELM's interpreter with --seahelm-python")
    catalogue, tasks = read_catalogue(given.seahelm), words_of(given.tasks) or [DEFAULT_SET]
    chosen = select(catalogue, tasks, words_of(given.languages), words_of(given.skip_tasks) or (), given.judges)
    name = given.name or Path(given.model).name
    output = given.output or FOLDER / name
    if given.base_url is not None:
        server = Server(given.base_url, given.model)
    else:
        words = [*shlex.split(given.server_args), "--dtype", given.dtype]
        log = (output / "server.log").absolute()
        server = StartedServer(given.model, log, given.server_python, words, given.temperature, given.startup_timeout)
    seahelm = SeaHelm(
        server=server,
        catalogue=catalogue,
        chosen=chosen,
        python=python.absolute(),  # not resolved: a virtual environment's python is a link out of it
        output=output,
        limit=given.limit,
        workers=given.workers,
        count_all=given.count_all,
    )
    if given.force:
        shutil.rmtree(seahelm.folder, ignore_errors=True)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: what was started is stopped
        signal.signal(number, _interrupt)
    return say(f"{seahelm_table(seahelm.evaluate(name, seeds_of(given)))}\n{output / FILE}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)
