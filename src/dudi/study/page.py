"""`study.md`: every table with its tests, in the order of the studies, from results alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from dudi.comparison.comparing import Comparison, compare
from dudi.comparison.grid import DASH
from dudi.comparison.rendering import render
from dudi.comparison.significance import TAU
from dudi.study.collected import Results, evaluations, overall, reference_evaluations, results_of
from dudi.study.figures import SIZE, TITLES, curve_name, curves, sizes
from dudi.study.grid import Row, Study
from dudi.study.jobs import Job, cost_job, cost_of, jobs_of
from dudi.study.ordering import ordered_pairs

HEADINGS = {"language": "By language", "split": "By split", "kind": "By kind of question (the paper's Table 8)"}


def page(studies: Sequence[Study], results: Results, *, findings: str, commands: Sequence[str]) -> str:
    """The whole page.

    Args:
        studies: The tables, in their order.
        results: As `collected.collect` returns them.
        findings: What a person wrote about the results, in Markdown; may be empty.
        commands: What makes the page again.
    """
    parts = ["# The study", "", *(f"    {command}" for command in commands), "", *_setting(results), ""]
    parts += [findings.strip(), ""] if findings.strip() else []
    for study in studies:
        parts += [*_section(study, results), ""]
    if sizes([study for study in studies if study.size], results):
        parts += ["## Figure 1: score against size", "", f"![Exact match against size](study/{SIZE}.svg)", ""]
    return "\n".join(parts).rstrip() + "\n"


def _setting(results: Results) -> list[str]:
    """What was asked, of whom, with what."""
    asked = [result["benchmark"] for result in results.values() if "benchmark" in result]
    if not asked:
        return ["Nothing has been run yet."]
    one = next(iter(results.values()))
    test = next((own for own in asked if own["part"] == "test"), asked[0])
    tasks = " and ".join(f"`{task}`" for task in test["tasks"])
    return [
        f"Numbers are exact match in percent on `{test['name']}` ({tasks}, {test['questions']} questions of the "
        f"{test['part']} part, greedy, fingerprint `{test['fingerprint'][:12]}`), mean ± standard deviation over seeds "
        "(ddof = 1); a seed changes the order of the rows and every draw of the training. Significance: Almost "
        f"Stochastic Order, confidence 0.95 over all tests of a table (Bonferroni), eps_min below {TAU:g}. "
        "What was not run is a dash.",
        "",
        f"torch {one['torch'].partition('+')[0]}, transformers {one['transformers']}, babel {test['babel_version']} "
        f"(CLDR {test['cldr_version']}).",
    ]


def _section(study: Study, results: Results) -> list[str]:
    lines = [f"## {study.title}", "", *([study.about.strip(), ""] if study.about else []), _runs(study, results), ""]
    if not any(results_of(study, row, results) for row in study.rows):
        return [*lines, "Not run yet."]
    for view in study.views:
        lines += [f"### {HEADINGS[view]}", "", *_table(study, view, results), ""]
    lines += _against_paper(study, results)
    lines += _cost(study, results) if study.cost else []
    for metric in study.curves:
        if curves(study, metric, results):
            lines += [f"![{TITLES.get(metric, metric)}](study/{curve_name(study, metric)}.svg)", ""]
    return lines


def _runs(study: Study, results: Results) -> str:
    counts = {len(results_of(study, row, results)) for row in study.rows}
    done = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts))
    return f"`recipes/study/{study.file.name}`; seeds a row: {done} of {study.seeds}."


def comparison(study: Study, view: str, results: Results) -> Comparison:
    """A study's rows side by side, guessing, base student and teacher beside them for reference."""
    known = evaluations(study, results)
    shown = reference_evaluations(study, results)
    names = {one.name for one in known}
    shown = [one for one in shown if one.name not in names]
    ran = {one.name for one in known if one.runs}
    return compare(
        [*known, *shown],
        by=view,
        metric="exact_match",
        candidate=study.candidate if study.candidate in ran and len(ran) > 1 else None,
        baseline=study.baseline if study.baseline in ran else None,
        references=[one.name for one in shown],
        allow_different=("seeds",),
    )


def _table(study: Study, view: str, results: Results) -> list[str]:
    return render(comparison(study, view, results), "markdown", eps=study.candidate is not None).splitlines()


def _against_paper(study: Study, results: Results) -> list[str]:
    """The paper's averages beside ours, and which of its pairs hold."""
    rows = [row for row in study.rows if row.paper is not None]
    if not rows:
        return []
    scores = {row.name: overall(study, row, results) for row in rows}
    pairs = ordered_pairs(rows, scores)
    lines = ["### Against the paper", "", "| | paper (SEA-HELM) | here |", "|---|---:|---:|"]
    lines += [f"| {row.name} | {row.paper:.1f} | {_mean(scores[row.name])} |" for row in rows]
    if not pairs:
        return [*lines, ""]
    by_verdict = {
        verdict: [pair for pair in pairs if pair.verdict == verdict] for verdict in ("holds", "reversed", "open")
    }
    holds, turned, left = (len(own) for own in by_verdict.values())
    lines += [
        "",
        f"Of the paper's {len(pairs)} pairs, {holds} hold here significantly, {turned} are reversed significantly, "
        f"{left} are open.",
    ]
    for verdict, words in (("reversed", "Reversed"), ("open", "Open")):
        told = [f"{p.higher} > {p.lower} ({p.difference:+.1f}, eps {p.eps:.2f})" for p in by_verdict[verdict]]
        lines += ["", f"{words} (difference here, eps_min of the one ahead): {'; '.join(told)}."] if told else []
    return [*lines, ""]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return DASH
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _cost(study: Study, results: Results) -> list[str]:
    """Time and counted FLOPs per row, the cold start that it stands on included."""
    lines = [
        "### Cost",
        "",
        "Processor seconds of one run on one thread, without its questions (median over seeds), wall seconds beside "
        "other jobs, and FLOPs counted on 8 steps (SPIN: on one iteration), times the steps: matrix products and "
        "attention of generation, student, teacher and reference. All are of the row's own stage; the last column adds "
        "the cold start.",
        "",
        "| | steps | processor s | wall s | GFLOP a step | TFLOP | TFLOP with cold start |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    return [*lines, *(f"| {row.name} | {_cost_cells(study, row, results)} |" for row in study.rows), ""]


def _cost_cells(study: Study, row: Row, results: Results) -> str:
    runs = [result for _, result in results_of(study, row, results)]
    if not runs:
        return " | ".join([DASH] * 6)
    steps = runs[0]["steps"]
    cpu, wall = (statistics.median(run["seconds"][kind] for run in runs) for kind in ("cpu", "wall"))
    counted = results.get(cost_job(study, row).id)
    if counted is None:
        return f"{steps} | {cpu:.0f} | {wall:.0f} | {DASH} | {DASH} | {DASH}"
    flops = [_flops(job, results) for job in jobs_of(study, row, 0)]
    own, whole = _tera(flops[-1:]), _tera(flops)
    return f"{steps} | {cpu:.0f} | {wall:.0f} | {counted['flops_per_step'] / 1e9:.1f} | {own} | {whole}"


def _tera(flops: Sequence[float | None]) -> str:
    known = [one for one in flops if one is not None]
    return f"{sum(known) / 1e12:.2f}" if len(known) == len(flops) else DASH


def _flops(job: Job, results: Results) -> float | None:
    """What a job's whole stage takes; None where it was not counted."""
    counted, score = results.get(cost_of(job).id), results.get(job.id)
    if counted is None or score is None:
        return None
    return float(counted["flops_before"] + score["steps"] * counted["flops_per_step"])
