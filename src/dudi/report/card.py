"""The model card: `README.md` of a run and of its model. What people and models wrote is escaped for Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from dudi.evaluation.records import FILE
from dudi.files import write_text
from dudi.languages.registry import LANGUAGES
from dudi.objective.methods import METHODS, Method
from dudi.report.benchmark import benchmark_sections
from dudi.report.facts import command_of, model_name
from dudi.report.files import template
from dudi.report.groups import grouped
from dudi.report.licences import HUB_NAME, data_licence, model_licence
from dudi.report.run_folder import RunFolder, last, overlap_key, read_run
from dudi.report.samples import lang
from dudi.report.scales import short
from dudi.report.wording import in_order, said
from dudi.tables import DASH, Grid

_SPECIAL = re.compile(r"([\\`*_{}\[\]|~>$])")
_LIBRARIES = ("dudi", "torch", "transformers", "trl", "accelerate", "datasets", "peft")
_METRICS: tuple[tuple[str, str, str], ...] = (
    ("loss", "weighted sum of the losses", ""),
    ("loss/sequence", "sequence signal, nats a pair", "sequence"),
    ("loss/off_policy", "off-policy token signal, nats a token", "off_policy"),
    ("loss/on_policy", "on-policy token signal, nats a token", "on_policy"),
    ("student_entropy", "student's entropy, nats", ""),
    ("teacher_entropy", "teacher's entropy, nats", ""),
    ("rollout/mean_length", "mean length of rollouts, tokens", ""),
    ("rollout/eos_rate", "rollouts that ended by themselves, share", ""),
    ("rollout/wrong_language_rate", "rollouts in a wrong language, share", ""),
)
"""Key, wording, and the signal without which a method has no such number."""


def write_model_card(run_dir: Path) -> Path:
    """Write the card into the run directory and, where it is there, into `model/`.

    Args:
        run_dir: A finished or an interrupted run.

    Returns:
        The run directory's `README.md`.

    Raises:
        ConfigError: the folder is no run directory.
        EnvironmentFault: a file cannot be written.
    """
    run = read_run(Path(run_dir))
    text = render_card(run)
    model = run.path / "model"
    if model.is_dir():
        write_text(model / "README.md", text)
    return write_text(run.path / "README.md", text)


def render_card(run: RunFolder) -> str:
    """The card as text."""
    method = METHODS.get(str(run.value("method")))
    page = template("card.md.jinja", autoescape=False, finalize=finalize)
    return str(
        page.render(
            front_matter=Markup(front_matter(run)),
            name=run.name,
            method=method,
            student=model_name(run.value("student")),
            teacher=_teacher(run, method),
            languages=_languages(run),
            rows=_rows(run),
            data=run.data,
            licences=_licences(run, method),
            chosen=_chosen(run, method),
            command=Markup(code_block(command_of(run) or "dudi train resolved.yaml")),
            versions=versions_of(run),
            benchmarks=benchmark_sections(grouped([run])),
            result_file=FILE,
            table=markdown_table,
            metrics=_metrics(run, method),
            steps=last(run.stage(cold=False), "step"),
            dash=DASH,
        )
    )


def markdown(value: Any) -> str:
    """Text that Markdown and HTML leave as it is, on one line."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = _SPECIAL.sub(r"\\\1", text)
    return text.replace("://", "&#58;//").replace("www.", "www&#46;")  # or a bare address becomes a link


def finalize(value: Any) -> Any:
    """What a template prints: escaped, unless it is markup already."""
    return value if isinstance(value, Markup) else markdown(value)


