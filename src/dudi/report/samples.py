"""The sample rollouts of a report: a few of each language, the newest in front."""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass(frozen=True, slots=True)
class ShownRollout:
    """One rollout as the page shows it; an empty text was not recorded.

    Attributes:
        where: Stage, step and row.
        kind: In words.
        language: Code of the row's language.
        target: Code of the language that was asked for.
        detected: Code of the language that the rollout is in.
        prompt: As the student read it.
        gold: The ground truth.
        wrong_language: Whether it is in another language than asked for, as far as could be told.
    """

    run: str
    where: str
    kind: str
    language: str
    target: str
    detected: str
    prompt: str
    rollout: str
    gold: str
    wrong_language: bool


def language_title(code: str) -> str:
    """A language's own name and its English one: `ไทย (Thai)`; the code where neither is known."""
    language = LANGUAGES.get(code)
    if language is None:
        return code or "unknown"
    return language.name if language.autonym == language.name else f"{language.autonym} ({language.name})"


def lang(code: str) -> str:
    """A value for the attribute `lang`: `und` for what is no language code."""
    return code if _CODE.fullmatch(code) else "und"


def choose(groups: Sequence[Group]) -> tuple[list[ShownRollout], int]:
    """The newest samples of each method and language, and how many there are in all.

    Each method shows its first run that has any; the more methods there are, the fewer samples of each.
    """
    sources: list[RunFolder] = []
    for group in groups:
        sources += [run for run in group.runs if run.samples][:1]
    most = max(PER_LANGUAGE // max(len(sources), 1), 1)
    chosen: list[ShownRollout] = []
    for run in sources:
        taken: Counter[str] = Counter()
        for record in reversed(run.samples):
            sample = _sample(run, record)
            taken[sample.language] += 1
            if taken[sample.language] <= most:
                chosen.append(sample)
    return chosen, sum(len(run.samples) for group in groups for run in group.runs)


def _sample(run: RunFolder, record: Mapping[str, Any]) -> ShownRollout:
    kind, target, detected = (text_of(record, key) for key in ("kind", "target_language", "detected_language"))
    places = [text_of(record, "stage"), f"step {text_of(record, 'step')}", text_of(record, "id")]
    return ShownRollout(
        run=run.name,
        where=", ".join(place for place in places if place.strip() not in ("", "step")),
        kind=_KINDS.get(kind, kind),
        language=text_of(record, "language"),
        target=target,
        detected=detected,
        prompt=text_of(record, "prompt"),
        rollout=text_of(record, "rollout"),
        gold=text_of(record, "gold"),
        wrong_language=bool(detected and target) and detected not in ("und", target),
    )
