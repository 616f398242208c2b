"""`benchmark.json` of a run as scores and as words. Nothing in it is trusted to be there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dudi.objective.methods import METHODS
from dudi.report.run_folder import RunFolder, number
from dudi.report.wording import DASH, in_order, said, whole_percent

SUBJECTS = ("floor", "base", "cold_start", "student", "teacher")
"""Who answers, in the order of the tables; `floor` guesses."""
_SHORT_FINGERPRINT = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """The scores of one run.

    Attributes:
        run: The run.
        scores: By subject, as `dudi.evaluation.summary.summarise` returns them.
        how: What was asked and how, as `dudi.evaluation.benchmark.described` returns it.
        method: What trained the student; an empty text when nobody wrote it down.
    """

    run: RunFolder
    scores: Mapping[str, Any]
    how: Mapping[str, Any]
    method: str

    @property
    def subjects(self) -> list[str]:
        """Who answered, in the order of the tables."""
        return [*(name for name in SUBJECTS if name in self.scores), *(n for n in self.scores if n not in SUBJECTS)]

    @property
    def before(self) -> str | None:
        """What the student was before its method."""
        from dudi.evaluation.table import before_method

        return before_method(self.scores)

    @property
    def languages(self) -> list[str]:
        """The languages in which the student was asked."""
        return in_order(_mapping(_mapping(self.scores.get("student")).get("by_language")))

    def value(self, metric: str, subject: str, *place: str) -> float | None:
        """A score, such as `value("exact_match", "student", "by_split", "seen")`; None where it is missing."""
        inside = self.scores
        for key in (subject, *place):
            inside = _mapping(inside.get(key))
        return number(inside.get(metric))

    def exact(self, subject: str, *place: str) -> str:
        """Exact match in %, a dash where it is missing."""
        return whole_percent(self.value("exact_match", subject, *place))

    def title(self, subject: str) -> str:
        """What a table calls a subject."""
        from dudi.evaluation.table import TITLES  # late: a report without a benchmark needs no CLDR

        return f"{self.method} student".strip() if subject == "student" else TITLES.get(subject, subject)


def result_of(run: RunFolder) -> Result | None:
    """The run's scores; None when `benchmark.json` is missing or holds none of a student."""
    result = Result(
        run=run,
        scores=_mapping(run.benchmark.get("scores")),
        how=_mapping(run.benchmark.get("benchmark")),
        method=str(run.benchmark.get("method") or run.value("method") or ""),
    )
    return result if result.languages else None


def asks(run: RunFolder) -> bool:
    """Whether the recipe has a section `benchmark`."""
    return bool(run.value("benchmark"))


def in_words(result: Result) -> str:
    """Two sentences: how the student was trained, and what it answers now."""
    return f"{_trained(result)} {_answers(result)}"


def described(result: Result) -> tuple[tuple[str, str], ...]:
    """(name, value): what was asked, and how."""
    how, decoding = result.how, _mapping(result.how.get("decoding"))
    tasks, temperature = how.get("tasks"), decoding.get("temperature")
    chosen = "greedy" if number(temperature) == 0 else f"temperature {said(temperature)}"
    return (
        ("benchmark", f"{said(how.get('name'))}, part {said(how.get('part'))}"),
        ("tasks", ", ".join(map(str, tasks)) if isinstance(tasks, list) and tasks else DASH),
        ("questions", said(how.get("questions"))),
        ("fingerprint (SHA-256, short)", said(how.get("fingerprint"))[:_SHORT_FINGERPRINT]),
        ("decoding", f"{chosen}, at most {said(decoding.get('max_new_tokens'))} new tokens"),
        ("versions", f"CLDR {said(how.get('cldr_version'))}, Babel {said(how.get('babel_version'))}"),
    )


def _trained(result: Result) -> str:
    count = len(_mapping(result.run.data.get("rows"))) or len(result.languages)
    where = "1 language" if count == 1 else f"{count} languages"
    method = METHODS.get(str(result.run.value("method")))
    if _uses_teacher(result.run):
        return f"The student learned from the teacher in {where}."
    if method is not None and method.teacher == "ema":
        return f"The student learned from its own moving average in {where}."
    return f"The student was trained in {where}{'' if method is None else ', without a teacher'}."


def _uses_teacher(run: RunFolder) -> bool:
    """Whether a second model gave signals or wrote targets, as far as the recipe says."""
    method = METHODS.get(str(run.value("method")))
    return method is not None and (method.teacher == "model" or run.value("targets") == "teacher")


def _answers(result: Result) -> str:
    exact = {name: result.exact(name, "overall") for name in SUBJECTS}
    shares = {name: f"{share}%" for name, share in exact.items() if share != DASH}
    count = result.value("questions", "student", "overall")
    asked = "the questions" if count is None else f"{count:.0f} questions"
    beside = []
    if result.before in shares:
        beside.append(f"before ({result.title(result.before)}) it answered {shares[result.before]}")
    if "floor" in shares:
        beside.append(f"guessing gives {shares['floor']}")
    if "teacher" in shares:
        unused = "" if _uses_teacher(result.run) else ", which this method does not use, answers"
        beside.append(f"the teacher{unused} {shares['teacher']}")
    parts = [f"In this one run it answers {shares.get('student', DASH)} of {asked} exactly", ", ".join(beside)]
    return "; ".join(filter(None, parts)) + "."


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
