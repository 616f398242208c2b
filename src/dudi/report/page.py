"""`report.html`: one self-contained page over one or several runs, and its charts as files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from dudi.errors import EnvironmentFault
from dudi.evaluation.records import ANSWERS
from dudi.files import atomic_file, write_text
from dudi.report import answers, facts, plots, samples
from dudi.report.benchmark import QuestionsSection, benchmark_sections
from dudi.report.cost import cost_table, phase_table, total_seconds
from dudi.report.evaluations import evaluation_folders, read_page, render_evaluations
from dudi.report.figures import Figure, FigureSection, sections
from dudi.report.files import resource
from dudi.report.groups import Group, differing, grouped
from dudi.report.html import render_html
from dudi.report.language_figures import probe_grid
from dudi.report.run_folder import RunFolder, last, overlap_key, read_runs
from dudi.report.stack_figures import is_stack, learning, stacked
from dudi.report.wording import gibibytes, in_order, lasted, said, shown
from dudi.tables import DASH, Entry, Grid, Line

FIGURES = "figures"


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
    folder = target.parent / (FIGURES if target.stem == "report" else f"{target.stem}-{FIGURES}")
    if evaluated:
        page = read_page(evaluated)
        figures = list(_figures([], page.benchmarks))
        write_text(target, render_evaluations(page, folder.name))
    else:
        groups = grouped(runs)
        drawn, benchmarks = sections(groups), benchmark_sections(groups)
        figures = list(_figures(drawn, benchmarks))
        write_text(target, render_page(groups, drawn, benchmarks, folder.name))
    write_figures(figures, folder, png=png)
    return target


def _figures(drawn: Sequence[FigureSection], benchmarks: Sequence[QuestionsSection]) -> Iterator[Figure]:
    for benchmark in benchmarks:
        if benchmark.chart is not None:
            yield Figure(benchmark.chart)
    for section in drawn:
        yield from section.figures


def write_figures(figures: Sequence[Figure], folder: Path, *, png: bool = False) -> list[Path]:
    """Write charts as SVG files, and as PNG files where asked for.

    A chart that has nothing to show any more loses its file of an earlier report.

    Raises:
        ConfigError: `png` without resvg-py or a font.
        EnvironmentFault: a file cannot be written.
    """
    written = []
    for figure in figures:
        file = folder / f"{figure.file}.svg"
        if figure.svg is None:
            _remove(file)
            continue
        svg = plots.standalone(figure.chart)
        written.append(write_text(file, svg))
        if png:
            with atomic_file(file.with_suffix(".png")) as temporary:
                temporary.write_bytes(plots.png(svg))
            written.append(file.with_suffix(".png"))
    return written


def _remove(svg: Path) -> None:
    try:
        for file in (svg, svg.with_suffix(".png")):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"{svg}: cannot be removed: {error.strerror}") from error


def render_page(
    groups: Sequence[Group],
    drawn: Sequence[FigureSection],
    benchmarks: Sequence[QuestionsSection],
    figures: str = FIGURES,
) -> str:
    """The page as text.

    Args:
        groups: The runs.
        drawn: The sections with charts.
        benchmarks: A section for each benchmark.
        figures: Name of the folder that holds the charts as files.
    """
    chosen, total = samples.choose(groups)
    runs = [run for group in groups for run in group.runs]
    probes = [(run.name, grid) for run in runs if (grid := probe_grid(run)) is not None]
    firsts = [group.runs[0] for group in groups]
    script = resource("report.js")
    return render_html(
        "report.html.jinja",
        title=title(groups),
        figures=figures,
        stacks=all(map(is_stack, runs)),
        groups=groups,
        runs=runs,
        single=len(runs) == 1,
        glance=glance(groups),
        benchmarks=benchmarks,
        answers=answers.choose(groups),
        answers_missing=ANSWERS if answers.are_missing(groups) else "",
        sections=drawn,
        cost=cost_table(groups),
        phases=phase_table(groups),
        probes=probes,
        samples=chosen,
        samples_total=total,
        languages=in_order(sample.language for sample in chosen),
        facts=facts,
        differing=differing(firsts),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def title(groups: Sequence[Group]) -> str:
    """The page's title: the run's name, or the methods."""
    if len(groups) == 1 and len(groups[0].runs) == 1:
        return groups[0].runs[0].name
    return "; ".join(group.described for group in groups)


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
    if is_stack(run):
        teacher = {"Teacher": facts.teacher_names(run)} if run.value("stage") == "distill" else {}
        learned = {title: shown(last(records, key)) for title, key, _ in learning([run])}
        about = {"Stage": said(run.value("stage")), "Models": stacked(run), **teacher, **steps, **learned}
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
