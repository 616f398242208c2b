"""What continuations of a text cost a model: each context is read once, however many continuations it has."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from dudi.models.caches import cache_name
from dudi.objective.forward import completion_states
from dudi.objective.heads import Head, backbone, head_of

POSITIONS_CPU, POSITIONS = 512, 16384
"""Positions of a pass: on a CPU more bring no speed, elsewhere they hide the launches."""
ROWS = 512
"""Rows whose logits are held together."""
TOLERANCE = 0.02
"""Nats by which the two ways may differ on one question, in fp32, or the cache is not trusted with this model."""

Ids = Sequence[int]


@dataclasses.dataclass(frozen=True, slots=True)
class LikelihoodQuestion:
    """A context and its continuations.

    Attributes:
        context: Token ids, at least one.
        continuations: Token ids of each, at least one.
    """

    context: Ids
    continuations: Sequence[Ids]

    @property
    def longest(self) -> int:
        """Positions of the context with its longest continuation."""
        return len(self.context) + max(map(len, self.continuations))


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What a continuation costs.

    Attributes:
        nats: -log pi(continuation | context).
        greedy: Whether each of its tokens is the likeliest.
    """

    nats: float
    greedy: bool


@torch.no_grad()
def costs(
    model: PreTrainedModel, questions: Sequence[LikelihoodQuestion], done: Callable[[int], None] = lambda count: None
) -> list[list[Cost]]:
    """The cost of every continuation.

    A question with several continuations of more than one token is read once into a cache, which is then repeated for
    the continuations. With a model whose cache cannot be repeated so, which the longest of them shows, each
    continuation is read with its context. Questions for which memory is too small are read in halves.

    Args:
        model: A causal language model in eval mode.
        questions: In any order; those of one length are read together.
        done: Told how many more questions are through.

    Returns:
        For each question the costs of its continuations, in their order.
    """
    head = head_of(model)
    found: dict[int, list[Cost]] = {}
    shared = _can_share(model, head, questions)
    waiting = collections.deque(_batches(questions, model.device))
    while waiting:
        batch = waiting.popleft()
        own = [questions[place] for place in batch]
        try:
            costs_of_batch = _shared(model, head, own) if shared else _whole(model, head, own)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            half = len(batch) // 2
            waiting.extendleft((batch[half:], batch[:half]))
            continue
        found |= dict(zip(batch, costs_of_batch, strict=True))
        done(len(batch))
    return [found[place] for place in range(len(questions))]


def _batches(questions: Sequence[LikelihoodQuestion], device: torch.device) -> list[list[int]]:
    """Places of questions of similar length and as many continuations, longest first."""
    room = POSITIONS_CPU if device.type == "cpu" else POSITIONS
    order = sorted(range(len(questions)), key=lambda at: (-len(questions[at].continuations), -questions[at].longest))
    batches: list[list[int]] = []
    for place in order:
        first = questions[batches[-1][0]] if batches else None
        count = len(questions[place].continuations)
        fits = (
            first is not None
            and len(first.continuations) == count
            and 2 * questions[place].longest > first.longest
            and (len(batches[-1]) + 1) * first.longest <= room
        )
        if fits:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _can_share(model: PreTrainedModel, head: Head, questions: Sequence[LikelihoodQuestion]) -> bool:
    """Whether the cache gives what reading everything anew gives, on the longest question that would use it."""
    candidates = [one for one in questions if len(one.continuations) > 1 and max(map(len, one.continuations)) > 1]
    if not candidates:
        return False
    probe = [max(candidates, key=lambda one: one.longest)]  # past the window of a model that has one
    try:
        ours = _shared(model, head, probe)
    except (AttributeError, NotImplementedError, TypeError, ValueError, RuntimeError):
        return False
    pairs = zip(ours[0], _whole(model, head, probe)[0], strict=True)
    bound = TOLERANCE if model.dtype == torch.float32 else 50 * TOLERANCE
    return all(abs(one.nats - other.nats) <= bound * max(1.0, other.nats / 10) for one, other in pairs)


def _whole(model: PreTrainedModel, head: Head, questions: Sequence[LikelihoodQuestion]) -> list[list[Cost]]:
    """Each continuation with its context."""
    pairs = [(one.context, continuation) for one in questions for continuation in one.continuations]
    states = completion_states(model, pairs)
    return _costs(head, states, questions)


