"""The scores of a run on one benchmark, as numbers and as words. Nothing in them is trusted to be there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult

from dudi.evaluation.benchmarks import find
from dudi.evaluation.records import FLOOR, STUDENT, Evaluation, part_of
from dudi.evaluation.tables import CELLS, TITLES, before_method, by_subject, main_metric
from dudi.objective.methods import METHODS
from dudi.report.run_folder import RunFolder, number
from dudi.report.wording import in_order, said
from dudi.tables import DASH

SUBJECTS = (FLOOR, "base", "cold_start", STUDENT, "teacher")
"""Who answers, in the order of the tables; `floor` guesses."""
_SHORT_FINGERPRINT = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """The scores of one run by subject, guessing among them; `method` is empty where nobody wrote it down."""

    run: RunFolder
    evaluations: Mapping[str, Evaluation]
    method: str

    @property
    def how(self) -> Mapping[str, Any]:
        """What was asked and how."""
        return next((one.benchmark for one in self.evaluations.values()), {})

    @property
    def name(self) -> str:
        """The benchmark's."""
        return str(self.how.get("name") or "")

    @property
    def before(self) -> str | None:
        """What the student was before its method."""
        return before_method(self.evaluations)

    @property
    def languages(self) -> list[str]:
        """The languages in which the student was asked."""
        return in_order(part_of(self.scores(STUDENT), "by_language"))

    def scores(self, subject: str) -> Mapping[str, Any]:
        """A subject's scores, as a `Run` has them; empty where it was not asked."""
        found = self.evaluations.get(subject)
        return {} if found is None else found.runs[0].scores

    def value(self, metric: str, subject: str, *place: str) -> float | None:
        """A score, such as `value("exact_match", "student", "by_split", "seen")`; None where it is missing."""
        return number(part_of(self.scores(subject), *place).get(metric))

    def shown(self, metric: str, subject: str, *place: str, form: str = ".0f", scale: int = 100) -> str:
        """A score times `scale` as text, a dash where it is missing: as it stands here, a share in whole %."""
        value = self.value(metric, subject, *place)
        return DASH if value is None else format(scale * value, form)

    @property
    def has_cells(self) -> bool:
        """Whether there are tasks with metrics of their own, and not answers that were held against references."""
        return any(one.keys(CELLS) for one in self.evaluations.values())

    def title(self, subject: str) -> str:
        """What a table calls a subject."""
        return f"{self.method} student".strip() if subject == "student" else TITLES.get(subject, subject)


def result_of(run: RunFolder, benchmark: str | None = None) -> Result | None:
    """The run's scores on a benchmark (None: the first); None when `evaluation.json` is missing or has no student."""
    names = benchmarks_of([run])
    wanted = benchmark if benchmark is not None else next(iter(names), "")
    own = by_subject(one for one in run.scores if str(one.benchmark.get("name") or "") == wanted)
    method = own[STUDENT].about.get("method") if STUDENT in own else None
    result = Result(run, own, str(method or run.value("method") or ""))
    return result if result.languages else None


def benchmarks_of(runs: Iterable[RunFolder]) -> list[str]:
    """The names of what students were asked, in the order in which they come."""
    students = (one for run in runs for one in run.scores if one.subject == STUDENT)
    return list(dict.fromkeys(str(one.benchmark.get("name") or "") for one in students))


def results_of(run: RunFolder) -> list[Result]:
    """The run's scores on each benchmark."""
    results = (result_of(run, name) for name in benchmarks_of([run]))
    return [result for result in results if result is not None]


def in_words(result: Result) -> str:
    """Two sentences: how the student was trained, and what it answers now."""
    count = len(part_of(result.run.data, "rows")) or len(result.languages)
    where = "1 language" if count == 1 else f"{count} languages"
    method = METHODS.get(str(result.run.value("method")))
    trained = f"The student was trained in {where}{'' if method is None else ', without a teacher'}."
    if uses_teacher(result.run):
        trained = f"The student learned from the teacher in {where}."
    elif method is not None and method.teacher == "ema":
        trained = f"The student learned from its own moving average in {where}."
    return f"{trained} {_measures(result) if result.has_cells else _answers(result)}"


