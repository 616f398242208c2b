"""Who is compared: TRL's trainers as they come and as tuned, and ours with the same method."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer

from benchmarks.sizes import Size
from benchmarks.work import make_adapter, make_model

Build = Callable[["Parts"], Trainer]
NEVER = -1
"""A stop id that no model can draw."""
SDFT_TEMPLATE = (
    "{prompt}\n\nThis is an example for a response to the question:\n{privileged_context}\n\n"
    "Now answer with a response of your own, including the thinking process."
)


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """What every contestant is made of."""

    size: Size
    student: PreTrainedModel
    teacher: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerFast
    rows: list[dict[str, Any]]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def make_parts(
    name: str,
    size: Size,
    tokenizer: PreTrainedTokenizerFast,
    rows: list[dict[str, Any]],
    options: dict[str, Any] | None = None,
) -> Parts:
    """A contestant's models, beside what was made of the size before."""
    contestant = CONTESTANTS[name]
    student = make_model(size, "student")
    teacher = make_model(size, "teacher") if contestant.group != "sdft" else None
    return Parts(size, student, teacher, tokenizer, rows, {**contestant.options, **(options or {})})


def common(parts: Parts) -> dict[str, Any]:
    """The keys of `TrainingArguments` that are the same for all; the rest is left as each trainer has it."""
    size = parts.size
    return {
        "output_dir": tempfile.mkdtemp(prefix="dudi-bench-"),
        "per_device_train_batch_size": size.batch,
        "gradient_accumulation_steps": size.accumulation,
        "max_steps": size.steps + 1,
        "train_sampling_strategy": "sequential",
        "learning_rate": 1e-6,
        "bf16": size.dtype == "bfloat16",
        "use_cpu": size.device == "cpu",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "seed": 0,
    } | ({"ddp_backend": "gloo"} if size.processes > 1 and size.device == "cpu" else {})


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def trl_gkd(parts: Parts) -> Trainer:
    """`GKDTrainer`, fully on-policy."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    rows = [
        {"messages": [*_messages(row["prompt"]), {"role": "assistant", "content": row["completion"]}]}
        for row in parts.rows
    ]
    args = GKDConfig(
        **{**common(parts), "lmbda": 1.0, "beta": 0.5, "max_new_tokens": parts.size.new, "max_length": 2560}
        | parts.options
    )
    trainer = GKDTrainer(
        parts.student,
        parts.teacher,
        args,
        train_dataset=Dataset.from_list(rows),
        processing_class=parts.tokenizer,
        peft_config=make_adapter(parts.size),
    )
    trainer.generation_config.eos_token_id = None
    return trainer


def trl_distillation(parts: Parts) -> Trainer:
    """`DistillationTrainer`, which is on-policy only."""
    from trl import DistillationConfig, DistillationTrainer

    rows = [{"prompt": _messages(row["prompt"])} for row in parts.rows]
    if parts.options.get("use_vllm"):
        _put_into_a_folder(parts)
    args = DistillationConfig(
        **{
            **common(parts),
            "beta": 0.5,
            "temperature": 1.0,
            "max_completion_length": parts.size.new,
            "shuffle_dataset": False,
        }
        | parts.options
    )
    trainer = DistillationTrainer(
        model=parts.student,
        teacher_model=parts.teacher,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=parts.tokenizer,
        peft_config=make_adapter(parts.size),
    )
    trainer.generation_config.eos_token_id = None
    trainer.eos_token_ids = [NEVER]
    return trainer


def _put_into_a_folder(parts: Parts) -> None:
    """Where a second model is loaded from: TRL's teacher of itself, and vLLM."""
    folder = tempfile.mkdtemp(prefix="dudi-bench-student-")
    parts.student.save_pretrained(folder)
    parts.tokenizer.save_pretrained(folder)
    parts.student.config._name_or_path = parts.student.name_or_path = folder


