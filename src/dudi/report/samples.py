"""The sample rollouts of a report: a few of each language, the newest in front."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dudi.languages.registry import LANGUAGES
from dudi.report.groups import Group
from dudi.report.run_folder import RunFolder, text_of

PER_LANGUAGE = 8
_CODE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")
_KINDS = {"plain": "plain prompt", "verbalized": "verbalized prompt"}


def language_title(code: str) -> str:
    """A language's own name and its English one: `ไทย (Thai)`; the code where neither is known."""
    language = LANGUAGES.get(code)
    if language is None:
        return code or "unknown"
    return language.name if language.autonym == language.name else f"{language.autonym} ({language.name})"


def lang(code: str) -> str:
    """A value for the attribute `lang`: `und` for what is no language code."""
    return code if _CODE.fullmatch(code) else "und"


def choose(groups: Sequence[Group]) -> tuple[list[dict[str, Any]], int]:
    """The newest samples of each method and language, and how many there are in all.

    Each method shows its first run that has any; the more methods there are, the fewer samples of each.
    """
    sources: list[RunFolder] = []
    for group in groups:
        sources += [run for run in group.runs if run.samples][:1]
    most = max(PER_LANGUAGE // max(len(sources), 1), 1)
    chosen = []
    for run in sources:
        taken: Counter[str] = Counter()
        for record in reversed(run.samples):
            language = text_of(record, "language")
            taken[language] += 1
            if taken[language] <= most:
                chosen.append(_sample(run, record))
    return chosen, sum(len(run.samples) for group in groups for run in group.runs)


def _sample(run: RunFolder, record: Mapping[str, Any]) -> dict[str, Any]:
    """One rollout for the page; an empty text was not recorded."""
    kind, target, detected = (text_of(record, key) for key in ("kind", "target_language", "detected_language"))
    places = [text_of(record, "stage"), f"step {text_of(record, 'step')}", text_of(record, "id")]
    return {
        "language": text_of(record, "language"),
        "prompt": text_of(record, "prompt"),
        "rollout": text_of(record, "rollout"),
        "gold": text_of(record, "gold"),
        "run": run.name,
        "where": ", ".join(place for place in places if place.strip() not in ("", "step")),
        "kind": _KINDS.get(kind, kind),
        "target": target,
        "detected": detected,
        # In another language than asked for, as far as could be told.
        "wrong_language": bool(detected and target) and detected not in ("und", target),
    }
