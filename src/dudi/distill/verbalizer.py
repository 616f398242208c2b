"""`Verbalizer`: the teacher's prompt z and the student's prompt p_z of a row (Section 3.3 of the paper).

Every choice is a hash of (seed, row id, epoch): it depends neither on the order of rows nor on workers, ranks or
resuming. docs/verbalizer.md explains the modes and the templates.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from dudi.data.rows import Message, Row, RowError, parse_row
from dudi.errors import ConfigError, DataError, did_you_mean
from dudi.languages.registry import Language, check_codes, load_languages
from dudi.objective.methods import CHOOSING
from dudi.objective.methods import VerbalizerMode as Mode

MODES: tuple[Mode, ...] = get_args(Mode)

_ENGLISH = "en"
_NO_ID = ""
_SLOT = re.compile(r"\{(question|answer|language)\}")


@dataclasses.dataclass(frozen=True, slots=True)
class Verbalized:
    """The two prompts of one row; neither holds the assistant's answer as a turn.

    Attributes:
        teacher_messages: z as a conversation, the last turn the user's.
        student_messages: p_z as a conversation, the last turn the user's.
        target_language: l_z, the code of the language that the rollout should be in.
        mode: The mode that shaped this row: under `mix`, the one that the coin chose.
    """

    teacher_messages: list[Message]
    student_messages: list[Message]
    target_language: str
    mode: Mode


class Verbalizer:
    """Makes the prompts of the on-policy signal.

    Args:
        mode: `none`, `english`, `multilingual`, `cross_lingual` or `mix`.
        languages: Codes of the training languages; their order does not matter. English joins the targets by itself.
        seed: Seed of the choice of target and of the coin of `mix`.
        exclude_targets: Codes that `cross_lingual` never asks for; `["en"]` is the paper's "w/o English".
        pivot: Code of a language in which z shows the example too, where there is a parallel row.
        languages_dir: A folder of further languages; None takes the one that `DUDI_LANGUAGES_DIR` names, if any.

    Attributes:
        pivots: By their `parallel`, the rows in the language of the pivot (`pivots_of`).

    Raises:
        ConfigError: an unknown mode or language, a broken language file, or a training language without a target.
    """

    def __init__(
        self,
        mode: Mode,
        languages: Sequence[str],
        seed: int,
        exclude_targets: Sequence[str] = (),
        *,
        pivot: str | None = None,
        languages_dir: Path | None = None,
    ) -> None:
        if mode not in MODES:
            raise ConfigError(f"verbalizer: '{mode}' is not one of {', '.join(MODES)}{did_you_mean(mode, MODES)}")
        self.mode: Mode = mode
        self.seed = seed
        self.known = load_languages(languages_dir)
        # Without a verbalizer nothing is asked for in words: rows of any language are trained.
        self.languages = _codes(languages, languages if self.mode == "none" else self.known, "languages")
        if not self.languages:
            raise ConfigError("languages: name at least one training language")
        self.exclude_targets = _codes(exclude_targets, self.known, "exclude_targets")
        excluded = set(self.exclude_targets)
        self.targets = tuple(code for code in sorted({*self.languages, _ENGLISH}) if code not in excluded)
        self.pivot = None if pivot is None else _codes([pivot], self.known, "pivot")[0]
        self.pivots: Mapping[str, Row] = {}
        self.target_weights: Mapping[str, float] = {}
        """How often each language is asked for (`verbalizer_targets: teacher`); empty: all alike."""
        if self.mode in CHOOSING:
            for language in self.languages:
                self._options(language)

    def verbalize(
        self, example: Row | Mapping[str, Any], epoch: int = 0, with_answer: bool = True, with_pivot: bool = True
    ) -> Verbalized:
        """The prompts of one row in one epoch.

        Args:
            example: A `Row`, or a row as users write it (`id`, `language`, and `prompt` + `completion` or `messages`).
                Without an `id`, a hash of its content stands for it.
            epoch: Which visit of the row this is; the target is drawn anew at each.
            with_answer: False leaves the ground truth out of z, for a z that is too long for the teacher.
            with_pivot: False leaves out the example in the language of the pivot, likewise.

        Returns:
            Both prompts and the target language. Only the last user turn is verbalized; all other turns stay.

        Raises:
            DataError: the row is broken, or no template exists for its language.
            ConfigError: the row's language, not among `languages`, leaves no target.
        """
        row = example if isinstance(example, Row) else _row(example)
        mode = self.mode
        if mode == "mix":
            mode = "multilingual" if _draw("mix", self.seed, epoch, row.id) % 2 else "cross_lingual"
        z, p_z = _copy(row.prompt), _copy(row.prompt)
        if mode == "none":
            return Verbalized(z, p_z, row.language, mode)
        question = _last_user_turn(row)
        slots = {"question": row.prompt[question]["content"], "answer": row.completion}
        if with_pivot and (other := self.pivot_of(row)) is not None:
            slots["answer"] += self._in_pivot(row, other)
        if mode == "english":
            wording = self.known[_ENGLISH].wording
            z[question]["content"] = fill(wording.sdft if with_answer else wording.sdft_without_answer, slots)
            return Verbalized(z, p_z, row.language, mode)
        own = self._language(row)
        target = row.language if mode == "multilingual" else self.target(row.id, row.language, epoch)
        slots["language"] = own.names[target]
        wording = own.wording
        z[question]["content"] = fill(wording.teacher if with_answer else wording.teacher_without_answer, slots)
        p_z[question]["content"] = fill(wording.student, slots)
        return Verbalized(z, p_z, target, mode)

    def pivot_of(self, row: Row) -> Row | None:
        """The row that says the same in the language of the pivot; None for a row in it, or without a parallel one."""
        if self.pivot is None or row.parallel is None or row.language == self.pivot:
            return None
        return self.pivots.get(row.parallel)

    def _in_pivot(self, row: Row, other: Row) -> str:
        """Question and answer of the parallel row under the name of its language, as the row's language calls it."""
        own = self.known[_ENGLISH] if self.mode == "english" else self._language(row)
        asked = other.prompt[_last_user_turn(other)]["content"]
        return f"\n\n{own.names[other.language]}:\n{asked}\n{other.completion}"

    def target(self, row_id: str, language: str, epoch: int = 0) -> str:
        """The target language of `cross_lingual`, one of the training languages and English without `language`.

        Drawn uniformly, or in proportion to `target_weights` where they are set.

        Raises:
            ConfigError: no target is left for `language`.
        """
        options = self._options(language)
        drawn = _draw("target", self.seed, epoch, row_id)
        weights = [self.target_weights.get(code, 1.0) for code in options] if self.target_weights else []
        if not any(weights):
            return options[drawn % len(options)]
        places = itertools.accumulate(weights)
        chosen = bisect.bisect_right(list(places), drawn / 2**64 * sum(weights))
        return options[min(chosen, len(options) - 1)]

    def _options(self, language: str) -> list[str]:
        options = [code for code in self.targets if code != language]
        if options:
            return options
        raise ConfigError(
            f"verbalizer: {self.mode} leaves no target for language '{language}' "
            f"(languages={list(self.languages)}, exclude_targets={list(self.exclude_targets)})\n"
            "Add a training language, take one out of exclude_targets, or use another verbalizer."
        )

    def _language(self, row: Row) -> Language:
        language = self.known.get(row.language)
        if language is None:
            hint = did_you_mean(row.language, self.known)
            raise DataError(
                f"row '{row.id}': no template for language '{row.language}'{hint}\n"
                f"Known: {', '.join(self.known)}. docs/verbalizer.md shows how to add one."
            )
        return language


