"""Write a model as one GGUF file, which llama.cpp and what is built on it run.

`gguf`, llama.cpp's own package, has the format, the names of tensors and the quantisation; its converter is not on the
package index. Here stands what a converter adds: each architecture's numbers, and what llama.cpp stores in another way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from dudi.errors import ConfigError, DataError
from dudi.files import atomic_file
from dudi.models.gguf_vocabulary import Vocabulary

FILE_TYPES = {
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
    "F32": gguf.LlamaFileType.ALL_F32,
}
"""How matrices may be stored; vectors (norms, biases) are F32 in each."""
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}
"""By `model_type` of `transformers`."""
ACTIVATIONS = {"gemma3_text": "gelu_pytorch_tanh"}
GEMMA_PERIOD = 6
"""Of so many layers of Gemma 3 one reads everything; llama.cpp knows no other number."""


def write_gguf(
    model: PreTrainedModel, vocabulary: Vocabulary, name: str, kind: str, path: Path
) -> tuple[int, list[str]]:
    """Write a model without adapters, under a name, as one of `FILE_TYPES`; one tensor is held beside the model.

    The file appears whole or not at all.

    Returns:
        How many tensors it holds, and the names of the matrices whose rows do not fill the quantisation's blocks: they
        are F16.

    Raises:
        ConfigError: something in the model has no place in such a file.
        DataError: a weight is not finite, or too large for F16.
        EnvironmentFault: the file cannot be written.
    """
    check_architecture(model)
    config = model.config
    architecture = ARCHITECTURES[config.model_type]
    tensors = {new: (old, tensor) for new, old, tensor in _named(model, architecture)}
    kinds = {new: _kind_of(tensor, Kind[kind]) for new, (_, tensor) in tensors.items()}
    with atomic_file(path) as temporary:
        writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[architecture])
        writer.add_name(name)
        writer.add_file_type(FILE_TYPES[kind])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_shape(writer, config)
        for told, value in vocabulary.items():
            getattr(writer, f"add_{told}")(value)
        for new, (_, tensor) in tensors.items():
            stored = gguf.quant_shape_to_byte_shape(tensor.shape, kinds[new])
            size = int(np.prod(stored))
            writer.add_tensor_info(new, stored, np.dtype(np.uint8), size, raw_dtype=kinds[new])
        writer.write_header_to_file(temporary)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for new, (old, tensor) in tensors.items():
            writer.write_tensor_data(_stored(old, _as_llama_cpp_has_it(config, old, tensor), kinds[new]))
        writer.close()
    unquantised = [new for new, found in kinds.items() if found != Kind[kind] and tensors[new][1].ndim > 1]
    return len(tensors), unquantised


def check_architecture(model: PreTrainedModel) -> None:
    """Refuse what llama.cpp would compute in another way, or `gguf` has no word for.

    Raises:
        ConfigError: with the key of `config.json`.
    """
    config = model.config
    check_kind(config)
    kind, values = config.model_type, config.to_dict()
    activation = values.get("hidden_activation") or values.get("hidden_act")
    if activation != ACTIVATIONS.get(kind, "silu"):
        raise ConfigError(f"--gguf: hidden_act {activation} of a {kind} model cannot be said in a GGUF file")
    for rope in _ropes(config).values():
        if rope["rope_type"] != "default" and (kind, rope["rope_type"]) != ("llama", "llama3"):
            raise ConfigError(f"--gguf: rope_type {rope['rope_type']} of a {kind} model cannot be exported yet")
    layers = values.get("layer_types") or []
    full = [(layer + 1) % GEMMA_PERIOD == 0 for layer in range(len(layers))]
    if kind == "gemma3_text":
        fits = [one == "full_attention" for one in layers] == full
        fits = fits and config.query_pre_attn_scalar == config.head_dim and not config.final_logit_softcapping
    else:
        fits = set(layers) <= {"full_attention"}
    if not fits:
        raise ConfigError(f"--gguf: attention of this {kind} model (layer_types, scaling) is not what llama.cpp has")


def check_kind(config: PretrainedConfig) -> None:
    """Refuse a model, or the part of it that reads text, of another type than those that are known here.

    Raises:
        ConfigError: naming the types.
    """
    kind, known = config.model_type, ", ".join(ARCHITECTURES)
    if kind not in ARCHITECTURES:
        raise ConfigError(f"--gguf: '{kind}' is not one of the architectures that can be exported: {known}")


def _ropes(config: Any) -> dict[str, dict[str, Any]]:
    """Rotary settings by kind of layer."""
    ropes = config.rope_parameters
    return ropes if "full_attention" in ropes else {"full_attention": ropes}


def _add_shape(writer: gguf.GGUFWriter, config: Any) -> None:
    """The numbers of `config.json`, under llama.cpp's names."""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for add in (writer.add_key_length, writer.add_value_length, writer.add_rope_dimension_count):
        add(width)
    ropes = _ropes(config)
    writer.add_rope_freq_base(ropes["full_attention"]["rope_theta"])
    if "sliding_attention" in ropes:
        writer.add_rope_freq_base_swa(ropes["sliding_attention"]["rope_theta"])
        writer.add_sliding_window(config.sliding_window)


