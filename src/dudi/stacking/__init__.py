"""MT-LLM (arXiv 2406.12739): a frozen MT encoder under a language model, by self-distillation. docs/mtllm.md."""

from dudi.stacking.building import build_stack, load_stack, merge, with_head
from dudi.stacking.configuration import MTLLMConfig
from dudi.stacking.lora import LoraSettings
from dudi.stacking.modeling import MTLLMForMultipleChoice, MTLLMForSequenceClassification, MTLLMModel
from dudi.stacking.rows import StackRow, Task, rows_from_records
from dudi.stacking.tokens import Source

__all__ = [
    "LoraSettings",
    "MTLLMConfig",
    "MTLLMForMultipleChoice",
    "MTLLMForSequenceClassification",
    "MTLLMModel",
    "Source",
    "StackRow",
    "Task",
    "build_stack",
    "load_stack",
    "merge",
    "rows_from_records",
    "with_head",
]
