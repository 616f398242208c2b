"""The stack as `transformers` models: encoder states -> one linear layer -> LLM -> mean over the tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.utils import ModelOutput

from dudi.stacking import assembly, lora
from dudi.stacking.checks import check_attention, check_encoder
from dudi.stacking.configuration import MTLLMConfig, part
from dudi.stacking.llm2vec import find_file
from dudi.stacking.parts import check_loaded, empty_encoder, empty_llm
from dudi.stacking.sequences import Disturbance, pack

AnyModel = TypeVar("AnyModel", bound=PreTrainedModel)


class _Means:
    """What has means over tokens."""

    pooled: Tensor | None
    choices: Tensor | None

    @property
    def vectors(self) -> Tensor:
        """(B, C, D) of the choices where there are any, else (B, D)."""
        return cast(Tensor, self.pooled if self.choices is None else self.choices)


@dataclasses.dataclass
class StackOutput(_Means, ModelOutput):
    """What a reader makes of a batch.

    Attributes:
        last_hidden_state: (B, T, D).
        pooled: (B, D) mean over the attended tokens, in fp32; the boundary is none of them.
        choices: (B, C, D) mean over each span's tokens, in fp32; None without spans.
    """

    last_hidden_state: Tensor | None = None
    pooled: Tensor | None = None
    choices: Tensor | None = None


@dataclasses.dataclass
class TaskOutput(_Means, ModelOutput):
    """A reader's answers.

    Attributes:
        loss: Cross-entropy in nats; None without labels.
        logits: (B, classes), or (B, C) for choices; minus infinity where a row has fewer than C.
        pooled: (B, D).
        choices: (B, C, D) or None.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    pooled: Tensor | None = None
    choices: Tensor | None = None


class MTLLMPreTrainedModel(PreTrainedModel):
    """What the three classes share: the parts' names, and the checks of a load."""

    config_class = MTLLMConfig
    base_model_prefix = "stack"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    # Frozen parts may be held in bf16; what is trained stays in fp32, and a checkpoint gives it back exactly.
    _keep_in_fp32_modules_strict = ["connector", "boundary", "score", "lora_A", "lora_B"]  # noqa: RUF012
    config: MTLLMConfig

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in `transformers`; a part with a random weight, or with another attention than the config says, fails.

        A folder that holds only what was trained is put together with the parents that its config names.

        Raises:
            ConfigError: a parent cannot be had.
            DataError: weights of a part are missing, a parent is another one than was trained on, or the attention is
                not what the config says.
        """
        wanted = kwargs.pop("output_loading_info", False)
        place, name = pretrained_model_name_or_path, str(pretrained_model_name_or_path)
        trained = find_file(name, assembly.TRAINED, kwargs.get("revision"))
        if trained is None:
            model, info = cast(Any, super()).from_pretrained(place, *args, output_loading_info=True, **kwargs)
            check_loaded(name, [key for key in info["missing_keys"] if not key.startswith("score.")])
            model.config.parents = model.config.merged = None  # all their weights are here
        else:
            dtype, config = kwargs.pop("dtype", "auto"), kwargs.pop("config", None)
            config = AutoConfig.from_pretrained(name, **kwargs) if config is None else config
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                model = cls(config)
            assembly.fill(model, trained, dtype)
            model, info = model.eval(), {"missing_keys": set()}
        model.check_attention()
        return (model, info) if wanted else model

    def check_attention(self) -> None:
        """Hold the parts, with their weights in memory, against what they are; raises as the functions in `checks`."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return
        if self.reader.encoder is not None:
            check_encoder(self.reader.encoder)
        if self.reader.llm is not None:
            check_attention(self.reader.llm, self.config.attention)

    def _init_weights(self, module: nn.Module) -> None:
        """Only what is ours: the parts have been initialised by their own classes."""
        if isinstance(module, nn.Linear) and module is self._modules.get("connector", self._modules.get("score")):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    @property
    def reader(self) -> MTLLMModel:
        """The model without a head; of one that has none, itself. Both have one config."""
        return cast(MTLLMModel, self.base_model)

    def get_input_embeddings(self) -> nn.Module:
        """Those that the input ids go to."""
        return self.reader.reads.get_input_embeddings()

    def without_lora(self) -> AbstractContextManager[None]:
        """The LLM as it was before its adapter, for the length of a block."""
        return lora.without_lora(self.reader.adapted)


