"""`report.html`: one self-contained page over one or several runs, and its charts as files."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dudi.errors import EnvironmentFault
from dudi.evaluation.records import ANSWERS, FILE
from dudi.files import atomic_file, write_text
from dudi.report import answers, evaluations, facts, plots, samples
from dudi.report.benchmark import benchmark_sections
from dudi.report.charts import inline, key_mark
from dudi.report.cost import cost_table, phase_table, total_seconds
from dudi.report.evaluations import evaluation_folders
from dudi.report.figures import Figure, learning, sections
from dudi.report.files import resource, template
from dudi.report.groups import Group, differing, grouped
from dudi.report.language_figures import probe_grid
from dudi.report.results import result_of
from dudi.report.run_folder import STACK_PARTS, RunFolder, last, overlap_key, read_runs
from dudi.report.wording import gibibytes, in_order, lasted, said, shown
from dudi.tables import DASH, Entry, Grid, Line, html_table


def write_report(run_dirs: Sequence[Path], output: Path | None = None, *, png: bool = False) -> Path:
    """Write the report of runs, or of what `dudi eval` wrote: one file that needs nothing beside it, charts as files.

    Args:
        run_dirs: Run directories; several are overlaid and compared. Or folders of `dudi eval`, or a folder of such
            folders.
        output: Where to write; None: `report.html` in the run directory, and for several runs in the folder above the
            first, so that a run keeps its own. The charts are `figures/*.svg` beside `report.html`, and
            `NAME-figures/*.svg` beside `NAME.html`.
        png: Write the charts as PNG too.

    Returns:
        The page.

    Raises:
        ConfigError: a folder is not there, or holds nothing of a run; folders of both kinds; `png` without resvg-py or
            a font.
        DataError: a folder of `dudi eval` whose scores cannot be read.
        EnvironmentFault: a file cannot be written.
    """
    evaluated = evaluation_folders(run_dirs)
    runs = [] if evaluated else read_runs(run_dirs)
    own = evaluated or [run.path for run in runs]
    above = own[0].resolve().parent if len(own) > 1 else own[0]
    target = Path(output) if output is not None else above / "report.html"
    if png:
        plots.png('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')  # what it lacks is said at once
    folder = target.parent / ("figures" if target.stem == "report" else f"{target.stem}-figures")
    content = evaluations.content(evaluated) if evaluated else _content(runs)
    name = "evaluations.html.jinja" if evaluated else "report.html.jinja"
    write_text(target, _render(name, figures=folder.name, **content))
    figures = [Figure(benchmark.chart) for benchmark in content["benchmarks"] if benchmark.chart is not None]
    for section in content.get("sections", ()):
        figures += section.figures
    for figure in figures:
        _write_figure(figure, folder / f"{figure.file}.svg", png)
    return target


def _write_figure(figure: Figure, file: Path, png: bool) -> None:
    """A chart that has nothing to show any more loses its file of an earlier report."""
    picture = file.with_suffix(".png")
    if figure.svg is None:
        try:
            file.unlink(missing_ok=True)
            picture.unlink(missing_ok=True)
        except OSError as error:
            raise EnvironmentFault(f"{file}: cannot be removed: {error.strerror}") from error
        return
    svg = plots.standalone(figure.chart)
    write_text(file, svg)
    if png:
        with atomic_file(picture) as temporary:
            temporary.write_bytes(plots.png(svg))


def _render(name: str, **own: Any) -> str:
    """A page as text: its template, which extends `page.html.jinja`, filled with its own parts and those of all."""
    page = template(name, autoescape=True).render(
        html_table=lambda grid, kind="": Markup(html_table(grid, kind)),
        inline=inline,
        key_mark=key_mark,
        title_of=samples.language_title,
        lang=samples.lang,
        result_file=FILE,
        style=Markup(resource("chart.css") + resource("report.css")),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **own,
    )
    return str(page)


def _content(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """What the template of a report of runs is filled with."""
    groups = grouped(runs)
    runs = [run for group in groups for run in group.runs]
    chosen, total = samples.choose(groups)
    probes = [(run.name, grid) for run in runs if (grid := probe_grid(run)) is not None]
    answered = any(run.answers for run in runs)
    asked = any(run.value("benchmark") or result_of(run) is not None for run in runs)
    title = "; ".join(group.described for group in groups)
    firsts = [group.runs[0] for group in groups]
    stacks = all(run.is_stack for run in runs)
    script = resource("report.js")
    return {
        "title": runs[0].name if len(runs) == 1 else title,
        "stacks": stacks,
        "groups": groups,
        "runs": runs,
        "single": len(runs) == 1,
        "glance": glance(groups),
        "sections": sections(groups),
        "benchmarks": benchmark_sections(groups),
        "answers": answers.choose(groups),
        "answers_missing": "" if answered or not asked else ANSWERS,
        "cost": cost_table(groups),
        "phases": phase_table(groups),
        "probes": probes,
        "samples": chosen,
        "samples_total": total,
        "languages": in_order(sample["language"] for sample in chosen),
        "facts": facts,
        "differing": differing(firsts),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def glance(groups: Sequence[Group]) -> tuple[list[tuple[str, str]], Grid]:
    """What all runs have in common, and a row a run of what they have not; of a single run everything is common."""
    rows = [(group, run, summary(run)) for group in groups for run in group.runs]
    common: list[tuple[str, str]] = []
    telling: list[str] = []
    for name in dict.fromkeys(name for _, _, cells in rows for name in cells):
        values = {cells.get(name, DASH) for _, _, cells in rows}
        if len(values) == 1:
            common.append((name, values.pop()))
        else:
            telling.append(name)
    lines = []
    for group, run, cells in rows:
        lines.append(Line(run.name, tuple(Entry(cells.get(name, DASH)) for name in telling), colour=group.colour))
    return common, Grid(tuple(telling), tuple(lines), "Run", texts=True)


def summary(run: RunFolder) -> dict[str, str]:
    """The run in its last values, by what they are called; a dash for what was not measured.

    Of a stage of a stack what its kind of stage measures: it has no rollouts, and most have no teacher.
    """
    records = run.stage(cold=False)
    steps = {"Steps": shown(last(records, "step"))}
    if run.is_stack:
        parts = [facts.model_name(run.value(key)) for key in STACK_PARTS if run.value(f"{key}.model")]
        models = facts.model_name(run.value("start")) if run.value("start.model") else " + ".join(parts)
        teacher = {"Teacher": facts.teacher_names(run)} if run.value("stage") == "distill" else {}
        learned = {title: shown(last(records, key)) for title, key, _ in learning([run])}
        about = {"Stage": said(run.value("stage")), "Models": models, **teacher, **steps, **learned}
    else:
        overlap = overlap_key(records)
        about = {
            "Method": said(run.value("method")),
            "Student": facts.model_name(run.value("student")),
            "Teacher": facts.teacher_names(run),
            **steps,
            "Loss": shown(last(records, "loss")),
            "Overlap": shown(None if overlap is None else last(records, overlap)),
            "Ended": shown(last(records, "rollout/eos_rate"), ".1%"),
            "Wrong language": shown(last(records, "rollout/wrong_language_rate"), ".1%"),
        }
    return about | {
        "Tokens / s": shown(last(records, "tokens_per_second")),
        "Time": lasted(total_seconds(run)),
        "Peak memory": gibibytes(last(records, "memory/peak")),
    }
