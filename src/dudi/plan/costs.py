"""What a decoder holds: bytes as functions of its shape.

The formulas describe llama-like decoders, as those of `dudi.models.shape` do.
"""

from __future__ import annotations

from dudi.models.shape import Shape

FP32 = 4


def cache_bytes(shape: Shape, tokens: float, element: int) -> int:
    """The KV cache of `tokens` positions: 2 (keys, values) x layers x width x element."""
    return int(2 * shape.layers * shape.key_value * tokens * element)


def layer_bytes(shape: Shape, mixed: bool) -> int:
    """Bytes that one decoder layer keeps for its backward pass, for each token.

    With h = hidden, q = query, k = key_value, i = intermediate, a = heads, all in one formula per precision:

        fp32    24 h + 8 q + 8 k + 16 i + 4 a + 8
        mixed   26 h + 4 q + 4 k +  8 i + 4 a + 8

    fp32, in 4-byte numbers: each of two norms keeps its input, the normed input and its output (6 h); attention keeps
    q, k, v and its output (2 q + 2 k) and one log-sum-exp a head; the MLP keeps gate, up, the activated gate and their
    product (4 i). Mixed: the residual stream and the norms stay in fp32 (16 h), and each of the five projections that
    read a norm's output keeps its own 16-bit copy of it (10 h). Normed queries and keys (Qwen3) keep
    their inputs, normed inputs and roots.
    """
    attention = shape.query + shape.key_value
    heads = shape.heads * attention // shape.query
    if mixed:
        normed = 6 * attention + 4 * heads if shape.normed_heads else 0
        return 26 * shape.hidden + 4 * attention + 8 * shape.intermediate + 4 * shape.heads + 8 + normed
    normed = 8 * attention + 4 * heads if shape.normed_heads else 0
    return 24 * shape.hidden + 8 * attention + 16 * shape.intermediate + 4 * shape.heads + 8 + normed


def activation_bytes(shape: Shape, tokens: int, *, mixed: bool, checkpointing: bool) -> int:
    """What a training pass over `tokens` positions holds at the start of its backward pass.

    Every layer's own tensors (with checkpointing: every layer's fp32 input, and one layer that is run again), the last
    norm's, and once more one layer's worth for the gradients that flow through it.
    """
    layer = layer_bytes(shape, mixed)
    kept = shape.layers * FP32 * shape.hidden + layer if checkpointing else shape.layers * layer
    return tokens * (kept + layer + 3 * FP32 * shape.hidden)


def inference_bytes(shape: Shape, tokens: int, element: int) -> int:
    """The widest moment of a pass without gradients over `tokens` positions: residual, norm, and one layer's MLP."""
    attention = 2 * shape.query + 2 * shape.key_value
    widest = max(attention, 3 * shape.intermediate)
    return tokens * (2 * FP32 * shape.hidden + element * (shape.hidden + widest))
