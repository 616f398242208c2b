"""What the card of a stage of `dudi stack` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from dudi.evaluation.records import part_of
from dudi.report.accuracy import eval_results
from dudi.report.language_figures import stack_languages
from dudi.report.licences import is_hub
from dudi.report.results import results_of
from dudi.report.run_folder import RunFolder, last, read_object
from dudi.report.wording import plain_name, said, shown
from dudi.tables import DASH, grid_of

ALONE = ("adapt", "teach")
"""Stages that have no encoder, and go on from no other one."""
MODEL_TYPE = "mt_llm"
"""Of a stack's config; what `adapt` leaves is another model."""
STAGES = {
    "adapt": ("LLM that reads in both directions", "masked next-token prediction on plain text, its adapter merged"),
    "align": ("MT-LLM after Stage 1", "self-distillation to its own LLM on text in one language, without labels"),
    "teach": ("LLM tuned on a task", "cross-entropy with labels; the teacher of Stage 2"),
    "distill": ("MT-LLM after Stage 2", "distillation from the vectors of an LLM that was tuned on the task"),
    "finetune": ("Classifier", "cross-entropy with labels"),
    "generation": ("MT-LLM that writes", "cross-entropy with written answers"),
}


def front_matter(run: RunFolder) -> ModelCardData:
    """What the hub reads, with the scores of `dudi stack eval --card` as `model-index`."""
    parents = [name for role, name in _parts(run) if role in ("encoder", "LLM") and is_hub(name)]
    tags = ["dudi", "mt-llm", "model-stacking", f"stage-{run.value('stage')}"]
    scores = [one for result in results_of(run) for one in eval_results(result)]
    return ModelCardData(
        license="other",
        library_name="transformers",
        base_model=parents or None,
        tags=tags,
        model_name=(plain_name(run.name) or "stack") if scores else None,
        eval_results=scores or None,
    )


def content(run: RunFolder) -> dict[str, Any]:
    """What the template of a stack's card is filled with."""
    stage = str(run.value("stage"))
    writes = stage == "finetune" and run.value("task.kind") == "generation"
    what, how = STAGES.get("generation" if writes else stage, ("Model of dudi stack", "the stage was not recorded"))
    counts, steps = run.data.get("rows"), last(run.metrics, "step")
    rows = dict(counts) if isinstance(counts, Mapping) else {}
    parts, measured = _parts(run), []
    for code in stack_languages(run):
        measured.append((code, [shown(last(run.metrics, f"{key}/{code}")) for key in ("fvu", "cosine")]))
    return {
        "what": what,
        "how": how,
        "writes": writes,
        "reads_languages": stage in ("align", "distill", "finetune"),
        "facts": [
            *parts,
            ("optimizer steps", DASH if steps is None else int(steps)),
            ("rows", ", ".join(f"{code} {count}" for code, count in rows.items()) or DASH),
            ("fingerprint of the rows (SHA-256)", said(run.data.get("fingerprint"))),
        ],
        "parents": [(role, name, None) for role, name in parts],
        "languages": grid_of(("FVU", "cosine"), measured) if measured else None,
    }


def _parts(run: RunFolder) -> list[tuple[str, str]]:
    """(role, name) of everything that the weights came from: of what the recipe names, that which the stage read.

    Of a stage that went on from another one the model itself says what it stands on.
    """
    alone = run.value("stage") in ALONE
    config = read_object(run.path / "model", "config.json", [])
    encoder, llm = ({} if role == "encoder" and alone else _part(run, config, role) for role in ("encoder", "llm"))
    adapters = llm.get("adapters")
    named: list[tuple[str, Any]] = [
        ("earlier stage", None if alone else run.value("start.model")),
        ("encoder", encoder.get("model")),
        ("LLM", llm.get("model")),
        *(("adapter of the LLM", name) for name in (adapters if isinstance(adapters, list) else [])),
        ("tuned teacher", run.value("teacher.model") if run.value("stage") == "distill" else None),
    ]
    return [(role, said(name)) for role, name in named if name]


def _part(run: RunFolder, config: Mapping[str, Any], role: str) -> Mapping[str, Any]:
    """The section of a part, as the model's config names its parent, else as the recipe does; empty without it."""
    if config.get("model_type") == MODEL_TYPE and not config.get(f"{role}_config"):
        return {}
    parent = part_of(part_of(config, "parents"), role)
    return {**parent, "model": parent["name"]} if parent.get("name") else part_of(run.values, role)
