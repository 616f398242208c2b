"""Which models are plain: attention and nothing else carries something from one token to another."""

from __future__ import annotations

from transformers import PretrainedConfig

PLAIN = frozenset({"llama", "qwen2", "qwen3", "smollm3", "olmo2", "granite", "mistral", "gemma3_text"})
"""Architectures of which that has been tested; the others are decoded by `generate`, and padded in passes."""
KINDS = frozenset({"full_attention", "sliding_attention"})


def attends_to_all(config: PretrainedConfig, length: int) -> bool:
    """Whether every layer is plain attention over all that came before; a window that holds `length` tokens is none."""
    values = config.get_text_config().to_dict()
    kinds = set(values.get("layer_types") or ["full_attention"])
    window = values.get("sliding_window") if values.get("use_sliding_window", True) else None
    plain = config.model_type in PLAIN and kinds <= KINDS and not values.get("use_bidirectional_attention")
    return plain and (window is None or length <= window)
