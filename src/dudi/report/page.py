"""`report.html`: one self-contained page over one or several runs, and its charts as files."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dudi.errors import EnvironmentFault
from dudi.evaluation.records import ANSWERS, FILE, Evaluation
from dudi.files import atomic_file, write_text
from dudi.report import answers, facts, plots, samples
from dudi.report.benchmark import Benchmark, benchmark_sections
from dudi.report.charts import inline, key_mark
from dudi.report.cost import cost_table, phase_table, total_seconds
from dudi.report.evaluations import asked_grid, asked_sections, evaluations_alone
from dudi.report.figures import Figure, Section, sections
from dudi.report.files import resource, template
from dudi.report.groups import Group, differing, grouped
from dudi.report.language_figures import probe_grid
from dudi.report.run_folder import RunFolder, last, overlap_key, read_runs
from dudi.report.stack_figures import is_stack, stacked
from dudi.report.wording import gibibytes, in_order, lasted, percent, said, shown
from dudi.tables import Entry, Grid, Line, html_table

FIGURES = "figures"


def write_report(run_dirs: Sequence[Path], output: Path | None = None, *, png: bool = False) -> Path:
    """Write the report of one or several runs: one file that needs nothing beside it, and its charts as files.

    Args:
        run_dirs: Run directories; several are overlaid and compared. Or one folder of evaluations alone, as `dudi eval`
            and `dudi stack eval` leave it.
        output: Where to write; None: `report.html` in the run directory, and for several runs in the folder above the
            first, so that a run keeps its own. The charts are `figures/*.svg` beside `report.html`, and
            `NAME-figures/*.svg` beside `NAME.html`.
        png: Write the charts as PNG too.

    Returns:
        The page.

    Raises:
        ConfigError: a folder is not there, or holds nothing of a run; `png` without resvg-py or a font.
        EnvironmentFault: a file cannot be written.
    """
    if png:
        plots.png('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')  # what it lacks is said at once
    if len(run_dirs) == 1 and (evaluations := evaluations_alone(Path(run_dirs[0]))):
        target = Path(output) if output is not None else Path(run_dirs[0]) / "report.html"
        folder, benchmarks = _figures_of(target), asked_sections(evaluations)
        write_text(target, render_evaluations(Path(run_dirs[0]).resolve().name, evaluations, benchmarks, folder.name))
        write_figures(list(_figures((), benchmarks)), folder, png=png)
        return target
    runs = read_runs(run_dirs)
    groups = grouped(runs)
    above = runs[0].path.resolve().parent if len(runs) > 1 else runs[0].path
    target = Path(output) if output is not None else above / "report.html"
    drawn, benchmarks = sections(groups), benchmark_sections(groups)
    folder = _figures_of(target)
    write_text(target, render_page(groups, drawn, benchmarks, folder.name))
    write_figures(list(_figures(drawn, benchmarks)), folder, png=png)
    return target


def _figures_of(page: Path) -> Path:
    return page.parent / (FIGURES if page.stem == "report" else f"{page.stem}-{FIGURES}")


def _figures(drawn: Sequence[Section], benchmarks: Sequence[Benchmark]) -> Iterator[Figure]:
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
    groups: Sequence[Group], drawn: Sequence[Section], benchmarks: Sequence[Benchmark], figures: str = FIGURES
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
    return template("report.html.jinja", autoescape=True).render(
        groups=groups,
        runs=runs,
        single=len(runs) == 1,
        title=title(groups),
        glance=glance(groups),
        benchmarks=benchmarks,
        answers=answers.choose(groups),
        answers_missing=ANSWERS if answers.are_missing(groups) else "",
        result_file=FILE,
        sections=drawn,
        cost=cost_table(groups),
        phases=phase_table(groups),
        probes=[(run.name, grid) for run in runs if (grid := probe_grid(run)) is not None],
        samples=chosen,
        samples_total=total,
        languages=in_order(sample.language for sample in chosen),
        title_of=samples.language_title,
        lang=samples.lang,
        facts=facts,
        differing=differing([group.runs[0] for group in groups]),
        figures=figures,
        **_frame(),
    )


def render_evaluations(
    name: str, evaluations: Sequence[Evaluation], benchmarks: Sequence[Benchmark], figures: str = FIGURES
) -> str:
    """The page of a folder of evaluations as text.

    Args:
        name: The folder's.
        evaluations: What it holds.
        benchmarks: A section for each benchmark.
        figures: As for `render_page`.
    """
    return template("evaluations.html.jinja", autoescape=True).render(
        title=name,
        asked=asked_grid(evaluations),
        count=len(evaluations),
        benchmarks=benchmarks,
        figures=figures,
        **_frame(),
    )


def _frame() -> dict[str, Any]:
    """What every page has around its content."""
    script = resource("report.js")
    return {
        "inline": inline,
        "key_mark": key_mark,
        "html_table": lambda grid, kind="": Markup(html_table(grid, kind)),
        "style": Markup(resource("chart.css") + resource("report.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def title(groups: Sequence[Group]) -> str:
    """The page's title: the run's name, or the methods."""
    if len(groups) == 1 and len(groups[0].runs) == 1:
        return groups[0].runs[0].name
    return "; ".join(group.described for group in groups)


_COLUMNS = (
    "Method",
    "Student",
    "Teacher",
    "Steps",
    "Loss",
    "Overlap",
    "Ended",
    "Wrong language",
    "Tokens / s",
    "Time",
    "Peak memory",
)


def glance(groups: Sequence[Group]) -> tuple[list[tuple[str, str]], Grid]:
    """What all runs have in common, and a row a run of what they have not; of a single run everything is common."""
    rows = [(group, run, summary(run)) for group in groups for run in group.runs]
    alike = [len({cells[place] for _, _, cells in rows}) == 1 for place in range(len(_COLUMNS))]
    common = [(name, rows[0][2][place]) for place, name in enumerate(_COLUMNS) if alike[place]]
    differing_places = [place for place, same in enumerate(alike) if not same]
    kept = [
        Line(run.name, tuple(Entry(cells[place]) for place in differing_places), colour=group.colour)
        for group, run, cells in rows
    ]
    return common, Grid(tuple(_COLUMNS[place] for place in differing_places), tuple(kept), "Run")


def summary(run: RunFolder) -> list[str]:
    """The run's row under `_COLUMNS`: the last values, a dash for what was not measured."""
    records = run.stage(cold=False)
    overlap = overlap_key(records)
    return [
        said(run.value("stage") if is_stack(run) else run.value("method")),
        stacked(run) if is_stack(run) else facts.model_name(run.value("student")),
        facts.teacher_names(run),
        shown(last(records, "step")),
        shown(last(records, "loss")),
        shown(None if overlap is None else last(records, overlap)),
        percent(last(records, "rollout/eos_rate")),
        percent(last(records, "rollout/wrong_language_rate")),
        shown(last(records, "tokens_per_second")),
        lasted(total_seconds(run)),
        gibibytes(last(records, "memory/peak")),
    ]