def code_block(text: str) -> str:
    """A fenced block whose fence is longer than any run of backticks inside."""
    longest = max((len(found) for found in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def markdown_table(table: Grid) -> Markup:
    """A table in Markdown, numbers to the right, every cell escaped."""
    lines = [("", *table.columns), ("---", *["---:"] * len(table.columns))]
    lines += [(line.label, *(entry.text for entry in line.entries)) for line in table.lines]
    return Markup("\n".join(f"| {' | '.join(map(markdown, line))} |" for line in lines))


def front_matter(run: RunFolder) -> str:
    """The YAML that the hub reads."""
    student = run.value("student.model")
    codes = [code for code in _codes(run) if lang(code) == code]  # the hub refuses anything else
    values: dict[str, Any] = {"language": codes, "license": "other", "library_name": "transformers"}
    if isinstance(student, str) and HUB_NAME.fullmatch(student) and not Path(student).exists():
        values["base_model"] = student
    values["pipeline_tag"] = "text-generation"
    values["tags"] = list(
        dict.fromkeys(["dudi", "distillation", *(name for name in METHODS if name == run.value("method"))])
    )
    return str(yaml.safe_dump(values, allow_unicode=True, sort_keys=False)).strip()


def _codes(run: RunFolder) -> list[str]:
    """The languages that rows were in, else the ones that the recipe names."""
    counts = run.data.get("rows")
    named = run.value("languages")
    found = counts if isinstance(counts, Mapping) and counts else named if isinstance(named, list) else ()
    return in_order(map(str, found))


def _languages(run: RunFolder) -> list[str]:
    """Each language with its rows, where they were counted."""
    counts = run.data.get("rows")
    rows = counts if isinstance(counts, Mapping) else {}
    named = {code: f"{LANGUAGES[code].name} ({code})" if code in LANGUAGES else code for code in _codes(run)}
    return [f"{name}: {rows[code]} rows" if code in rows else name for code, name in named.items()]


def _rows(run: RunFolder) -> int | None:
    counts = run.data.get("rows")
    if not isinstance(counts, Mapping):
        return None
    return sum(count for count in counts.values() if isinstance(count, int))


def _teacher(run: RunFolder, method: Method | None) -> str:
    if method is not None and method.teacher == "ema":
        return "the student's own moving average"
    return model_name(run.value("teacher")) if _reads_teacher(run, method) else "none"


def _reads_teacher(run: RunFolder, method: Method | None) -> bool:
    """Whether a second model gave signals or wrote targets."""
    reads = method is None or method.teacher == "model" or run.value("targets") == "teacher"
    return reads and bool(run.value("teacher.model"))


def _licences(run: RunFolder, method: Method | None) -> list[tuple[str, str, str]]:
    """(part, name, licence) of everything that the weights came from."""

    def model(role: str) -> tuple[str, str, str]:
        name = run.value(f"{role}.model")
        return (role, said(name), model_licence(name, run.value(f"{role}.revision")))

    data = ("data", said(run.value("data.train") or run.data.get("source")), data_licence(run))
    return [model("student"), *([model("teacher")] if _reads_teacher(run, method) else []), data]


def _chosen(run: RunFolder, method: Method | None) -> list[tuple[str, str]]:
    """The method's own choices: (wording, value) of what is written down."""
    signals = method.signals if method is not None else frozenset()
    wanted = [("cold start", "cold_start"), ("learning rate", "learning_rate"), ("seed", "seed")]
    if {"off_policy", "on_policy"} & signals and method is not None and method.teacher != "none":
        wanted = [("weight of the on-policy signal, lambda", "lambda"), ("divergence", "divergence"), *wanted]
        wanted.insert(2, ("verbalizer", "verbalizer"))
    if "sequence" in signals:
        wanted = [("weight of the sequence signal, alpha", "alpha"), *wanted]
    return [(wording, said(value)) for wording, key in wanted if (value := run.value(key)) is not None]


def versions_of(run: RunFolder) -> list[str]:
    """The libraries that decide numbers, with their versions, and the commit."""
    packages = run.environment.get("packages")
    found = packages if isinstance(packages, Mapping) else {}
    named = [f"{name} {found[name]}" for name in _LIBRARIES if found.get(name)]
    commit = run.environment.get("commit")
    return [*named, *([f"commit {commit}"] if commit else [])]


def _metrics(run: RunFolder, method: Method | None) -> list[tuple[str, str]]:
    records = run.stage(cold=False)
    wanted = [
        (key, wording) for key, wording, signal in _METRICS if not signal or method is None or signal in method.signals
    ]
    overlap = overlap_key(records)
    if overlap is not None:
        wanted.insert(-5, (overlap, f"overlap ratio of the top {overlap.removeprefix('overlap@')}"))
    return [(wording, DASH if (value := last(records, key)) is None else short(value)) for key, wording in wanted]
