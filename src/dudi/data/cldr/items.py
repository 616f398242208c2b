"""Facts worded as rows: drawn by seed, languages and kinds well mixed."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator, Sequence

from dudi.data.cldr.speaker import LANGUAGES, Speaker, speaker
from dudi.data.cldr.tasks import KINDS, Fact, facts
from dudi.data.cldr.wording import MAX_PARAPHRASES, WORDING_DIR, check_questions
from dudi.data.rows import Message, Row
from dudi.errors import ConfigError, DataError, did_you_mean

Item = tuple[Fact, Row]
ROWS_PER_LANGUAGE = 200
"""Of the source `cldr`, where nobody says."""


def cldr_rows(languages: Sequence[str], rows_per_language: int, seed: int = 0) -> list[Row]:
    """Instruction rows made from CLDR, worded in each of the languages.

    The same arguments give the same rows; asking for more rows with the same languages and seed keeps the ones that
    were there at the front. Languages alternate row by row, kinds of question vary.

    Args:
        languages: Codes of built-in languages, each once.
        rows_per_language: Rows of each language.
        seed: Chooses facts, their order and their paraphrases.

    Returns:
        `len(languages) * rows_per_language` rows, distinct in id and, within a language, in question.

    Raises:
        ConfigError: an unknown or repeated language, or a number below 1.
        DataError: a language has fewer rows than asked for; the message says how many.
    """
    return [row for _, row in cldr_items(languages, rows_per_language, seed)]


def source(
    languages: Sequence[str], tasks: Sequence[str] | None, rows_per_language: int | None, seed: int
) -> list[Row]:
    """`cldr`, as `dudi.data.built_in` asks for it: it has no tasks."""
    return cldr_rows(languages, rows_per_language or ROWS_PER_LANGUAGE, seed)


def cldr_items(languages: Sequence[str], rows_per_language: int, seed: int = 0) -> list[Item]:
    """The rows of `cldr_rows`, each beside the fact that it words."""
    for language in languages:
        if language not in LANGUAGES:
            hint = did_you_mean(language, LANGUAGES)
            raise ConfigError(f"cldr: no wording for language '{language}'{hint}; there are {', '.join(LANGUAGES)}")
        if list(languages).count(language) > 1:
            raise ConfigError(f"cldr: language '{language}' is named twice")
    if not languages:
        raise ConfigError(f"cldr: name at least one language of {', '.join(LANGUAGES)}")
    if rows_per_language < 1:
        raise ConfigError(f"cldr: rows per language must be at least 1, got {rows_per_language}")
    drawn = [_take(language, rows_per_language, seed) for language in languages]
    return [item for turn in zip(*drawn, strict=True) for item in turn]


def word(fact: Fact, language: str, paraphrase: int) -> tuple[str, str] | None:
    """One fact as a question and an answer; None where CLDR lacks a name in that language.

    Args:
        fact: Any fact of a known kind, also one that `facts` does not list (another number, another day).
        language: A built-in language.
        paraphrase: Index of the paraphrase, taken modulo their number.
    """
    own = speaker(language)
    fields = KINDS[fact.kind].fields(own, *fact.key)
    if fields is None:
        return None
    pairs = own.words.questions[fact.kind]
    worded = (template.format_map(fields) for template in pairs[paraphrase % len(pairs)])
    question, answer = (text[:1].upper() + text[1:] for text in worded)
    return question, answer


@functools.cache
def answer_value(fact: Fact, language: str) -> str | None:
    """What every answer to a fact holds, without the sentence around it; None where CLDR lacks a name."""
    kind = KINDS[fact.kind]
    fields = kind.fields(speaker(language), *fact.key)
    return None if fields is None else fields[kind.answer[0]]


def row_of(fact: Fact, language: str, paraphrase: int) -> Row | None:
    """One fact as a row, with the id that `fact_of` reads; arguments as of `word`.

    Returns:
        The row, or None where CLDR lacks a name in that language. Its id ends in the fact's place among the facts of
        its kind and, as the last digit, the paraphrase.

    Raises:
        ConfigError: `facts` does not list the fact.
    """
    place = _places(fact.kind).get(fact)
    if place is None:
        raise ConfigError(f"cldr: {fact} is not listed by facts('{fact.kind}'), so it has no row id; use word()")
    worded = word(fact, language, paraphrase)
    if worded is None:
        return None
    question, answer = worded
    number = place * MAX_PARAPHRASES + paraphrase % len(speaker(language).words.questions[fact.kind])
    prompt = (Message(role="user", content=question),)
    row_id = f"cldr-{language}-{fact.kind}-{number:05d}"
    return Row(id=row_id, language=language, prompt=prompt, completion=answer, parallel=str(fact))


def fact_of(row_id: str) -> Fact:
    """The fact behind a row's id.

    Raises:
        ConfigError: not the id of a CLDR row.
    """
    source, *rest = row_id.split("-")
    if source == "cldr" and len(rest) == 3 and rest[1] in KINDS and rest[2].isdecimal():
        known, index = facts(rest[1]), int(rest[2]) // MAX_PARAPHRASES
        if index < len(known):
            return known[index]
    raise ConfigError(f"'{row_id}' is not the id of a CLDR row, such as 'cldr-th-currency-00012'")


@functools.cache
def _places(kind: str) -> dict[Fact, int]:
    """The place of each fact among the facts of its kind."""
    return {fact: place for place, fact in enumerate(facts(kind))}


def _take(language: str, count: int, seed: int) -> list[Item]:
    taken = list(itertools.islice(_mixed(language, seed), count))
    if len(taken) == count:
        return taken
    raise DataError(f"cldr: {count} rows asked for '{language}', {len(taken)} can be made; ask for at most that many")


def _mixed(language: str, seed: int) -> Iterator[Item]:
    """All rows of a language, distinct in question: round after round one of each kind, in a new order each time."""
    own = speaker(language)
    _check_words(own)
    order = random.Random(f"{seed}/{language}")
    streams = {kind: _worded(kind, language, seed) for kind in KINDS}
    seen: set[str] = set()
    while streams:
        kinds = list(streams)
        order.shuffle(kinds)
        for kind in kinds:
            new = (item for item in streams[kind] if item[1].prompt[-1]["content"] not in seen)
            item = next(new, None)
            if item is None:
                del streams[kind]
                continue
            seen.add(item[1].prompt[-1]["content"])
            yield item


def _worded(kind: str, language: str, seed: int) -> Iterator[Item]:
    """The rows of one kind: each fact once before any fact comes again in other words."""
    chosen = list(facts(kind))
    random.Random(f"{seed}/{language}/{kind}").shuffle(chosen)
    for turn in range(len(speaker(language).words.questions[kind])):
        for place, fact in enumerate(chosen):
            row = row_of(fact, language, place + turn)
            if row is not None:
                yield fact, row


def _check_words(own: Speaker) -> None:
    path = WORDING_DIR / f"{own.code}.toml"
    for kind in sorted(KINDS.keys() ^ own.words.questions.keys()):
        problem = "missing from this wording file" if kind in KINDS else f"unknown kind{did_you_mean(kind, KINDS)}"
        raise ConfigError(f"{path}: questions.{kind}: {problem}")
    for kind, pairs in own.words.questions.items():
        check_questions(path, kind, pairs, set(KINDS[kind].given), KINDS[kind].answer)
