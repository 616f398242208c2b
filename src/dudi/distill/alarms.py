"""A warning when rollouts collapse: a student that writes nothing, or one token for ever, can have a fine loss."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from typing import Any

from dudi.distill.arguments import DudiConfig


@dataclasses.dataclass(frozen=True, slots=True)
class Sign:
    """One sign of collapse.

    Attributes:
        key: The rate in `metrics.jsonl`.
        limit: The key of `DudiConfig` that holds its threshold.
        inverted: Whether the rate is good, so that what is missing from 1 counts.
    """

    key: str
    limit: str
    what: str
    advice: str
    inverted: bool = False


SIGNS: tuple[Sign, ...] = (
    Sign(
        "rollout/empty_rate",
        "alarm_empty_rate",
        "are empty",
        "look for empty or cut answers among the targets, lower learning_rate or lambda, or start from a cold start",
    ),
    Sign(
        "rollout/repetition_rate",
        "alarm_repetition_rate",
        "end in a loop of the same tokens",
        "lower learning_rate or lambda, raise temperature, or start from a cold start",
    ),
    Sign(
        "rollout/eos_rate",
        "alarm_unended_rate",
        "never end",
        "raise max_new_tokens; if that does not help, check the chat template's end of turn in `--dry-run`",
        inverted=True,
    ),
    Sign(
        "rollout/wrong_language_rate",
        "alarm_wrong_language_rate",
        "are in another language than asked for",
        "look at samples.jsonl; train on more rows of the languages that are missed, or take another verbalizer",
    ),
)


class CollapseAlarm:
    """Tells once for each sign that rollouts have collapsed."""

    def __init__(self, args: DudiConfig) -> None:
        self.args = args
        self.recent: dict[str, deque[float]] = {sign.key: deque(maxlen=args.alarm_steps) for sign in SIGNS}
        self.told: set[str] = set()

    def see(self, record: Mapping[str, Any]) -> list[str]:
        """Take in the metrics of an optimizer step; returns what is new, a line each."""
        warnings = []
        for sign in SIGNS:
            seen = self.recent[sign.key]
            if sign.key in record:
                seen.append(1.0 - record[sign.key] if sign.inverted else record[sign.key])
            limit = getattr(self.args, sign.limit)
            if len(seen) < self.args.alarm_steps or sum(seen) <= limit * len(seen) or sign.key in self.told:
                continue
            self.told.add(sign.key)
            warnings.append(
                f"step {record.get('step', '?')}: {sum(seen) / len(seen):.0%} of the rollouts of the last "
                f"{len(seen)} steps {sign.what} ({sign.limit}={limit:g}): {sign.advice}"
            )
        return warnings
