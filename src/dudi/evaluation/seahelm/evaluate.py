"""`dudi eval MODEL --benchmark seahelm`: its words, and what it does."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError
from dudi.evaluation.records import Evaluation, Run, write_evaluation
from dudi.evaluation.seahelm import processes, served, totals
from dudi.evaluation.seahelm.catalogue import DEFAULT_SET, Catalogue, fingerprint, read_catalogue, select
from dudi.evaluation.seahelm.driver import Plan, interpreter, run_all
from dudi.evaluation.seahelm.results import Results, missing
from dudi.evaluation.seahelm.server import GivenServer, LocalServer, Options, Served, versions

FOLDER = "seahelm"
WORKERS = {"vllm": 64, "transformers": 1}
"""Requests at a time. `transformers serve` seeds the process, not the request: only one at a time is repeatable."""


def evaluate_seahelm(
    model: str,
    *,
    checkout: Path,
    output: Path,
    python: Path | None = None,
    seeds: Sequence[int] = (0,),
    tasks: Sequence[str] = (DEFAULT_SET,),
    languages: Sequence[str] | None = None,
    skip_tasks: Sequence[str] = (),
    judges: bool = False,
    limit: int | None = None,
    name: str | None = None,
    server: Options | None = None,
    base_url: str | None = None,
    temperature: float | None = None,
    workers: int | None = None,
    count_all: bool = False,
    report: Callable[[str], None] | None = None,
) -> Evaluation:
    """Run the real SEA-HELM on a checkpoint, one run per seed, and read what it wrote.

    Args:
        model: A `from_pretrained` folder, a hub name, or, with `base_url`, the name that the server knows.
        checkout: A checkout of SEA-HELM.
        output: Takes `evaluation.json`, and `seahelm/` with SEA-HELM's own files, which a second call takes up again.
        python: SEA-HELM's interpreter; None: the virtual environment in the checkout.
        seeds: Sent with each request; one run each.
        tasks: Sets, groups and single tasks of SEA-HELM.
        languages: Only these.
        skip_tasks: Tasks and groups to leave out.
        judges: Whether to keep a set's tasks that another language model judges.
        limit: Examples per task; None: all.
        name: What tables call it; None: the folder's name.
        server: How the model is served.
        base_url: A server that runs already, with `/v1`; it is watched, and not stopped.
        temperature: In place of the checkpoint's own; 0 is greedy.
        workers: Requests at a time.
        count_all: Count every competency in the totals, not the paper's seven only.
        report: Takes lines of progress; None: stderr.

    Returns:
        The evaluation, as written. Its metric is `score`, 0 to 100; a missing task is None and listed in `about`.

    Raises:
        ConfigError: wrong folder, interpreter, task or language; or `output` holds results under other settings.
        EnvironmentFault: the server or SEA-HELM ended; with the last lines. Nothing is left running.
    """
    if not seeds or (limit is not None and limit < 1):
        raise ConfigError(f"SEA-HELM needs at least one seed and a limit of at least 1, got {list(seeds)} and {limit}")
    catalogue = read_catalogue(checkout)
    chosen = select(catalogue, tasks, languages, skip_tasks, judges)
    options, folder = server or Options(), (output / FOLDER).absolute()
    served_as, decoding = _served(model, options, base_url, temperature)
    counted = tuple(_all_competencies(catalogue, chosen)) if count_all else tuple(totals.COMPETENCIES)
    benchmark = {
        "name": FOLDER,
        "version": catalogue.version,
        "fingerprint": fingerprint(catalogue, chosen),
        "tasks": chosen,
        "limit": limit,
        "counted": list(counted),
        "decoding": decoding,
    }
    plan = Plan(
        catalogue=catalogue,
        chosen=chosen,
        python=interpreter(catalogue.checkout, python),
        model=served_as,
        folder=folder,
        limit=limit,
        workers=workers or WORKERS[options.kind],
        settings={"model": served_as, "code": fingerprint(catalogue, {}), "limit": limit, "decoding": decoding},
        report=report or _to_stderr,
    )
    with processes.ended_by_signals(), _serving(plan, model, options, base_url, temperature) as started:
        by_seed, facts = run_all(plan, seeds, started)
    lost = sorted({name for results in by_seed.values() for name in missing(results)})
    benchmark |= {"missing": lost} if lost else {}  # totals over other tasks do not compare
    if base_url is None:
        facts["server"] = versions(options)
    about = {**facts, "commit": _commit(catalogue.checkout), "served_as": served_as, **_lost(by_seed)}
    runs = tuple(Run(seed, totals.scores(by_seed[seed], catalogue, counted)) for seed in sorted(by_seed))
    evaluation = Evaluation(name or Path(model).name, model, benchmark, runs, about)
    write_evaluation(evaluation, output)
    return evaluation


def _served(
    model: str, options: Options, base_url: str | None, temperature: float | None
) -> tuple[str, dict[str, Any]]:
    """The model's name at the server, and what was told of its sampling."""
    if base_url is not None:
        if temperature is not None:
            raise ConfigError("--temperature: a server that runs already has its own sampling; start it with another")
        return model, {"server": "given", "sampling": "the server's own", "max_tokens": "of each task"}
    folder = served.checkpoint_folder(model)
    decoding = {
        "server": options.kind,
        "words": list(options.words),
        "dtype": options.dtype,
        "sampling": served.sampling(folder, temperature, options.kind),
        "max_tokens": "of each task",
    }
    return served.served_name(folder), decoding


@contextlib.contextmanager
def _serving(
    plan: Plan, model: str, options: Options, base_url: str | None, temperature: float | None
) -> Iterator[Served]:
    if base_url is not None:
        yield GivenServer(base_url, plan.model, options.patience)
        return
    generation = served.override(temperature, options.kind)
    place = served.view(served.checkpoint_folder(model), plan.model, plan.folder / "served", generation)
    log = plan.folder / "logs" / "server.log"
    with LocalServer(options, place, log) as server:
        yield server


def _lost(by_seed: dict[int, Results]) -> dict[str, Any]:
    """What is missing, and how many answers were errors, by seed; only seeds that lack something."""
    lost = {str(seed): missing(results) for seed, results in by_seed.items()}
    errors = {
        str(seed): sum(result.errors for own in results.values() for result in own.values())
        for seed, results in by_seed.items()
    }
    return {
        "missing": {seed: own for seed, own in lost.items() if own},
        "answer_errors": {seed: count for seed, count in errors.items() if count},
    }


def _all_competencies(catalogue: Catalogue, chosen: dict[str, list[str]]) -> list[str]:
    return list(dict.fromkeys(catalogue.tasks[name].competency for names in chosen.values() for name in names))


def _commit(checkout: Path) -> str | None:
    """The commit of the checkout; None where git cannot tell."""
    try:
        words = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
        answer = subprocess.run(words, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
