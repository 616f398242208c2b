"""SEA-HELM over several seeds, as a subprocess in its own environment, resumed where it stopped."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError, DataError, EnvironmentFault
from dudi.evaluation.seahelm import processes
from dudi.evaluation.seahelm.catalogue import Catalogue
from dudi.evaluation.seahelm.results import Results, missing, newest_results, read_run, untouched
from dudi.evaluation.seahelm.server import Served

SCRIPT = Path(__file__).with_name("inside.py")
SET = "dudi"
SETTINGS, CHECKED = "settings.json", "checked.json"
POLL = 0.5
CHECK_TIMEOUT = 600.0
_USUAL_PYTHONS = (".venv/bin/python", "venv/bin/python")


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What is run, where.

    Attributes:
        catalogue: The checkout's.
        chosen: Tasks by language.
        python: SEA-HELM's interpreter.
        model: What the server calls the model.
        folder: Ours; SEA-HELM writes below it.
        limit: Examples per task; None: all.
        workers: Requests at a time.
        settings: What decides an answer beside seed and task: results under other settings are not resumed.
        report: Takes a line of progress.
    """

    catalogue: Catalogue
    chosen: Mapping[str, Sequence[str]]
    python: Path
    model: str
    folder: Path
    limit: int | None
    workers: int
    settings: Mapping[str, Any]
    report: Callable[[str], None]

    @property
    def results_folder(self) -> Path:
        """Where SEA-HELM keeps the runs of this model: under the last part of its name."""
        return self.folder / "runs" / self.model.rpartition("/")[2]

    def results(self, run: int) -> Results:
        """What there is of a run."""
        return read_run(self.results_folder / f"run_{run}", self.catalogue, self.chosen)


def interpreter(checkout: Path, python: Path | None) -> Path:
    """SEA-HELM's interpreter: the given one, or that of a virtual environment in the checkout.

    Raises:
        ConfigError: there is none.
    """
    for place in [python] if python is not None else [checkout / name for name in _USUAL_PYTHONS]:
        if place.is_file():
            return place.absolute()  # not resolved: a virtual environment's python is a link out of it
    if python is not None:
        raise ConfigError(f"--seahelm-python {python}: no such file")
    raise ConfigError(
        f"{checkout}: has no {_USUAL_PYTHONS[0]}; SEA-HELM needs an environment of its own: name its interpreter "
        "with --seahelm-python"
    )


def check(plan: Plan) -> dict[str, Any]:
    """Import SEA-HELM in its interpreter, before any model is loaded.

    Returns:
        `versions`, and `without`: packages for which an empty module stands in.

    Raises:
        EnvironmentFault: it cannot be imported; with the last lines.
    """
    log = plan.folder / "logs" / "check.log"
    log.unlink(missing_ok=True)
    process = processes.start([str(plan.python), str(SCRIPT), "check"], log, cwd=plan.catalogue.checkout)
    try:
        code = process.wait(CHECK_TIMEOUT)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        processes.stop(process)
    if code != 0:
        what = f"did not finish in {CHECK_TIMEOUT:.0f} s" if code is None else "failed"
        raise EnvironmentFault(
            f"importing SEA-HELM with {plan.python} {what}; see docs/seahelm.md for what it needs. {log} ends:\n"
            f"{processes.last_lines(log)}"
        )
    found: dict[str, Any] = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    _written(plan.folder / CHECKED, found)
    return found


def run_all(plan: Plan, seeds: Sequence[int], server: Served) -> tuple[dict[int, Results], dict[str, Any]]:
    """Every seed that is not complete.

    Args:
        plan: What is run.
        seeds: One run each.
        server: Started at the first seed that needs it.

    Returns:
        The results by seed, and what `check` says, or said when they were made.

    Raises:
        ConfigError: the folder holds results under other settings.
        EnvironmentFault: the server or SEA-HELM ended early.
    """
    numbers = run_numbers(plan, seeds)
    facts: dict[str, Any] = {}
    for place, seed in enumerate(seeds, start=1):
        run, words = numbers[seed], f"SEA-HELM {place}/{len(seeds)}, seed {seed}"
        if not missing(plan.results(run)):
            plan.report(f"{words}: complete, read from {plan.results_folder / f'run_{run}'}")
            continue
        facts = facts or check(plan)
        plan.report(f"{words}: asking")
        drive(plan, run, seed, server, words)
    facts = facts or _known(plan.folder / CHECKED, {"versions"}) or {}
    return {seed: plan.results(numbers[seed]) for seed in seeds}, facts


