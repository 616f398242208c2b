"""One model's chat template: prompts and completions as token ids, and where an answer ends."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from dudi.data.rows import Message, RowError
from dudi.errors import ConfigError, DataError, plain

DEFAULT_TEMPLATE_KWARGS: dict[str, Any] = {
    "enable_thinking": False,  # Qwen3 would open every answer with its thoughts
    "date_string": "26 Jul 2024",  # Llama-3.2 asks the clock: prompts would change at midnight
}
Tokens = Sequence[int] | np.ndarray
"""(T,) token ids: a list, or int32."""

STOP_TOKENS = "stop_tokens"
"""Where a tokenizer that was saved after training names every token that ended a turn: `eos_token` holds one alone."""
_PROBE = "dudi-probe-answer"


@dataclasses.dataclass(frozen=True, slots=True)
class ChatFormat:
    """How one model reads a conversation.

    Attributes:
        tokenizer: The model's tokenizer, with a chat template.
        kwargs: What the template is rendered with.
        lead: Text between the generation prompt and the answer (a space, in some templates).
        cut: The end of the generation prompt that no answer in the template has: the opening of a thought.
        strips: What the template takes off an answer's beginning and end: characters, or None for all white space.
        end_of_turn: The token that ends an answer.
        stop_ids: The tokens that end a rollout: the end of turn, the tokenizer's EOS and those that it names itself.
        digest: Hash of the template, the special ids and a rendered probe; part of cache keys and of resume checks.
        special: Finds the special tokens in a text.
    """

    tokenizer: PreTrainedTokenizerBase
    kwargs: dict[str, Any]
    lead: str
    end_of_turn: int
    stop_ids: tuple[int, ...]
    digest: str
    special: re.Pattern[str]
    cut: str = ""
    strips: tuple[str | None, str | None] = ("", "")

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation up to where the template puts the model's answer.

        Raises:
            RowError: the template refuses it; some take no system turn.
        """
        try:
            text = _render(self.tokenizer, messages, self.kwargs, add_generation_prompt=True)
        except TemplateError as error:
            raise RowError("template_refuses", f"the model's chat template refuses it: {_said(error)}") from error
        return text.removesuffix(self.cut) + self.lead

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of `render`."""
        return self.tokenizer(self.render(messages), add_special_tokens=False)["input_ids"]

    def answer_ids(self, text: str) -> list[int]:
        """Token ids of an answer as the template prints it, its end of turn included."""
        left, right = self.strips
        printed = text.lstrip(left).rstrip(right)
        return [*self.tokenizer(printed, add_special_tokens=False)["input_ids"], self.end_of_turn]

    def text(self, ids: Tokens, *, special_tokens: bool = False) -> str:
        """The text of token ids, by default without the special ones."""
        return self.tokenizer.batch_decode([[int(i) for i in ids]], skip_special_tokens=not special_tokens)[0]


def chat_format(tokenizer: PreTrainedTokenizerBase, kwargs: Mapping[str, Any], model_name: str) -> ChatFormat:
    """Find out where an answer starts and ends in a tokenizer's chat template.

    The user's template arguments win over `DEFAULT_TEMPLATE_KWARGS`.

    Raises:
        ConfigError: no chat template, one that loses the answer, or one without an end-of-turn token.
        DataError: the template fails, or reaches for Python.
    """
    if not tokenizer.chat_template:
        raise ConfigError(
            f"{model_name}: its tokenizer has no chat template, and there is no teacher to take one from; "
            "set student.chat_template to a .jinja file"
        )
    used = {**DEFAULT_TEMPLATE_KWARGS, **kwargs}
    question: Message = {"role": "user", "content": "?"}
    answers: list[Message] = [{"role": "assistant", "content": text} for text in (_PROBE, f"\n {_PROBE} \n")]
    try:
        prompt = _render(tokenizer, [question], used, add_generation_prompt=True)
        full, spaced = (_render(tokenizer, [question, own], used, add_generation_prompt=False) for own in answers)
    except Exception as error:  # what a template raises is as free as what it does in its sandbox
        raise DataError(f"{model_name}: its chat template fails on two short turns: {_said(error)}") from error
    before, found, after = full.partition(_PROBE)
    if not found:
        raise ConfigError(f"{model_name}: its chat template does not print the assistant's answer")
    end_of_turn = _first_special(tokenizer, after)
    if end_of_turn is None:
        raise ConfigError(
            f"{model_name}: its chat template ends an answer with {after[:20]!r}, which is no special token; "
            "rollouts could never end. Use a template with an end-of-turn token (student.chat_template)"
        )
    named = [tokenizer.convert_tokens_to_ids(token) for token in tokenizer.init_kwargs.get(STOP_TOKENS, [])]
    stops = tuple(dict.fromkeys(i for i in (end_of_turn, tokenizer.eos_token_id, *named) if i is not None))
    digest = hashlib.sha256(repr((tokenizer.chat_template, prompt, full, stops, used)).encode()).hexdigest()
    cut, lead = _seam(tokenizer, used, prompt, before)
    special = _special_tokens(tokenizer)
    return ChatFormat(tokenizer, used, lead, end_of_turn, stops, digest, special, cut, _strips(spaced, full))


def plain_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """The format of a tokenizer without a chat template, for what needs none: `render` would fail.

    Raises:
        ConfigError: it has no end-of-text token either.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ConfigError("the tokenizer has neither a chat template nor an end-of-text token")
    return ChatFormat(tokenizer, {}, "", int(eos), (int(eos),), "none", _special_tokens(tokenizer))


