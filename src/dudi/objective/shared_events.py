"""Events that two models with different tokenizers both know, and where their sequences can be compared.

A position can be compared where both token sequences have a border. What comes after it is one of these events, the
cells: a byte string that is a token on both sides, the end of the turn, a special token that both name alike, or OTHER.
Every token of either model falls into the cell that is its longest prefix ("201" into "2" where one side splits
digits), so that nothing is left over and nothing has to be renormalised.

A border tells a model more than the bytes before it: after `the|` a model with a token `there` does not expect `re`.
The other, without that token, does. What the longer tokens promised one position earlier is therefore added back
(`Covers`): both models are asked what follows the same bytes. See `docs/cross-tokenizer.md`.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from dudi.objective.token_bytes import FIRST_SPECIAL, TokenBytes, token_bytes

END = chr(FIRST_SPECIAL)
"""Stands for the end of the turn."""

_LAST = chr(0x10FFFF)
Side = Literal["student", "teacher"]


@dataclasses.dataclass(frozen=True, slots=True)
class Covers:
    """Tokens that begin before a border and go on after it: what the border alone would hide. E of them.

    Attributes:
        border: (E,) number of the border.
        row: (E,) completion position at which the token was an alternative.
        token: (E,) its id.
        cell: (E,) the event that its bytes after the border begin.
    """

    border: np.ndarray
    row: np.ndarray
    token: np.ndarray
    cell: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True)
class Alignment:
    """One completion in both models' tokens. K chunks lie between K + 1 common borders.

    Attributes:
        student_length: Tokens of the student's completion.
        teacher_length: Tokens of the teacher's.
        student_borders: (K + 1,) student tokens before each common border.
        teacher_borders: (K + 1,) teacher tokens.
        first_cell: (K,) the realised event: cells `first_cell` to `last_cell`, one of them where both sides agree.
        last_cell: (K,) one past its last.
        used: (K,) whether the chunk is compared.
        sizes: (K,) bytes of each chunk; a special token counts as one.
        total: Bytes of the student's completion.
        agreeing: (K,) whether both sides' first tokens are in one cell.
        student_covers: Of the common borders.
        teacher_covers: Likewise.
    """

    student_length: int
    teacher_length: int
    student_borders: np.ndarray
    teacher_borders: np.ndarray
    first_cell: np.ndarray
    last_cell: np.ndarray
    used: np.ndarray
    sizes: np.ndarray
    total: int
    agreeing: np.ndarray
    student_covers: Covers
    teacher_covers: Covers

    def used_tokens(self) -> np.ndarray:
        """(student_length,) whether a student's token is in a chunk that is compared."""
        found = np.zeros(self.student_length, dtype=bool)
        for chunk in np.flatnonzero(self.used):
            found[self.student_borders[chunk] : self.student_borders[chunk + 1]] = True
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class _Path:
    """A completion on one side.

    Attributes:
        text: Its bytes.
        starts: Where each token begins in them; -1 for one that begins with a dummy space.
        rows: Border -> tokens before it.
    """

    text: str
    starts: list[int]
    rows: dict[int, int]


class _Vocabulary:
    """One side's tokens as cells."""

    def __init__(self, tokens: TokenBytes, specials: dict[int, str]) -> None:
        spellings = [specials.get(index, spelling) for index, spelling in enumerate(tokens.spellings)]
        self.tokens = dataclasses.replace(tokens, spellings=spellings)
        self.specials = {character: index for index, character in reversed(specials.items())}
        self.cells = np.zeros(0, dtype=np.int64)


