"""The work itself: a tokenizer whose words are tokens, models from shapes, rows of exact lengths."""

from __future__ import annotations

import random
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    set_seed,
)

from benchmarks.sizes import Size
from dudi.config.schema import LoraSection
from dudi.distill.loading import lora_config
from dudi.plan import count_lora_parameters

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{%- for m in messages -%}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|> assistant {% endif -%}"
)
TEMPLATE_TOKENS = 5
"""Of a prompt: two at its start, one at the end of the turn, two before the answer."""


def make_tokenizer(size: Size) -> PreTrainedTokenizerFast:
    """One word, one token: a text of n words has n tokens, and any token decodes to a word."""
    words = [*SPECIALS, "[UNK]", "user", "assistant"]
    words += [f"w{i}" for i in range(size.vocabulary - len(words))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=SPECIALS[2],
        pad_token=SPECIALS[0],
        unk_token="[UNK]",
        additional_special_tokens=list(SPECIALS),
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_config(size: Size, shape: dict[str, Any]) -> PretrainedConfig:
    """The config of one of the two models."""
    values = {key: value for key, value in shape.items() if key != "family"}
    kind = {"llama": LlamaConfig, "qwen2": Qwen2Config, "gemma3_text": Gemma3TextConfig}[shape["family"]]
    return kind(vocab_size=size.vocabulary, max_position_embeddings=32_768, **values)


def make_model(size: Size, role: str) -> PreTrainedModel:
    """The student (fp32, as it is trained) or the teacher (in its passes' precision), with random weights."""
    set_seed({"student": 1, "teacher": 2}[role])
    dtype = torch.float32 if role == "student" else getattr(torch, size.judging)
    with torch.device(size.device):
        model = AutoModelForCausalLM.from_config(
            make_config(size, size.student if role == "student" else size.teacher), dtype=dtype
        )
    for holder in (model.config, model.generation_config):
        holder.eos_token_id = None  # nobody wins by stopping early
    return model


def make_adapter(size: Size) -> Any:
    """The adapter that is trained in the weights' stead, as a recipe's `lora: {r: ...}` makes it; None without."""
    return None if size.lora is None else lora_config(LoraSection(r=size.lora))


def adapter_parameters(size: Size) -> int | None:
    """Parameters of the student's adapters; None without."""
    return size.lora and count_lora_parameters(make_config(size, size.student), LoraSection(r=size.lora))


def spread_lengths(count: int, shortest: int, longest: int, seed: str) -> list[int]:
    """`count` lengths, spread evenly from the shortest to the longest, in a shuffled order that hangs on the seed."""
    lengths = [shortest + round(i * (longest - shortest) / max(1, count - 1)) for i in range(count)]
    random.Random(seed).shuffle(lengths)
    return lengths


def prompt_lengths(size: Size, step: int) -> list[int]:
    """Tokens of the prompt of each row of a step."""
    return spread_lengths(size.rows, size.shortest, size.longest, f"prompts of step {step}")


def gold_lengths(size: Size, step: int) -> list[int]:
    """Tokens of the ground truth of each row of a step, its end of turn included."""
    return spread_lengths(size.rows, size.gold, size.gold_longest or size.gold, f"ground truths of step {step}")


def make_rows(size: Size) -> list[dict[str, Any]]:
    """The rows of all optimizer steps, the one that warms up included, in the order in which everybody reads them.

    No row is read twice, so that nothing that is kept of a row helps anybody. Every step has the same lengths, so that
    steps can be compared; which prompt goes with which ground truth differs.
    """
    draw = random.Random(1)

    def text(words: int) -> str:
        return " ".join(f"w{draw.randrange(size.vocabulary - 16)}" for _ in range(words))

    return [
        {
            "id": f"step-{step}-row-{i}",
            "language": "id",
            "prompt": text(length - TEMPLATE_TOKENS),
            "completion": text(gold - 1),  # its end of turn is one more
        }
        for step in range(size.steps + 1)
        for i, (length, gold) in enumerate(zip(prompt_lengths(size, step), gold_lengths(size, step), strict=True))
    ]
