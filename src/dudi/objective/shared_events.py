"""Events that two models with different tokenizers both know, and where their sequences can be compared.

What comes after some bytes is one of these events, the cells: a byte string that is a token on both sides, the end of
the turn, a special token that both name alike, or OTHER. Every token of either model falls into the cell that is its
longest prefix ("201" into "2" where one side splits digits), so that nothing is left over and nothing has to be
renormalised.

A token sequence tells a model more than its bytes do: after `the|` a model with a token `there` does not expect `re`,
and one without that token does. Both are therefore asked what follows the same *bytes*. What longer tokens promised
before a border is added to what the model says at it (`Covers`); and inside a token, where a model says nothing, its
longer tokens alone tell what they can. See `docs/cross-tokenizer.md`.
"""

from __future__ import annotations

import bisect
import codecs
import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from dudi.data.chat import Tokens
from dudi.objective.token_bytes import FIRST_SPECIAL, TokenBytes, common_length, token_bytes

END = chr(FIRST_SPECIAL)
"""Stands for the end of the turn."""

ENDS_HERE = -1
"""In place of a cell: the token ends exactly here, and what comes after it is not known."""

_LAST = chr(0x10FFFF)
Side = Literal["student", "teacher"]


@dataclasses.dataclass(frozen=True, slots=True)
class Covers:
    """Tokens that begin before a border and reach it: E of them, in int32, for there are many."""

    border: np.ndarray  # (E,) number of the border
    row: np.ndarray  # (E,) completion position at which the token was an alternative
    token: np.ndarray  # (E,) its id
    cell: np.ndarray  # (E,) the event that its bytes after the border begin, or `ENDS_HERE`


@dataclasses.dataclass(frozen=True, slots=True)
class Track:
    """One side of a completion along the B borders of either side."""

    length: int  # tokens of the completion
    rows: np.ndarray  # (B,) the token that begins at each border, or the one that passes over it
    inside: np.ndarray  # (B,) whether it passes over it: then the model says nothing at this place
    covers: Covers  # other tokens that pass over a border; where `inside`, all of them, and those that end there


@dataclasses.dataclass(frozen=True, slots=True)
class Alignment:
    """One completion in both models' tokens, along all B places where either side has a border."""

    student: Track
    teacher: Track
    first_cell: np.ndarray  # (B,) the realised event: cells from this one on, one where both sides agree
    last_cell: np.ndarray  # (B,) one past its last
    used: np.ndarray  # (B,) whether what follows is compared
    agreeing: np.ndarray  # (B,) whether both sides' tokens go on with one cell
    ends: np.ndarray  # (B,) the next border of both sides, where what lies between is not one token on both; else -1
    places: np.ndarray  # (B,) bytes before each border; a special token counts as one
    total: int  # bytes of the student's completion

    def used_tokens(self) -> np.ndarray:
        """(N,) whether something is compared at a student's token."""
        found = np.zeros(self.student.length, dtype=bool)
        found[self.student.rows[self.used]] = True
        return found

    def used_bytes(self) -> int:
        """Bytes between a border at which something is compared and the next."""
        return int(np.diff(self.places)[self.used[:-1]].sum())


@dataclasses.dataclass(frozen=True, slots=True)
class _Path:
    """A completion on one side."""

    text: str  # its bytes
    starts: list[int]  # where each token begins in them; -1 for one with a dummy space in front; last, where all end
    ids: list[int]

    def row_at(self, place: int) -> int:
        """The token that begins at some place or passes over it; the number of tokens at the end."""
        return max(0, bisect.bisect_right(self.starts, place) - 1)


class _CellVocabulary:
    """One side's tokens as cells."""

    def __init__(self, tokens: TokenBytes, specials: dict[int, str]) -> None:
        spellings = [specials.get(index, spelling) for index, spelling in enumerate(tokens.spellings)]
        self.tokens = dataclasses.replace(tokens, spellings=spellings)
        self.specials = {character: index for index, character in reversed(specials.items())}
        self.cells = np.zeros(0, dtype=np.int64)

    def spelling(self, token: int) -> str:
        """The bytes of a token that has some."""
        return self.tokens.spellings[token] or ""


