"""`dudi study run` and `dudi study report`."""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.command import output_folder, say, whole_number
from dudi.errors import ConfigError, EnvironmentFault
from dudi.evaluation.metrics import OVERALL, metric_of
from dudi.files import write_text
from dudi.study.grid import Study, read_studies, shipped_studies
from dudi.study.stacks import StackVerbs
from dudi.tables import terminal
from dudi.training.lock import FolderLock

RUNS, OUTPUT = Path("runs/study"), Path("docs/results")


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """Words of `dudi study run`."""
    report_arguments(parser)
    add = parser.add_argument
    add("--seeds", type=whole_number(1), metavar="N", help="at most this many of each table (default: all)")
    add("--jobs", type=whole_number(1), metavar="N", help="runs at a time (default: cores / threads)")
    add("--threads", type=whole_number(1), default=1, metavar="N", help="threads of each run (default: 1)")
    add("--keep-models", action="store_true", help="leave the weights of every run on the disk")
    add("--again", action="store_true", help="also run what `study.json` of the output folder already holds")
    add("--dry-run", action="store_true", help="print what would run, and its cost")
    add("--print", action="store_true", help="print the lines that make each run that is missing, for a cluster")


def report_arguments(parser: argparse.ArgumentParser) -> None:
    """Words of `dudi study report`."""
    parser.usage = "%(prog)s [STUDY.yaml ...] [key=value ...] [options]"
    add = parser.add_argument
    add("studies", nargs="*", metavar="STUDY.yaml", help="default: all of recipes/study/; key=value: for every row")
    add("--runs", type=output_folder, default=RUNS, metavar="DIR", help="where runs lie (default: %(default)s)")
    add("--output", type=output_folder, default=OUTPUT, metavar="DIR", help="default: %(default)s")


def _read(given: argparse.Namespace) -> list[Study]:
    """The studies that are named, under the words that are given."""
    words = [word for word in given.studies if "=" in word and not Path(word).exists()]
    studies = read_studies([Path(word) for word in given.studies if word not in words], words)
    if words:
        from dudi.study.stacks import check_words

        check_words(studies, words)
    return studies


