"""What the report and the card say of rows that have one right class or choice each: accuracy and macro F1."""

from __future__ import annotations

from huggingface_hub import EvalResult

from dudi.evaluation.metrics import ACCURACY, MACRO_F1, METRICS
from dudi.evaluation.records import STUDENT, Evaluation
from dudi.evaluation.tables import language_name, main_metric, splits_of
from dudi.report.compared import QuestionsSection
from dudi.report.dots import DotRow, Dots
from dudi.report.results import Asked, Result, described, scores_for_hub
from dudi.report.wording import plain_name, said
from dudi.tables import grid_of

_METRICS = (METRICS[ACCURACY], METRICS[MACRO_F1])
_AFTER = "after"
"""Of the shapes of a chart, the one of what was trained."""


def is_chosen(evaluation: Evaluation) -> bool:
    """Whether the model chose among classes or answers, and wrote none."""
    return main_metric(evaluation, "overall").name == ACCURACY


def accuracy_section(result: Result) -> QuestionsSection:
    """What a page says of a single run: by part of the rows and by language, in both metrics."""
    splits = splits_of(*result.evaluations.values())
    places = [*(("by_split", split) for split in splits), ("overall",)]
    by_split, by_language, dots = [], [], []
    for metric in _METRICS:
        by_split.append((metric.title, [result.shown(metric.name, STUDENT, *place, form=".1f") for place in places]))
    for code in result.languages:
        cells = [result.shown(metric.name, STUDENT, "by_language", code, form=".1f") for metric in _METRICS]
        cells.append(result.shown("questions", STUDENT, "by_language", code, form=",.0f", scale=1))
        by_language.append((language_name(code), cells))
        value = result.value(ACCURACY, STUDENT, "by_language", code)
        dots.append(DotRow(language_name(code), {_AFTER: value and 100 * value}))
    return QuestionsSection(
        words=_in_words(result),
        by_split=grid_of((*splits, "all"), by_split),
        by_language=grid_of((*(metric.title for metric in _METRICS), "rows"), by_language),
        chart=Dots("Answered right, by language", dots, {_AFTER: "this model"}),
        details=asked(result.evaluations[STUDENT]),
        heading="Answered right",
        exact=False,
        note="Each row has one right answer.",
    )


def _in_words(result: Result) -> str:
    """One sentence: how many answers are right, and over which languages."""
    learned = _learned(result.evaluations[STUDENT])
    languages = [code for code in result.languages if code != learned]
    where = f"{len(languages)} languages" if len(languages) > 1 else language_name(languages[0])
    means, beside = " in mean" if len(languages) > 1 else "", ""
    if learned is not None:
        share = result.shown(ACCURACY, STUDENT, "by_language", learned, form=".1f")
        beside = f"; {share}% in {language_name(learned)}"
    overall = result.shown(ACCURACY, STUDENT, "overall", form=".1f")
    return f"It answers {overall}% of the rows right{means}, in {where}{beside}."


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
    asked: list[Asked] = [(name, None, ("overall",))]
    asked += [(name, plain_name(code), ("by_language", code)) for code in result.languages]
    metrics = []
    for metric in _METRICS:
        kind = "f1" if metric.name == MACRO_F1 else metric.name
        metrics.append((metric.name, kind, metric.title.removesuffix(" in %")))
    task = "multiple-choice" if result.how.get("task") == "choice" else "text-classification"
    return scores_for_hub(result, task, asked, metrics, None if split is None else plain_name(split))


def _learned(evaluation: Evaluation) -> str | None:
    """The language that was learned in, where it was asked beside others: it does not count over all."""
    languages, counted = evaluation.keys("language"), evaluation.about.get("mean_of")
    if isinstance(counted, list):
        return next((code for code in languages if code not in counted), None)
    source = evaluation.benchmark.get("source_language")
    return source if isinstance(source, str) and source in languages and len(languages) > 1 else None
