"""What a study's jobs found: read from the runs, kept in one file that stands in the repository."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.comparison.packed import pack
from dudi.distill.stages.cold_start import COLD_START
from dudi.evaluation.metrics import ACCURACY, METRICS, OVERALL, metric_of
from dudi.evaluation.records import ANSWERS, STUDENT, Evaluation, SeedScores, read_evaluations, write_evaluations
from dudi.evaluation.records import FILE as SCORES
from dudi.study.grid import Study, StudyRow
from dudi.study.jobs import FLOPS, AnyJob, Job, cost_job, every_job, job_of
from dudi.study.stacks import StackJob
from dudi.training.runlog import read_jsonl

FILE = "study.json"
SECONDS_FILE = "seconds.json"
BASE, TEACHER = "base", "teacher"
METRIC = "exact_match"
"""Of students on a benchmark that has it, and of stacks."""
Results = Mapping[tuple[str, str], Evaluation]
"""By job id and subject."""

CURVES = ("overlap@16", "student_entropy", "teacher_entropy", "rollout/wrong_language_rate")
_TOLD = ("parameters", "versions", "seconds")
CURVE_POINTS = 24
"""A curve is kept as the means of this many neighbouring groups of steps."""


def collect(studies: Sequence[Study], runs: Path, file: Path) -> dict[tuple[str, str], Evaluation]:
    """The results of all jobs of some studies; those of the runs win over those of `study.json`. None need exist."""
    known = read(file)
    found: dict[tuple[str, str], Evaluation] = {}
    for job in every_job(studies):
        there = of_stack(job, runs) if isinstance(job, StackJob) else of_run(job, runs / job.id)
        for subject in job.subjects:
            place = job.id, subject
            if subject in there or place in known:
                found[place] = there.get(subject) or known[place]
    return found


def write(results: Results, file: Path) -> None:
    """Write `study.json`: a line per result, so that a difference shows which. Results of other studies stay in it."""
    write_evaluations((read(file) | dict(results)).values(), file, a_line_each=True)


def read(file: Path) -> dict[tuple[str, str], Evaluation]:
    """What `study.json` holds; nothing where there is none.

    Raises:
        DataError: it is there and cannot be read.
    """
    found = read_evaluations(file) if file.is_file() else []
    return {(str(one.about.get("job")), one.subject): one for one in found}


def of_run(job: Job, folder: Path) -> dict[str, Evaluation]:
    """What a run's folder says of a job's subjects, without what no table shows."""
    if not (folder / SCORES).is_file():
        return {}
    records = read_jsonl(folder / "metrics.jsonl")
    cold = [record for record in records if record.get("stage") == COLD_START]
    own = [record for record in records if record.get("stage") != COLD_START]
    clocks = _clocks(folder)
    answers = read_jsonl(folder / ANSWERS)
    row = {"job": job.id, "recipe": Path(job.recipe).name, "words": list(job.words)}
    found = {}
    for one in read_evaluations(folder / SCORES):
        if one.subject not in job.subjects:
            continue
        told = (*_TOLD, "guessing") if one.subject == BASE else _TOLD  # the same for all that were asked
        about = row | {key: one.about[key] for key in told if key in one.about}
        if one.subject in (COLD_START, STUDENT):
            stage = own if one.subject == STUDENT else cold
            about["steps"] = {COLD_START: len(cold), STUDENT: len(own)}
            about["training"] = clocks.get(one.subject)
            about["curves"] = {}
            for name in CURVES:
                values = [record.get(name) for record in stage]
                if set(values) - {None}:
                    about["curves"][name] = _shortened(values)
        runs = tuple(SeedScores(run.seed, _kept(run.scores, METRIC)) for run in one.runs)
        about["answers"] = _packed([line for line in answers if line.get("subject") == one.subject], one)
        model = "" if Path(one.model).is_relative_to(folder) else one.model  # a path of this machine, and not kept
        found[one.subject] = dataclasses.replace(one, model=model, runs=runs, about=about)
    return found


def _clocks(folder: Path) -> dict[str, Any]:
    """What `SECONDS_FILE` says; nothing of runs that a shell's lines made."""
    file = folder / SECONDS_FILE
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def of_stack(job: StackJob, runs: Path) -> dict[str, Evaluation]:
    """What the folder of a row that is a stack says: its answers packed, all clocks, and how near Stage 1 came."""
    folder = runs / job.id
    if not (folder / SCORES).is_file():
        return {}
    one = next(one for one in read_evaluations(folder / SCORES) if one.name == STUDENT)
    clocks = [clock for stage in job.stages if (clock := _clocks(runs / stage.id))]
    (spent,) = one.about["seconds_per_row"]
    training = {kind: round(sum(clock[kind] for clock in clocks), 2) for kind in clocks[0]} if clocks else None
    about = {
        "job": job.id,
        "recipe": Path(job.recipe).name,
        "words": list(job.words),
        "versions": one.about["versions"],
        "seconds": round(one.benchmark["questions"] * sum(spent.values()), 2),
        "a_row": {part: round(seconds, 6) for part, seconds in spent.items()},
        "alignment": _alignment(job, runs),
        "training": training,
        "answers": pack(read_jsonl(folder / ANSWERS), ACCURACY),
    }
    kept = tuple(SeedScores(run.seed, _kept(run.scores, ACCURACY)) for run in one.runs)
    # No model: it is a path of this machine.
    return {STUDENT: Evaluation(job.like, "", one.benchmark, kept, about, STUDENT)}


