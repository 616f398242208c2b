"""One model's chat template: prompts and completions as token ids, and where an answer ends."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
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

    def special_tokens_in(self, messages: Sequence[Message]) -> list[str]:
        """The special tokens that people's texts spell out: the tokenizer would take them for its own."""
        return [found for message in messages for found in self.special.findall(message["content"])]

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation up to where the model starts to answer.

        Raises:
            RowError: the template refuses it; some take no system turn.
        """
        try:
            return _render(self.tokenizer, messages, self.kwargs, add_generation_prompt=True) + self.lead
        except TemplateError as error:
            what = plain(str(error).partition("\n")[0][:160])
            raise RowError("template_refuses", f"the model's chat template refuses it: {what}") from error

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of `render`."""
        return self.tokenizer(self.render(messages), add_special_tokens=False)["input_ids"]

    def answer_ids(self, text: str) -> list[int]:
        """Token ids of an answer, its end of turn included."""
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end_of_turn]

    def text(self, ids: Tokens, *, special_tokens: bool = False) -> str:
        """The text of token ids, by default without the special ones."""
        return self.tokenizer.batch_decode([[int(i) for i in ids]], skip_special_tokens=not special_tokens)[0]


def chat_format(tokenizer: PreTrainedTokenizerBase, kwargs: Mapping[str, Any], model_name: str) -> ChatFormat:
    """Find out where an answer starts and ends in a tokenizer's chat template.

    Args:
        tokenizer: With a chat template.
        kwargs: The user's template arguments; they win over `DEFAULT_TEMPLATE_KWARGS`.
        model_name: For error messages.

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
    prompt, full = _probed(tokenizer, used, model_name)
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
    lead = before[len(prompt) :] if before.startswith(prompt) else ""
    digest = hashlib.sha256(repr((tokenizer.chat_template, prompt, full, stops, used)).encode()).hexdigest()
    return ChatFormat(tokenizer, used, lead, end_of_turn, stops, digest, _special_tokens(tokenizer))


def plain_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """The format of a tokenizer without a chat template, for what needs none: `render` would fail.

    Raises:
        ConfigError: it has no end-of-text token either.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ConfigError("the tokenizer has neither a chat template nor an end-of-text token")
    return ChatFormat(tokenizer, {}, "", int(eos), (int(eos),), "none", _special_tokens(tokenizer))


def _probed(tokenizer: PreTrainedTokenizerBase, kwargs: dict[str, Any], model_name: str) -> tuple[str, str]:
    """A question as a prompt, and with its answer."""
    question: Message = {"role": "user", "content": "?"}
    answer: Message = {"role": "assistant", "content": _PROBE}
    try:
        prompt = _render(tokenizer, [question], kwargs, add_generation_prompt=True)
        return prompt, _render(tokenizer, [question, answer], kwargs, add_generation_prompt=False)
    except Exception as error:  # what a template raises is as free as what it does in its sandbox
        what = plain(str(error).partition("\n")[0][:160]) or type(error).__name__
        raise DataError(f"{model_name}: its chat template fails on two short turns: {what}") from error


def read_template(path: Path, key: str) -> str:
    """A chat template's file.

    Args:
        path: The file.
        key: What asked for it, for messages.

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
