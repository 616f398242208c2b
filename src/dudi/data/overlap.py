"""Whether a training text shares n-grams with a benchmark: 8 words, or 20 characters where words are not parted.

Eight words are what most reports on contamination count (PaLM, Chowdhery et al. 2022, counts 8-grams, GPT-3 8 to 13).
Thai, Lao, Burmese and Khmer have no spaces between words; 20 of their characters are about four or five words.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.data.task_data import documents
from dudi.data.task_files import find_tasks

WORDS, CHARACTERS = 8, 20
SHORT_WORDS, SHORT_CHARACTERS = 4, 10
"""A text shorter than one n-gram counts whole, from this length on: a headline does, a label does not."""

_UNPARTED = re.compile("[\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff]")
"""Thai and Lao, Burmese with its extensions, Khmer."""


class Grams:
    """The n-grams of a benchmark's texts."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def add(self, text: str) -> bool:
        """Take in a text; returns whether it has an n-gram at all."""
        found = set(map(hash, grams(text)))
        self._known |= found
        return bool(found)

    def shares(self, texts: Iterable[str]) -> bool:
        """Whether one of some texts has an n-gram of the benchmark."""
        return any(hash(gram) in self._known for text in texts for gram in grams(text))


def grams(text: str) -> Iterator[str]:
    """The n-grams of a text, in NFC, one case, and without punctuation.

    Yields:
        Eight words in a row, or twenty characters where most letters are of a script that parts no words; the whole
        text where it is shorter than that and not a mere word or three.
    """
    words = unicodedata.normalize("NFC", text).casefold().translate(_LETTERS).split()
    joined = "".join(words)
    unparted = 2 * len(_UNPARTED.findall(joined)) > len(joined)
    pieces: Sequence[str] = joined if unparted else words
    size, least = (CHARACTERS, SHORT_CHARACTERS) if unparted else (WORDS, SHORT_WORDS)
    glue = "" if unparted else " "
    if least <= len(pieces) < size:
        yield glue.join(pieces)
    for start in range(len(pieces) - size + 1):
        yield glue.join(pieces[start : start + size])


class _Letters(dict[int, int | None]):
    """What `str.translate` does with a character: letters, marks and digits stay, the rest parts words."""

    def __missing__(self, code: int) -> int | None:
        category = unicodedata.category(chr(code))
        # Format characters (zero-width space, joiners) stand inside words: they go without a trace.
        kept = code if category[0] in "LMN" else None if category == "Cf" else ord(" ")
        self[code] = kept
        return kept


_LETTERS = _Letters()


@dataclasses.dataclass(frozen=True, slots=True)
class HeldOutText:
    """What rows must share nothing with: the n-grams of the tasks that what was `named` stands for."""

    grams: Grams
    named: list[str]
    tasks: list[str]
    notes: list[str]


def find_benchmark(words: Sequence[str], languages: Sequence[str], folder: Path | None) -> HeldOutText | None:
    """What rows in some languages must share nothing with; None where no task is named.

    The documents' own texts are read and not the prompts: what is said around them is the same in every row. A task
    that says no language is taken for each of them. `words` are as of `find_tasks`, `folder` as of `documents`.

    Raises:
        ConfigError: a task or its data is not there.
        DataError: a file cannot be read.
        EnvironmentFault: the hub cannot be reached.
    """
    if not words:
        return None
    found = HeldOutText(Grams(), list(words), [], [])
    for word in words:
        own = [task for task in find_tasks(word) if not task.language or task.language in languages]
        there = {task.language for task in own}
        missing = [] if "" in there else [code for code in dict.fromkeys(languages) if code not in there]
        if missing:
            lacking = f"{word} has no task in {', '.join(missing)}"
            found.notes.append(f"{lacking}: rows in it were compared with nothing of it")
        for task in own:
            found.tasks.append(task.name)
            compared = False
            for located in documents(task, task.split("test"), folder):
                for text in texts_of(located.value) if located.problem is None else ():
                    compared |= found.grams.add(text)
            if not compared:
                lacking = f"{task.name} has no text of {WORDS} words or {CHARACTERS} characters"
                found.notes.append(f"{lacking}: nothing was compared")
    return found


def texts_of(document: Any) -> Iterator[str]:
    """Every text in a document, however deep: `choices: {text: [...]}`, `translation: {en: ..., th: ...}`."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, Mapping | list | tuple):
        for value in document.values() if isinstance(document, Mapping) else document:
            yield from texts_of(value)
