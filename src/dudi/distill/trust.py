"""How far a teacher is trusted in a language: the share w of `teacher_weight`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

NOT_ASKED = 0.5
"""The share in a language that no row of a probe is in: sigmoid(q / tau) where nothing is known, q = 0."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trust:
    """The share of the teacher in each language.

    Attributes:
        by_language: Where it was given or found.
        elsewhere: In the other languages, and in rows without one.
        by_teacher: By language, that of each of several teachers, where a probe has asked all of them.
    """

    by_language: Mapping[str, float] = dataclasses.field(default_factory=dict)
    elsewhere: float = 1.0
    by_teacher: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    def of(self, language: str, teacher: str = "") -> float:
        """The share in a completion that should be in a language, judged by a teacher, or by whoever is asked there."""
        own = self.by_teacher.get(language, {}).get(teacher)
        return self.by_language.get(language, self.elsewhere) if own is None else own


def found_trust(found: Mapping[str, Mapping[str, Any]]) -> Trust:
    """What a probe found (`probe.weigh`, `probe.best_of`)."""
    return Trust(
        {language: float(one["weight"]) for language, one in found.items()},
        NOT_ASKED,
        {language: one["weights"] for language, one in found.items() if "weights" in one},
    )
