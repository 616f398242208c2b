"""The wording files: how a language asks and answers, checked when read."""

from __future__ import annotations

import dataclasses
import functools
import string
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError, did_you_mean

WORDING_DIR = Path(__file__).with_name("wording")
FORMS = ("country", "language", "month", "weekday")
SKIPS = ("country", "currency", "language", "unit")
VERDICTS = ("no", "yes")
MIN_PARAPHRASES = 3
MAX_PARAPHRASES = 10
"""The last digit of a row's number is its paraphrase."""

Paraphrase = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class WordingFile:
    """One wording file.

    Attributes:
        locale: CLDR's identifier of the language.
        list_sizes: How many items a list may have for CLDR's pattern to read well.
        forms: How a bare name stands in a sentence, by kind of name: `{name}`, or `{lower}` for a small first letter.
        country_forms: Countries whose name in a sentence does not follow the form, by code.
        count_forms: How a number stands before a noun, by CLDR's plural category, where not alone.
        skip: Codes that CLDR names wrongly or ambiguously in this language, by kind of name.
        verdicts: The words for yes and no.
        questions: By kind of question, the paraphrases as (question, answer) templates.
    """

    locale: str
    list_sizes: frozenset[int]
    forms: Mapping[str, str]
    country_forms: Mapping[str, str]
    count_forms: Mapping[str, str]
    skip: Mapping[str, frozenset[str]]
    verdicts: Mapping[str, str]
    questions: Mapping[str, tuple[Paraphrase, ...]]


@functools.cache
def wording(language: str) -> WordingFile:
    """The wording of a built-in language, read once.

    Raises:
        ConfigError: the file is missing or malformed; the message names file and key.
    """
    return load_wording(WORDING_DIR / f"{language}.toml")


def load_wording(path: Path) -> WordingFile:
    """Read a wording file.

    Raises:
        ConfigError: the file cannot be read, a key is missing, of the wrong type or holds the wrong placeholders.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this wording file: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file in UTF-8: {error}") from error
    forms, counts = _texts(path, tree, "forms", FORMS), _texts(path, tree, "count_forms")
    skip = _get(path, tree, "skip", dict)
    _same_keys(path, "skip", skip, SKIPS)
    for prefix, table in (("forms", forms), ("count_forms", counts)):
        for key, form in table.items():
            if placeholders(path, f"{prefix}.{key}", form) not in ({"name"}, {"lower"}):
                raise ConfigError(f"{path}: {prefix}.{key}: must hold {{name}}, or {{lower}} for a small first letter")
    sizes = _get(path, tree, "list_sizes", list)
    if not sizes or not all(isinstance(size, int) and size > 1 for size in sizes):
        raise ConfigError(f"{path}: list_sizes: must be a list of whole numbers above 1, got {sizes!r}")
    questions = _get(path, tree, "questions", dict)
    paraphrases = {kind: _paraphrases(path, f"questions.{kind}", lines) for kind, lines in questions.items()}
    return WordingFile(
        locale=_get(path, tree, "locale", str),
        list_sizes=frozenset(sizes),
        forms=forms,
        country_forms=_texts(path, tree, "country_forms"),
        count_forms=counts,
        skip={key: frozenset(_get(path, skip, key, list, "skip.")) for key in SKIPS},
        verdicts=_texts(path, tree, "verdicts", VERDICTS),
        questions=paraphrases,
    )


def placeholders(path: Path, key: str, template: str) -> set[str]:
    """The names in braces of a template.

    Raises:
        ConfigError: the template's braces do not match.
    """
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ConfigError(f"{path}: {key}: {error} in '{template}'") from error


def check_questions(
    path: Path, kind: str, pairs: tuple[Paraphrase, ...], given: set[str], answer: tuple[str, ...]
) -> None:
    """Hold the paraphrases of one kind to the placeholders of that kind.

    Every question must hold those in `given`, and answers may; every answer must hold the first in `answer`, and may
    hold the others, which no question may.

    Raises:
        ConfigError: a template lacks a placeholder or has an unknown one.
    """
    must, may = answer[0], given.union(answer[1:])
    for number, (question, reply) in enumerate(pairs, start=1):
        key = f"questions.{kind}[{number}]"
        asked = placeholders(path, key, question)
        if asked != given:
            raise ConfigError(f"{path}: {key}: the question must hold {_braced(given)}, it holds {_braced(asked)}")
        told = placeholders(path, key, reply)
        if must not in told or told - may - {must}:
            raise ConfigError(
                f"{path}: {key}: the answer must hold {{{must}}} and may hold {_braced(may)}, it holds {_braced(told)}"
            )


def _braced(names: set[str]) -> str:
    return " ".join(f"{{{name}}}" for name in sorted(names)) or "none"


def _get(path: Path, table: Mapping[str, Any], key: str, kind: type, prefix: str = "") -> Any:
    if key not in table:
        raise ConfigError(f"{path}: {prefix}{key}: missing from this wording file")
    if not isinstance(table[key], kind):
        raise ConfigError(f"{path}: {prefix}{key}: must be a {kind.__name__}, got {table[key]!r}")
    return table[key]


def _texts(path: Path, tree: Mapping[str, Any], key: str, wanted: tuple[str, ...] | None = None) -> dict[str, str]:
    table = _get(path, tree, key, dict)
    if wanted is not None:
        _same_keys(path, key, table, wanted)
    return {name: _get(path, table, name, str, f"{key}.") for name in table}


def _same_keys(path: Path, prefix: str, table: Mapping[str, Any], wanted: tuple[str, ...]) -> None:
    for key in table:
        if key not in wanted:
            raise ConfigError(f"{path}: {prefix}.{key}: unknown key{did_you_mean(key, wanted)}")
    for key in wanted:
        if key not in table:
            raise ConfigError(f"{path}: {prefix}.{key}: missing from this wording file")


def _paraphrases(path: Path, key: str, value: Any) -> tuple[Paraphrase, ...]:
    pairs = value if isinstance(value, list) else []
    if not MIN_PARAPHRASES <= len(pairs) <= MAX_PARAPHRASES:
        raise ConfigError(f"{path}: {key}: give {MIN_PARAPHRASES} to {MAX_PARAPHRASES} [question, answer] pairs")
    for number, pair in enumerate(pairs, start=1):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) and text for text in pair):
            raise ConfigError(f"{path}: {key}[{number}]: must be a pair [question, answer] of texts, got {pair!r}")
    return tuple((question, answer) for question, answer in pairs)
