"""Which rows of SEA-Instruct-2602 are good: quality, source, conversation, and a text in the language it claims."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dudi.data.records import Located
from dudi.data.rows import MAX_CHARACTERS, Row, RowError, parse_row, refuse_zawgyi

ID = "conversations_id"
CONVERSATIONS = "conversations"
SOURCE = "source"
QUALITY = "prompt_input_quality"
COHERENT = "prompt_is_coherent"
NATURAL = "prompt_is_natural"
MIX_COLUMNS = {"domain": "prompt_primary_domain", "task": "prompt_primary_task", "complexity": "prompt_complexity"}
METADATA = (ID, SOURCE, QUALITY, COHERENT, NATURAL, *MIX_COLUMNS.values())
UNKNOWN = "unknown"

LANGUAGE_NAMES = {
    "burmese": "my",
    "filipino": "tl",
    "tagalog": "tl",
    "indonesian": "id",
    "malay": "ms",
    "tamil": "ta",
    "thai": "th",
    "vietnamese": "vi",
    "english": "en",
}
"""How the dataset's configs and folders call the languages, in lower case."""

DEFAULT_EXCLUDED_SOURCES: tuple[str, ...] = (
    *("SEASafeguardMix", "SEA-Safeguard", "SEA-HELM", "Belebele", "MMLU", "Thai_Exam", "M3Exam", "SeaExam", "Kalahi"),
    *("LINDSEA", "Batayan", "IFEval", "MT-Bench", "FLORES", "XLSum", "XNLI", "IndoNLI", "XCOPA", "XQuAD", "TyDiQA"),
    "NusaX",
)
"""Sources that sit near the benchmarks of SEA-HELM; compared without case, hyphens and underscores."""

_YES = ("true", "yes", "1")
_WANTED = {
    QUALITY: (("excellent",), "quality_not_excellent"),
    COHERENT: (_YES, "not_coherent"),
    NATURAL: (_YES, "not_natural"),
}
"""Columns, what they say of a row that is wanted, and why another one is not."""
_CONFUSABLE = frozenset({"id", "ms"})
_SEEN_OF_QUESTION = 200
_SEEN_OF_ANSWER = 300
_DEEPEST = 40


class LeftOut(Exception):
    """A sound row that is not wanted; its text is what the data card counts it under."""


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A good row with what the sample is drawn by."""

    row: Row
    cell: tuple[str, str, str]
    source: str


class SeaFilter:
    """Judges the records of SEA-Instruct: wanted are some languages, and no `source` that holds an excluded name."""

    def __init__(self, languages: Sequence[str], exclude_sources: Collection[str]) -> None:
        from dudi.languages.detect import detect

        self._detect = detect
        self._languages = list(languages)
        self._candidates = [*languages, *({"en", "id", "ms"} - set(languages))]
        self._excluded = [_folded(name) for name in exclude_sources if _folded(name)]

    def __call__(self, located: Located, expected: str | None) -> Candidate:
        """The candidate that a record makes.

        `expected` is the language that its folder names; where there is none its text decides.

        Raises:
            LeftOut: the record is sound, but not wanted.
            RowError: the record cannot be used.
        """
        if located.problem is not None:
            raise RowError(*located.problem)
        record = located.value
        self._refuse_unwanted(record)
        written = {"id": record.get(ID), "messages": parse_conversations(record.get(CONVERSATIONS))}
        row = parse_row(written, fallback_id="", language=expected or UNKNOWN)
        row = dataclasses.replace(row.in_nfc(), language=self._language(row, expected))
        refuse_zawgyi(row)
        domain, task, complexity = (_category(record.get(column)) for column in MIX_COLUMNS.values())
        return Candidate(row, (domain, task, complexity), _category(record.get(SOURCE)))

    def _refuse_unwanted(self, record: Mapping[str, Any]) -> None:
        for column, (good, reason) in _WANTED.items():
            if column in record and str(record[column]).strip().lower() not in good:
                raise LeftOut(reason)
        source = _folded(_category(record.get(SOURCE)))
        if any(name in source for name in self._excluded):
            raise LeftOut("excluded_source")

    def _language(self, row: Row, expected: str | None) -> str:
        """The language of a row's text; the tags describe the prompt before its translation and do not count."""
        text = f"{row.prompt[-1]['content'][:_SEEN_OF_QUESTION]}\n{row.completion[:_SEEN_OF_ANSWER]}"
        found = self._detect(text, self._candidates)
        if found == "und":
            raise LeftOut("language_unclear")
        if expected is None:
            if found not in self._languages:
                raise LeftOut("other_language")
            return found
        # Short Indonesian and Malay texts are often the same words: between these two the folder is the better witness.
        if found != expected and not {found, expected} <= _CONFUSABLE:
            raise LeftOut("text_in_another_language")
        return expected


def parse_conversations(value: Any) -> Any:
    """The list of turns that the column holds: a list, JSON, or the printed form of a Python list.

    Raises:
        RowError: it is none of these.
    """
    if not isinstance(value, str):
        return value
    if len(value) > MAX_CHARACTERS:
        raise RowError("too_many_characters", f"`{CONVERSATIONS}` has {len(value):,} characters")
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(value)
    text, broken = value.strip(), f"`{CONVERSATIONS}` is neither JSON nor a Python list"
    # Hostile nesting is refused before the parser: turns begin with two brackets, a bomb with thousands.
    if not text.startswith("[") or len(text) - len(text.lstrip("[{(-+~ \t\n")) > _DEEPEST:
        raise RowError("broken_conversations", f"{broken} of turns")
    try:
        return ast.literal_eval(text)  # it builds literals and runs nothing
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise RowError("broken_conversations", f"{broken} ({type(error).__name__})") from error


def _category(value: Any) -> str:
    if value is None or value == "":
        return UNKNOWN
    return str(value)[:100].encode("utf-8", "replace").decode("utf-8")


def _folded(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
