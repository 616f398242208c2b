"""MT-LLM (arXiv 2406.12739): a frozen MT encoder under a language model, by self-distillation. docs/mtllm.md."""

from dudi.stacking.alignment import align
from dudi.stacking.arguments import StackArguments
from dudi.stacking.building import build_stack, load_stack, merge, read_own_tokens, with_head
from dudi.stacking.configuration import MTLLMConfig
from dudi.stacking.evaluation import Evaluation, evaluate
from dudi.stacking.generating import MTLLMForCausalLM, with_lm_head
from dudi.stacking.lora import LoraSettings
from dudi.stacking.mntp import adapt
from dudi.stacking.modeling import MTLLMForMultipleChoice, MTLLMForSequenceClassification, MTLLMModel
from dudi.stacking.probing import probe
from dudi.stacking.rows import StackRow, Task, rows_from_records
from dudi.stacking.stored import open_model
from dudi.stacking.tasks import distill, finetune, vectors
from dudi.stacking.tokens import Source
from dudi.stacking.translation import translate, translate_rows
from dudi.stacking.writing import write

__all__ = [
    "Evaluation",
    "LoraSettings",
    "MTLLMConfig",
    "MTLLMForCausalLM",
    "MTLLMForMultipleChoice",
    "MTLLMForSequenceClassification",
    "MTLLMModel",
    "Source",
    "StackArguments",
    "StackRow",
    "Task",
    "adapt",
    "align",
    "build_stack",
    "distill",
    "evaluate",
    "finetune",
    "load_stack",
    "merge",
    "open_model",
    "probe",
    "read_own_tokens",
    "rows_from_records",
    "translate",
    "translate_rows",
    "vectors",
    "with_head",
    "with_lm_head",
    "write",
]
