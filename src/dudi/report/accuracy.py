"""What the report and the card say of rows that have one right class or choice each: accuracy and macro F1."""

from __future__ import annotations

from huggingface_hub import EvalResult

from dudi.evaluation.metrics import ACCURACY, MACRO_F1, METRICS
from dudi.evaluation.records import STUDENT, Evaluation
from dudi.evaluation.tables import language_name, main_metric
from dudi.report.dots import DotRow, Dots
from dudi.report.results import Result, described
from dudi.report.wording import plain_name, said
from dudi.tables import Grid, grid_of

_METRICS = (METRICS[ACCURACY], METRICS[MACRO_F1])
_TASKS = {"choice": "multiple-choice"}
"""The hub's name for a kind of task; `text-classification` for others."""
_AFTER = "after"
"""Of the shapes of a chart, the one of what was trained."""


def is_chosen(evaluation: Evaluation) -> bool:
    """Whether the model chose among classes or answers, and wrote none."""
    return main_metric(evaluation, "overall").name == ACCURACY


def accuracy_in_words(result: Result) -> str:
    """One sentence: how many answers are right, and over which languages."""
    learned = _learned(result.evaluations[STUDENT])
    languages = [code for code in result.languages if code != learned]
    where = f"{len(languages)} languages" if len(languages) > 1 else language_name(languages[0])
    beside = ""
    if learned is not None:
        share = result.shown(ACCURACY, STUDENT, "by_language", learned, form=".1f")
        beside = f"; {share}% in {language_name(learned)}"
    means, overall = " in mean" if len(languages) > 1 else "", result.shown(ACCURACY, STUDENT, "overall", form=".1f")
    return f"It answers {overall}% of the rows right{means}, in {where}{beside}."


def split_grid(result: Result, splits: list[str]) -> Grid:
    """Both metrics by part of the rows, and over all of them."""
    rows = []
    for metric in _METRICS:
        places = [*(("by_split", split) for split in splits), ("overall",)]
        rows.append((metric.title, [result.shown(metric.name, STUDENT, *place, form=".1f") for place in places]))
    return grid_of((*splits, "all"), rows)


def language_grid(result: Result) -> Grid:
    """Both metrics and the number of rows, by language."""
    rows = []
    for code in result.languages:
        cells = [result.shown(metric.name, STUDENT, "by_language", code, form=".1f") for metric in _METRICS]
        count = result.shown("questions", STUDENT, "by_language", code, form=",.0f", scale=1)
        rows.append((language_name(code), [*cells, count]))
    return grid_of((*(metric.title for metric in _METRICS), "rows"), rows)


def language_chart(result: Result) -> Dots:
    """Accuracy of each language."""
    rows = []
    for code in result.languages:
        value = result.value(ACCURACY, STUDENT, "by_language", code)
        rows.append(DotRow(language_name(code), {_AFTER: value and 100 * value}))
    return Dots("Answered right, by language", rows, {_AFTER: "this model"})


def asked(evaluation: Evaluation) -> tuple[tuple[str, str], ...]:
    """(name, value): what was asked, and how, or what stands for all languages."""
    if not is_chosen(evaluation):
        return described(evaluation.benchmark)
    how, learned = evaluation.benchmark, _learned(evaluation)
    without = "" if learned is None else f" without {learned}, which was learned in"
    return (
        ("rows", f"{said(how.get('name'))}, {said(how.get('split'))}"),
        ("questions", said(how.get("questions"))),
        ("all", f"the mean over languages{without}"),
        ("fingerprint (SHA-256, short)", said(how.get("fingerprint"))[:12]),
    )


def eval_results(result: Result) -> list[EvalResult]:
    """The scores for the hub: over languages, and in each."""
    name, split = plain_name(result.name) or "rows", result.how.get("split")
    places = [(None, ("overall",)), *((code, ("by_language", code)) for code in result.languages)]
    return [
        EvalResult(
            task_type=_TASKS.get(str(result.how.get("task")), "text-classification"),
            dataset_type=name,
            dataset_name=name,
            dataset_config=None if code is None else plain_name(code),
            dataset_split=None if split is None else plain_name(split),
            metric_type={MACRO_F1: "f1"}.get(metric.name, metric.name),
            metric_name=metric.title.removesuffix(" in %"),
            metric_value=round(value, 6),
        )
        for code, place in places
        for metric in _METRICS
        if (value := result.value(metric.name, STUDENT, *place)) is not None
    ]


def _learned(evaluation: Evaluation) -> str | None:
    """The language that was learned in, where it was asked beside others: it does not count over all."""
    languages, counted = evaluation.keys("language"), evaluation.about.get("mean_of")
    if isinstance(counted, list):
        return next((code for code in languages if code not in counted), None)
    source = evaluation.benchmark.get("source_language")
    return source if isinstance(source, str) and source in languages and len(languages) > 1 else None
