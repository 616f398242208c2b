"""The translator's last part: an encoder whose states say the same in every language, so that they can be read."""

from __future__ import annotations

import torch
from stack_mini.translator import IGNORED, Batch, loss_of
from torch import Tensor
from transformers import PreTrainedModel

WEIGHT = 0.5
"""Of what is added to the translation's cross-entropy."""


class NeutralLoss:
    """Cross-entropy, and how far apart the encoder puts the two sides of a pair.

    After Arivazhagan et al. 2019 (arXiv 1903.07091), who pull the mean states together. To it comes the distance of
    each token's state to the nearest one of the other side. Both are divided by the variance within the batch: states
    that only shrink gain nothing.

    Args:
        pad: The padding token's id.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """The loss of a batch of pairs, in nats per token plus variances."""
        ids, mask, _, labels = batch
        kept = labels != IGNORED
        other_ids, other_mask = labels.masked_fill(~kept, self.pad), kept.long()
        encoder = model.get_encoder()
        one = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        other = encoder(input_ids=other_ids, attention_mask=other_mask).last_hidden_state
        # The first token names the language: it may differ.
        apart = _apart(one[:, 1:], mask[:, 1:], other[:, 1:], other_mask[:, 1:])
        return loss_of(model, batch) + WEIGHT * apart


def _apart(one: Tensor, mask: Tensor, other: Tensor, other_mask: Tensor) -> Tensor:
    """Distance of the means, plus that of the nearest tokens both ways, each over its own variance."""
    means, other_means = _mean(one, mask), _mean(other, other_mask)
    distance = (means - other_means).square().sum(dim=-1).mean()
    spread = torch.cat([means, other_means])
    sentences = distance / (spread - spread.mean(dim=0)).square().sum(dim=-1).mean()

    states = torch.cat([one[mask.bool()], other[other_mask.bool()]])
    pairs = torch.cdist(one, other).square()
    pairs = pairs.masked_fill(~(mask[:, :, None] * other_mask[:, None, :]).bool(), float("inf"))
    there = pairs.amin(dim=2)[mask.bool()].mean()
    back = pairs.amin(dim=1)[other_mask.bool()].mean()
    tokens = (there + back) / 2 / (states - states.mean(dim=0)).square().sum(dim=-1).mean()
    return sentences + tokens


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)
