"""The model card of a stage of `dudi stack`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from dudi.files import write_text
from dudi.report.card import code_block, finalize, markdown_table, versions_of
from dudi.report.facts import command_of
from dudi.report.files import template
from dudi.report.licences import data_licence, model_licence
from dudi.report.run_folder import RunFolder, last, read_run
from dudi.report.scales import short
from dudi.report.stack_figures import LEARNING, languages_measured
from dudi.report.wording import said
from dudi.tables import DASH, Grid, grid_of

STAGES = {
    "adapt": ("LLM that reads in both directions", "masked next-token prediction on plain text, its adapter merged"),
    "align": ("MT-LLM after Stage 1", "self-distillation to its own LLM on text in one language, without labels"),
    "teach": ("LLM tuned on a task", "cross-entropy with labels; the teacher of Stage 2"),
    "distill": ("MT-LLM after Stage 2", "distillation from the vectors of an LLM that was tuned on the task"),
    "finetune": ("Classifier", "cross-entropy with labels"),
}
KNOWN = (
    (re.compile(r"facebook/.*nllb", re.I), "CC-BY-NC-4.0: not for commercial use (NLLB's weights)"),
    (re.compile(r"meta-llama/(Meta-)?Llama-3\.1", re.I), "Llama 3.1 Community License"),
    (re.compile(r"meta-llama/(Meta-)?Llama-3\.2", re.I), "Llama 3.2 Community License"),
    (re.compile(r"meta-llama/(Meta-)?Llama-3", re.I), "Meta Llama 3 Community License"),
)
"""Terms of the paper's parents, by their names on the hub: a stack carries them on, whatever its own card says."""


def write_stack_card(run_dir: Path) -> Path:
    """Write the card into the run directory and, where it is there, into `model/`.

    Returns:
        The run directory's `README.md`.

    Raises:
        ConfigError: the folder is no run directory.
        EnvironmentFault: a file cannot be written.
    """
    run = read_run(Path(run_dir))
    text = render_stack_card(run)
    if (run.path / "model").is_dir():
        write_text(run.path / "model" / "README.md", text)
    return write_text(run.path / "README.md", text)


def render_stack_card(run: RunFolder) -> str:
    """The card as text."""
    stage = str(run.value("stage"))
    what, how = STAGES.get(stage, ("Model of dudi stack", "the stage was not recorded"))
    page = template("stack_card.md.jinja", autoescape=False, finalize=finalize)
    counts = run.data.get("rows")
    return str(
        page.render(
            front_matter=Markup(_front_matter(run, stage)),
            name=run.name,
            what=what,
            how=how,
            stage=stage,
            reads_languages=stage in ("align", "distill", "finetune"),
            parts=_parts(run),
            licences=[*((role, name, licence_of(name)) for role, name in _parts(run)), *_data_licences(run)],
            rows=dict(counts) if isinstance(counts, Mapping) else {},
            data=run.data,
            steps=last(run.metrics, "step"),
            metrics=[
                (title, short(value)) for title, key, _ in LEARNING if (value := last(run.metrics, key)) is not None
            ],
            languages=_language_table(run),
            table=markdown_table,
            command=Markup(code_block(command_of(run) or f"dudi stack {stage} resolved.yaml")),
            versions=versions_of(run),
            dash=DASH,
        )
    )


def licence_of(name: str) -> str:
    """What a parent's own card states, else what is known of the paper's parents, else where to look."""
    stated = model_licence(name)
    known = next((terms for pattern, terms in KNOWN if pattern.match(name)), None)
    return known if known is not None and stated.startswith("not stated") else stated


def _parts(run: RunFolder) -> list[tuple[str, str]]:
    """(role, name) of everything that the weights came from."""
    adapters = run.value("llm.adapters")
    named: list[tuple[str, Any]] = [
        ("earlier stage", run.value("start.model")),
        ("encoder", run.value("encoder.model")),
        ("LLM", run.value("llm.model")),
        *(("adapter of the LLM", name) for name in (adapters if isinstance(adapters, list) else [])),
        ("tuned teacher", run.value("teacher.model")),
    ]
    return [(role, said(name)) for role, name in named if name]


def _data_licences(run: RunFolder) -> list[tuple[str, str, str]]:
    return [("data", said(run.value("data.train")), data_licence(run))]


def _language_table(run: RunFolder) -> Grid | None:
    """The last FVU and cosine of each language of the parallel text."""
    codes = languages_measured(run)
    rows = []
    for code in codes:
        values = (last(run.metrics, f"{key}/{code}") for key in ("fvu", "cosine"))
        rows.append((code, [DASH if value is None else short(value) for value in values]))
    return grid_of(("FVU", "cosine"), rows) if rows else None


def _front_matter(run: RunFolder, stage: str) -> str:
    """The YAML that the hub reads."""
    tags = ["dudi", "mt-llm", "model-stacking", f"stage-{stage}"]
    return str(
        yaml.safe_dump({"license": "other", "library_name": "transformers", "tags": tags}, sort_keys=False)
    ).strip()