def _shared(model: PreTrainedModel, head: Head, questions: Sequence[LikelihoodQuestion]) -> list[list[Cost]]:
    """Contexts once, padded on the left; then all continuations, padded on the right; as many of each question."""
    device, width = model.device, max(len(one.context) for one in questions)
    many = len(questions[0].continuations)
    ids = torch.zeros((len(questions), width), dtype=torch.int64, device=device)
    mask = torch.zeros_like(ids)
    for row, one in enumerate(questions):
        ids[row, width - len(one.context) :] = torch.as_tensor(one.context, dtype=torch.int64)
        mask[row, width - len(one.context) :] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config.get_text_config())
    decoder = backbone(model)
    cached = {cache_name(decoder): cache, "use_cache": True}
    out = decoder(input_ids=ids, attention_mask=mask, position_ids=positions, **cached)
    first = out.last_hidden_state[:, -1]
    texts = [continuation for one in questions for continuation in one.continuations]
    rest = max(len(text) for text in texts) - 1
    later = _later(decoder, cache, mask, texts, many, rest) if rest else None
    rows = []
    for place, text in enumerate(texts):
        rows.append(first[place // many].unsqueeze(0))
        if later is not None and len(text) > 1:
            rows.append(later[place, : len(text) - 1])
    return _costs(head, torch.cat(rows), questions)


def _later(
    decoder: torch.nn.Module, cache: DynamicCache, mask: Tensor, texts: Sequence[Ids], many: int, width: int
) -> Tensor:
    """States of all tokens of the continuations but the last, behind the cached contexts: (texts, width, H)."""
    ids = torch.zeros((len(texts), width), dtype=torch.int64, device=mask.device)
    for row, text in enumerate(texts):
        ids[row, : len(text) - 1] = torch.as_tensor(text[:-1], dtype=torch.int64)
    cache.batch_repeat_interleave(many)
    before = mask.repeat_interleave(many, 0)
    positions = before.sum(-1, keepdim=True) + torch.arange(width, device=mask.device)
    whole = torch.cat([before, torch.ones_like(ids)], 1)
    cached = {cache_name(decoder): cache, "use_cache": True}
    out = decoder(input_ids=ids, attention_mask=whole, position_ids=positions, **cached)
    states: Tensor = out.last_hidden_state
    return states


def _costs(head: Head, states: Tensor, questions: Sequence[LikelihoodQuestion]) -> list[list[Cost]]:
    """From states, row by row behind each other, to the costs of each question; the softmax is in fp32."""
    texts = [continuation for one in questions for continuation in one.continuations]
    labels = torch.tensor([token for text in texts for token in text], device=states.device)
    nats, likeliest = [], []
    for part, wanted in zip(states.split(ROWS), labels.split(ROWS), strict=True):
        logits = head.logits_of_few(part)
        chosen = logits.gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
        nats.append(logits.logsumexp(-1) - chosen)
        likeliest.append(chosen >= logits.amax(-1))
    lengths = [len(text) for text in texts]
    parts = zip(torch.cat(nats).split(lengths), torch.cat(likeliest).split(lengths), strict=True)
    found = (Cost(float(own.double().sum()), bool(best.all())) for own, best in parts)
    return [list(itertools.islice(found, len(one.continuations))) for one in questions]


@torch.no_grad()
def text_nats(
    model: PreTrainedModel,
    texts: Sequence[tuple[Ids, Ids]],
    batch_size: int,
    done: Callable[[int], None] = lambda count: None,
) -> list[float]:
    """-log pi(text | prefix) of whole texts, in nats; no logits are held.

    Args:
        model: A causal language model in eval mode.
        texts: Prefix and text of each, in token ids.
        batch_size: Texts that are read together.
        done: Told how many more are through.
    """
    head, found = head_of(model), []
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        states = completion_states(model, batch)
        labels = torch.tensor([token for _, text in batch for token in text], device=states.device)
        parts = head.log_probs(states, labels).double().split([len(text) for _, text in batch])
        found += [-float(part.sum()) for part in parts]
        done(len(batch))
    return found
