"""How large a benchmark is: shapes of the models, rows, lengths. All weights are random; nothing is downloaded."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

SMOL: dict[str, Any] = {"family": "llama", "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
QWEN: dict[str, Any] = {"family": "qwen2", "rope_theta": 1e6, "rms_norm_eps": 1e-6, "tie_word_embeddings": True}
GEMMA: dict[str, Any] = {"family": "gemma3_text", "head_dim": 256, "sliding_window": 512, "tie_word_embeddings": True}
BYTES = {"float32": 4, "bfloat16": 2}

Precision = Literal["float32", "bfloat16"]


def shape(base: dict[str, Any], hidden: int, inner: int, layers: int, heads: int, key_value: int) -> dict[str, Any]:
    """The keys of a config that decide what a model costs."""
    return {
        **base,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """One size of the benchmark.

    Attributes:
        name: What the command line calls it.
        vocabulary: Rows of both heads.
        student: The student's shape.
        teacher: The teacher's shape.
        batch: Rows that a device reads at a time.
        accumulation: Micro-batches of an optimizer step.
        shortest: Tokens of the shortest prompt, the template's included.
        longest: Tokens of the longest; lengths are spread evenly between the two.
        gold: Tokens of each ground truth, or of the shortest.
        gold_longest: Tokens of the longest, lengths spread evenly between the two; None where all are `gold`.
        new: Tokens of each rollout, exactly.
        steps: Optimizer steps that are timed, after one that warms up.
        dtype: `float32`, or `bfloat16` for autocast over fp32 weights with a teacher in bf16.
        together: Contestants whose processes live at the same time and take turns step by step, at most.
        device: `cpu` or `cuda`.
        kernels: Values of `loss_kernel` that are compared apart from the table.
        processes: Processes that share an optimizer step (DDP).
        threads: Of each process; None leaves it to torch.
        memory_limit: Bytes of a device that a process may take: a smaller card's.
        teacher_dtype: Of the frozen teacher; None: `dtype`.
        lora: Rank of the student's adapters, which alone are trained then; None trains all weights.
    """

    name: str
    vocabulary: int
    student: dict[str, Any]
    teacher: dict[str, Any]
    batch: int
    accumulation: int
    shortest: int
    longest: int
    gold: int
    new: int
    steps: int
    dtype: Precision = "float32"
    together: int = 16
    device: Literal["cpu", "cuda"] = "cpu"
    kernels: tuple[str, ...] = ()
    gold_longest: int | None = None
    processes: int = 1
    threads: int | None = None
    memory_limit: int | None = None
    teacher_dtype: Precision | None = None
    lora: int | None = None

    @property
    def rows(self) -> int:
        """Samples of an optimizer step."""
        return self.batch * self.accumulation * self.processes

    @property
    def judging(self) -> Precision:
        """Precision of the teacher's weights and passes."""
        return self.teacher_dtype or self.dtype

    def changes(self) -> dict[str, Any]:
        """What differs from the size of this name."""
        own = dataclasses.asdict(SIZES[self.name])
        return {key: value for key, value in dataclasses.asdict(self).items() if value != own[key]}


_TINY = Size(
    name="tiny",
    vocabulary=512,
    student=shape(SMOL, 32, 64, 2, 4, 2),
    teacher=shape(SMOL, 48, 96, 2, 4, 2),
    batch=2,
    accumulation=1,
    shortest=16,
    longest=24,
    gold=8,
    new=8,
    steps=2,
    kernels=("chunked", "fused"),
)
_CPU_SMALL = Size(
    name="cpu-small",
    vocabulary=49_152,
    student=shape(SMOL, 384, 1024, 8, 6, 2),
    teacher=shape(SMOL, 576, 1536, 12, 9, 3),
    batch=8,
    accumulation=1,
    shortest=32,
    longest=96,
    gold=64,
    new=64,
    steps=3,
    together=3,
)
_PAPER = Size(
    name="paper",
    vocabulary=151_936,
    student=shape(QWEN, 896, 4864, 24, 14, 2),
    teacher=shape(QWEN, 2048, 11008, 36, 16, 2),
    batch=8,
    accumulation=4,
    shortest=100,
    longest=300,
    gold=256,
    new=256,
    steps=5,
    dtype="bfloat16",
    together=1,
    device="cuda",
    kernels=("chunked", "fused"),
)
# Qwen2.5-Coder 0.5B under 1.5B as recipes/real trains them, with answers so short that TRL's dense logits fit.
_REAL_PAIR = Size(
    name="real-pair",
    vocabulary=151_936,
    student=shape(QWEN, 896, 4864, 24, 14, 2),
    teacher=shape(QWEN, 1536, 8960, 28, 12, 2),
    batch=2,
    accumulation=1,
    shortest=32,
    longest=64,
    gold=32,
    new=24,
    steps=2,
    teacher_dtype="bfloat16",
    lora=16,
    together=2,
)
# Gemma 3 270M as student and teacher: 168 of its 268 million weights are the head.
_VOCABULARY_262K = Size(
    name="vocabulary-262k",
    vocabulary=262_144,
    student=shape(GEMMA, 640, 2048, 18, 4, 1),
    teacher=shape(GEMMA, 640, 2048, 18, 4, 1),
    batch=4,
    accumulation=1,
    shortest=32,
    longest=64,
    gold=32,
    new=24,
    steps=3,
    together=2,
)
SIZES: dict[str, Size] = {
    size.name: size
    for size in (
        _TINY,
        _CPU_SMALL,
        _REAL_PAIR,
        _VOCABULARY_262K,
        _PAPER,
        dataclasses.replace(_PAPER, name="long", batch=4, accumulation=8, gold=1024, new=1024, steps=3),
        # Up to 1,024 tokens in all, 32 to 724 of which are the ground truth's: 378 on average.
        dataclasses.replace(_PAPER, name="projection", gold=32, gold_longest=724, steps=4),
        dataclasses.replace(_TINY, name="tiny-projection", gold=4, gold_longest=24),
    )
}
