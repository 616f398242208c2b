"""`report.html`: one self-contained page over one or several runs."""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from dudi.errors import EnvironmentFault
from dudi.report import answers, samples
from dudi.report.benchmark import benchmark_section
from dudi.report.charts import short
from dudi.report.dots import mark
from dudi.report.figures import sections
from dudi.report.run_folder import ANSWERS, RESULT, RunFolder, last, number, overlap_key, read_runs
from dudi.report.wording import DASH, in_order, said

_GIB = 2**30


def write_report(run_dirs: Sequence[Path], output: Path | None = None) -> Path:
    """Write the report of one or several runs: one file, no network, nothing beside it.

    Args:
        run_dirs: Run directories; several are overlaid and compared.
        output: Where to write; None: `report.html` in the first run directory.

    Returns:
        The file.

    Raises:
        ConfigError: a folder is not there, or holds nothing of a run.
        EnvironmentFault: the file cannot be written.
    """
    runs = read_runs(run_dirs)
    target = runs[0].path / "report.html" if output is None else Path(output)
    return write_text(target, render_page(runs))


def write_text(target: Path, text: str) -> Path:
    """Write a file whole or not at all.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    beside = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A lone surrogate in somebody's data must not cost the report.
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(beside, target)
    except OSError as error:
        raise EnvironmentFault(f"{target}: cannot be written: {error.strerror}") from error
    return target


def render_page(runs: Sequence[RunFolder]) -> str:
    """The page as text."""
    chosen, total = samples.choose(runs)
    script = resource("report.js")
    return template("report.html.jinja", autoescape=True).render(
        runs=runs,
        columns=_COLUMNS,
        rows=[summary(run) for run in runs],
        benchmark=benchmark_section(runs),
        answers=answers.choose(runs[0]) if len(runs) == 1 else None,
        answers_missing=ANSWERS if len(runs) == 1 and answers.are_missing(runs[0]) else "",
        result_file=RESULT,
        mark=mark,
        sections=sections(runs),
        samples=chosen,
        samples_total=total,
        languages=in_order(sample.language for sample in chosen),
        title_of=samples.language_title,
        lang=samples.lang,
        versions=versions,
        machine=machine,
        data_of=data_of,
        style=Markup(resource("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def resource(name: str) -> str:
    """A file of this package."""
    return resources.files("dudi.report").joinpath(name).read_text(encoding="utf-8")


def template(name: str, *, autoescape: bool, **options: Any) -> Any:
    """A template of this package; a variable that is not given is an error."""
    environment = Environment(
        loader=FunctionLoader(resource),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    return environment.get_template(name)


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


def summary(run: RunFolder) -> list[str]:
    """The run's row under `_COLUMNS`: the last values, a dash for what was not measured."""
    records = run.stage(cold=False)
    overlap = overlap_key(records)
    return [
        said(run.value("method")),
        model_name(run.value("student")),
        model_name(run.value("teacher")),
        shown(last(records, "step")),
        shown(last(records, "loss")),
        shown(None if overlap is None else last(records, overlap)),
        percent(last(records, "rollout/eos_rate")),
        percent(last(records, "rollout/wrong_language_rate")),
        shown(last(records, "tokens_per_second")),
        duration(run),
        gibibytes(last(records, "memory/peak")),
    ]


def model_name(section: Any) -> str:
    """A model's name out of its section, with the layers that were kept."""
    if not isinstance(section, Mapping):
        return said(section)
    name, kept = section.get("model"), section.get("keep_layers")
    if not name or kept is None:
        return said(name)
    return f"{name} ({kept if isinstance(kept, int) else len(kept)} layers kept)"


def shown(value: float | None) -> str:
    """A number; a dash for none."""
    return DASH if value is None else short(value)


def percent(value: float | None) -> str:
    """A share as a percentage; a dash for none."""
    return DASH if value is None else f"{value:.1%}"


def gibibytes(value: float | None) -> str:
    """Bytes in GiB; a dash for none."""
    return DASH if value is None else f"{value / _GIB:.2f} GiB"


def duration(run: RunFolder) -> str:
    """The summed time of all steps that were run here, the cold start's included."""
    times = [number(record.get("time/step")) for record in run.metrics if not record.get("cached")]
    known = [seconds for seconds in times if seconds is not None]
    if not known:
        return DASH
    minutes, seconds = divmod(round(sum(known)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def versions(run: RunFolder) -> list[tuple[str, str]]:
    """Installed packages with their versions."""
    packages = run.environment.get("packages")
    found = packages.items() if isinstance(packages, Mapping) else ()
    return [(str(name), str(version)) for name, version in found if version]


def machine(run: RunFolder) -> list[tuple[str, str]]:
    """What the run stood on, one line each."""
    environment = run.environment
    lines = [(name, said(environment.get(name))) for name in ("python", "platform", "commit", "cuda", "cores")]
    precision, device = environment.get("precision"), environment.get("device")
    if isinstance(precision, Mapping):
        lines.append(("precision", f"{said(precision.get('dtype'))}: {said(precision.get('reason'))}"))
    if isinstance(device, Mapping):
        names = ", ".join(map(str, device.get("names") or ())) or said(device.get("type"))
        lines.append(("device", f"{said(device.get('count'))} x {names}"))
    return [*lines, ("memory", gibibytes(number(environment.get("memory"))))]


def data_of(run: RunFolder) -> list[tuple[str, str]]:
    """What the run was trained on, one line each."""
    lines = [("source", said(run.data.get("source"))), ("fingerprint (SHA-256)", said(run.data.get("fingerprint")))]
    for name, key in (("rows", "rows"), ("rejected", "rejected"), ("completions cut at max_length", "truncated")):
        counts = run.data.get(key)
        if isinstance(counts, Mapping):
            lines.append((name, ", ".join(f"{what} {count}" for what, count in counts.items()) or "none"))
    return lines