def _seam(tokenizer: PreTrainedTokenizerBase, kwargs: dict[str, Any], prompt: str, before: str) -> tuple[str, str]:
    """What a generation prompt has more than the text before an answer, at its end, and what it has less.

    `prompt` is a question with the generation prompt, `before` the same question, answered, up to the answer.
    """
    if before.startswith(prompt):
        return "", before[len(prompt) :]
    try:
        bare = _render(tokenizer, [{"role": "user", "content": "?"}], kwargs, add_generation_prompt=False)
    except TemplateError:
        return "", ""
    same = next(i for i, pair in enumerate(zip_longest(prompt, before)) if pair[0] != pair[1])
    if same < len(bare):  # a question reads otherwise once it is answered: nothing can be said of the seam
        return "", ""
    return prompt[same:], before[same:]


def _strips(spaced: str, full: str) -> tuple[str | None, str | None]:
    """What a template takes off an answer's ends, from how it prints one with white space around it, and without."""
    (before, found, after), (own_before, _, own_after) = spaced.partition(_PROBE), full.partition(_PROBE)
    if not found or not before.startswith(own_before) or not after.endswith(own_after):
        return "", ""
    left, right = before[len(own_before) :], after[: len(after) - len(own_after)]
    kinds: dict[str, str | None] = {"": None, " ": "\n"}
    return kinds.get(left, ""), kinds.get(right, "")


def _said(error: Exception) -> str:
    """What a template says is wrong, on one line."""
    return plain(str(error).partition("\n")[0][:160]) or type(error).__name__


def read_template(path: Path, key: str) -> str:
    """A chat template's file; `key` is what asked for it, for messages.

    Raises:
        ConfigError: it is no regular file, or no text.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{key}: {path} is no file")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: cannot read {path}: {error}") from error


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], kwargs: dict[str, Any], add_generation_prompt: bool
) -> str:
    turns = [{"role": message["role"], "content": message["content"]} for message in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt, **kwargs)
    return str(text)


def _first_special(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        return None
    added = tokenizer.added_tokens_decoder
    special = ids[0] in tokenizer.all_special_ids or (ids[0] in added and added[ids[0]].special)
    return ids[0] if special else None


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    tokens = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content]
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) or "(?!)")


def borrow_template(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase | None) -> bool:
    """Give a student without a chat template its teacher's; returns whether it did."""
    if student.chat_template or teacher is None or not teacher.chat_template:
        return False
    student.chat_template = teacher.chat_template
    return True


def template_kwargs(given: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The template arguments of one model: `chat_template_kwargs`, and its `student:` or `teacher:` table on top."""
    shared = {key: value for key, value in given.items() if key not in ("student", "teacher")}
    return shared | dict(given.get(model) or {})
