"""What a loaded stack is held against: every weight is there, and attention is what the config says.

All this went wrong unseen in libraries of this kind: an encoder whose weights were all random, a bidirectional LLM
that a new version of `transformers` read causally, padding that changed the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dudi.errors import DataError

if TYPE_CHECKING:
    from dudi.stacking.modeling import MTLLMPreTrainedModel

LENGTH, PADDING = 6, 3
TOLERANCE = 1e-3
"""How far padding may move a state, relative to its size; bf16 rounds at 4e-3, and is checked with ten times that."""


def check_loaded(name: str, missing: Sequence[str]) -> None:
    """Refuse a model of which weights stayed random.

    Raises:
        DataError: naming the first ones.
    """
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(
            f"{name}: weights are missing in the checkpoint and would be random: {', '.join(missing[:3])}{more}"
        )


@torch.no_grad()
def check_attention(model: MTLLMPreTrainedModel) -> None:
    """Perturb the last input and look at the first state; pad, and look at all of them.

    Args:
        model: A loaded stack; one without an LLM, or whose weights are not in memory, is not looked at.

    Raises:
        DataError: the LLM's attention is not `config.attention`, or padding changes the result.
    """
    llm = model.reader.llm
    if llm is None or any(parameter.is_meta for parameter in model.parameters()):
        return
    training = model.training
    model.eval()
    try:
        first = _inputs(llm, LENGTH)
        second = first.clone()
        second[:, -1] = first[:, -1].flip(-1) * -1.5
        seen, other = _states(llm, first), _states(llm, second)
        sees_ahead = bool((seen[:, 0] != other[:, 0]).any())
        wanted = model.config.attention == "bidirectional"
        if sees_ahead is not wanted:
            raise DataError(
                f"attention: the config says {model.config.attention}, but the first state of this "
                f"{type(llm).__name__} {'depends' if sees_ahead else 'does not depend'} on the last input; "
                + (
                    "this model cannot be read bidirectionally: set attention: causal"
                    if wanted
                    else "see config.is_causal"
                )
            )
        _check_padding(llm, first, seen)
    finally:
        model.train(training)


def _check_padding(llm: Any, inputs: Tensor, expected: Tensor) -> None:
    padded = torch.cat([inputs, 7.0 * inputs[:, :PADDING]], dim=1)
    mask = torch.tensor([[1] * LENGTH + [0] * PADDING], device=inputs.device)
    got = llm(inputs_embeds=padded, attention_mask=mask).last_hidden_state[:, :LENGTH].float()
    scale = expected.abs().max().clamp(min=1e-6)
    allowed = TOLERANCE if inputs.dtype == torch.float32 else 40 * TOLERANCE
    leak = float((got - expected).abs().max() / scale)
    if not leak <= allowed:
        raise DataError(f"attention: padding changes what this {type(llm).__name__} reads (by {leak:.1e} of a state)")


def _states(llm: Any, inputs: Tensor) -> Tensor:
    mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
    return llm(inputs_embeds=inputs, attention_mask=mask).last_hidden_state.float()


def _inputs(llm: Any, length: int) -> Tensor:
    """(1, length, D) vectors of the size of the LLM's embeddings, the same ones at every load."""
    weight = llm.get_input_embeddings().weight
    drawn = torch.randn(1, length, weight.shape[1], generator=torch.Generator().manual_seed(0))
    return (drawn * weight[:64].float().std().cpu().clamp(min=1e-3)).to(weight.device, weight.dtype)