def _named(model: PreTrainedModel, architecture: gguf.MODEL_ARCH) -> Iterator[tuple[str, str, Tensor]]:
    """(name in the file, name here, tensor) of every weight, each once."""
    config = model.config
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for old, tensor in model.state_dict().items():
        if old == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, last = old.rpartition(".")
        new = names.get_name(stem)
        if new is None or last not in ("weight", "bias"):
            raise ConfigError(f"--gguf: {old} has no name in a GGUF file of a {config.model_type} model")
        yield f"{new}.{last}", old, tensor
    rope = _ropes(config)["full_attention"]
    if rope["rope_type"] == "llama3":  # (head_dim / 2,) by how much it slows its rotations down
        slowed = model.model.rotary_emb.inv_freq.cpu()
        half = torch.arange(0, 2 * len(slowed), 2, dtype=torch.float32) / (2 * len(slowed))
        yield "rope_freqs.weight", "rope_freqs", rope["rope_theta"] ** -half / slowed


def _kind_of(tensor: Tensor, wanted: Kind) -> Kind:
    """How a tensor is stored."""
    if tensor.ndim == 1:
        return Kind.F32
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return wanted if tensor.shape[-1] % block == 0 else Kind.F16


def _as_llama_cpp_has_it(config: Any, name: str, tensor: Tensor) -> Tensor:
    """A weight as llama.cpp computes with it, in fp32.

    Its Llama rotates neighbouring pairs where `transformers` rotates halves of a head: rows of queries and keys move.
    Its Gemma multiplies by a norm's weight where `transformers` adds 1 first.
    """
    tensor = tensor.detach().cpu().float()
    part = name.rpartition(".")[0].rpartition(".")[2]
    if config.model_type == "llama" and part in ("q_proj", "k_proj"):
        heads = config.num_attention_heads if part == "q_proj" else config.num_key_value_heads
        return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
    if config.model_type == "gemma3_text" and part.endswith("norm"):
        return tensor + 1
    return tensor


def _stored(name: str, tensor: Tensor, kind: Kind) -> np.ndarray:
    """The bytes of a tensor in the file."""
    if not torch.isfinite(tensor).all():
        raise DataError(f"{name}: holds weights that are not finite; such a model answers nothing")
    if kind == Kind.F16 and tensor.abs().max() > torch.finfo(torch.float16).max:
        raise DataError(f"{name}: holds weights too large for F16; take --gguf BF16 or F32")
    return np.ascontiguousarray(gguf.quantize(tensor.contiguous().numpy(), kind)).view(np.uint8)
