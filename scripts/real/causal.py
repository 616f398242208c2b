"""A causal model out of a GGUF file, as a folder for `from_pretrained`: bf16, its tokenizer, and where it stops."""

from __future__ import annotations

from pathlib import Path

import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.constants import GGML_QUANT_SIZES
from tokenizers import Tokenizer, pre_tokenizers
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from dudi.errors import DataError
from dudi.models.load import load_model, load_tokenizer

from .sources import Source

SAME = 0.15
"""Two stored copies of one matrix differ by their quantisation, which is below this share of its norm; others by 1."""


def write(gguf: Path, source: Source, folder: Path) -> None:
    """Write model, tokenizer and generation config.

    Args:
        gguf: The file.
        source: What is known about it.
        folder: Where to.

    Raises:
        DataError: the file is not the model that `source` says.
    """
    place = str(gguf.parent)
    tokenizer = load_tokenizer(place, gguf_file=gguf.name)
    reader = GGUFReader(gguf)
    if _text(reader, "tokenizer.ggml.pre") == "smollm":
        _cut_digits(tokenizer)
    model = load_model(place, gguf_file=gguf.name, dtype=torch.bfloat16)
    if source.stored_twice:
        tie(model, _bits(reader, "output.weight") > _bits(reader, "token_embd.weight"))
    ends = tokenizer.convert_tokens_to_ids(list(source.ends))
    if any(not isinstance(end, int) or end == tokenizer.unk_token_id for end in ends):
        raise DataError(f"{gguf}: its tokenizer does not know {', '.join(source.ends)}")
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if len(ends) > 1 else ends[0],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.config.bos_token_id, model.config.eos_token_id = tokenizer.bos_token_id, ends[0]
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tie(model: PreTrainedModel, head_is_finer: bool) -> None:
    """Make the head the embedding again, as in the original: GGUF files store it twice, in different precision.

    Args:
        model: Changed in place.
        head_is_finer: Which of the two copies stays.

    Raises:
        DataError: the two are not one matrix.
    """
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    rows = slice(0, 20_000)
    apart = torch.dist(embedding[rows].float(), head[rows].float()) / embedding[rows].float().norm()
    if apart > SAME:
        raise DataError(f"the head and the embedding are {apart:.2f} apart, relative: not one matrix stored twice")
    with torch.no_grad():
        if head_is_finer:
            embedding.copy_(head)
    model.config.tie_word_embeddings = True
    model.tie_weights()


def _cut_digits(tokenizer: PreTrainedTokenizerBase) -> None:
    """SmolLM's tokenizer takes each digit alone before it cuts words; `transformers` loses that with a GGUF file."""
    core: Tokenizer = tokenizer.backend_tokenizer
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _text(reader: GGUFReader, key: str) -> str:
    field = reader.get_field(key)
    return "" if field is None else str(field.contents())


def _bits(reader: GGUFReader, name: str) -> float:
    """Bits a weight; 0 for a tensor that the file does not hold."""
    kinds = [GGMLQuantizationType(tensor.tensor_type) for tensor in reader.tensors if tensor.name == name]
    if not kinds:
        return 0.0
    weights, size = GGML_QUANT_SIZES[kinds[0]]
    return 8 * size / weights
