"""A loaded model as lm_eval asks it."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from jinja2 import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from dudi.evaluation.likelihood import LikelihoodQuestion, costs, text_nats
from dudi.models.frozen import evaluating

T = TypeVar("T")
Tokenised = tuple[tuple[str, str], list[int], list[int]]


def rendered(
    tokenizer: PreTrainedTokenizerBase,
    kwargs: Mapping[str, Any],
    chat_history: list[dict[str, str]],
    add_generation_prompt: bool = True,
) -> str:
    """A conversation through a chat template, as `HFLM` has it, which needs a model for that.

    A template that takes no system turn is given the conversation without it.
    """
    apply = functools.partial(
        tokenizer.apply_chat_template,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=not add_generation_prompt,
        **kwargs,
    )
    try:
        return str(apply(conversation=chat_history))
    except TemplateError:
        return str(apply(conversation=[turn for turn in chat_history if turn["role"] != "system"]))


class LoadedModel(HFLM):
    """`HFLM` with four differences, each of which moves numbers of some tokenizers, or saves work or memory.

    - A context is read once for all its choices, and the head is applied to the choices' positions only.
    - Where a tokenizer merges the end of a context with the beginning of a choice, the choice is tokenised by itself:
      cutting the tokens of both at the context's length would take some of the one for the other. Thai, which writes
      no space there, is full of this.
    - The bits of a whole text do not hold those of a beginning-of-sequence token behind the first one, which some
      tokenizers (Gemma, Llama) add.
    - Where memory runs out, what is answered together is halved, and halved again. Scores differ by rounding alone.

    What `generation_config.json` says of sampling and of penalties has no say; the ids that end an answer have.

    Args:
        model: Any causal language model, on its device.
        stop_ids: The tokens that end an answer.
        batch_size: Requests that are answered together, as long as memory lasts.
        template_kwargs: What the chat template is rendered with.
        done: Told how many more questions or texts are through.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_ids: Sequence[int],
        batch_size: int,
        template_kwargs: Mapping[str, Any],
        done: Callable[[int], None],
    ) -> None:
        super().__init__(
            pretrained=model,
            backend="causal",
            tokenizer=tokenizer,
            batch_size=batch_size,
            chat_template_args=dict(template_kwargs),
        )
        self._stop_ids, self._done = list(stop_ids), done

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Eval mode, no gradients, and a plain generation config; all as it was afterwards."""
        model, begin = self.model, self.tokenizer.bos_token_id
        own = model.generation_config
        model.generation_config = GenerationConfig(eos_token_id=self._stop_ids or None, bos_token_id=begin)
        try:
            with evaluating(model):
                yield
        finally:
            model.generation_config = own

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return rendered(self.tokenizer, self.chat_template_args, chat_history, add_generation_prompt)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        before, after = super()._encode_pair(context, continuation)
        whole = self.tok_encode(context + continuation)
        if after and whole[: len(before)] == before:
            return before, after
        spaces = len(context) - len(context.rstrip())
        moved = context[len(context) - spaces :] + continuation
        return before, self.tok_encode(moved, add_special_tokens=False)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self, requests: list[Tokenised], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        grouped: dict[tuple[int, ...], list[int]] = {}
        for place, (_, context, continuation) in enumerate(requests):
            room = max(1, self.max_length + 1 - len(continuation))  # the last token is predicted and not read
            grouped.setdefault(tuple(context[-room:]), []).append(place)
        cut = [continuation[-self.max_length :] for _, _, continuation in requests]
        questions = []
        for before, places in grouped.items():
            questions.append(LikelihoodQuestion(before, [cut[place] for place in places]))
        found: dict[int, tuple[float, bool]] = {}
        for places, own in zip(grouped.values(), costs(self.model, questions, self._done), strict=True):
            found |= {place: (-cost.nats, cost.greedy) for place, cost in zip(places, own, strict=True)}
        return [found[place] for place in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each text behind one prefix token; longer texts in windows, each token once."""
        windows: list[tuple[list[int], list[int]]] = []
        counts = []
        for request in requests:
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            cut = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)
            own = [make_disjoint_window(window) for window in cut]
            windows += own
            counts.append(len(own))
        found: list[float] = []
        while len(found) < len(windows):
            part = self._fitting(lambda size: text_nats(self.model, windows[len(found) : len(found) + size]))
            found.extend(part)
            self._done(len(part))
        nats = iter(found)
        return [-sum(itertools.islice(nats, count)) for count in counts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        written: list[str] = []
        generate = super().generate_until
        size = int(self.batch_size) * 8  # sorted by length within so many, and told of afterwards
        for start in range(0, len(requests), size):
            part = requests[start : start + size]
            written += self._fitting(lambda size, part=part: generate(part, disable_tqdm=True))  # type: ignore[misc]
            self._done(len(part))
        return written

    def _fitting(self, work: Callable[[int], list[T]]) -> list[T]:
        """What comes of work with the batch size, which is halved as long as memory runs out."""
        while True:
            try:
                return work(int(self.batch_size))
            except torch.OutOfMemoryError:
                if int(self.batch_size) == 1:
                    raise
            self.batch_size_per_gpu = int(self.batch_size) // 2  # behind the handler, which holds on to tensors
            torch.cuda.empty_cache()
