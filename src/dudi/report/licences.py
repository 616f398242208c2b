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
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PACKAGE = "package:"
_LONGEST = 300


def model_licence(name: Any, revision: str | None = None) -> str:
    """The licence of a model, or where to look for it.

    Args:
        name: A hub name, a folder or `package:NAME`, as in the recipe.
        revision: Of a hub name.
    """
    if not isinstance(name, str) or not name:
        return "not stated here"
    stated = _stated(_card(name, revision, "model"))
    if stated:
        return stated
    if _is_hub(name):
        return f"not stated here: look at huggingface.co/{name}"
    return "not stated here" + ("" if _folder(name) is None else f": {name}/{CARD} names none")


def data_licence(run: RunFolder) -> str:
    """The licence of the training data, or where to look for it."""
    source = run.value("data.train") or run.data.get("source")
    if not isinstance(source, str) or not source:
        return "not stated here"
    if source in SOURCES:
        return SOURCES[source].licence
    path = Path(source).expanduser()
    cards = [card_beside(path)] if path.is_file() else sorted(path.glob("*.card.json"))
    stated = next(filter(None, map(_data_card, cards)), "")
    hub = source.partition(":")[0]
    stated = stated or _stated(_card(hub, None, "dataset"))
    if stated:
        return stated
    place = f"huggingface.co/datasets/{hub}" if _is_hub(hub) else "where the rows come from"
    return f"not stated here: look at {place}"


def _card(name: str, revision: str | None, kind: str) -> Path | None:
    """The card of a folder, else the one in the hub's cache: what was never downloaded is not looked for."""
    folder = _folder(name)
    if folder is not None:
        return folder / CARD
    if not _is_hub(name):
        return None
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, CARD, revision=revision, repo_type=kind)
    except (ImportError, OSError, ValueError):
        return None
    return Path(found) if isinstance(found, str) else None


def _folder(name: str) -> Path | None:
    if name.startswith(_PACKAGE):
        from dudi.models.load import locate  # late: it brings torch, which a report of hub models does not need

        try:
            return Path(locate(name))
        except DudiError:
            return None
    path = Path(name).expanduser()
    return path if path.is_dir() else None


def _is_hub(name: str) -> bool:
    return HUB_NAME.fullmatch(name) is not None and not Path(name).exists()


def _stated(card: Path | None) -> str:
    """What the front matter of a card says; an empty text when it says nothing."""
    if card is None:
        return ""
    try:
        text = card.read_text(encoding="utf-8")
        front = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else None
    except (OSError, ValueError, IndexError, RecursionError, yaml.YAMLError):
        return ""
    if not isinstance(front, Mapping):
        return ""
    # A licence of its own has the identifier `other` and says the rest in these keys.
    parts = [front.get("license"), front.get("license_name"), front.get("license_link")]
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
