"""The real SEA-HELM over several seeds, as a subprocess in its own environment, resumed where it stopped."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError, DataError, EnvironmentFault
from dudi.evaluation.records import Evaluation, SeedScores, keep_evaluations
from dudi.evaluation.seahelm import NAME, processes
from dudi.evaluation.seahelm.catalogue import Catalogue, fingerprint
from dudi.evaluation.seahelm.results import NEVER, answer_errors, missing, read_run
from dudi.evaluation.seahelm.server import Server
from dudi.evaluation.seahelm.totals import COMPETENCIES, scores
from dudi.files import write_json

SCRIPT = Path(__file__).with_name("inside.py")
SET, POLL = "dudi", 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeaHelm:
    """SEA-HELM on one model.

    Attributes:
        server: The model's; it is watched, and stopped at the end where it is ours.
        chosen: Tasks by language, of `catalogue.select`.
        python: SEA-HELM's interpreter.
        output: Takes `evaluation.json`, and `seahelm/` with SEA-HELM's own files, which a second call takes up again.
        limit: Examples per task; None: all.
        workers: Requests at a time.
        count_all: Count every competency in the totals, not the paper's seven only.
    """

    server: Server
    catalogue: Catalogue
    chosen: Mapping[str, Sequence[str]]
    python: Path
    output: Path
    limit: int | None = None
    workers: int = 64
    count_all: bool = False

    @property
    def folder(self) -> Path:
        return (self.output / NAME).absolute()

    def evaluate(self, name: str, seeds: Sequence[int] = (0,)) -> Evaluation:
        """Run it once for each seed that is not complete, and read what it wrote.

        Returns:
            The evaluation, as written. Its metric is `score`, 0 to 100; a missing task is None and listed in `about`.

        Raises:
            ConfigError: `output` holds results under other settings.
            EnvironmentFault: the server or SEA-HELM ended early; with the last lines. Nothing is left running.
        """
        numbers = self._numbers(seeds)
        place = self.folder / "runs" / self.server.model.rpartition("/")[2]  # as SEA-HELM names it
        folders = {seed: place / f"run_{numbers[seed]}" for seed in sorted(seeds)}
        try:
            for seed in seeds:
                if missing(read_run(folders[seed], self.catalogue, self.chosen)):
                    self._drive(numbers[seed], seed, folders[seed])
        finally:
            self.server.stop()
        by_seed = {seed: read_run(folder, self.catalogue, self.chosen) for seed, folder in folders.items()}
        lost = {str(seed): found for seed, results in by_seed.items() if (found := missing(results))}
        wrong = {str(seed): count for seed, folder in folders.items() if (count := answer_errors(folder))}
        competencies = (self.catalogue.tasks[task].competency for own in self.chosen.values() for task in own)
        counted = list(dict.fromkeys(competencies if self.count_all else COMPETENCIES))
        benchmark = {
            "name": NAME,
            "version": self.catalogue.version,
            "fingerprint": fingerprint(self.catalogue.checkout),
            "tasks": self.chosen,
            "limit": self.limit,
            "counted": counted,
            "decoding": self.server.decoding,
        }
        if lost:  # totals over other tasks do not compare
            benchmark["missing"] = sorted({one for own in lost.values() for one in own})
        about = {**_read(self.folder / "facts.json"), "missing": lost, "answer_errors": wrong}
        runs = tuple(SeedScores(seed, scores(results, self.catalogue, counted)) for seed, results in by_seed.items())
        evaluation = Evaluation(name, self.server.model, benchmark, runs, about)
        keep_evaluations([evaluation], [], self.output)
        return evaluation

    def _numbers(self, seeds: Sequence[int]) -> dict[int, int]:
        """SEA-HELM's number of run for each seed; a new seed gets the next free number, an old one keeps its own.

        SEA-HELM files answers under the number and takes them up again whatever the seed: a number must never change
        its seed, nor a folder its settings.
        """
        settings: dict[str, Any] = {"model": self.server.model, "code": fingerprint(self.catalogue.checkout)}
        settings = json.loads(json.dumps({**settings, "limit": self.limit, "decoding": self.server.decoding}))
        file = self.folder / "settings.json"
        known = _read(file) or {"settings": settings, "runs": {}}
        for key, value in settings.items():
            if (old := known["settings"].get(key)) != value:
                what = f"holds results with {key} = {json.dumps(old)}, and this run has {json.dumps(value)}"
                raise ConfigError(f"{self.folder}: {what}; name another --output, or delete the folder")
        runs = {int(seed): int(run) for seed, run in known["runs"].items()}
        for seed in seeds:
            runs.setdefault(seed, max(runs.values(), default=-1) + 1)
        write_json(file, {"settings": settings, "runs": {str(seed): run for seed, run in runs.items()}})
        return runs

    def _drive(self, run: int, seed: int, folder: Path) -> None:
        """One run, ended at once when the server dies: alone SEA-HELM would retry for hours and write zeros."""
        log, place = self.folder / "logs" / f"run_{run}.log", self.folder / "requests"
        log.unlink(missing_ok=True)
        request = {
            "set": SET,
            "tasks_file": str(write_json(place / f"run_{run}.tasks.yaml", {SET: self.chosen})),  # JSON is YAML
            "output_dir": str(self.folder / "runs"),
            "model_name": self.server.model,
            "base_url": self.server.up(),
            "max_workers": self.workers,
            "run": run,
            "seed": seed,
            "limit": self.limit,
            "facts": str(self.folder / "facts.json"),
        }
        words = [str(self.python), str(SCRIPT), str(write_json(place / f"run_{run}.json", request))]
        process = processes.start(words, log, cwd=self.catalogue.checkout)
        try:
            while process.poll() is None:
                if (why := self.server.trouble()) is not None:
                    what = f"the model's server is gone: {why}; SEA-HELM was stopped"
                    raise EnvironmentFault(f"{what}.{self.server.end()}")
                time.sleep(POLL)
        finally:
            processes.stop(process)
        if process.returncode != 0 and NEVER in missing(read_run(folder, self.catalogue, self.chosen)).values():
            raise EnvironmentFault(
                f"SEA-HELM ended with {processes.ending(process.returncode)} before it was through (docs/seahelm.md "
                f"says what it needs); {log} ends:\n{processes.last_lines(log)}"
            )


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise DataError(f"{file}: is not JSON: {error}; delete the folder") from error
    return found