class SharedEvents:
    """The common events of two tokenizers.

    Args:
        student: The student's tokenizer.
        teacher: The teacher's.
        student_stops: Ids that end the student's turn, the chat template's first; its EOS when None.
        teacher_stops: The teacher's.
        student_size: Rows of the student's head; as many as its tokenizer has ids when None.
        teacher_size: Rows of the teacher's head.

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
        stops = [_stops(student, student_stops), _stops(teacher, teacher_stops)]
        pairs = _paired_specials(ours, theirs, stops)
        self._sides = {
            "student": _Vocabulary(ours, pairs[0]),
            "teacher": _Vocabulary(theirs, pairs[1]),
        }
        spelled = [set(filter(None, side.tokens.spellings)) for side in self._sides.values()]
        self.cells = sorted(spelled[0] & spelled[1])
        self._numbers = {spelling: number for number, spelling in enumerate(self.cells)}
        self._longest = max(map(len, self.cells))
        for side in self._sides.values():
            cells = [len(self.cells) if s is None else self._cell_of(s) for s in side.tokens.spellings]
            side.cells = np.asarray(cells, dtype=np.int64)
        self.student_cells, self.teacher_cells = (side.cells for side in self._sides.values())
        self._find = functools.lru_cache(maxsize=2**16)(self._find_covers)

    def _cell_of(self, spelling: str) -> int:
        """The longest shared spelling that some bytes begin with; OTHER where there is none."""
        for length in range(min(len(spelling), self._longest), 0, -1):
            number = self._numbers.get(spelling[:length])
            if number is not None:
                return number
        return len(self.cells)

    def encode(self, student_ids: Sequence[int]) -> list[int]:
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

    def align(self, student_ids: Sequence[int], teacher_ids: Sequence[int]) -> Alignment:
        """Line a completion up with the teacher's tokens for it.

        Bytes are compared as far as both sides have the same. A chunk between two common borders is used where both
        sides' first tokens begin a known event; where one event is the beginning of the other, all events with that
        beginning count as one.
        """
        ours = self._path("student", student_ids, "teacher")
        theirs = self._path("teacher", teacher_ids, "student")
        common = _common_length(ours.text, theirs.text)
        places = sorted(place for place in ours.rows.keys() & theirs.rows.keys() if place <= common)
        student_borders = np.array([ours.rows[place] for place in places], dtype=np.int64)
        teacher_borders = np.array([theirs.rows[place] for place in places], dtype=np.int64)
        student = self.student_cells[np.asarray(student_ids, dtype=np.int64)[student_borders[:-1]]]
        teacher = self.teacher_cells[np.asarray(teacher_ids, dtype=np.int64)[teacher_borders[:-1]]]
        used = np.maximum(student, teacher) < len(self.cells)
        if len(used) and min(path.starts[path.rows[places[0]]] for path in (ours, theirs)) < 0:
            used[0] = False
        groups = np.array([self._group(*pair) for pair in zip(student, teacher, strict=True)]).reshape(-1, 2)
        realised = {place: tuple(group) for place, group, u in zip(places, groups.tolist(), used, strict=False) if u}
        return Alignment(
            len(student_ids),
            len(teacher_ids),
            student_borders,
            teacher_borders,
            groups[:, 0],
            groups[:, 1],
            used,
            np.diff(places),
            len(ours.text),
            student == teacher,
            self._covers("student", ours, places, realised),
            self._covers("teacher", theirs, places, realised),
        )

    def _path(self, side: Side, ids: Sequence[int], other: Side) -> _Path:
        tokens = self._sides[side].tokens
        text = tokens.spell(ids)
        stripped = tokens.dummy_prefix and not self._sides[other].tokens.dummy_prefix and text.startswith(" ")
        place, starts, rows = -1 if stripped else 0, [], {}
        for row, index in enumerate(ids):
            rows[max(place, 0)] = row
            spelling = tokens.spellings[int(index)]
            if spelling is None:
                break
            starts.append(place)
            place += len(spelling)
        else:
            rows[max(place, 0)] = len(ids)
        return _Path(text[1:] if stripped else text, starts, rows)

    def _group(self, one: int, other: int) -> tuple[int, int]:
        """The cells that count as the realised event: all that begin with the shorter of two."""
        if one == other or max(one, other) == len(self.cells):
            return one, one + 1
        shorter = min(self.cells[one], self.cells[other], key=len)
        return bisect.bisect_left(self.cells, shorter), bisect.bisect_left(self.cells, shorter + _LAST)

    def _covers(self, side: Side, path: _Path, places: Sequence[int], realised: dict[int, tuple[int, int]]) -> Covers:
        """All tokens that begin on a path, pass over common borders and agree with what was realised up to there."""
        found: list[tuple[int, int, int, int]] = []
        for row, start in enumerate(path.starts):
            first = bisect.bisect_right(places, start)
            for border in range(first if start >= 0 else len(places), len(places)):
                text = path.text[start : places[border]]
                between = [place for place in places[max(first - 1, 0) : border] if place >= start]
                conditions = tuple((place - start, *realised[place]) for place in between if place in realised)
                tokens = self._find(side, text, conditions)
                if tokens is None:
                    break
                found += [(border, row, token, cell) for token, cell in tokens]
        columns = np.array(found, dtype=np.int64).reshape(-1, 4)
        return Covers(*columns.T)

    def _find_covers(
        self, side: Side, text: str, conditions: tuple[tuple[int, int, int], ...]
    ) -> list[tuple[int, int]] | None:
        """Tokens that begin with some bytes and go on, and the cells of what they go on with.

        Args:
            side: Whose tokens.
            text: The bytes.
            conditions: Offsets at which the rest of a token has to be in a range of cells.

        Returns:
            Pairs of token and cell; None where no token is longer, whatever the conditions.
        """
        vocabulary = self._sides[side]
        longer = vocabulary.tokens.longer_than(text)
        if not longer:
            return None
        found = []
        for token in longer:
            spelling = vocabulary.tokens.spellings[token]
            if spelling is not None and all(
                first <= (self._cell_of(spelling[offset:]) if offset else vocabulary.cells[token]) < last
                for offset, first, last in conditions
            ):
                found.append((token, self._cell_of(spelling[len(text) :])))
        return found


def _common_length(one: str, other: str) -> int:
    """Length of the beginning that two strings share."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


def _stops(tokenizer: PreTrainedTokenizerBase, given: Sequence[int] | None) -> list[int]:
    if given is not None:
        return list(given)
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def _paired_specials(
    student: TokenBytes, teacher: TokenBytes, stops: Sequence[Sequence[int]]
) -> tuple[dict[int, str], dict[int, str]]:
    """The character of each special token that both sides know, by id.

    The ends of turn are one event, whatever they are called. A second stop of the same name on both sides stays an
    event of its own; any other second stop is an end as well.
    """
    sides = (student, teacher)
    ends = [set(own[:1]) for own in stops]
    seconds = [
        {name for name, i in side.specials.items() if i in own[1:]} for side, own in zip(sides, stops, strict=True)
    ]
    pairs: tuple[dict[int, str], dict[int, str]] = ({}, {})
    names = sorted(student.specials.keys() & teacher.specials.keys())
    free = itertools.count(FIRST_SPECIAL + 1)
    for name in names:
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
    tail = re.search("[\xc2-\xf4][\x80-\xbf]{0,2}$", spelled)
    if tail is None:
        return spelled
    try:
        tail[0].encode("latin-1").decode()
    except UnicodeDecodeError as error:
        return spelled[: tail.start()] if error.reason == "unexpected end of data" else spelled
    return spelled
