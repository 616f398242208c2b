"""Licences of a run's models and data, as their own cards state them: no network, no guess."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dudi.data.built_in import SOURCES
from dudi.data.writers import card_beside
from dudi.errors import DudiError
from dudi.report.run_folder import RunFolder

CARD = "README.md"
KNOWN = (
    (re.compile(r"facebook/.*nllb", re.I), "CC-BY-NC-4.0: not for commercial use (NLLB's weights)"),
    (re.compile(r"meta-llama/(Meta-)?Llama-3\.1", re.I), "Llama 3.1 Community License"),
    (re.compile(r"meta-llama/(Meta-)?Llama-3\.2", re.I), "Llama 3.2 Community License"),
    (re.compile(r"meta-llama/(Meta-)?Llama-3", re.I), "Meta Llama 3 Community License"),
)
"""Terms by names on the hub, where no card is at hand."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PACKAGE = "package:"
_LONGEST = 300


def model_licence(name: Any, revision: str | None = None) -> str:
    """The licence of a model (a hub name, a folder or `package:NAME`, as in the recipe), or where to look for it."""
    if not isinstance(name, str) or not name:
        return "not stated here"
    known = next((terms for pattern, terms in KNOWN if pattern.match(name)), "")
    if stated := _stated(name, revision, "model") or known:
        return stated
    if is_hub(name):
        return f"not stated here: look at huggingface.co/{name}"
    return "not stated here" + ("" if _folder(name) is None else f": {name}/{CARD} names none")


def data_licence(run: RunFolder) -> str:
    """The licence of the training data, or where to look for it."""
    source = run.value("data.train") or run.data.get("source")
    if not isinstance(source, str) or not source:
        return "not stated here"
    if source in SOURCES:
        return SOURCES[source].licence
    path, hub = Path(source).expanduser(), source.partition(":")[0]
    cards = [card_beside(path)] if path.is_file() else sorted(path.glob("*.card.json"))
    if stated := next(filter(None, map(_data_card, cards)), "") or _stated(hub, None, "dataset"):
        return stated
    place = f"huggingface.co/datasets/{hub}" if is_hub(hub) else "where the rows come from"
    return f"not stated here: look at {place}"


def is_hub(name: Any) -> bool:
    """Whether a name is one of the hub's, and of nothing here."""
    return isinstance(name, str) and _HUB_NAME.fullmatch(name) is not None and not Path(name).exists()


def _folder(name: str) -> Path | None:
    if name.startswith(_PACKAGE):
        from dudi.models.load import locate  # late: it brings torch, which a report of hub models does not need

        try:
            return Path(locate(name))
        except DudiError:
            return None
    path = Path(name).expanduser()
    return path if path.is_dir() else None


def _stated(name: str, revision: str | None, kind: str) -> str:
    """What a card's front matter says: a folder's, else the one in the hub's cache; empty where it says nothing."""
    import huggingface_hub

    try:
        card: Any = None
        if folder := _folder(name):
            card = folder / CARD
        elif is_hub(name):
            card = huggingface_hub.try_to_load_from_cache(name, CARD, revision=revision, repo_type=kind)
        front = huggingface_hub.metadata_load(card) if isinstance(card, str | Path) else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):  # huggingface_hub reads cards with PyYAML
        return ""
    # A licence of its own has the identifier `other` and says the rest in these keys.
    parts = [(front or {}).get(key) for key in ("license", "license_name", "license_link")]
    named = [", ".join(map(str, part)) if isinstance(part, list) else str(part) for part in parts if part]
    return ", ".join(named)[:_LONGEST]


def _data_card(card: Path) -> str:
    """What `dudi prepare` wrote beside its rows."""
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    stated = (content.get("license") or content.get("licence")) if isinstance(content, Mapping) else None
    return str(stated or "")[:_LONGEST]