def trl_sdft(parts: Parts) -> Trainer:
    """`SDFTTrainer` with a moving average and one rollout a prompt, as ours."""
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    rows = [{"prompt": _messages(row["prompt"]), "privileged_context": row["completion"]} for row in parts.rows]
    args = SDFTConfig(
        **{
            **common(parts),
            "num_generations": 1,
            "max_completion_length": parts.size.new,
            "max_prompt_length": 2560,
            "teacher_model_kind": "ema",
            "teacher_update_rate": 0.01,
            "teacher_prompt_template": SDFT_TEMPLATE,
            "distillation_alpha": 0.0,
            "shuffle_dataset": False,
        }
        | parts.options
    )
    _put_into_a_folder(parts)
    trainer = SDFTTrainer(
        model=parts.student,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=parts.tokenizer,
        peft_config=make_adapter(parts.size),
    )
    trainer.generation_config.eos_token_id = None
    trainer.eos_token_ids = [NEVER]
    return trainer


def ours(parts: Parts) -> Trainer:
    """`DudiTrainer`; beside keys, options are `still` and `packed`, which a GPU has not decided yet."""
    from dudi import DudiConfig, DudiTrainer
    from dudi.objective import forward
    from dudi.rollouts import TransformersEngine

    keys = common(parts) | {"cold_start": "none", "max_new_tokens": parts.size.new, "max_length": 2560} | parts.options
    still, together = keys.pop("still", False), keys.pop("packed", False)
    if together:
        forward.PACKING.add(parts.size.device)
    if keys.get("use_vllm"):
        _put_into_a_folder(parts)
    args = DudiConfig(**{key: value for key, value in keys.items() if value is not None})
    teacher = parts.teacher if args.needs_teacher else None
    trainer = DudiTrainer(
        parts.student,
        teacher,
        args,
        parts.rows,
        processing_class=parts.tokenizer,
        peft_config=make_adapter(parts.size),
    )
    engine = trainer.run.collector.engine
    if isinstance(engine, TransformersEngine):  # of methods that roll out
        engine.stop_ids, engine.still = (NEVER,), still
    return trainer


TUNED = {"gradient_checkpointing": False}
GKD = {"method": "gkd", "lmbda": 1.0}


@dataclasses.dataclass(frozen=True, slots=True)
class Contestant:
    """One line of the table.

    Attributes:
        title: What the table calls it.
        group: Method that is the same within a group.
        build: Makes its trainer.
        options: Beside the common keys.
        ours: Whether it is `dudi`.
    """

    title: str
    group: str
    build: Build
    options: dict[str, Any]
    ours: bool = False


CONTESTANTS: dict[str, Contestant] = {
    "trl-gkd": Contestant("TRL GKD, as it comes", "gkd", trl_gkd, {}),
    "trl-gkd-tuned": Contestant("TRL GKD, tuned", "gkd", trl_gkd, TUNED),
    "trl-distillation": Contestant("TRL Distillation, as it comes", "gkd", trl_distillation, {}),
    "trl-distillation-tuned": Contestant("TRL Distillation, tuned", "gkd", trl_distillation, TUNED),
    "dudi-gkd": Contestant("dudi gkd", "gkd", ours, GKD, ours=True),
    "dudi": Contestant("dudi dudi", "dudi", ours, {"method": "dudi"}, ours=True),
    "trl-distillation-vllm": Contestant(
        "TRL Distillation, tuned, vLLM", "gkd-vllm", trl_distillation, {**TUNED, "use_vllm": True}
    ),
    "dudi-gkd-vllm": Contestant("dudi gkd, vLLM", "gkd-vllm", ours, {**GKD, "use_vllm": True}, ours=True),
    "trl-sdft": Contestant("TRL SDFT, as it comes", "sdft", trl_sdft, {}),
    "trl-sdft-full": Contestant(
        "TRL SDFT, full logits, tuned", "sdft", trl_sdft, {**TUNED, "distillation_mode": "full_logits"}
    ),
    "dudi-sdft": Contestant(
        "dudi sdft", "sdft", ours, {"method": "sdft", "temperature": 1.0, "skip_completion_tokens": 0}, ours=True
    ),
}
WITHOUT_VLLM = [name for name, one in CONTESTANTS.items() if not one.options.get("use_vllm")]
OURS = {"gkd": "dudi-gkd", "gkd-vllm": "dudi-gkd-vllm", "sdft": "dudi-sdft", "dudi": "dudi"}
"""Ours of each method."""


def compared_with(name: str) -> str:
    """Whose steps a contestant's are held against: ours of the same method; DuDi's against our GKD."""
    return "dudi-gkd" if name == "dudi" else OURS[CONTESTANTS[name].group]