class MTLLMModel(MTLLMPreTrainedModel):
    """Reads sentences and gives a vector for each, or for spans of it.

    Attributes:
        merged: Of each adapter of `config.merged`, its weights.
        disturbance: What Stage 1 does to the encoder's states while it trains; nothing in any other use.
        boundary: With `config.llm_tokens` the embedding between the encoder's states and the LLM's own tokens.

    Raises:
        ConfigError: the config has neither part.
    """

    def __init__(self, config: MTLLMConfig) -> None:
        super().__init__(config)
        self.disturbance = Disturbance()
        self.merged: list[dict[str, Tensor]] = []
        part(config.encoder_config if config.llm_config is None else config.llm_config)
        self.encoder = None if config.encoder_config is None else empty_encoder(part(config.encoder_config))
        self.llm = None if config.llm_config is None else empty_llm(part(config.llm_config))
        self.connector: nn.Linear | None = None
        self.boundary: nn.Embedding | None = None
        if config.parts == "stack":
            self.connector = nn.Linear(config.encoder_size, config.hidden_size)
            self.boundary = nn.Embedding(1, config.hidden_size) if config.llm_tokens else None
        if config.lora is not None:
            lora.add_lora(self.adapted, lora.LoraSettings(**config.lora))
        self.post_init()

    @property
    def reads(self) -> PreTrainedModel:
        """The part that reads token ids: the encoder, or an LLM that stands alone."""
        return cast(PreTrainedModel, self.llm if self.encoder is None else self.encoder)

    @property
    def adapted(self) -> PreTrainedModel:
        """The part that learns: the LLM, or an encoder that stands alone."""
        return cast(PreTrainedModel, self.encoder if self.llm is None else self.llm)

    def train(self, mode: bool = True) -> Self:
        """As in torch; the frozen encoder under an LLM keeps its dropout off."""
        super().train(mode)
        if self.encoder is not None and self.llm is not None:
            self.encoder.eval()
        return self

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        choice_spans: Tensor | None = None,
        llm_input_ids: Tensor | None = None,
        llm_attention_mask: Tensor | None = None,
        llm_choice_spans: Tensor | None = None,
        **kwargs: Any,
    ) -> StackOutput:
        """Read a batch.

        With `config.llm_tokens` the LLM reads the connected states, the boundary, and its own tokens of the same text
        (MindMerger, arXiv 2405.17386). `last_hidden_state` has the columns of the three in this order, U = T + 1 + V;
        a mean is one over the positions of the text, or of the choice, in both of its spellings.

        Args:
            input_ids: (B, T) of the encoder's tokenizer; of the LLM's where there is no encoder.
            attention_mask: (B, T) 1 for tokens, 0 for padding; None: no padding.
            choice_spans: (B, C, 2) first column and the column behind the last of each span; (0, 0) is none.
            llm_input_ids: (B, V) the same texts in the LLM's tokens, where `config.llm_tokens` asks for them.
            llm_attention_mask: (B, V), on any side padded.
            llm_choice_spans: (B, C, 2) likewise.
            kwargs: Not read; tokenizers give more than is needed.

        Raises:
            ValueError: the LLM's tokens are missing, or are none that this stack reads.
        """
        self._check_own_tokens(llm_input_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if self.encoder is None:
            return self.read_tokens(input_ids, mask, choice_spans)
        inside = None if choice_spans is None else span_masks(choice_spans, mask.shape[1])
        if self.llm is None:
            return pooled_output(self.encode(input_ids, mask), mask, inside)
        disturbed = self.training and choice_spans is None
        parts, masks = self.embed(input_ids, mask, llm_input_ids, llm_attention_mask, disturbed=disturbed)
        if self.boundary is None:
            states = self.llm(inputs_embeds=parts[0], attention_mask=masks[0]).last_hidden_state
            return pooled_output(states, masks[0], inside)
        packed = pack(parts, masks)
        states = self.llm(inputs_embeds=packed.embeds, attention_mask=packed.mask).last_hidden_state
        states = packed.spread(states, sum(part.shape[1] for part in parts))
        counted = torch.cat([masks[0], torch.zeros_like(masks[1]), masks[2]], dim=1)
        if inside is not None:
            if llm_choice_spans is None:
                raise ValueError("llm_choice_spans: the place of each choice in the LLM's own tokens is missing")
            own = span_masks(llm_choice_spans, parts[2].shape[1])
            inside = torch.cat([inside, torch.zeros_like(inside[..., :1]), own], dim=2)
        return pooled_output(states, counted, inside)

    def embed(
        self,
        input_ids: Tensor,
        mask: Tensor,
        llm_input_ids: Tensor | None = None,
        llm_attention_mask: Tensor | None = None,
        *,
        disturbed: bool = False,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What the LLM of a stack reads of a batch of texts, `disturbed` as in Stage 1; arguments as in `forward`.

        Returns:
            Parts (B, T_i, D) in the LLM's precision, and their masks (B, T_i): the connected states and, with
            `config.llm_tokens`, the boundary and the LLM's embeddings of its own tokens.

        Raises:
            ValueError: a part is missing, or the LLM's tokens are missing or not asked for.
        """
        if self.llm is None or self.connector is None:
            raise ValueError("only an encoder under an LLM embeds")
        self._check_own_tokens(llm_input_ids)
        states = self.encode(input_ids, mask)
        if disturbed and self.disturbance:
            states, mask = self.disturbance(states, mask)
        parts, masks = [self.connector(states.to(self.connector.weight.dtype)).to(self.llm.dtype)], [mask]
        if self.boundary is not None and llm_input_ids is not None:
            between = self.boundary.weight.to(self.llm.dtype).expand(len(input_ids), 1, -1)
            own = self.llm.get_input_embeddings()(llm_input_ids)
            own_mask = torch.ones_like(llm_input_ids) if llm_attention_mask is None else llm_attention_mask
            parts, masks = [*parts, between, own], [*masks, own_mask.new_ones(len(own_mask), 1), own_mask]
        return parts, masks

    def _check_own_tokens(self, llm_input_ids: Tensor | None) -> None:
        if self.boundary is not None and llm_input_ids is None:
            raise ValueError("llm_input_ids: this stack reads its LLM's own tokens too; see `beside` of Source")
        if self.boundary is None and llm_input_ids is not None:
            raise ValueError("llm_input_ids: this model reads no tokens of an LLM beside its own input (llm_tokens)")

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T, E) states of the encoder, which has no gradient under an LLM; without one a `ValueError`."""
        if self.encoder is None:
            raise ValueError("this reader has no encoder")
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.llm is None):
            return cast(Tensor, self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state)

    def read_tokens(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, choice_spans: Tensor | None = None
    ) -> StackOutput:
        """Read a batch as the LLM alone does, from its own tokens, as in `forward`; without one a `ValueError`."""
        if self.llm is None:
            raise ValueError("this reader has no LLM")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.llm(input_ids=input_ids, attention_mask=mask).last_hidden_state
        return pooled_output(states, mask, None if choice_spans is None else span_masks(choice_spans, mask.shape[1]))


def pooled_output(states: Tensor, mask: Tensor, inside: Tensor | None) -> StackOutput:
    """States (B, T, D), their means over the attended tokens (B, T), and over those inside each choice (B, C, T)."""
    pooled = masked_mean(states, mask[:, None, :])[:, 0]
    choices = None if inside is None else masked_mean(states, inside * mask[:, None, :])
    return StackOutput(last_hidden_state=states, pooled=pooled, choices=choices)


def masked_mean(states: Tensor, masks: Tensor) -> Tensor:
    """Means of (B, T, D) under masks (B, C, T), in fp32: (B, C, D); zeros under an empty mask.

    A sum in bf16 loses what the loss looks at. Padded positions are cut out, not multiplied by zero: they may hold NaN.
    """
    weights = masks.to(torch.float32)
    kept = states.float().masked_fill(~masks.bool().any(dim=1)[..., None], 0.0)
    return weights @ kept / weights.sum(dim=-1, keepdim=True).clamp(min=1.0)


def span_masks(spans: Tensor, length: int) -> Tensor:
    """(B, C, T) 1 inside each span of (B, C, 2)."""
    columns = torch.arange(length, device=spans.device)
    return ((columns >= spans[..., :1]) & (columns < spans[..., 1:])).long()


class _WithHead(MTLLMPreTrainedModel):
    """A reader with a linear head without bias, as the authors use."""

    def __init__(self, config: MTLLMConfig, outputs: int = 1) -> None:
        super().__init__(config)
        self.stack = MTLLMModel(config)
        self.score = nn.Linear(config.hidden_size, outputs, bias=False)
        self.post_init()

    def fill_head(self, saved: Mapping[str, Tensor], place: str) -> None:
        """Give a head that has no weights yet those that were saved; a new one starts at random."""
        self.score.to_empty(device="cpu").float()
        nn.init.normal_(self.score.weight, std=self.score.in_features**-0.5)
        if saved:
            assembly.copy_into(self, saved, ["score.weight"], place)


class MTLLMForSequenceClassification(_WithHead):
    """A class for each sentence, or pair of sentences."""

    def __init__(self, config: MTLLMConfig) -> None:
        super().__init__(config, len(config.id2label or {}))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        llm_input_ids: Tensor | None = None,
        llm_attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> TaskOutput:
        """Arguments as in `MTLLMModel.forward`, and `labels` (B,)."""
        read = self.stack(input_ids, attention_mask, None, llm_input_ids, llm_attention_mask)
        logits = self.score(read.pooled.to(self.score.weight.dtype)).float()
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return TaskOutput(loss=loss, logits=logits, pooled=read.pooled)


class MTLLMForMultipleChoice(_WithHead):
    """One of several answers that stand in the same sequence; each one's vector is the mean over its tokens."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        choice_spans: Tensor | None = None,
        labels: Tensor | None = None,
        llm_input_ids: Tensor | None = None,
        llm_attention_mask: Tensor | None = None,
        llm_choice_spans: Tensor | None = None,
        **kwargs: Any,
    ) -> TaskOutput:
        """Arguments as in `MTLLMModel.forward`, and `labels` (B,).

        Raises:
            ValueError: no spans are given.
        """
        if choice_spans is None:
            raise ValueError("choice_spans: a model for choices needs the place of each choice")
        read = self.stack(input_ids, attention_mask, choice_spans, llm_input_ids, llm_attention_mask, llm_choice_spans)
        logits = self.score(read.choices.to(self.score.weight.dtype)).float()[..., 0]
        logits = logits.masked_fill(choice_spans[..., 1] <= choice_spans[..., 0], float("-inf"))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return TaskOutput(loss=loss, logits=logits, pooled=read.pooled, choices=read.choices)


def on_device(model: AnyModel, device: torch.device | str) -> AnyModel:
    """The model, moved; `transformers` wraps `to` in a way that type checkers do not follow."""
    nn.Module.to(model, device)
    return model


AutoConfig.register(MTLLMConfig.model_type, MTLLMConfig)
AutoModel.register(MTLLMConfig, MTLLMModel)
AutoModelForSequenceClassification.register(MTLLMConfig, MTLLMForSequenceClassification)
AutoModelForMultipleChoice.register(MTLLMConfig, MTLLMForMultipleChoice)
