"""Models that read images too: which class one is loaded as, what of it reads text, and what is saved beside it.

Their text alone is trained and read here; they are saved as the class that they came from.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.utils import cached_file

PROCESSORS = (
    "processor_config.json",
    "preprocessor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
)
"""What says how images become a model's input; a text's tokenizer has files of its own."""


def class_for(config: PretrainedConfig) -> Any:
    """The auto class that a model of this config was saved from, and is loaded and made with.

    Some types are both: `qwen3_5` is a causal language model, which has no sight, and an image-text one. Their
    `architectures` say which of them lies in the folder.
    """
    whole = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(config.model_type)
    text = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if whole is None or whole == text or getattr(config, "auto_map", None):
        return AutoModelForCausalLM
    return AutoModelForCausalLM if text in (config.architectures or []) else AutoModelForImageTextToText


def tokenizer_in(given: PreTrainedTokenizerBase | ProcessorMixin) -> PreTrainedTokenizerBase:
    """The tokenizer of a processor, which reads images too; a tokenizer as it is."""
    return cast(PreTrainedTokenizerBase, given.tokenizer) if isinstance(given, ProcessorMixin) else given


def reads_images(model: PreTrainedModel) -> bool:
    """Whether a model holds more than what reads text."""
    return model.config.get_text_config() is not model.config


def text_modules(model: PreTrainedModel) -> list[nn.Module]:
    """What of a model reads and writes text: embeddings, decoder, head."""
    parts = (model.get_input_embeddings(), model.get_decoder(), model.get_output_embeddings())
    return [part for part in parts if part is not None]


def freeze_sight(model: nn.Module, inner: PreTrainedModel) -> None:
    """Freeze what of a student reads no text: no loss reaches it, and DDP waits for gradients.

    `inner` is what lies inside of its adapters; one that reads text alone is left as it is.
    """
    if not reads_images(inner):
        return
    kept = {id(parameter) for part in text_modules(inner) for parameter in part.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in kept:
            parameter.requires_grad_(False)


def text_alone(model: PreTrainedModel) -> PreTrainedModel:
    """What of a model reads text, as a causal language model of its own; the model itself if that is all of it."""
    if not reads_images(model):
        return model
    config = copy.deepcopy(model.config.get_text_config())
    config.tie_word_embeddings = model.config.tie_word_embeddings
    twin = cast(PreTrainedModel, AutoModelForCausalLM.from_config(config, dtype=model.dtype))
    twin.get_decoder().load_state_dict(model.get_decoder().state_dict())
    twin.get_output_embeddings().load_state_dict(cast(nn.Module, model.get_output_embeddings()).state_dict())
    twin.generation_config = model.generation_config
    return twin


def copy_processor(model: PreTrainedModel, folder: str | Path) -> None:
    """Put beside a saved model how it reads images, from the folder, or the hub's copy here, that it came from."""
    source = model.config.name_or_path
    if not source or not reads_images(model):
        return
    for name in PROCESSORS:
        found = cached_file(
            source,
            name,
            revision=getattr(model.config, "_commit_hash", None),
            local_files_only=True,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if found is not None and not (Path(folder) / name).exists():
            shutil.copyfile(found, Path(folder) / name)
