"""A row: what a person wrote, checked, before any tokenizer sees it."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypedDict

from dudi.errors import did_you_mean
from dudi.languages.zawgyi import is_zawgyi

ROLES = ("system", "user", "assistant")
TOOL_ROLES = frozenset({"tool", "function", "ipython"})
MAX_CHARACTERS = 1_000_000
"""Longest text of one turn: far above any training length, low enough that one row cannot fill the memory."""
MAX_TURNS = 1_000
MAX_ID_CHARACTERS = 512

# Everything of category Cc but tab and newline. Zero-width joiners are of category Cf and stay: Burmese, Tamil and
# Thai are written with them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# What Unicode promises never to be a character: in a text it is a broken file or a trap.
_PLANE_ENDS = "".join(chr(plane << 16 | end) for plane in range(17) for end in (0xFFFE, 0xFFFF))
_NO_CHARACTER = re.compile(f"[\ufdd0-\ufdef{_PLANE_ENDS}]")
_DAMAGED = "\ufffd"
"""What a decoder puts where it could not read: the text was lost before it came here."""
_LANGUAGE_CODE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*")


class Message(TypedDict):
    """One turn of a conversation, as in `transformers` chat templates."""

    role: str
    content: str


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One training sample (x, y, l).

    Attributes:
        id: Unique in its dataset; seeds the verbalizer and the sampling noise.
        language: Code of the sample's language l.
        prompt: The turns before the answer, x; the last one is the user's.
        completion: The ground truth y, the assistant's answer to the last turn.
        teacher: Which of several teachers judges it, where the row says so; no part of what the row is.
        parallel: What rows that say the same in several languages have in common; no part of it either.
        file: The file or dataset that it was read from; no part of what the row is.
        line: Its line or row number there, counted from 1.
    """

    id: str
    language: str
    prompt: tuple[Message, ...]
    completion: str
    teacher: str | None = dataclasses.field(default=None, compare=False, repr=False)
    parallel: str | None = dataclasses.field(default=None, compare=False, repr=False)
    file: str = dataclasses.field(default="", compare=False, repr=False)
    line: int | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def messages(self) -> list[Message]:
        """Prompt and completion as one conversation, in TRL's form."""
        return [*self.prompt, Message(role="assistant", content=self.completion)]

    @property
    def is_nfc(self) -> bool:
        """Whether its text is in Unicode's normal form C; a model reads another form as other words."""
        return all(unicodedata.is_normalized("NFC", turn["content"]) for turn in self.messages)

    def in_nfc(self) -> Row:
        """The row with its text in normal form C."""
        prompt = tuple(Message(role=t["role"], content=unicodedata.normalize("NFC", t["content"])) for t in self.prompt)
        return dataclasses.replace(self, prompt=prompt, completion=unicodedata.normalize("NFC", self.completion))


