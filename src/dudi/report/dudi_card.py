"""What the card of a student says."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from dudi.evaluation.records import STUDENT, part_of
from dudi.evaluation.tables import CELLS
from dudi.languages.registry import LANGUAGES
from dudi.objective.methods import METHODS, Method
from dudi.report.facts import model_name, teacher_names, teachers_of
from dudi.report.language_figures import probe_grid
from dudi.report.licences import is_hub
from dudi.report.results import Asked, Result, results_of, scores_for_hub, uses_teacher
from dudi.report.run_folder import RunFolder, last
from dudi.report.samples import lang
from dudi.report.wording import in_order, plain_name, said
from dudi.tables import DASH

_TASK = "text-generation"
_SCORES = (
    ("exact_match", "exact_match", "Exact match"),
    ("in_language", "in_language", "Answers in the question's language"),
    ("chrf", "chrf", "chrF"),
    ("bits_per_byte", "bits_per_byte", "Bits per byte of the reference"),
)


def front_matter(run: RunFolder) -> ModelCardData:
    """What the hub reads, with the student's scores as `model-index`."""
    student, source = run.value("student.model"), str(run.value("data.train") or "").partition(":")[0]
    codes = [code for code in _codes(run) if lang(code) == code]  # the hub refuses anything else
    scores = [one for result in results_of(run) for one in _eval_results(result)]
    return ModelCardData(
        language=codes or None,
        license="other",
        library_name="transformers",
        base_model=student if is_hub(student) else None,
        datasets=[source] if is_hub(source) else None,
        pipeline_tag=_TASK,
        tags=["dudi", "distillation", *(name for name in METHODS if name == run.value("method"))],
        model_name=plain_name(run.name) or "student",
        eval_results=scores or None,
    )


def _eval_results(result: Result) -> list[EvalResult]:
    """The student's scores over all questions of a benchmark, and in each language; of tasks, each as a data set."""
    scores, codes = result.scores(STUDENT), [code for code in result.languages if lang(code) == code]
    if not result.has_cells:
        name, part = plain_name(result.name) or "benchmark", result.how.get("part")
        asked: list[Asked] = [(name, None, ("overall",)), *((name, code, ("by_language", code)) for code in codes)]
        return scores_for_hub(result, _TASK, asked, _SCORES, None if part is None else plain_name(part))
    metrics = []
    for key in part_of(scores, "overall"):
        if key != "questions":
            title = result.evaluations[STUDENT].metric(key).title.removesuffix(" in %")
            metrics.append((key, plain_name(key) or "metric", plain_name(title) or "metric"))
    asked = []
    for task in part_of(scores, "by_task"):
        name = plain_name(task) or "task"
        asked.append((name, None, ("by_task", task)))
        asked += [(name, code, (f"by_{CELLS}", code, task)) for code in codes]
    return scores_for_hub(result, _TASK, asked, metrics)


def content(run: RunFolder) -> dict[str, Any]:
    """What the template of a student's card is filled with."""
    method = METHODS.get(str(run.value("method")))
    teachers = teachers_of(run) if method is None or uses_teacher(run) else {}
    teacher = teacher_names(run) if teachers else "none"
    rows = part_of(run.data, "rows")
    named = {code: f"{LANGUAGES[code].name} ({code})" if code in LANGUAGES else code for code in _codes(run)}
    languages = [f"{name}: {rows[code]} rows" if code in rows else name for code, name in named.items()]
    total = sum(count for count in rows.values() if isinstance(count, int))
    held_out = sum(count for count in part_of(run.data, "probe").values() if isinstance(count, int))
    steps = last(run.stage(cold=False), "step")
    return {
        "method": method,
        "facts": [
            ("student", model_name(run.value("student"))),
            ("teacher", "the student's own moving average" if method and method.teacher == "ema" else teacher),
            ("optimizer steps", DASH if steps is None else int(steps)),
            *_chosen(run, method),
            ("source of the rows", said(run.data.get("source"))),
            ("rows", total if rows else DASH),
            *([("rows held out for the probe", held_out)] if held_out else []),
            ("fingerprint of the rows (SHA-256)", said(run.data.get("fingerprint"))),
        ],
        "languages": languages,
        "parents": [
            ("student", run.value("student.model"), run.value("student.revision")),
            *((role, section.get("model"), section.get("revision")) for role, section in teachers.items()),
        ],
        "probe": probe_grid(run),
    }


def _codes(run: RunFolder) -> list[str]:
    """The languages that rows were in, else the ones that the recipe names."""
    named = run.value("languages")
    return in_order(map(str, part_of(run.data, "rows") or (named if isinstance(named, list) else ())))


def _chosen(run: RunFolder, method: Method | None) -> list[tuple[str, str]]:
    """The method's own choices: (wording, value) of what is written down."""
    signals = method.signals if method is not None else frozenset()
    wanted = [("cold start", "cold_start"), ("learning rate", "learning_rate"), ("seed", "seed")]
    if {"off_policy", "on_policy"} & signals and method is not None and method.teacher != "none":
        wanted = [("weight of the on-policy signal, lambda", "lambda"), ("divergence", "divergence"), *wanted]
        wanted.insert(2, ("verbalizer", "verbalizer"))
    if run.value("teacher_weight") not in (None, 1):
        wanted += [("the teacher's share, w", "teacher_weight"), ("loss of the share 1 - w", "gold_loss")]
    if run.value("loss_average") not in (None, "token"):
        wanted.append(("the loss is a mean over each", "loss_average"))
    if "sequence" in signals:
        wanted = [("weight of the sequence signal, alpha", "alpha"), *wanted]
    return [(wording, said(value)) for wording, key in wanted if (value := run.value(key)) is not None]