def run_studies(given: argparse.Namespace, stack_verb: StackVerbs, studies: Sequence[Study] | None = None) -> int:
    """Run what is missing of some studies, in order, and write the page after each table.

    Args:
        given: The words of `dudi study run`.
        stack_verb: What runs the stages of stacks: a function of a module, since it goes to other processes.
        studies: The tables; None: those that the words name.

    Raises:
        ConfigError: a study cannot be read, a row lacks a model, or rows that a study of stacks reads are not there.
        EnvironmentFault: some runs failed; the others are done.
    """
    from dudi.study import stacks
    from dudi.study.jobs import check_teachers, every_job, missing
    from dudi.study.results import FILE, collect, expected_seconds, read
    from dudi.study.scheduler import run_jobs

    studies = _read(given) if studies is None else studies
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    at_once = given.jobs or max(1, cores // given.threads)
    jobs = every_job(studies, given.seeds)
    known = set() if given.again else set(read(given.output / FILE))
    left = missing(jobs, given.runs, known)
    if given.print:
        return say("\n".join(dict.fromkeys(line for job in left for line in job.commands(given.runs))))
    unknown: dict[str, str] = {}
    for study in studies if left else ():
        if study.asked is None:
            check_teachers(study)
        else:
            unknown |= stacks.check_stages(study)
    for why in unknown.values():
        say(f"note: {why}")
    rows = _rows_by_job(studies) if left else {}
    minutes = expected_seconds(left, collect(studies, given.runs, given.output / FILE)) / 60
    scores = sum(min(given.seeds or study.seeds, study.seeds) * len(study.rows) for study in studies)
    takes = f": about {minutes:.0f} minutes of one core, {minutes / at_once:.0f} with {at_once} at a time"
    tables = "1 table" if len(studies) == 1 else f"{len(studies)} tables"
    say(
        f"{tables}, {scores} scores from {len(jobs)} jobs (what several rows share runs once); "
        f"{len(jobs) - len(left)} are done, {len(left)} are left{takes if minutes else ''}"
    )
    stacked = [job for job in left if isinstance(job, stacks.StackJob)]
    if stages := {stage for job in stacked for stage in job.stages}:
        trained = sum(stage.is_trained(given.runs) for stage in stages)
        say(f"stacks: {len(stages)} stages, each trained once; {trained} are done")
    if given.dry_run:
        if stages:
            from dudi.study.stack_costs import stages_grid

            say(f"\n{terminal(stages_grid(stacked, rows))}")
        return say("dry run: nothing was run")
    failed = []
    with FolderLock(given.runs):  # two of them would write the same results over each other
        for study in studies:
            own = missing(every_job([study], given.seeds), given.runs, known)
            if not own:
                continue
            say(f"{study.title}: {len(own)} jobs")
            told = _teller(len(own), study.shown[0], rows)
            how: dict[str, Any] = {"at_once": at_once, "threads": given.threads, "keep_models": given.keep_models}
            failed += run_jobs(own, given.runs, **how, told=told, verbs=stack_verb)
            write_report(shown(studies), given.runs, given.output)
    if not left:
        write_report(shown(studies), given.runs, given.output)
    if failed:
        names = ", ".join(str(given.runs / job.id / "log.txt") for job in failed[:3])
        raise EnvironmentFault(f"{len(failed)} of {len(left)} jobs did not finish; see {names}")
    return say(str(given.output / "study.md"))


def report(given: argparse.Namespace) -> int:
    """Write the page from what has been run, and from what the last page was written from.

    Raises:
        ConfigError: there are results of other studies alone; a page of dashes would stand over theirs.
    """
    studies = shown(_read(given))
    return say(str(write_report(studies, given.runs, given.output, keep_others=True)))


def shown(studies: Sequence[Study]) -> Sequence[Study]:
    """The tables of the page: all shipped ones where one of them was named, so that no other loses its place."""
    shipped = read_studies([])
    files = {study.file.resolve() for study in shipped}
    as_shipped = all(study.file.resolve() in files and not study.told for study in studies)
    return shipped if as_shipped else studies


def write_report(studies: Sequence[Study], runs: Path, output: Path, *, keep_others: bool = False) -> Path:
    """Write `study.md`, `study.json` and the figures into `output`; returns the page's path.

    Raises:
        ConfigError: with `keep_others`, it would be a page without any result over that of other studies.
    """
    from dudi.study.figures import write_figures
    from dudi.study.page import page
    from dudi.study.results import FILE, collect, read, write

    results = collect(studies, runs, output / FILE)
    if keep_others and not results and read(output / FILE):
        raise ConfigError(
            f"{output / FILE}: holds no result of these studies, and the page beside it is of others. A result "
            "belongs to the models and rows that its recipe names: are they here? Else name another --output"
        )
    write(results, output / FILE)
    write_figures(studies, results, output / "study")
    findings = output / "study" / "findings.md"
    text = findings.read_text(encoding="utf-8") if findings.is_file() else ""
    shipped = {file.resolve() for file in shipped_studies()}
    commands = ["dudi study run recipes/study/*.yaml", "dudi study report"]
    if any(study.file.resolve() not in shipped or study.told for study in studies):
        own = shlex.join([*(study.shown_file for study in studies), *studies[0].told, "--output", output.as_posix()])
        commands = [f"dudi study {verb} {own}" for verb in ("run", "report")]
    return write_text(output / "study.md", page(studies, results, findings=text, commands=commands))


def _rows_by_job(studies: Sequence[Study]) -> dict[str, list[str]]:
    """What the tables call each job: the rows that it gives a score, or whose FLOPs it counts."""
    from dudi.study.jobs import cost_job, job_of

    found: dict[str, dict[str, None]] = {}
    for study in studies:
        for row in study.rows:
            jobs = [job_of(study, row, seed) for seed in range(study.seeds)]
            for job in [*jobs, *([cost_job(study, row)] if study.cost else [])]:
                found.setdefault(job.id, {})[row.name] = None
    return {name: list(rows) for name, rows in found.items()}


def _teller(total: int, metric: str, rows: Mapping[str, Sequence[str]]) -> Callable[[Any, Any], None]:
    """Says a line for each job that ends, with its score in a metric, and how long the rest will take at this pace."""
    started, done = time.perf_counter(), itertools.count(1)

    def told(job: Any, found: Any) -> None:
        count = next(done)
        left = (time.perf_counter() - started) / count * (total - count) / 60
        failed = isinstance(found, BaseException)
        what = f"failed: {found}" if failed else ", ".join(_scored(one, metric) for one in found)
        say(f"[{count}/{total}] {', '.join(rows[job.id])}, seed {job.seed}: {what}  ({left:.0f} min left)")

    return told


def _scored(one: Any, metric: str) -> str:
    from dudi.study.jobs import FLOPS

    if one.subject == FLOPS:
        return f"{one.values('per_step', 'student')[0] / 1e9:.1f} GFLOP a step"
    shown = metric_of(metric)
    mean, _ = shown.shown(one.values(metric, OVERALL))
    return f"{one.subject} {mean} {shown.unit or shown.title}"