class RowError(ValueError):
    """A row that cannot be trained on.

    Attributes:
        reason: A short stable slug, by which rejected rows are counted; `docs/data.md` lists them.
        detail: What is wrong, for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def parse_row(
    record: Mapping[str, Any],
    *,
    fallback_id: str,
    language: str | None = None,
    language_column: str = "language",
    known_languages: Collection[str] | None = None,
) -> Row:
    """Check one record as users write it and turn it into a `Row`.

    Args:
        record: A mapping with `messages` (the last turn the assistant's), or with `prompt` and `completion`, each a
            string or a list of messages; `id`, a language and, where they are text, `teacher` and `parallel` are read
            beside them, other keys are left alone.
        fallback_id: The id of a record that has none.
        language: The language of a record whose own column, `language_column`, is missing or null.
        language_column: The column that holds the language's code.
        known_languages: The codes that are allowed; None allows anything that looks like a code.

    Returns:
        The row, each of its line ends as one newline.

    Raises:
        RowError: the record cannot be used; its `reason` is one of the slugs of `docs/data.md`.
    """
    if not isinstance(record, Mapping):
        raise RowError("not_an_object", f"a row is an object with keys, got {_kind(record)}")
    turns = _turns(record)
    prompt, completion = _split(turns)
    # These columns may be somebody else's: what is no text says nothing to us.
    beside = (record.get("teacher"), record.get("parallel"))
    teacher, parallel = (value if isinstance(value, str) and value else None for value in beside)
    row = Row(
        id=_row_id(record.get("id"), fallback_id),
        language=_language(record.get(language_column), language, language_column, known_languages),
        prompt=prompt,
        completion=completion,
        teacher=teacher,
        parallel=parallel,
    )
    refuse_zawgyi(row)
    return row


def refuse_zawgyi(row: Row) -> None:
    """Refuse Burmese that is written in Zawgyi.

    Raises:
        RowError: it is.
    """
    if row.language == "my" and is_zawgyi("\n".join(turn["content"] for turn in row.messages)):
        raise RowError("zawgyi", "its Burmese seems to be in Zawgyi; convert it to Unicode (ICU: Zawgyi-my)")


def _turns(record: Mapping[str, Any]) -> list[Message]:
    """The whole conversation of a record, each turn checked by itself."""
    pair = [key for key in ("prompt", "completion") if record.get(key) is not None]
    if record.get("messages") is not None:
        if pair:
            raise RowError("two_formats", f"has both `messages` and `{pair[0]}`: keep one")
        return _messages(record["messages"], "messages")
    if "messages" in record and not pair:
        raise RowError("null", "`messages` is null")
    for key in ("prompt", "completion"):
        _refuse_missing(key, record)
        if record[key] is None:
            raise RowError("null", f"`{key}` is null")
    prompt = _side(record["prompt"], "prompt", "user")
    if prompt[-1]["role"] != "user":
        raise RowError("last_turn_not_user", f"the last turn of `prompt` is the {prompt[-1]['role']}'s, not the user's")
    answer = _side(record["completion"], "completion", "assistant")
    if len(answer) > 1:
        advice = "put the earlier ones in `prompt`"
        raise RowError("completion_not_one_turn", f"`completion` has {len(answer)} turns; {advice}")
    if answer[0]["role"] != "assistant":
        raise RowError("last_turn_not_assistant", f"the turn of `completion` is the {answer[0]['role']}'s")
    return [*prompt, *answer]


def _side(value: Any, key: str, role: str) -> list[Message]:
    """The turns of a prompt or a completion; a text is one turn."""
    if isinstance(value, str):
        return [Message(role=role, content=_text(value, key))]
    turns = _messages(value, key)
    if not turns:
        raise RowError(f"empty_{key}", f"`{key}` has no turns")
    return turns


def _messages(value: Any, key: str) -> list[Message]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RowError("wrong_type", f"`{key}` must be a list of turns, got {_kind(value)}")
    if len(value) > MAX_TURNS:
        raise RowError("too_many_turns", f"`{key}` has {len(value)} turns, more than {MAX_TURNS}")
    return [_message(turn, f"{key}[{index}]") for index, turn in enumerate(value)]


def _message(turn: Any, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise RowError("wrong_type", f"{where} must be an object with role and content, got {_kind(turn)}")
    for key in ("role", "content"):
        _refuse_missing(key, turn, f"{where}: ")
    role = turn["role"]
    if not isinstance(role, str):
        raise RowError("wrong_type", f"{where}.role must be text, got {_kind(role)}")
    if role in TOOL_ROLES or turn.get("tool_calls"):
        raise RowError("tool_turn", f"{where} calls or answers a tool; tools are not supported")
    if role not in ROLES:
        raise RowError("unknown_role", f"{where}.role {role[:40]!r} is not one of {', '.join(ROLES)}")
    return Message(role=role, content=_text(turn["content"], f"{where}.content"))


def _text(value: Any, where: str) -> str:
    """A turn's text: typed, of sane length, encodable, without control characters, line ends as newlines."""
    if value is None:
        raise RowError("null", f"{where} is null")
    if not isinstance(value, str):
        raise RowError("wrong_type", f"{where} must be text, got {_kind(value)}")
    if len(value) > MAX_CHARACTERS:
        raise RowError("too_many_characters", f"{where} has {len(value):,} characters, more than {MAX_CHARACTERS:,}")
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    if found := _SURROGATE.search(text):
        raise RowError("lone_surrogate", f"{where}: half a surrogate pair at character {found.start()}")
    if found := _CONTROL.search(text):
        code = f"U+{ord(found.group()):04X}"
        raise RowError("control_characters", f"{where}: control character {code} at character {found.start()}")
    if found := _NO_CHARACTER.search(text):
        code = f"U+{ord(found.group()):04X}"
        raise RowError("no_character", f"{where}: {code} at character {found.start()} is no character")
    if _DAMAGED in text:
        place = f"U+FFFD at character {text.index(_DAMAGED)}"
        raise RowError("damaged_text", f"{where}: {place}: the text was damaged before it came here")
    return text


def _split(turns: list[Message]) -> tuple[tuple[Message, ...], str]:
    """Prompt and completion of a conversation whose turns are in order."""
    if not turns:
        raise RowError("empty_messages", "the conversation has no turns")
    roles = [turn["role"] for turn in turns]
    if "assistant" not in roles:
        raise RowError("no_assistant_turn", "the conversation has no answer to learn from")
    if "user" not in roles:
        raise RowError("no_user_turn", "the conversation has no question")
    if roles[-1] != "assistant":
        raise RowError("last_turn_not_assistant", f"the conversation ends with the {roles[-1]}'s turn")
    if "system" in roles[1:]:
        raise RowError("system_not_at_start", "a system turn may stand at the start and nowhere else")
    spoken = roles[1:] if roles[0] == "system" else roles
    if spoken != ["user", "assistant"] * (len(spoken) // 2):
        raise RowError("roles_do_not_alternate", "user and assistant must take turns, the user at the start")
    if _shows_nothing(turns[-1]["content"]):
        raise RowError("empty_completion", "the answer is empty")
    if _shows_nothing(turns[-2]["content"]):
        raise RowError("empty_prompt", "the question is empty")
    for index, turn in enumerate(turns[:-2]):
        # An empty system turn means something: it switches a template's own system prompt off.
        if turn["role"] != "system" and _shows_nothing(turn["content"]):
            raise RowError("empty_turn", f"turn {index + 1} is empty")
    return tuple(turns[:-1]), turns[-1]["content"]


def _shows_nothing(text: str) -> bool:
    """Whether a text has nothing but spaces and what is as wide as nothing: joiners, marks of direction, a BOM."""
    return all(character.isspace() or unicodedata.category(character) == "Cf" for character in text)


def _row_id(value: Any, fallback: str) -> str:
    if value is None or value == "":
        return fallback
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError("wrong_type", f"`id` must be text or a whole number, got {_kind(value)}")
    if isinstance(value, int):
        if value.bit_length() > 128:
            raise RowError("bad_id", "`id` is a number of more than 128 bits")
        return str(value)
    if len(value) > MAX_ID_CHARACTERS:
        raise RowError("bad_id", f"`id` has {len(value):,} characters, more than {MAX_ID_CHARACTERS}")
    if _SURROGATE.search(value) or _CONTROL.search(value) or not value.strip() or "\n" in value or "\t" in value:
        raise RowError("bad_id", "`id` is blank or holds control characters or half a surrogate pair")
    return value


def _language(value: Any, fixed: str | None, column: str, known: Collection[str] | None) -> str:
    if value is None or value == "":
        value = fixed
    if value is None:
        raise RowError("missing_language", f"no `{column}`, and no fixed language was given")
    if not isinstance(value, str):
        raise RowError("wrong_type", f"`{column}` must be a language's code, got {_kind(value)}")
    if fixed is not None and value != fixed:
        conflict = f"`{column}` says {value[:40]!r}, but the fixed language is {fixed!r}"
        raise RowError("language_conflict", f"{conflict}: drop one of them")
    if known is None:
        if not _LANGUAGE_CODE.fullmatch(value):
            raise RowError("unknown_language", f"{value[:40]!r} is not a language's code")
    elif value not in known:
        hint = did_you_mean(value[:40], known)
        raise RowError("unknown_language", f"{value[:40]!r} is not one of {', '.join(known)}{hint}")
    return value


def _refuse_missing(key: str, record: Mapping[Any, Any], where: str = "") -> None:
    if key not in record:
        present = [str(name)[:30] for name in list(record)[:8] if isinstance(name, str)]
        there = ", ".join(present) or "no keys"
        raise RowError("missing_key", f"{where}no `{key}`{did_you_mean(key, present)}; it has {there}")


def _kind(value: Any) -> str:
    """The type of `value` in JSON's words; the value itself may be huge or unprintable."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
