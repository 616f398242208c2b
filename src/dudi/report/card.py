"""The model card: `README.md` of a run and of its model, with the front matter that the hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from dudi.evaluation.records import FILE, part_of
from dudi.files import write_text
from dudi.report import dudi_card, stack_card
from dudi.report.benchmark import benchmark_sections
from dudi.report.facts import command_of
from dudi.report.figures import sections
from dudi.report.files import template
from dudi.report.groups import grouped
from dudi.report.licences import data_licence, model_licence
from dudi.report.lines import Lines
from dudi.report.run_folder import RunFolder, read_run
from dudi.report.scales import short
from dudi.report.wording import said
from dudi.tables import DASH, grid_of, markdown, plain_markdown

_LIBRARIES = ("dudi", "torch", "transformers", "trl", "accelerate", "datasets", "peft")


def write_model_card(run_dir: Path) -> Path:
    """Write the card of a run of `dudi train` or `dudi stack` into its folder and, where it is there, into `model/`.

    Returns:
        The run directory's `README.md`.

    Raises:
        ConfigError: the folder is no run directory.
        EnvironmentFault: a file cannot be written.
    """
    run = read_run(Path(run_dir))
    text = render_card(run)
    if (run.path / "model").is_dir():
        write_text(run.path / "model" / "README.md", text)
    return write_text(run.path / "README.md", text)


def render_card(run: RunFolder) -> str:
    """The card as text; what people and models wrote is escaped for Markdown."""
    kind = stack_card if run.is_stack else dudi_card
    page = template(
        f"{kind.__name__.rpartition('.')[2]}.md.jinja",
        autoescape=False,
        finalize=lambda value: value if isinstance(value, Markup) else plain_markdown(str(value)),
    )
    found = part_of(run.environment, "packages")
    versions = [f"{name} {found[name]}" for name in _LIBRARIES if found.get(name)]
    if commit := run.environment.get("commit"):
        versions.append(f"commit {commit}")
    own = kind.content(run)
    licences = [(role, said(name), model_licence(name, revision)) for role, name, revision in own["parents"]]
    licences.append(("data", said(run.value("data.train") or run.data.get("source")), data_licence(run)))
    text = page.render(
        front_matter=Markup(kind.front_matter(run).to_yaml()),
        name=run.name,
        command=code_block(command_of(run) or "dudi train resolved.yaml"),
        versions=versions,
        licences=licences,
        metrics=_last_values(run),
        benchmarks=benchmark_sections(grouped([run])),
        result_file=FILE,
        table=lambda grid: Markup(markdown(grid)),
        texts=_texts,
        dash=DASH,
        **own,
    )
    return str(text)


def _texts(rows: Iterable[Sequence[object]], corner: str = "", *columns: str) -> Markup:
    """A table of texts, the first of each row its label."""
    lines = [(str(label), map(str, cells)) for label, *cells in rows]
    return Markup(markdown(grid_of(columns or ("",), lines, corner=corner, texts=True)))


def code_block(text: str) -> Markup:
    """A fenced block whose fence is longer than any run of backticks inside."""
    longest = max((len(found) for found in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}\n{text}\n{fence}")


def _last_values(run: RunFolder) -> list[tuple[str, str]]:
    """The last value of each line that the report draws of a single run, with its unit."""
    charts = [figure.chart for section in sections(grouped([run])) for figure in section.drawn]
    found = []
    for chart in charts:
        if isinstance(chart, Lines) and len(chart.series) == 1:
            value = short(chart.series[0].points[-1][1])
            found.append((f"{chart.title}, {chart.y}" if chart.y else chart.title, value))
    return found
