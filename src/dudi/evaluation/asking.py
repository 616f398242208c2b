"""Put questions to a model: greedy answers, and the bits that the references cost it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from dudi.data.chat import ChatFormat
from dudi.data.rows import Row
from dudi.heads import head_of
from dudi.rollouts import NoiseKey, Request, TransformersEngine
from dudi.scoring import completion_states
from dudi.teachers import evaluating


def answers(
    model: PreTrainedModel, chat: ChatFormat, rows: Sequence[Row], *, max_new_tokens: int, batch_size: int
) -> list[str]:
    """The model's greedy answer to each row's prompt, in their order."""

    @contextlib.contextmanager
    def opened() -> Iterator[PreTrainedModel]:
        with evaluating(model):
            yield model

    engine = TransformersEngine(
        opened,
        stop_ids=chat.stop_ids,
        pad_id=chat.end_of_turn,
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        vocabulary=len(head_of(model)),
        batch_size=batch_size,
    )
    requests = [Request(chat.prompt_ids(row.prompt), NoiseKey(0, row.id, 0, "eval")) for row in rows]
    return [chat.text(rollout.ids).strip() for rollout in engine.generate(requests)]


@torch.no_grad()
def reference_nats(model: PreTrainedModel, chat: ChatFormat, rows: Sequence[Row]) -> list[float]:
    """-log pi(reference | prompt) of each row in nats, the end of turn included."""
    pairs = [(chat.prompt_ids(row.prompt), chat.answer_ids(row.completion)) for row in rows]
    with evaluating(model):
        states = completion_states(model, pairs)
        labels = torch.tensor([token for _, answer in pairs for token in answer], device=states.device)
        log_probs = head_of(model).log_probs(states, labels)
    return [-float(part.double().sum()) for part in log_probs.split([len(answer) for _, answer in pairs])]
