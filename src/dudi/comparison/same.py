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
    """Everything that keeps the scores of two evaluations from being compared.

    Args:
        a: One evaluation.
        b: The other.
        seeds: Whether their seeds must be the same.
    """
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
    """Refuse evaluations that do not compare.

    Args:
        evaluations: At least one.
        references: Names of those whose seeds may differ: they are shown, and not tested.
        allow: Keys that may differ, `seeds` among them, or `all`.

    Returns:
        What differs and was allowed, a line each.

    Raises:
        ConfigError: they differ in a key that is not allowed, or `allow` names a key that nobody has.
    """
    _check_allowed(evaluations, allow)
    found: dict[str, None] = {}
    first = next((one for one in evaluations if one.name not in references), evaluations[0])
    for other in (other for other in evaluations if other is not first):
        differ = differences(first, other, seeds=not {first.name, other.name} & set(references))
        if refused := [difference for difference in differ if not _is_allowed(difference, allow)]:
            raise ConfigError(_refusal(refused))
        found |= dict.fromkeys(difference.text for difference in differ)
    return list(found)


def _refusal(refused: Sequence[Difference]) -> str:
    first, roots = refused[0], list(dict.fromkeys(difference.key.partition(".")[0] for difference in refused))
    more = f" (and {', '.join(roots[1:])})" if roots[1:] else ""
    join = "; join the seeds of one method as NAME=RUN,RUN" if first.key == SEEDS else ""
    return f"{first.text}{more}: not comparable{join}, or add --allow-different {' '.join(roots)}"


def _check_allowed(evaluations: Sequence[Evaluation], allow: Collection[str]) -> None:
    flat = [key for one in evaluations for key in _flat(one.benchmark)]
    roots = dict.fromkeys([ALL, SEEDS, *KEYS, *(key.partition(".")[0] for key in flat)])
    for key in allow:
        if key not in (known := [*roots, *flat]):
            hint = did_you_mean(key, known) or f"; keys: {', '.join(roots)}"
            raise ConfigError(f"--allow-different: there is no key '{key}'{hint}")


def _is_allowed(difference: Difference, allow: Collection[str]) -> bool:
    parts = difference.key.split(".")
    prefixes = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return ALL in allow or any(prefix in allow for prefix in prefixes)


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