def described(how: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """(name, value): what was asked, and how, of an evaluation's `benchmark`."""
    decoding, entry = part_of(how, "decoding"), find(str(how.get("name") or ""))
    tasks, temperature = how.get("tasks"), decoding.get("temperature")
    chosen = "greedy" if number(temperature) == 0 else f"temperature {said(temperature)}"
    chosen += f", at most {said(decoding.get('max_new_tokens'))} new tokens"
    chosen = chosen if entry.how is None else entry.how(decoding, True)
    versions = [f"{name} {how[key]}" for key, name in entry.versions.items() if key in how]
    versions += [f"{entry.program} {said(how['version'])}"] if entry.program and "version" in how else []
    limit = number(how.get("limit"))
    return (
        ("benchmark", said(how.get("name")) + (f", part {how['part']}" if "part" in how else "")),
        ("tasks", ", ".join(map(str, tasks)) if isinstance(tasks, list) and tasks else DASH),
        ("questions", said(how.get("questions"))),
        *([("limit of each task", f"{limit:g}")] if limit else []),
        ("fingerprint (SHA-256, short)", said(how.get("fingerprint"))[:_SHORT_FINGERPRINT]),
        ("decoding", chosen),
        *([("versions", ", ".join(versions))] if versions else []),
    )


Asked = tuple[str, str | None, tuple[str, ...]]
"""Of scores for the hub: the data set, its part, and where a student's scores on it stand."""


def scores_for_hub(
    result: Result,
    task: str,
    asked: Iterable[Asked],
    metrics: Sequence[tuple[str, str, str]],
    split: str | None = None,
) -> list[EvalResult]:
    """The student's scores as the hub reads them; metrics are (key, the hub's name, title)."""
    found = []
    for data_set, config, place in asked:
        for key, kind, title in metrics:
            if (value := result.value(key, STUDENT, *place)) is not None:
                found.append(
                    EvalResult(
                        task_type=task,
                        dataset_type=data_set,
                        dataset_name=data_set,
                        dataset_config=config,
                        dataset_split=split,
                        metric_type=kind,
                        metric_name=title,
                        metric_value=round(value, 6),
                    )
                )
    return found


def uses_teacher(run: RunFolder) -> bool:
    """Whether a second model gave signals or wrote targets, as far as the recipe says."""
    method = METHODS.get(str(run.value("method")))
    return method is not None and (method.teacher == "model" or run.value("targets") == "teacher")


def _answers(result: Result) -> str:
    exact = {name: result.shown("exact_match", name, "overall") for name in SUBJECTS}
    shares = {name: f"{share}%" for name, share in exact.items() if share != DASH}
    count = result.value("questions", "student", "overall")
    asked = "the questions" if count is None else f"{count:.0f} questions"
    beside = []
    if result.before in shares:
        beside.append(f"before ({result.title(result.before)}) it answered {shares[result.before]}")
    if "floor" in shares:
        beside.append(f"guessing gives {shares['floor']}")
    if "teacher" in shares:
        unused = "" if uses_teacher(result.run) else ", which this method does not use, answers"
        beside.append(f"the teacher{unused} {shares['teacher']}")
    parts = [f"In this one run it answers {shares.get('student', DASH)} of {asked} exactly", ", ".join(beside)]
    return "; ".join(filter(None, parts)) + "."


def _measures(result: Result) -> str:
    metric = main_metric(result.evaluations[STUDENT], "overall")
    there = {name: result.value(metric.name, name, "overall") for name in SUBJECTS}
    shown = {name: metric.shown([value])[0] for name, value in there.items() if value is not None}
    beside = [f"{result.title(name)} {shown[name]}" for name in (result.before, "teacher") if name in shown]
    less = ", less is better" if metric.better < 0 else ""
    return f"{metric.title}{less}, mean of tasks: {'; '.join([shown.get(STUDENT, DASH), *beside])}."
