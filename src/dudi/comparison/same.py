"""Whether two evaluations asked the same, in the same way, over the same seeds."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dudi.errors import ConfigError, did_you_mean
from dudi.evaluation.benchmarks import find
from dudi.evaluation.records import Evaluation

SEEDS, ALL = "seeds", "all"
KEYS = ("name", "version", "part", "tasks", "languages", "limit", "questions", "fingerprint", "decoding")
"""What a benchmark is, in the order in which a difference is told: the first that differs explains those behind it."""
_LONGEST = 40


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which two evaluations are not the same.

    Attributes:
        key: `seeds`, or a key of the benchmark; what stands inside another key is written with a dot.
        text: One line for people: the key, both names and both values, shortened.
    """

    key: str
    text: str


def differences(a: Evaluation, b: Evaluation, *, seeds: bool = True) -> list[Difference]:
    """Everything that keeps the scores of two evaluations from being compared; of their seeds where these count."""
    own, other = _flat(a.benchmark), _flat(b.benchmark)  # a value that is None counts as missing
    order = {key: place for place, key in enumerate(KEYS)}
    keys = sorted({*own, *other}, key=lambda key: (order.get(key.partition(".")[0], len(KEYS)), key))
    if own.get("fingerprint") and other.get("fingerprint"):
        keys = [key for key in keys if key not in find(own.get("name")).versions]
    pairs = [(key, own.get(key), other.get(key)) for key in keys]
    pairs += [(SEEDS, a.seeds, b.seeds)] if seeds else []
    found = []
    for key, *both in pairs:
        # No score depends on the order of a list, and the fingerprint tells where one does.
        one, two = (sorted(map(str, value)) if isinstance(value, list | tuple) else value for value in both)
        if one != two:
            found.append(Difference(key, _told(key, (a.name, both[0]), (b.name, both[1]))))
    return found


def check_comparable(
    evaluations: Sequence[Evaluation], *, references: Collection[str] = (), allow: Collection[str] = ()
) -> list[str]:
    """Refuse evaluations that do not compare; returns what differs and was allowed, a line each.

    Args:
        evaluations: At least one.
        references: Names of those whose seeds may differ: they are shown, and not tested.
        allow: Keys that may differ, `seeds` among them, or `all`.

    Raises:
        ConfigError: they differ in a key that is not allowed, or `allow` names a key that nobody has.
    """
    flat = [key for one in evaluations for key in _flat(one.benchmark)]
    known = list(dict.fromkeys([ALL, SEEDS, *KEYS, *(key.partition(".")[0] for key in flat)]))
    for key in allow:
        if key not in (*known, *flat):
            hint = did_you_mean(key, [*known, *flat]) or f"; keys: {', '.join(known)}"
            raise ConfigError(f"--allow-different: there is no key '{key}'{hint}")
    found: dict[str, None] = {}
    first = next((one for one in evaluations if one.name not in references), evaluations[0])
    for other in (other for other in evaluations if other is not first):
        differ = differences(first, other, seeds=not {first.name, other.name} & set(references))
        prefixes = tuple(f"{key}." for key in allow)
        refused = [one for one in differ if not f"{one.key}.".startswith(prefixes)]
        if refused and ALL not in allow:
            roots = list(dict.fromkeys(one.key.partition(".")[0] for one in refused))
            more = f" (and {', '.join(roots[1:])})" if roots[1:] else ""
            join = "; join the seeds of one method as NAME=RUN,RUN" if refused[0].key == SEEDS else ""
            told = f"{refused[0].text}{more}: not comparable{join}"
            raise ConfigError(f"{told}, or add --allow-different {' '.join(roots)}")
        found |= dict.fromkeys(difference.text for difference in differ)
    return list(found)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value by its dotted key."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _told(key: str, a: tuple[str, Any], b: tuple[str, Any]) -> str:
    """`tasks differs: 'a' also has units`; `part differs: test in 'a', validation in 'b'`."""
    (name_a, one), (name_b, two) = a, b
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        own, other = Counter(map(str, one)), Counter(map(str, two))
        extra = [(name_a, own - other), (name_b, other - own)]
        told = "; ".join(f"'{name}' also has {_shortened(', '.join(more.elements()))}" for name, more in extra if more)
        return f"{key}: {told}"
    first, second = ("none" if value is None else str(value) for value in (one, two))
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    start = sum(1 for _ in same)
    return f"{key} differs: {_shortened(first, start)} in '{name_a}', {_shortened(second, start)} in '{name_b}'"


def _shortened(text: str, start: int = 0) -> str:
    """At most `_LONGEST` characters and two ellipses, with what stands at `start` among them."""
    text = " ".join(text.split()) if text.isprintable() else ascii(text)
    begin = 0 if start < _LONGEST - 12 else start - 8
    shown = text[begin : begin + _LONGEST]
    if len(text) == 64 and begin == 0 and start < 8:  # a SHA-256 is known by its beginning
        shown = text[:12]
    return f"{'…' if begin else ''}{shown}{'…' if begin + len(shown) < len(text) else ''}"