class SharedEvents:
    """The common events of two tokenizers.

    Each side's stops are the ids that end its turn, the chat template's first (None: its EOS), and its size the rows of
    its head (None: as many as its tokenizer has ids).

    Attributes:
        cells: The shared spellings, sorted; OTHER is number `len(cells)`.
        student_cells: (V,) the cell of each token of the student.
        teacher_cells: (V',) likewise.

    Raises:
        ConfigError: a tokenizer whose tokens are no bytes, or which changes text.
    """

    def __init__(
        self,
        student: PreTrainedTokenizerBase,
        teacher: PreTrainedTokenizerBase,
        student_stops: Sequence[int] | None = None,
        teacher_stops: Sequence[int] | None = None,
        student_size: int | None = None,
        teacher_size: int | None = None,
    ) -> None:
        ours, theirs = token_bytes(student, student_size, "student"), token_bytes(teacher, teacher_size, "teacher")
        stops = []
        for tokenizer, given in ((student, student_stops), (teacher, teacher_stops)):
            own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
            stops.append(own if given is None else list(given))
        pairs = _paired_specials(ours, theirs, stops)
        self._sides = {"student": _CellVocabulary(ours, pairs[0]), "teacher": _CellVocabulary(theirs, pairs[1])}
        spelled = [set(filter(None, side.tokens.spellings)) for side in self._sides.values()]
        self.cells = sorted(spelled[0] & spelled[1])
        self._numbers = {spelling: number for number, spelling in enumerate(self.cells)}
        self._longest = max(map(len, self.cells), default=0)
        self._cell_of = functools.lru_cache(maxsize=2**18)(self._longest_cell)
        self._find = functools.lru_cache(maxsize=2**14)(self._find_covers)
        for side in self._sides.values():
            cells = [len(self.cells) if s is None else self._longest_cell(s) for s in side.tokens.spellings]
            side.cells = np.asarray(cells, dtype=np.int64)
        self.student_cells, self.teacher_cells = (side.cells for side in self._sides.values())

    @property
    def end(self) -> int:
        """The cell of the end of the turn."""
        return self._numbers[END]

    def _longest_cell(self, spelling: str) -> int:
        """The longest shared spelling that some bytes begin with; OTHER where there is none."""
        for length in range(min(len(spelling), self._longest), 0, -1):
            number = self._numbers.get(spelling[:length])
            if number is not None:
                return number
        return len(self.cells)

    def encode(self, student_ids: Tokens) -> list[int]:
        """The teacher's tokens for a completion that the student wrote or read.

        The student's ids are taken as they are: the same bytes are handed to the teacher's tokenizer, a special token
        becomes the teacher's own. The ids end before a special token that the teacher does not know, and before a
        character that a cut rollout has left unfinished.
        """
        ours, theirs = self._sides["student"], self._sides["teacher"]
        spelled = ours.tokens.spell(student_ids)
        if ours.tokens.dummy_prefix:
            spelled = spelled.removeprefix(" ")
        ids: list[int] = []
        texts = itertools.groupby(_without_unfinished(spelled), key=lambda character: character >= END)
        for special, part in texts:
            if special:
                ids += [theirs.specials[character] for character in part]
                continue
            text = "".join(part)
            tokens = theirs.tokens.encode(text)
            ids += tokens
            if theirs.tokens.spell(tokens).removeprefix(" " * theirs.tokens.dummy_prefix) != text:
                break
        return ids

    def align(self, student_ids: Tokens, teacher_ids: Tokens) -> Alignment:
        """Line a completion up with the teacher's tokens for it, as far as both have the same bytes.

        Where one side's realised event is the beginning of the other's, all events with that beginning count as one.
        """
        ours = self._path("student", student_ids, "teacher")
        theirs = self._path("teacher", teacher_ids, "student")
        common = common_length(ours.text, theirs.text)
        places = [p for p in sorted({0, *ours.starts, *theirs.starts}) if 0 <= p <= common]
        realised = []
        for place in places:
            mine = self._realised("student", ours, place, common)
            realised.append((mine, self._realised("teacher", theirs, place, common)))
        used = np.array([max(pair) < len(self.cells) for pair in realised])
        groups = np.array([self._group(*pair) for pair in realised])
        known = {place: tuple(group) for place, group, u in zip(places, groups.tolist(), used, strict=True) if u}
        student = self._track("student", ours, len(student_ids), places, known)
        teacher = self._track("teacher", theirs, len(teacher_ids), places, known)
        agreeing = np.array([one == other for one, other in realised])
        ends, first, last = _chunk_ends(student, teacher), groups[:, 0], groups[:, 1]
        return Alignment(student, teacher, first, last, used, agreeing, ends, np.array(places), len(ours.text))

    def _path(self, side: Side, ids: Tokens, other: Side) -> _Path:
        tokens = self._sides[side].tokens
        spelled = [tokens.spellings[int(index)] for index in ids]
        known = [spelling for spelling in itertools.takewhile(lambda one: one is not None, spelled) if spelling]
        text = "".join(known)
        stripped = tokens.dummy_prefix and not self._sides[other].tokens.dummy_prefix and text.startswith(" ")
        starts = list(itertools.accumulate(map(len, known), initial=-stripped))
        return _Path(text[stripped:], starts, [int(index) for index in ids[: len(known)]])

    def _realised(self, side: Side, path: _Path, place: int, common: int) -> int:
        """The cell of what a path's token goes on with at some place; OTHER where it is not known."""
        row = path.row_at(place)
        if row == len(path.ids) or path.starts[row] < 0 or path.starts[row + 1] > common:
            return len(self.cells)
        vocabulary, offset = self._sides[side], place - path.starts[row]
        token = path.ids[row]
        return self._cell_of(vocabulary.spelling(token)[offset:]) if offset else int(vocabulary.cells[token])

    def _group(self, one: int, other: int) -> tuple[int, int]:
        """The cells that count as the realised event: all that begin with the shorter of two."""
        if one == other or max(one, other) == len(self.cells):
            return one, one + 1
        shorter = min(self.cells[one], self.cells[other], key=len)
        return bisect.bisect_left(self.cells, shorter), bisect.bisect_left(self.cells, shorter + _LAST)

    def _track(
        self, side: Side, path: _Path, length: int, places: Sequence[int], known: dict[int, tuple[int, int]]
    ) -> Track:
        rows = np.array([path.row_at(place) for place in places])
        inside = np.array([path.starts[row] != place for row, place in zip(rows, places, strict=True)])
        parts: list[tuple[np.ndarray, ...]] = [(np.zeros(0, dtype=np.int32),) * 4]
        for row, start in enumerate(path.starts[:-1]):
            first = bisect.bisect_right(places, start) if start >= 0 else len(places)
            for border in range(first, len(places)):
                between = [place for place in places[max(first - 1, 0) : border] if place >= start]
                conditions = tuple((place - start, *known[place]) for place in between if place in known)
                tokens, cells, more = self._find(side, path.text[start : places[border]], conditions)
                chosen = slice(None) if inside[border] else cells != ENDS_HERE
                tokens, cells = tokens[chosen], cells[chosen]
                places_of = (np.full(len(tokens), number, dtype=np.int32) for number in (border, row))
                parts.append((*places_of, tokens, cells))
                if not more:
                    break
        return Track(length, rows, inside, Covers(*map(np.concatenate, zip(*parts, strict=True))))

    def _find_covers(
        self, side: Side, text: str, conditions: tuple[tuple[int, int, int], ...]
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Tokens that begin with some bytes, where at some offsets their rest is in a range of cells.

        Returns:
            Tokens, the cells of what they go on with or `ENDS_HERE`, and whether any token is longer than the bytes.
        """
        vocabulary = self._sides[side]
        candidates = vocabulary.tokens.beginning_with(text)
        found: np.ndarray = np.asarray(candidates, dtype=np.int64)
        for offset, first, last in conditions:
            if offset:
                cells = [self._cell_of(vocabulary.spelling(token)[offset:]) for token in found]
            else:
                cells = vocabulary.cells[found].tolist()
            found = found[(np.asarray(cells) >= first) & (np.asarray(cells) < last)]
        rest = [vocabulary.spelling(token)[len(text) :] for token in found]
        cells = [self._cell_of(one) if one else ENDS_HERE for one in rest]
        longer = any(len(vocabulary.spelling(token)) > len(text) for token in reversed(candidates))
        return found.astype(np.int32), np.asarray(cells, dtype=np.int32), longer


def _chunk_ends(student: Track, teacher: Track) -> np.ndarray:
    """By border: the next that both sides have, where the chunk up to it is not one token on both; else -1."""
    ends = np.full(len(student.rows), -1)
    both = np.flatnonzero(~student.inside & ~teacher.inside)
    for start, end in itertools.pairwise(both):
        if max(side.rows[end] - side.rows[start] for side in (student, teacher)) > 1:
            ends[start] = end
    return ends


def _paired_specials(
    student: TokenBytes, teacher: TokenBytes, stops: Sequence[Sequence[int]]
) -> tuple[dict[int, str], dict[int, str]]:
    """The character of each special token that both sides know, by id.

    The ends of turn are one event, whatever they are called. A second stop of the same name on both sides stays an
    event of its own; any other second stop is an end as well.
    """
    sides = (student, teacher)
    ends = [set(own[:1]) for own in stops]
    seconds: list[set[str]] = []
    for side, own in zip(sides, stops, strict=True):
        seconds.append({name for name, i in side.specials.items() if i in own[1:]})
    pairs: tuple[dict[int, str], dict[int, str]] = ({}, {})
    free = itertools.count(FIRST_SPECIAL + 1)
    for name in sorted(student.specials.keys() & teacher.specials.keys()):
        ids = [side.specials[name] for side in sides]
        one_end = any(i in own for i, own in zip(ids, ends, strict=True))
        stopping = sum(name in own for own in seconds)
        if not one_end and stopping != 1:
            character = chr(next(free))
            pairs[0][ids[0]], pairs[1][ids[1]] = character, character
    for own, pair in zip(stops, pairs, strict=True):
        pair.update({i: END for i in own if i not in pair})
    return pairs


def _without_unfinished(spelled: str) -> str:
    """Bytes without a last character that more bytes could finish."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(spelled.encode("latin-1", "replace"))
    waiting, _ = decoder.getstate()
    return spelled[: len(spelled) - len(waiting)]
