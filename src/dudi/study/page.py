"""`study.md`: every table with its tests, in the order of the studies, from results alone."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence

from dudi.comparison.bootstrap import Lead
from dudi.comparison.items import resampled
from dudi.comparison.render import render
from dudi.comparison.significance import TAU
from dudi.comparison.table import Comparison, compare
from dudi.evaluation.benchmarks import find
from dudi.evaluation.metrics import ACCURACY, MACRO_F1, METRICS, OVERALL, metric_of
from dudi.evaluation.records import Evaluation
from dudi.study.figures import SIZE, TITLES, curve_name, curves, sizes
from dudi.study.grid import Study, StudyRow
from dudi.study.jobs import FLOPS
from dudi.study.ordering import ordered_pairs
from dudi.study.results import Results, evaluations, flops_of, overall, references, results_of
from dudi.tables import DASH, Grid, grid_of, markdown

_OF_STACKS = (ACCURACY, MACRO_F1)
HEADINGS = {
    "language": "By language",
    "split": "By split",
    "kind": "By kind of question (the paper's Table 8)",
    "task": "By task",
    "overall": "Over all questions",
}


def page(studies: Sequence[Study], results: Results, *, findings: str, commands: Sequence[str]) -> str:
    """The whole page: what makes it again, what a person found (Markdown, may be empty), and the tables in order."""
    parts = ["# The study", "", *(f"    {command}" for command in commands), "", *_setting(studies, results), ""]
    parts += [findings.strip(), ""] if findings.strip() else []
    for study in studies:
        parts += [*_section(study, results), ""]
    if sizes([study for study in studies if study.size], results):
        parts += ["## Figure 1: score against size", "", f"![Exact match against size](study/{SIZE}.svg)", ""]
    return "\n".join(parts).rstrip() + "\n"


def _setting(studies: Sequence[Study], results: Results) -> list[str]:
    """What was asked, of whom, with what."""
    asked = [one for one in results.values() if one.subject != FLOPS]
    if not asked:
        return ["Nothing has been run yet."]
    versions = asked[0].about["versions"]
    each = {one.benchmark["fingerprint"]: one for one in asked}.values()
    # Of two parts of one benchmark, the validation's for learning rates, the test part alone is named.
    whole = {one.benchmark["name"] for one in each if one.benchmark.get("part") == "test"}
    told = [one for one in each if one.benchmark["name"] not in whole or one.benchmark.get("part") == "test"]
    numbers = list(dict.fromkeys(map(_numbers, told)))
    items = ""
    if any(one.about.get("answers") for one in asked):
        items = "; where single answers are kept a lead counts only if a bootstrap over items and seeds carries it too"
    made = {f", {words}" for one in each if (words := find(one.benchmark["name"]).made.format_map(one.benchmark))}
    return [
        f"Numbers are {'; '.join(numbers)}, mean ± standard deviation over seeds "
        "(ddof = 1); a seed changes the order of the rows and every draw of the training. Significance: Almost "
        f"Stochastic Order, confidence 0.95 over all tests of a table (Bonferroni), eps_min below {TAU:g}{items}. "
        "What was not run is a dash.",
        "",
        f"torch {versions['torch'].partition('+')[0]}, transformers {versions['transformers']}{''.join(sorted(made))}.",
    ]


def _numbers(one: Evaluation) -> str:
    """What the numbers of a benchmark are, and of how many questions."""
    asked, name, count = one.benchmark, one.benchmark["name"], one.benchmark["questions"]
    fingerprint = f"fingerprint `{asked['fingerprint'][:12]}`"
    if "source_language" in asked:
        learned = f"what was learned in `{asked['source_language']}` is not in the mean of the others"
        rows = f"{count} rows in {len(asked['languages'])} languages"
        return f"accuracy in percent on `{name}` ({rows}, {fingerprint}; {learned})"
    if program := find(name).program:
        each = f"at most {asked['limit']:g} questions of a task in a language, " if asked["limit"] is not None else ""
        tasks = " and ".join(f"`{task}`" for task in one.keys("task"))
        return f"those of {program} {asked['version']} ({tasks}, {count} questions, {each}{fingerprint})"
    tasks = " and ".join(f"`{task}`" for task in asked["tasks"])
    part = f"of the {asked['part']} part, " if "part" in asked else ""
    return f"exact match in percent on `{name}` ({tasks}, {count} questions {part}greedy, {fingerprint})"


def _section(study: Study, results: Results) -> list[str]:
    counts = {len(results_of(study, row, results)) for row in study.rows}
    done = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts))
    lines = [f"## {study.title}", "", *([study.about.strip(), ""] if study.about else [])]
    lines += [f"`{study.shown_file}`; seeds a row: {done} of {study.seeds}.", ""]
    if not any(counts):
        return [*lines, "Not run yet."]
    asked = evaluations(study, results)
    there = [metric for metric in study.shown if any(one.values(metric, OVERALL) for one in asked)]
    scored = dict.fromkeys(name for one in asked for run in one.runs for name in run.scores[OVERALL])
    known = ", ".join(f"`{name}`" for name in scored if name in METRICS)
    for metric in (metric for metric in study.shown if metric not in there):
        lines += [f"No answer was scored by `{metric}`; `metrics` can be {known}.", ""]
    for metric, view in itertools.product(there, study.views):
        if view != OVERALL and not any(one.keys(view) for one in asked):
            continue  # what a stack is asked need not have parts
        text = render(comparison(study, view, results, metric), "markdown", eps=study.candidate is not None)
        heading = f"{HEADINGS[view]}: {metric_of(metric).title}" if len(study.shown) > 1 else HEADINGS[view]
        lines += [f"### {heading}", "", *text.splitlines(), ""]
    if study.asked is not None:
        lines += [*_beside(study, results), *_alignments(study, results)]
    lines += _against_paper(study, results)
    lines += _cost(study, results) if study.cost else []
    for metric in study.curves:
        if curves(study, metric, results):
            lines += [f"![{TITLES.get(metric, metric)}](study/{curve_name(study, metric)}.svg)", ""]
    return lines


def _beside(study: Study, results: Results) -> list[str]:
    """Accuracy, macro F1 and time of stacks; no marks, since a lead in macro F1 is not held against other items."""
    cells = []
    for row in study.rows:
        own = results_of(study, row, results)
        means = []
        for metric in _OF_STACKS:
            means.append(_mean([100 * value for one in own for value in one.values(metric, OVERALL)]))
        cells.append((row.name, [*means, _milliseconds(own)]))
    table = grid_of([*(METRICS[metric].title for metric in _OF_STACKS), "ms a row"], cells)
    about = (
        "Median over seeds of the time that a row takes, translating added where a row is translated; on one thread, "
        "beside other jobs."
    )
    return _under("Macro F1 and time", table, about)


def _under(heading: str, table: Grid, *about: str) -> list[str]:
    """A table under a heading, with what is said before it."""
    return [f"### {heading}", "", *(line for text in about for line in (text, "")), *markdown(table).splitlines(), ""]


def _milliseconds(runs: Sequence[Evaluation]) -> str:
    spent = [one.about["a_row"] for one in runs if "a_row" in one.about]
    if not spent:
        return DASH
    reading = 1000 * statistics.median(one["reading"] for one in spent)
    translating = 1000 * statistics.median(one["translating"] for one in spent)
    return f"{reading:.1f}" + (f" + {translating:.1f}" if translating else "")


def _alignments(study: Study, results: Results) -> list[str]:
    """How near Stage 1 of each row came to the LLM, language by language; rows that share the stage are one."""
    rows: dict[str, tuple[list[str], Mapping[str, Mapping[str, float]]]] = {}
    for row in study.rows:
        measured = [one.about["alignment"] for one in results_of(study, row, results) if one.about.get("alignment")]
        if measured:
            rows.setdefault(repr(measured), ([], measured[0]))[0].append(row.name)
    if not rows:
        return []
    codes = list(dict.fromkeys(code for _, found in rows.values() for code in found))
    cells = []
    for names, found in rows.values():
        near = {code: f"{one['fvu']:.2f}, {one['cosine']:.2f}" for code, one in found.items()}
        cells.append((", ".join(names), [near.get(code, DASH) for code in codes]))
    about = (
        "The stack's vector of a text against the LLM's of its English, one seed: fraction of variance unexplained "
        "(0 is perfect), and cosine."
    )
    return _under("Stage 1, without labels", grid_of(codes, cells), about)


def comparison(study: Study, view: str, results: Results, metric: str = "") -> Comparison:
    """A study's rows side by side, guessing, base student and teacher beside them for reference.

    Its numbers are the metric's; where that is empty, those that the study shows first.
    """
    known = evaluations(study, results)
    names = {one.name for one in known}
    shown = [one for one in references(study, results) if one.name not in names]
    ran = {one.name for one in known if one.runs}
    candidate = study.candidate if study.candidate in ran and len(ran) > 1 else None
    return compare(
        [*known, *shown],
        by=view,
        metric=metric or study.shown[0],
        candidate=candidate,
        rivals=[name for name in study.rivals if name in ran] if candidate else (),
        baseline=study.baseline if study.baseline in ran else None,
        references=[one.name for one in shown],
        allow_different=("seeds",),
    )


def _against_paper(study: Study, results: Results) -> list[str]:
    """The paper's averages beside ours, and which of its pairs hold."""
    rows = [row for row in study.rows if row.paper is not None]
    if not rows:
        return []
    scores = {row.name: overall(study, row, results) for row in rows}
    metric = metric_of(study.shown[0])
    cells = [(row.name, (f"{row.paper:.1f}", _mean(scores[row.name], metric.digits))) for row in rows]
    here = f"here, {metric.title}" if len(study.shown) > 1 else "here"
    table = grid_of(("paper (SEA-HELM)" if study.asked is None else "paper", here), cells)
    lines = _under("Against the paper", table)
    by_name = {one.name: one for one in evaluations(study, results)}

    def lead_of(ahead: str, behind: str, count: int) -> Lead | None:
        own, other = by_name[ahead], by_name[behind]
        return resampled(own, other, metric, OVERALL, OVERALL, confidence=0.95, comparisons=count)

    better = {name: [metric.better * value for value in own] for name, own in scores.items()}
    pairs = ordered_pairs(rows, better, lead_of)
    if not pairs:
        return lines
    told: dict[str, list[str]] = {"holds": [], "reversed": [], "open": []}
    for one in pairs:
        difference = f"{metric.better * one.difference:+.{metric.digits}f}"
        told[one.verdict].append(f"{one.higher} over {one.lower} ({difference}, eps {one.eps:.2f})")
    holds, turned, left = map(len, told.values())
    lines.append(
        f"Pairs that the paper orders: {len(pairs)}. Significantly so here: {holds}; significantly reversed: {turned}; "
        f"open: {left}."
    )
    if known := sum(pair.carried is not None for pair in pairs):
        lost = sum(pair.lost for pair in pairs)
        lines += [
            "",
            f"Answers are kept of both rows in {known} of the pairs: there a lead counts only if it is one when items "
            f"and seeds are drawn again, too; {lost} are open for that alone.",
        ]
    for verdict in ("reversed", "open"):
        if own := "; ".join(told[verdict]):
            lines += ["", f"{verdict.title()} (difference here, eps_min of the one ahead): {own}."]
    return [*lines, ""]


