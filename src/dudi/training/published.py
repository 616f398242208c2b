"""What a saved model carries beside its weights, so that it stops and speaks elsewhere as it was trained to."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Sequence

from jinja2 import TemplateError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from dudi.data.chat import STOP_TOKENS, ChatFormat
from dudi.data.rows import Message
from dudi.errors import ConfigError

NEWLINE = "\n"
"""At a template's end: Jinja drops it there, and would print it inside."""
ENVIRONMENT = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])


def stop_at(model: PreTrainedModel, stop_ids: Sequence[int]) -> None:
    """Let `generate`, and every server that reads the model's configs, stop at these tokens.

    A base model stops at the end of a text, and was trained to end a turn. The ids that its configs name already stay.

    Of the tokens at which training ended a turn the end of turn stands in front.

    Raises:
        ConfigError: the model's generation config contradicts itself, and could not be saved.
    """
    for config in {id(config): config for config in (model.config, model.config.get_text_config())}.values():
        if hasattr(config, "eos_token_id"):  # that of a model which reads images may have none: its text's has
            config.eos_token_id = _joined(stop_ids, config.eos_token_id)
    generation: GenerationConfig | None = model.generation_config
    if generation is None:
        return
    generation.eos_token_id = _joined(stop_ids, generation.eos_token_id)
    with contextlib.suppress(ValueError):
        generation.validate(strict=True)
        return
    generation.do_sample = True  # a temperature or a top_p without it: published like that, and refused once changed
    try:
        generation.validate(strict=True)
    except ValueError as error:
        name, why = model.config.name_or_path or "the student", str(error).partition("\n")[0]
        raise ConfigError(f"{name}: its generation_config is wrong: {why}") from None


def _joined(stop_ids: Sequence[int], others: int | Sequence[int] | None) -> int | list[int]:
    more = [others] if isinstance(others, int) else list(others or [])
    ids = list(dict.fromkeys([*stop_ids, *more]))
    return ids[0] if len(ids) == 1 else ids


def published_tokenizer(chat: ChatFormat) -> PreTrainedTokenizerBase:
    """The student's tokenizer as it is saved: its EOS is the end of turn, its template asks as training asked.

    What the template was rendered with in training (`enable_thinking`, a date) becomes its default. All tokens that
    ended a turn are named beside the EOS, for whoever reads more than one.
    """
    tokenizer = copy.deepcopy(chat.tokenizer)
    stops = [str(tokenizer.convert_ids_to_tokens(i)) for i in chat.stop_ids]
    tokenizer.eos_token = stops[0]
    if len(stops) > 1:
        tokenizer.init_kwargs[STOP_TOKENS] = stops
    if isinstance(tokenizer.chat_template, str):
        changed = _as_trained(chat, tokenizer.chat_template)
        turns = [{"role": "user", "content": "?"}]
        asked = tokenizer.apply_chat_template(turns, chat_template=changed, tokenize=False, add_generation_prompt=True)
        if asked == chat.render([Message(role="user", content="?")]):  # else it is one that cannot be told so
            tokenizer.chat_template = changed
    return tokenizer


def _as_trained(chat: ChatFormat, template: str) -> str:
    """A template with the arguments of training as its defaults, and with the text that training put after it."""
    try:
        read = find_undeclared_variables(ENVIRONMENT.parse(template))
    except TemplateError:  # a tag of transformers' own
        read = {name for name in chat.kwargs if name in template}
    defaults = ""
    for name, value in sorted(chat.kwargs.items()):
        if name in read and isinstance(value, bool | int | float | str):
            given = json.dumps(value, ensure_ascii=False)
            defaults += f"{{% if {name} is not defined %}}{{% set {name} = {given} %}}{{% endif %}}"
    if chat.cut:
        whole = f"{{% set dudi_asked %}}{template.removesuffix(NEWLINE)}{{% endset %}}"
        shown = f"dudi_asked[:-{len(chat.cut)}] if add_generation_prompt else dudi_asked"
        template = f"{whole}{{{{ {shown} }}}}"
    if chat.lead:
        lead = json.dumps(chat.lead, ensure_ascii=False)
        asked = f"{{% if add_generation_prompt %}}{{{{ {lead} }}}}{{% endif %}}"
        template = template.removesuffix(NEWLINE) + asked
    return defaults + template