def run_numbers(plan: Plan, seeds: Sequence[int]) -> dict[int, int]:
    """SEA-HELM's number of run for each seed; a new seed gets the next free number, an old one keeps its own.

    SEA-HELM files answers under the number and takes them up again whatever the seed: a number must never change its
    seed, nor a folder its settings.

    Raises:
        ConfigError: the folder was made under other settings.
    """
    file = plan.folder / SETTINGS
    known = _known(file, {"settings", "runs"}) or {"settings": plan.settings, "runs": {}}
    settings = json.loads(json.dumps(plan.settings))
    if other := [key for key in settings if known["settings"].get(key) != settings[key]]:
        key = other[0]
        raise ConfigError(
            f"{plan.folder}: holds results with {key} = {json.dumps(known['settings'].get(key))}, and this run has "
            f"{json.dumps(settings[key])}; name another --output, or delete the folder"
        )
    runs = {int(seed): int(run) for seed, run in known["runs"].items()}
    for seed in seeds:
        runs.setdefault(seed, max(runs.values(), default=-1) + 1)
    _written(file, {"settings": settings, "runs": {str(seed): run for seed, run in runs.items()}})
    return runs


def drive(plan: Plan, run: int, seed: int, server: Served, words: str) -> None:
    """One run of SEA-HELM, ended at once when the server dies: alone it would retry for hours and write zeros.

    Raises:
        EnvironmentFault: the server died, or SEA-HELM ended before it had a word on every task.
    """
    url = server.up()
    file = plan.folder / "requests" / f"run_{run}.json"
    asked = request(plan, run, seed, url)
    log = plan.folder / "logs" / f"run_{run}.log"
    process = processes.start(
        [str(plan.python), str(SCRIPT), "run", str(_written(file, asked))], log, cwd=plan.catalogue.checkout
    )
    released, stopped = Path(asked["released"]), Path(asked["stopped"])
    try:
        done = 0
        while process.poll() is None:
            if released.exists() and not stopped.exists():  # its own judge comes next, and wants the memory
                server.stop()
                stopped.touch()
            if not released.exists() and (why := server.trouble()) is not None:
                processes.stop(process)
                raise EnvironmentFault(f"the model's server is gone: {why}; SEA-HELM was stopped. {server.words()}")
            done = _tell(plan, run, words, done)
            time.sleep(POLL)
    finally:
        processes.stop(process)
    _tell(plan, run, words, done)
    if process.returncode != 0 and untouched(plan.results(run)):
        raise EnvironmentFault(
            f"SEA-HELM ended with code {process.returncode} before it was through; {log} ends:\n"
            f"{processes.last_lines(log)}"
        )


def request(plan: Plan, run: int, seed: int, url: str) -> dict[str, Any]:
    """What `inside.py` reads; writes the file of tasks beside it."""
    place = plan.folder / "requests"
    tasks, marks = place / f"run_{run}.tasks.yaml", [place / f"run_{run}.{name}" for name in ("released", "stopped")]
    for mark in marks:
        mark.unlink(missing_ok=True)
    content = {SET: {language: list(names) for language, names in plan.chosen.items()}}
    return {
        "set": SET,
        "tasks_file": str(_written(tasks, content)),  # JSON is YAML
        "output_dir": str(plan.results_folder.parent),
        "model_name": plan.model,
        "base_url": url,
        "api_key": "none",
        "max_workers": plan.workers,
        "run": run,
        "seed": seed,
        "limit": plan.limit,
        "released": str(marks[0]),
        "stopped": str(marks[1]),
    }


def _known(file: Path, keys: set[str]) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except ValueError as error:
        raise DataError(f"{file}: is not JSON: {error}; delete the folder") from error
    return content if isinstance(content, dict) and keys <= set(content) else None


def _written(file: Path, content: Mapping[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return file


def _tell(plan: Plan, run: int, words: str, before: int) -> int:
    """Report how many tasks are through, when it is more than before."""
    content = newest_results(plan.results_folder / f"run_{run}")
    tasks = plan.catalogue.tasks
    places = [(code, tasks[name].competency, name) for code, names in plan.chosen.items() for name in names]
    done = sum(name in content.get(code, {}).get(competency, {}) for code, competency, name in places)
    if done > before:
        plan.report(f"{words}: {done} of {len(places)} tasks")
    return max(done, before)
