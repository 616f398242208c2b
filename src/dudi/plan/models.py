"""`dudi plan`: what a recipe will need, before anything is downloaded but the models' configs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Literal

import pyarrow.parquet as parquet
from transformers import PretrainedConfig

from dudi.config.schema import LoraSection
from dudi.data.built_in import SOURCES
from dudi.data.rejections import Rejections
from dudi.data.sources import RowSet, load_rows
from dudi.distill.arguments import DudiConfig
from dudi.distill.loading import Loaded
from dudi.distill.recipe import RunConfig, TeacherSection
from dudi.distill.run import read_evaluation
from dudi.environment import choose_precision, device_type
from dudi.errors import ConfigError, EnvironmentFault
from dudi.models.adapters import innermost
from dudi.models.image_text import freeze_sight
from dudi.models.shape import empty_model, shape_of
from dudi.plan.estimate import Dtype, Plan, estimate, most_probed
from dudi.plan.hardware import find_gpu


@dataclasses.dataclass(frozen=True, slots=True)
class Counted:
    """The rows of a run: those that are trained on, and those that a probe asks; None: not known, or no probe."""

    trained: int | None
    probed: int | None = None


_QUANTISED_BYTES = {4: 0.5625, 8: 1.0}
"""Bytes of a quantised weight, block scales included, by its bits."""


def plan_run(
    config: RunConfig,
    *,
    gpu: str | None = None,
    gpus: int = 1,
    loaded: Loaded | None = None,
    counted: Counted | None = None,
) -> Plan:
    """The plan of a recipe, from its models' configs.

    Args:
        config: The recipe.
        gpu: A name of `dudi.plan.hardware.GPUS`, for hours; None leaves them out.
        gpus: How many.
        loaded: What has been read of the recipe's models already.
        counted: Its rows, where they have been read; None counts them as far as that goes without reading.

    Raises:
        ConfigError: an unknown GPU, or a model that is no causal language model.
        DataError: the rows of `data.eval` cannot be read.
        EnvironmentFault: a model's config cannot be read from here.
    """
    dtype = precision_for(config.dtype, gpu)
    # The recipe's precision is the planned GPU's affair: this computer may be a laptop without one.
    args = config.model_copy(update={"dtype": "float32"}).dudi_config("plan")
    loaded = Loaded(config, args) if loaded is None else loaded
    counted = _counted(config, args) if counted is None else counted
    student, teachers = loaded.student_config, []
    for name, own in loaded.teacher_configs.items() if args.needs_teacher else ():
        teachers.append((own, _teacher_bytes(config.named_teachers[name], own, dtype)))
    teacher, teacher_bytes = teachers[0] if teachers else (None, None)
    return estimate(
        student,
        teacher,
        args,
        rows=counted.trained,
        probed=counted.probed,
        dtype=dtype,
        gpus=gpus,
        gpu=gpu,
        lora_parameters=None if config.lora is None else count_lora_parameters(student, config.lora),
        student_bytes_per_parameter=4 if config.student.dtype in ("auto", "float32") else 2,
        teacher_bytes_per_parameter=teacher_bytes,
        other_teachers=teachers[1:],
        served=bool(config.named_teachers) and all(one.server for one in config.named_teachers.values()),
        cpu=gpu is None and device_type(bool(args.use_cpu)) == "cpu",
    )


def precision_for(wanted: Literal["auto"] | Dtype, gpu: str | None) -> Dtype:
    """The precision of the passes: what a recipe names, or else the planned GPU's, or this computer's.

    Raises:
        ConfigError: an unknown GPU.
    """
    if wanted != "auto":
        return wanted
    if gpu is None:
        return choose_precision("auto").dtype
    return "bfloat16" if find_gpu(gpu).bfloat16 else "float16"


def count_lora_parameters(config: PretrainedConfig, lora: LoraSection) -> int:
    """Parameters of the adapters, counted on a model without storage.

    Raises:
        EnvironmentFault: peft is not installed.
        ConfigError: no layer matches `lora.target_modules`.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise EnvironmentFault("lora: needs the package peft: pip install 'dudi[peft]'") from error
    wanted = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=lora.target_modules, task_type="CAUSAL_LM")
    try:
        model = get_peft_model(empty_model(config), wanted)
        freeze_sight(model, innermost(model))
    except ValueError as error:
        raise ConfigError(f"lora.target_modules: {str(error).splitlines()[0]}") from error
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _teacher_bytes(section: TeacherSection, config: PretrainedConfig, dtype: Dtype) -> float | None:
    """Bytes of a parameter of the teacher on the training device; None follows the precision of the passes."""
    if section.server is not None or section.device not in ("auto", "cuda", "cuda:0"):
        return 0.0
    if section.quantization is None:
        return {"auto": None, "float32": 4.0}.get(section.dtype, 2.0)
    wanted = section.quantization
    bits = 4 if wanted.get("load_in_4bit") else 8 if wanted.get("load_in_8bit") else wanted.get("bits")
    if bits not in _QUANTISED_BYTES:
        return None
    shape = shape_of(config)  # embeddings, norms and the head keep their precision
    rest = shape.parameters - shape.linear
    return (shape.linear * _QUANTISED_BYTES[bits] + rest * (4 if dtype == "float32" else 2)) / shape.parameters


def count_rows(config: RunConfig) -> int | None:
    """Rows of `data.train` where they can be counted without reading them as rows; None for the hub.

    JSONL counts its lines that are not empty, Parquet its metadata.
    """
    data = config.data
    if data.train in SOURCES:
        return _built_in(config).total
    path, count = Path(data.train), None
    if path.suffix == ".parquet" and path.is_file():
        count = int(parquet.ParquetFile(path).metadata.num_rows)
    elif path.suffix == ".jsonl" and path.is_file():
        with path.open("rb") as file:
            count = sum(1 for line in file if line.strip())
    if data.max_rows is None:
        return count
    return data.max_rows if count is None else min(count, data.max_rows)


def _built_in(config: RunConfig) -> RowSet:
    data = config.data
    return load_rows(
        data.train,
        languages=config.settings["languages"],
        rows_per_language=data.rows_per_language,
        tasks=data.tasks,
        max_rows=data.max_rows,
    )


def _counted(config: RunConfig, args: DudiConfig) -> Counted:
    """The rows that are trained on and those that a probe asks: of `data.eval`, or held out of the others."""
    rows, source = count_rows(config), config.data.eval or config.data.train
    if args.teacher_weight != "auto":
        return Counted(rows)
    if config.data.eval is None and config.data.eval_split is None:
        if source in SOURCES:
            counts = Counter(row.language for row in _built_in(config).rows)
            asked = sum(min(args.probe_rows, count // 2) for count in counts.values())
        else:
            asked = most_probed(args, rows)
        return Counted(None if rows is None else rows - asked, asked)
    if source not in SOURCES and not Path(source).exists():  # the hub: nothing is downloaded for a plan
        return Counted(rows)
    found = read_evaluation(config, args, Rejections())
    if found is None:
        return Counted(rows)
    counts = Counter(row.language for row in found.rows)
    return Counted(rows, sum(min(args.probe_rows, count) for count in counts.values()))