def _alignment(job: StackJob, runs: Path) -> dict[str, dict[str, float]]:
    """FVU and cosine of each language at the end of Stage 1; nothing without parallel rows, or without that stage."""
    for stage in job.stages:
        for record in reversed(read_jsonl(runs / stage.id / "metrics.jsonl") if stage.verb == "align" else []):
            found: dict[str, dict[str, float]] = {}
            for code in (key.partition("/")[2] for key in record if key.startswith("fvu/")):
                found[code] = {name: round(record[f"{name}/{code}"], 3) for name in ("fvu", "cosine")}
            if found:
                return found
    return {}


def _packed(lines: Sequence[Mapping[str, Any]], one: Evaluation) -> list[dict[str, Any]]:
    """The answers in each metric that a table can show."""
    found = one.runs[0].scores.get(OVERALL, {})
    metrics = [METRIC] if METRIC in found else [name for name in METRICS if name in found]
    return [own for metric in metrics if (own := pack(lines, metric))["cells"]]


def _kept(scores: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """All metrics overall, and the one of the tables everywhere else: a page of results should be readable.

    Of a benchmark without that one, such as tasks of lm_eval, all of them everywhere.
    """
    every = scores.get(OVERALL, {})
    alone = every.get(metric) is not None

    def inside(tree: Mapping[str, Any]) -> dict[str, Any]:
        if "questions" in tree:
            names = [metric] if alone else [name for name in METRICS if name in every]
            return {name: round(tree[name], 5) for name in names if tree.get(name) is not None}
        return {name: inside(own) for name, own in tree.items()}

    return {name: inside(own) if name.startswith("by_") else own for name, own in scores.items()}


def _shortened(values: Sequence[float | None]) -> list[float | None]:
    """Means of `CURVE_POINTS` groups of neighbours; None where a group has no value."""
    means: list[float | None] = []
    count = min(CURVE_POINTS, len(values))
    for i in range(count):
        begin, end = len(values) * i // count, len(values) * (i + 1) // count
        own = [value for value in values[begin:end] if value is not None]
        means.append(round(sum(own) / len(own), 5) if own else None)
    return means


def results_of(study: Study, row: StudyRow, results: Results) -> list[Evaluation]:
    """A row's results over the seeds, those that are there."""
    places = ((job_of(study, row, seed).id, row.score) for seed in range(study.seeds))
    return [results[place] for place in places if place in results]


def overall(study: Study, row: StudyRow, results: Results) -> list[float]:
    """A row's scores over the seeds in what its study shows first, in the shown unit."""
    metric = metric_of(study.shown[0])
    found = (one.values(metric.name, OVERALL) for one in results_of(study, row, results))
    return [metric.scale * value for values in found for value in values]


def evaluations(study: Study, results: Results) -> list[Evaluation]:
    """A study's rows as evaluations, a run per seed, with their answers where all seeds have brought theirs.

    A row that was not run has no runs.
    """
    by_row = {row.name: results_of(study, row, results) for row in study.rows}
    asked: Mapping[str, Any] = next((own[0].benchmark for own in by_row.values() if own), {})
    found = []
    for name, own in by_row.items():
        parts = tuple(own) if all("answers" in one.about for one in own) else ()
        about = {"answers": parts[0].about["answers"]} if len(parts) == 1 else {}  # one model is tested by question
        runs = tuple(run for one in own for run in one.runs)
        found.append(Evaluation(name, name, asked, runs, about, parts=parts))
    return found


def references(study: Study, results: Results) -> list[Evaluation]:
    """Guessing, the base student and the teacher of a study's first row."""
    job = job_of(study, study.rows[0], 0)
    base, teacher = (results.get((job.id, subject)) for subject in (BASE, TEACHER))
    found = []
    if base is not None and (guessing := base.guessing()) is not None:
        found.append(dataclasses.replace(guessing, name="guessing"))
    if base is not None:
        found.append(dataclasses.replace(base, name="base student"))
    return found if teacher is None else [*found, teacher]


def flops_of(study: Study, row: StudyRow, results: Results) -> tuple[float | None, float | None, float | None]:
    """FLOPs of a step of a row's own stage, of that stage, and of both; None where it was not counted.

    What a stage costs once, before its first step, is in it.
    """
    counted, scores = results.get((cost_job(study, row).id, FLOPS)), results_of(study, row, results)
    if counted is None or not scores:
        return None, None, None
    steps = scores[0].about["steps"]
    whole: dict[str, float] = {}
    for stage in (stage for stage in (COLD_START, STUDENT) if counted.values("per_step", stage)):
        before, step = (counted.values(name, stage)[0] for name in ("before", "per_step"))
        whole[stage] = before + steps[stage] * step
    per_step = counted.values("per_step", row.score)
    if row.score == COLD_START:
        whole.pop(STUDENT, None)
    known = not steps[COLD_START] or COLD_START in whole
    return per_step[0] if per_step else None, whole.get(row.score), sum(whole.values()) if known else None


def expected_seconds(left: Iterable[AnyJob], results: Results) -> float:
    """Seconds of one core that some jobs will take: the median of what others of the same method took, as far as known.

    A cold start that several share is trained once and not told here, nor are FLOPs, which take half a minute. Stages
    that stacks share are told with each of them.
    """
    known: dict[str, list[float]] = {}
    for one in results.values():
        training = one.about.get("training") or {"wall": 0.0}
        spent = training["wall"] + one.about.get("seconds", 0.0)
        known.setdefault(one.name if one.subject == STUDENT else one.subject, []).append(spent)
    asked = [job.like if who == STUDENT else who for job in left for who in job.subjects]
    return sum(statistics.median(known[name]) for name in asked if name in known)
