"""Folders of a stack: a model with its tokenizers, and the vectors of a tuned teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi.errors import ConfigError
from dudi.files import sha256_of_files
from dudi.models.load import load_tokenizer, locate
from dudi.stacking import assembly
from dudi.stacking.building import load_stack
from dudi.stacking.configuration import MTLLMConfig
from dudi.stacking.modeling import MTLLMPreTrainedModel
from dudi.stacking.tokens import Source
from dudi.stacking.trainer import LLM_TOKENIZER
from dudi.training import checkpoints

MODEL, VECTORS, VECTORS_FILE = "model", "vectors", "vectors.safetensors"

_OF_A_MODEL = (".safetensors", ".gguf", ".json", ".model", ".txt", ".jinja")


def model_folder(name: str) -> Path:
    """The model's folder of a run's folder, or the folder itself; a ConfigError where it holds no model."""
    place = Path(locate(name)).expanduser()
    if (place / MODEL / "config.json").is_file():
        return place / MODEL
    if not place.is_dir():
        raise ConfigError(f"{name}: no such folder; name a finished run of dudi stack, or its model")
    if not (place / "config.json").is_file():
        raise ConfigError(f"{name}: holds no model; has that run finished?")
    return place


def digest_of(name: str) -> str:
    """SHA-256 over the files of a run's model, which tell all its weights: those of its parents are in its config."""
    files = (file for file in model_folder(name).rglob("*") if file.is_file())
    return sha256_of_files(sorted(file for file in files if file.name != "README.md"))  # a card gets scores later


def digest_of_parent(name: str) -> str | None:
    """SHA-256 over weights, config and tokenizer of a model, whoever made it; None where it is no folder here."""
    place = Path(locate(name)).expanduser()
    files = sorted(file for file in place.glob("*") if file.suffix in _OF_A_MODEL and file.is_file())
    return sha256_of_files(files) if files else None


def save_model(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    llm_tokenizer: PreTrainedTokenizerBase | None,
    about: Mapping[str, Any],
    *,
    whole: bool = False,
) -> None:
    """Save what people use, as a folder that appears whole or not at all; `about` is what its manifest says.

    Of a stack only what was trained is saved, unless it is to be `whole`: with the parents' weights.
    """

    def fill(partial: Path) -> None:
        if isinstance(model, MTLLMPreTrainedModel) and model.config.parents is not None and not whole:
            assembly.save_trained(model, partial)
        else:
            model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if llm_tokenizer is not None:
            llm_tokenizer.save_pretrained(partial / LLM_TOKENIZER)

    checkpoints.seal(folder, fill, about)


def open_model(
    name: str, *, dtype: str = "auto", codes: Mapping[str, str] | None = None
) -> tuple[MTLLMPreTrainedModel, Source, Source | None]:
    """A saved model with the source that it reads from and, where it has an encoder and an LLM, the LLM's own.

    Args:
        name: A run's folder, or its model's.
        dtype: Precision of the weights.
        codes: The tokenizer's code for each code in the rows, over those that the model was trained with.

    Raises:
        ConfigError: the folder holds no such model.
        DataError: weights are missing, or the attention is not what the config says.
    """
    folder = model_folder(name)
    model = load_stack(folder, dtype=dtype)
    source, llm_source = sources_of(folder, model.config, codes)
    if model.config.llm_tokens:
        if llm_source is None:
            raise ConfigError(f"{name}: its LLM reads its own tokens too, and the folder holds no {LLM_TOKENIZER}/")
        source.beside = llm_source
        source.separate(model.config.separator)
    return model, source, llm_source


def sources_of(
    folder: Path, config: MTLLMConfig, codes: Mapping[str, str] | None = None
) -> tuple[Source, Source | None]:
    """What a saved model reads from and, with an encoder and an LLM, the LLM's own; codes as of `open_model`."""
    own = (config.codes or {}) | dict(codes or {})
    inside = folder / LLM_TOKENIZER
    llm_source = Source(load_tokenizer(str(inside))) if inside.is_dir() else None
    return Source(load_tokenizer(str(folder)), own, separator=config.separator), llm_source


def save_vectors(folder: Path, vectors: Sequence[Tensor], rows: str) -> None:
    """Store a teacher's vectors, and the fingerprint of the rows that they are of."""
    counts = torch.tensor([1 if vector.dim() == 1 else len(vector) for vector in vectors])
    stacked = torch.cat([vector.reshape(-1, vector.shape[-1]) for vector in vectors])
    single = torch.tensor([vector.dim() == 1 for vector in vectors])
    kept = {"vectors": stacked, "counts": counts, "single": single}
    about = {"rows": rows, "count": len(vectors)}
    checkpoints.seal(folder, lambda partial: checkpoints.save_file(kept, partial / VECTORS_FILE), about)


def load_vectors(run: Path, rows: str) -> list[Tensor] | None:
    """A teacher's vectors of exactly these rows; None where the run has none, or has those of others."""
    folder = run / VECTORS
    if not (folder / checkpoints.MANIFEST).is_file() or checkpoints.verify(folder).get("rows") != rows:
        return None
    stored = checkpoints.load_file(folder / VECTORS_FILE)
    parts = stored["vectors"].split(stored["counts"].tolist())
    return [part[0] if one else part for part, one in zip(parts, stored["single"].tolist(), strict=True)]


def head_of(name: str) -> Tensor:
    """(labels, D) the head of a tuned teacher, read without the rest of it; a ConfigError where it has none."""
    folder = model_folder(name)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            if "score.weight" in weights.keys():  # noqa: SIM118 a safetensors file is no mapping
                return weights.get_tensor("score.weight").float()
    raise ConfigError(f"teacher.model: {name} has no head; name the run of `dudi stack teach`")
