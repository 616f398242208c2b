"""`MTLLMConfig`: an MT encoder, a language model on top of it, and how the two are joined. Both configs are inside."""

from __future__ import annotations

from typing import Any, Literal

from transformers import AutoConfig, PreTrainedConfig

from dudi.errors import ConfigError, did_you_mean

ATTENTIONS = ("bidirectional", "causal")
STAGES = ("untrained", "aligned", "teacher", "distilled", "finetuned")
# huggingface_hub checks dataclass fields at runtime and does not know names imported for types alone.


class MTLLMConfig(PreTrainedConfig):
    """A reader of sentences: encoder and LLM, or one of the two alone.

    The configs of both parts are embedded, so that loading never needs the models they came from.

    Attributes:
        encoder_config: Of the MT encoder; None for an LLM that reads its own tokens.
        llm_config: Of the decoder; None for an encoder alone.
        attention: Whether the LLM's tokens see those behind them.
        stage: What was done to these weights: `untrained`, `aligned` (Stage 1), `teacher` (an LLM tuned on a task),
            `distilled` (Stage 2), `finetuned` (by labels).
        lora: `r`, `alpha`, `dropout` and `target_modules` of an adapter that is in the weights and not merged.
        task: `classification`, `choice`, `generation`, or None.
        codes: The encoder's language code for each code that rows may have, before the table of languages is asked.
        max_row_length: Tokens of a row that were read in the last training; what an evaluation reads too.
        parents: Where the frozen weights of `encoder` and `llm` come from; None: all weights are here, or the parts
            were built in Python.
        merged: Settings of the adapters that have been merged into the weights on top of the parents, in order.
        separator: What stands between the texts of a pair where the tokenizer sets nothing there.
        llm_tokens: Whether the LLM reads its own tokens of a text too, behind the encoder's states and one learned
            embedding.
        head: Of a stack that writes: `tied` to the LLM's embeddings, `linear`, or `biased` (linear with a bias).
        prompt: What a stack that writes was asked in training, behind the text.

    Raises:
        ConfigError: a value is none of its choices, or both parts are missing.
    """

    model_type = "mt_llm"
    sub_configs = {"encoder_config": AutoConfig, "llm_config": AutoConfig}  # noqa: RUF012

    encoder_config: dict | PreTrainedConfig | None = None
    llm_config: dict | PreTrainedConfig | None = None
    attention: str = "bidirectional"
    stage: str = "untrained"
    lora: dict | None = None
    task: str | None = None
    codes: dict | None = None
    max_row_length: int | None = None
    separator: str = "\n"
    parents: dict | None = None
    merged: list | None = None
    llm_tokens: bool = False
    head: str | None = None
    prompt: str = ""

    def __post_init__(self, **kwargs: Any) -> None:
        for name in self.sub_configs:
            if isinstance(held := getattr(self, name), dict):  # as `config.json` holds it
                setattr(self, name, AutoConfig.for_model(**held))
        for name, value, allowed in (("attention", self.attention, ATTENTIONS), ("stage", self.stage, STAGES)):
            if value not in allowed:
                hint = did_you_mean(value, allowed)
                raise ConfigError(f"{name}: '{value}' is not one of {', '.join(allowed)}{hint}")
        if isinstance(self.llm_config, PreTrainedConfig):
            self.llm_config.is_causal = self.attention == "causal"
            self.llm_config.use_cache = False  # whoever writes asks for it
        super().__post_init__(**kwargs)

    @property
    def parts(self) -> Literal["stack", "llm", "encoder"]:
        """Which parts there are."""
        if self.encoder_config is None:
            return "llm"
        return "encoder" if self.llm_config is None else "stack"

    @property
    def encoder_size(self) -> int:
        """Width of the encoder's states."""
        return width_of(part(self.encoder_config))

    @property
    def hidden_size(self) -> int:
        """Width of the vectors that come out."""
        return width_of(part(self.encoder_config if self.llm_config is None else self.llm_config))


def part(config: Any) -> PreTrainedConfig:
    """The config of a part that has to be there, or `ConfigError`."""
    if not isinstance(config, PreTrainedConfig):
        raise ConfigError("MTLLMConfig: give encoder_config, llm_config, or both")
    return config


def width_of(config: PreTrainedConfig) -> int:
    """Width of the states of a part."""
    values = config.to_dict()
    if isinstance(values.get("encoder"), dict) and "hidden_size" in values["encoder"]:  # T5Gemma
        return int(values["encoder"]["hidden_size"])
    return int(config.hidden_size)