def pivots_of(rows: Iterable[Row], pivot: str) -> dict[str, Row]:
    """By their `parallel`, the first row of each in the language of the pivot."""
    found: dict[str, Row] = {}
    for row in rows:
        if row.language == pivot and row.parallel is not None:
            found.setdefault(row.parallel, row)
    return found


def fill(template: str, slots: Mapping[str, str]) -> str:
    """Put texts into a template, literally and in one pass.

    Braces, backslashes and dollars in a text stay as they are, and a text that itself says `{answer}` is not read
    again. The template may have `{question}`, `{answer}` and `{language}`; each that it has needs a text.
    """
    return _SLOT.sub(lambda slot: slots[slot[1]], template)


def _draw(stream: str, seed: int, epoch: int, row_id: str) -> int:
    """A 64-bit number, a function of its arguments alone; different streams are independent.

    The row's id comes last, so that nothing in it can be taken for another argument.
    """
    key = f"dudi.verbalizer/{stream}/{seed}/{epoch}/{row_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big")


def _codes(codes: Sequence[str], known: Iterable[str], key: str) -> tuple[str, ...]:
    """The codes without repeats, in a fixed order."""
    if isinstance(codes, str):
        raise ConfigError(f"{key}: give a list of codes, such as [{codes}], not the text '{codes}'")
    check_codes(codes, known, key)
    return tuple(sorted(set(codes)))


def _row(record: Mapping[str, Any]) -> Row:
    try:
        row = parse_row(record, fallback_id=_NO_ID)
    except RowError as error:
        name = str(record.get("id", ""))[:40] if isinstance(record, Mapping) else ""
        raise DataError(f"row '{name}': {error.detail} ({error.reason})") from error
    if row.id != _NO_ID:
        return row
    content = json.dumps([row.language, row.prompt, row.completion])
    return dataclasses.replace(row, id=hashlib.sha256(content.encode()).hexdigest()[:16])


def _last_user_turn(row: Row) -> int:
    for index in reversed(range(len(row.prompt))):
        if row.prompt[index]["role"] == "user":
            return index
    raise DataError(f"row '{row.id}': its prompt has no user turn, so there is nothing to verbalize")


def _copy(messages: Iterable[Message]) -> list[Message]:
    return [Message(role=message["role"], content=message["content"]) for message in messages]
