"""`MTLLMForCausalLM`: a stack that writes. The encoder reads a text, the LLM is asked about it in its own tokens."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import ModelOutput

from dudi.errors import ConfigError
from dudi.models.load import load_model
from dudi.objective.heads import head_on
from dudi.stacking import assembly
from dudi.stacking.configuration import MTLLMConfig, part
from dudi.stacking.llm2vec import base_and_adapters
from dudi.stacking.modeling import MTLLMModel, MTLLMPreTrainedModel, on_device
from dudi.stacking.rows import Task
from dudi.stacking.sequences import pack

NO_LABEL = -100
TO_WRITE = Task("generation")
"""To write, with nothing asked."""
TIED, LINEAR, BIASED = "tied", "linear", "biased"
"""What `config.head` calls a head."""


@dataclasses.dataclass
class WritingOutput(ModelOutput):
    """What a stack thinks of answers that are there.

    Attributes:
        loss: Mean cross-entropy of the labelled tokens, in nats.
        logits: (N, V) in front of each of the N labelled tokens, row by row, in fp32.
        targets: (N,) these tokens.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    targets: Tensor | None = None


class MTLLMForCausalLM(MTLLMPreTrainedModel):
    """Encoder states of a text, then a prompt in the LLM's tokens, then what the LLM writes.

    The head is the LLM's own. Where it is the LLM's embeddings, `lm_head` is None.

    Raises:
        ConfigError: the LLM reads in both directions, a part is missing, or the config knows of no head.
    """

    def __init__(self, config: MTLLMConfig) -> None:
        super().__init__(config)
        check_writes(config)
        if config.head is None:
            raise ConfigError("this stack has no head of its LLM yet; put it on with dudi.stacking.with_lm_head")
        self.stack = MTLLMModel(config)
        self.lm_head: nn.Linear | None = None
        if config.head != TIED:
            size = int(part(config.llm_config).to_dict()["vocab_size"])
            self.lm_head = nn.Linear(config.hidden_size, size, bias=config.head == BIASED)
        self.post_init()

    def fill_head(self, saved: Mapping[str, Tensor], place: str) -> None:
        """Give a head without weights its parent's; or, of an LLM that was trained whole, those that were saved."""
        if self.lm_head is None:
            return
        parent, llm = (self.config.parents or {}).get("llm"), cast(PreTrainedModel, self.stack.llm)
        if parent is not None:
            self.lm_head = head_of_parent(parent, llm.dtype)
        else:
            self.lm_head.to_empty(device="cpu").to(llm.dtype)
            assembly.copy_into(self, saved, [f"lm_head.{name}" for name in self.lm_head.state_dict()], place)

    def embed(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        prompt_ids: Tensor | None,
        prompt_attention_mask: Tensor | None,
        llm_input_ids: Tensor | None,
        llm_attention_mask: Tensor | None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What the LLM reads, as parts (B, T_i, D) and masks (B, T_i): the text, then the prompt where there is one."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        parts, masks = self.stack.embed(input_ids, mask, llm_input_ids, llm_attention_mask)
        if prompt_ids is not None and prompt_ids.shape[1]:
            llm = cast(PreTrainedModel, self.stack.llm)
            parts.append(llm.get_input_embeddings()(prompt_ids))
            masks.append(torch.ones_like(prompt_ids) if prompt_attention_mask is None else prompt_attention_mask)
        return parts, masks

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        prompt_ids: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        llm_input_ids: Tensor | None = None,
        llm_attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> WritingOutput:
        """Read texts with prompts and answers, and say how likely the answers are; `generate` writes them.

        Args:
            input_ids: (B, T) of the encoder's tokenizer.
            attention_mask: (B, T); None: no padding.
            prompt_ids: (B, P) of the LLM's tokenizer: a prompt, and an answer behind it.
            prompt_attention_mask: (B, P) likewise, on any side padded.
            labels: (B, P) the answers' tokens where they stand, -100 elsewhere.
            llm_input_ids: (B, V) the texts in the LLM's tokens, with `config.llm_tokens`.
            llm_attention_mask: (B, V).
            kwargs: Not read.

        Raises:
            ValueError: there are no labels.
        """
        if labels is None or prompt_ids is None:
            raise ValueError("labels: the forward of a stack that writes is for answers that are there; see generate()")
        own = llm_input_ids, llm_attention_mask
        parts, masks = self.embed(input_ids, attention_mask, prompt_ids, prompt_attention_mask, *own)
        packed = pack(parts, masks)
        llm = cast(PreTrainedModel, self.stack.llm)
        states = llm(inputs_embeds=packed.embeds, attention_mask=packed.mask).last_hidden_state
        in_front = labels.new_full((len(labels), sum(part.shape[1] for part in parts[:-1])), NO_LABEL)
        wanted = torch.cat([in_front, labels], dim=1).gather(1, packed.columns).masked_fill(packed.mask == 0, NO_LABEL)
        row, column = (wanted != NO_LABEL).nonzero(as_tuple=True)
        layer = llm.get_input_embeddings() if self.lm_head is None else self.lm_head
        logits, targets = head_on(layer, llm.config).logits(states[row, column - 1]), wanted[row, column]
        return WritingOutput(nn.functional.cross_entropy(logits, targets), logits, targets)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        prompt_ids: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        llm_input_ids: Tensor | None = None,
        llm_attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Write, greedily unless `options` say otherwise.

        Tensors are as in `forward`, but the prompt stands alone. Options are those of transformers' `generate`:
        max_new_tokens, eos_token_id, pad_token_id, num_beams ...

        Returns:
            (B, N) ids of the LLM's tokenizer, what was written alone; padded behind.

        Raises:
            ConfigError: `transformers` has no causal language model for this LLM.
        """
        own = llm_input_ids, llm_attention_mask
        parts, masks = self.embed(input_ids, attention_mask, prompt_ids, prompt_attention_mask, *own)
        packed = pack(parts, masks, left=True)
        whole = whole_llm(cast(PreTrainedModel, self.stack.llm), self.lm_head)
        given = {"do_sample": False, "use_cache": True, **options}
        written: Tensor = whole.generate(inputs_embeds=packed.embeds, attention_mask=packed.mask, **given)
        return written


def check_writes(config: MTLLMConfig) -> None:
    """Refuse a stack that cannot write.

    Raises:
        ConfigError: a part is missing, its LLM reads in both directions, or `transformers` lets none of its kind write.
    """
    if config.parts != "stack":
        raise ConfigError("generation: needs an encoder and an LLM")
    if config.attention != "causal":
        raise ConfigError(
            "generation: this LLM reads in both directions (llm.attention: bidirectional) and cannot write; build the "
            "stack, and align it, with llm.attention=causal"
        )
    causal_class(part(config.llm_config))


def with_lm_head(model: MTLLMModel, llm: PreTrainedModel | None = None, task: Task = TO_WRITE) -> MTLLMForCausalLM:
    """A stack that writes, around a reader of an encoder and a causal LLM (no copy).

    Args:
        model: The reader.
        llm: The whole causal language model that the LLM comes from, for its head; None: the head is the LLM's
            embeddings, or is read from the LLM's parent.
        task: What it will be asked.

    Raises:
        ConfigError: the stack cannot write, or the head is nowhere.
    """
    check_writes(model.config)
    inner = cast(PreTrainedModel, model.llm)
    parent = (model.config.parents or {}).get("llm")
    if llm is not None:
        head = copy.deepcopy(head_in(llm))
    elif inner.config.to_dict().get("tie_word_embeddings"):
        head = None
    elif parent is not None:
        head = head_of_parent(parent, inner.dtype)
    else:
        raise ConfigError(
            "generation: the head of this LLM is not at hand: it is not the LLM's embeddings, and the LLM was trained "
            "whole (lora: null) or built in Python; align with an adapter, or give with_lm_head the whole model"
        )
    config = copy.deepcopy(model.config)
    config.head = TIED if head is None else LINEAR if head.bias is None else BIASED
    config.task, config.separator, config.prompt = task.kind, task.separator, task.prompt
    if task.labels:
        config.id2label = dict(enumerate(task.labels))
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        writer = MTLLMForCausalLM(config)
    writer.stack, writer.lm_head, model.config = model, head, config
    return on_device(writer, model.device).train(model.training)


# ---- the head of the LLM, which reading has no use for


def head_in(model: PreTrainedModel) -> nn.Linear | None:
    """The head of a whole causal language model; None where it is the model's embeddings.

    Raises:
        ConfigError: it is no linear layer.
    """
    layer: Any = model.get_output_embeddings()
    words: Any = model.get_input_embeddings()
    if not isinstance(layer, nn.Linear):
        raise ConfigError(f"generation: the head of this {type(model).__name__} is no linear layer")
    return None if layer.weight is words.weight and layer.bias is None else layer


def head_of_parent(parent: dict[str, Any], dtype: torch.dtype) -> nn.Linear | None:
    """The head of the LLM that a stack was built on; the whole model is in memory for the length of the call.

    Raises:
        ConfigError, EnvironmentFault: the parent, of `config.parents`, cannot be had.
        DataError: a weight of it is missing.
    """
    base, _ = base_and_adapters(parent["name"])
    revision = parent.get("revision") if base == parent["name"] else None
    whole = load_model(base, dtype=dtype, revision=revision, gguf_file=parent.get("gguf_file"))
    return head_in(whole)


def causal_class(config: PreTrainedConfig) -> Any:
    """The class of `transformers` that writes with a decoder, by the decoder's config.

    Raises:
        ConfigError: there is none: the decoder is a part of a larger model (Qwen2.5-VL's).
    """
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if kind is None:
        named = f"of the kind '{config.model_type}'"
        raise ConfigError(f"generation: transformers has no model {named} that writes; take another LLM")
    return kind


def whole_llm(llm: PreTrainedModel, head: nn.Linear | None) -> Any:
    """The causal language model of `transformers` that a decoder and a head make (no copy): it can `generate`.

    A head that is None is the decoder's embeddings.

    Raises:
        ConfigError: `transformers` has no such model, or it has more parts than these.
    """
    kind = causal_class(llm.config)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        whole = kind._from_config(llm.config)
        layer = nn.Linear(1, 1, bias=False) if head is None else head
    if head is None:
        embed: Any = llm.get_input_embeddings()
        layer.weight = embed.weight
    setattr(whole, whole.base_model_prefix, llm)
    whole.set_output_embeddings(layer)
    if any(parameter.is_meta for parameter in whole.parameters()):
        raise ConfigError(f"generation: a {kind.__name__} has more parts than its decoder and its head")
    return whole.train(llm.training)


AutoModelForCausalLM.register(MTLLMConfig, MTLLMForCausalLM)