def _mean(values: Sequence[float], digits: int = 1) -> str:
    if not values:
        return DASH
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def _cost(study: Study, results: Results) -> list[str]:
    """Time and counted FLOPs per row, the cold start that it stands on included."""
    columns = ("steps", "processor s", "wall s", "GFLOP a step", "TFLOP", "TFLOP with cold start")
    table = grid_of(columns, [(row.name, _cost_cells(study, row, results)) for row in study.rows])
    about = (
        "Processor seconds of one run on one thread, without its questions (median over seeds), wall seconds beside "
        "other jobs, and FLOPs counted on 8 steps (SPIN: on one iteration), times the steps: matrix products and "
        "attention of generation, student, teacher and reference. All are of the row's own stage; the last column adds "
        "the cold start."
    )
    return _under("Cost", table, about)


def _cost_cells(study: Study, row: StudyRow, results: Results) -> list[str]:
    runs = results_of(study, row, results)
    if not runs:
        return [DASH] * 6
    clocks = [run.about["training"] for run in runs if run.about.get("training")]
    times = []
    for kind in ("cpu", "wall"):
        spent = [clock[kind] for clock in clocks]
        times.append(f"{statistics.median(spent):.0f}" if spent else DASH)
    step, own, whole = flops_of(study, row, results)
    tera = [DASH if value is None else f"{value / 1e12:.2f}" for value in (own, whole)]
    return [str(runs[0].about["steps"][row.score]), *times, DASH if step is None else f"{step / 1e9:.1f}", *tera]
