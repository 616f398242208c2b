"""The models of the miniature: a translator, and a reader of English before and after MNTP."""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel

from dudi.stacking.miniature.places import CODES
from dudi.stacking.tokens import Source

READERS = {"causal": "reader", "bidirectional": "reader-bidirectional"}
"""The folder of the LLM for each kind of attention."""


def folder(name: str) -> Path:
    """Where a model of the package lies."""
    return Path(str(resources.files("dudi.stacking.miniature"))) / "models" / name


def translator() -> PreTrainedModel:
    """The MT model with its decoder, in fp32 (it is stored in bf16)."""
    return AutoModelForSeq2SeqLM.from_pretrained(folder("translator"), dtype=torch.float32)


def reader(attention: str) -> PreTrainedModel:
    """The LLM, `causal` or `bidirectional`, in fp32."""
    return AutoModelForCausalLM.from_pretrained(folder(READERS[attention]), dtype=torch.float32)


@functools.cache
def source() -> Source:
    """The MT model's tokenizer; rows name languages as this package does."""
    return Source(AutoTokenizer.from_pretrained(folder("translator")), codes=CODES)


@functools.cache
def reader_source() -> Source:
    """The LLM's tokenizer."""
    return Source(AutoTokenizer.from_pretrained(folder("reader")))
