"""Memory, FLOPs and hours of a run, from the shapes of its models.

How the numbers are made, and what they leave out, is in docs/plan.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from transformers import PretrainedConfig

from dudi.distill.arguments import DudiConfig
from dudi.models.shape import Shape, decode_flops, shape_of
from dudi.objective.fused import CPU_BLOCK, CPU_TILE, DEVICE_TILE
from dudi.objective.methods import METHODS
from dudi.plan import footprint, workload
from dudi.plan.costs import FP32
from dudi.plan.footprint import Memory
from dudi.plan.hardware import Gpu, find_gpu
from dudi.plan.workload import PHASES, Lengths, Phase, Workload
from dudi.training.arguments import RunArguments

Dtype = Literal["bfloat16", "float16", "float32"]

UTILISATION = 0.35
"""Share of a GPU's peak rate that training passes reach; 0.3 to 0.5 is usual for models of this size."""

BANDWIDTH_SHARE = 0.6
"""Share of the memory's bandwidth that decoding reaches."""

SECONDS_PER_LAYER = 0.6e-3
"""Least time of one decoder layer in one decoding step with `transformers`: the launching of its kernels."""


@dataclasses.dataclass(frozen=True, slots=True)
class StageEstimate:
    """Work before the method's own steps; no hours without a GPU, or where the number of rows is not known."""

    name: str
    hours: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a run is expected to need.

    Attributes:
        work: What the numbers were computed from.
        dtype: Precision of the passes.
        memory: Bytes on each device.
        flops: FLOPs of one optimizer step on one device, by phase.
        seconds: The same in seconds, or None without a GPU.
        stages: What runs before: cold start, teacher-written answers, the reference's pass over the ground truth.
        rows: Training rows, or None when not known.
        epochs: Passes over them, or None where `max_steps` decides.
        steps: Optimizer steps of the method, or None when the number of rows is not known.
        gpu: The device, or None.
        utilisation: Share of its peak rate that was assumed.
        notes: Every assumption, one sentence each.
    """

    method: str
    work: Workload
    dtype: Dtype
    memory: Memory
    flops: Mapping[Phase, float]
    seconds: Mapping[Phase, float] | None
    stages: tuple[StageEstimate, ...]
    rows: int | None
    epochs: float | None
    steps: int | None
    gpu: Gpu | None
    utilisation: float
    notes: tuple[str, ...]

    @property
    def step_flops(self) -> float:
        """FLOPs of one optimizer step on one device."""
        return sum(self.flops.values())

    @property
    def step_seconds(self) -> float | None:
        """Seconds of one optimizer step, or None without a GPU."""
        return None if self.seconds is None else sum(self.seconds.values())

    @property
    def hours(self) -> float | None:
        """Hours of the method's own steps, or None when GPU or rows are not known."""
        if self.step_seconds is None or self.steps is None:
            return None
        return self.step_seconds * self.steps / 3600

    @property
    def total_hours(self) -> float | None:
        """Hours with the stages before, or None when one of them is not known."""
        return _sum_of_known([self.hours, *(stage.hours for stage in self.stages)])


def _sum_of_known(parts: Sequence[float | None]) -> float | None:
    """The sum; None where a part is not known."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def estimate(
    student_config: PretrainedConfig,
    teacher_config: PretrainedConfig | None,
    args: DudiConfig,
    *,
    rows: int | None,
    dtype: Dtype,
    gpus: int = 1,
    gpu: str | None = None,
    lora_parameters: int | None = None,
    student_bytes_per_parameter: int = FP32,
    teacher_bytes_per_parameter: float | None = None,
    lengths: Lengths | None = None,
    utilisation: float = UTILISATION,
    cpu: bool = False,
    other_teachers: Sequence[tuple[PretrainedConfig, float | None]] = (),
    served: bool = False,
    probed: int | None = None,
) -> Plan:
    """Memory, FLOPs and hours of a run. Reads no weights.

    Args:
        student_config: The student's config, cut to the layers that are kept.
        teacher_config: The teacher's, or None; ignored by a method without a second model.
        args: The run's config.
        rows: Training rows, without those that are held out for a probe; None when not known, then steps and hours are
            None unless `max_steps` is set.
        dtype: Precision of the passes. Trained weights are held in fp32 whatever it is.
        gpus: Devices, each with a whole copy of everything (DDP).
        gpu: A name of `dudi.plan.hardware.GPUS`, for hours.
        lora_parameters: Parameters of the adapters; None trains all weights.
        student_bytes_per_parameter: Of the weights that adapters leave as they are; those that are trained are fp32.
        teacher_bytes_per_parameter: Of a quantised teacher, or 0 for one on another device; None follows `dtype`.
        lengths: Tokens of a row; None takes the config's limits.
        utilisation: Share of the GPU's peak rate that the training passes reach.
        cpu: The device is the computer itself.
        other_teachers: Further teachers, each with its bytes of a parameter; None follows `dtype`.
        served: The teachers are elsewhere.
        probed: Rows that a probe asks; None: `probe_rows` of each language, and at most half of `rows`.

    Raises:
        ConfigError: an unknown GPU, or a config that is no causal language model.
    """
    device = None if gpu is None else find_gpu(gpu)
    if lengths is None:  # rows that fill `max_length`, with answers as long as `max_new_tokens`
        prompt = max(args.max_length - args.max_new_tokens, args.max_length // 2)
        lengths = Lengths(prompt, args.max_length - prompt, args.max_new_tokens)
    student = shape_of(student_config)
    element = FP32 if dtype == "float32" else 2
    teachers: list[Shape] = []
    sizes: list[int] = []
    if teacher_config is not None and args.needs_teacher:
        for config, size in ((teacher_config, teacher_bytes_per_parameter), *other_teachers):
            teachers.append(shape_of(config))
            sizes.append(int(teachers[-1].parameters * (element if size is None else size)))
    # A moving average is fp32, or its updates of 1% would round away.
    averaged = student.parameters if lora_parameters is None else lora_parameters
    work = Workload(
        student=student,
        teacher=teachers[0] if teachers else None,
        other_teachers=tuple(teachers[1:]),
        outcomes=workload.outcomes_of(args),
        lengths=lengths,
        verbalized=args.verbalizer != "none",
        pivot=args.pivot is not None,
        keeps_states=args.teacher_cache is not None,
        served=served,
        rows=args.per_device_train_batch_size,
        accumulation=args.gradient_accumulation_steps,
        rollout_batch=args.rollout_batch_size,
        checkpointing=bool(args.gradient_checkpointing),
        kernel=args.loss_kernel,
        jsd=args.divergence == "jsd",
        element=element,
        trainable=student.text if lora_parameters is None else lora_parameters,
        adapter=lora_parameters is not None,
        frozen_element=FP32 if lora_parameters is None else student_bytes_per_parameter,
        teacher_bytes=sum(sizes[:1]) + (FP32 * averaged if args.teaches_itself else 0),
        other_bytes=tuple(sizes[1:]),
        offloads=args.teacher_offload == "cpu" and not cpu,
        reference_bytes=_reference_bytes(args, student, lora_parameters),
        processes=gpus,
        cpu=cpu,
        widened_teacher=cpu and element == FP32 and teacher_bytes_per_parameter == 2,
        tile=CPU_TILE if cpu else DEVICE_TILE,
        block=CPU_BLOCK if cpu else DEVICE_TILE,
    )
    flops = workload.step_flops(work)
    plan = Plan(
        method=args.method,
        work=work,
        dtype=dtype,
        memory=footprint.memory(work),
        flops=flops,
        seconds=None if device is None else _step_seconds(work, flops, device, utilisation),
        stages=(),
        rows=rows,
        epochs=None if args.max_steps > 0 else float(args.num_train_epochs),
        steps=steps_of(args, rows, gpus),
        gpu=device,
        utilisation=utilisation,
        notes=(),
    )
    return dataclasses.replace(plan, stages=tuple(_stages(args, plan, probed)), notes=tuple(_notes(args, plan)))


def _reference_bytes(args: DudiConfig, student: Shape, adapter: int | None) -> int:
    """A frozen copy of the student; with LoRA the base itself, or a frozen copy of an adapter that goes on training."""
    if "sequence" not in args.signals:
        return 0
    if adapter is None:
        return (FP32 if args.reference_dtype == "float32" else 2) * student.parameters
    return FP32 * adapter if args.cold_start_adapter == "continue" or METHODS[args.method].iterated else 0


def steps_of(args: RunArguments, rows: int | None, gpus: int) -> int | None:
    """Optimizer steps of a run; None where neither they nor its rows are known."""
    if args.max_steps > 0:
        return args.max_steps
    if rows is None:
        return None
    micro_batches = math.ceil(rows / (args.per_device_train_batch_size * gpus))
    return math.ceil(args.num_train_epochs * max(1, math.ceil(micro_batches / args.gradient_accumulation_steps)))


def _rate(work: Workload, gpu: Gpu, utilisation: float) -> float:
    return utilisation * (gpu.half if work.mixed else gpu.single)


def _step_seconds(work: Workload, flops: Mapping[Phase, float], gpu: Gpu, utilisation: float) -> dict[Phase, float]:
    rate = _rate(work, gpu, utilisation)
    seconds = {phase: flops[phase] / rate for phase in PHASES}
    written = workload.decode_steps(work) * _decode_step_seconds(work.student, footprint.memory(work).kv_cache, gpu)
    seconds["rollout"] = max(seconds["rollout"], written)
    return seconds


def _decode_step_seconds(shape: Shape, cache: int, gpu: Gpu) -> float:
    """One token for every rollout of a batch: bound by reading weights and cache, or by launching kernels."""
    reading = (FP32 * shape.parameters + cache) / (BANDWIDTH_SHARE * gpu.bandwidth)
    return max(reading, SECONDS_PER_LAYER * shape.layers)


def _hours(plan: Plan, rows: int | None, flops: float, writer: Shape | None = None) -> float | None:
    """Of so many FLOPs for each row, or of answers that `writer` decodes; None where GPU or rows are not known."""
    if plan.gpu is None or rows is None:
        return None
    work, own = plan.work, rows / plan.work.processes
    seconds = own * flops / _rate(work, plan.gpu, plan.utilisation)
    if writer is not None:
        tokens = math.ceil(own / work.rollout_batch) * work.lengths.rollout
        seconds = max(seconds, tokens * _decode_step_seconds(writer, 0, plan.gpu))
    return seconds / 3600


def _stages(args: DudiConfig, plan: Plan, probed: int | None) -> Iterator[StageEstimate]:
    work, teacher, rows = plan.work, plan.work.teacher, plan.rows
    if teacher is not None and not work.served and (args.targets == "teacher" or args.cold_start == "teacher_sft"):
        flops = decode_flops(teacher, work.lengths.prompt, work.lengths.rollout)
        yield StageEstimate("the teacher's answers (cached)", _hours(plan, rows, flops, teacher))
    if args.cold_start in ("sft", "dft", "teacher_sft"):
        yield StageEstimate(f"cold start, {args.cold_start} (cached)", _cold_start_hours(args, plan))
    if teacher is not None and args.teacher_weight == "auto" and METHODS[args.method].teacher == "model":
        yield _probe_stage(args, plan, most_probed(args, rows) if probed is None else probed)
    if teacher is not None and work.keeps_states:
        flops = workload.target_states_flops(work)
        yield StageEstimate("the teacher's states on the targets (kept)", _hours(plan, rows, flops))
    if any("gold" in outcome.reference for outcome in work.outcomes):  # its log-probabilities are kept for the run
        reads = (plan.steps or 0) * work.rows * work.accumulation * work.processes
        flops = workload.row_flops(work, work.student, "gold", "reference")
        hours = _hours(plan, None if rows is None else min(rows, reads), flops)
        yield StageEstimate("the reference's pass over the ground truth", hours)


def _cold_start_hours(args: DudiConfig, plan: Plan) -> float | None:
    stage = args.for_cold_start(str(args.output_dir))
    steps = steps_of(stage, plan.rows, plan.work.processes)
    if steps is None or plan.gpu is None:
        return None
    work = dataclasses.replace(plan.work, outcomes=workload.outcomes_of(stage))
    seconds = _step_seconds(work, workload.step_flops(work), plan.gpu, plan.utilisation)
    return sum(seconds.values()) * steps / 3600


def _probe_stage(args: DudiConfig, plan: Plan, asked: int) -> StageEstimate:
    """Teacher and student answer held-out rows; with `teacher_route: auto` every teacher all of them."""
    work, lengths = plan.work, plan.work.lengths
    largest = sorted(work.readers, key=lambda one: -one.parameters)
    teachers = largest if args.teacher_route == "auto" else largest[:1]
    name = f"the probe, about {asked:,} rows answered by {len(teachers) + 1}"
    name += f", {args.probe_examples} examples in front for the teacher" if args.probe_examples else ""
    behind = lengths.prompt + args.probe_examples * (lengths.prompt + lengths.completion)
    hours = []
    for shape, prompt in ((work.student, lengths.prompt), *((shape, behind) for shape in teachers)):
        hours.append(_hours(plan, asked, decode_flops(shape, prompt, lengths.rollout), shape))
    return StageEstimate(name, _sum_of_known(hours))


def most_probed(args: DudiConfig, rows: int | None) -> int:
    """How many of some rows a probe asks, where their languages are not known: no language gives more than half."""
    asked = args.probe_rows * len(args.languages)
    return asked if rows is None else min(asked, rows // 2)


def _notes(args: DudiConfig, plan: Plan) -> Iterator[str]:
    """Every assumption, one sentence each."""
    work, gpu, lengths = plan.work, plan.gpu, plan.work.lengths
    yield (
        f"Upper estimate: every prompt has {lengths.prompt} tokens, every ground truth {lengths.completion}, every "
        f"rollout {lengths.rollout}; typical rows are shorter, and both memory and hours with them."
    )
    copied = ", the reference's copy" if work.reference_bytes and args.reference_dtype == "float32" else ""
    passes = "." if plan.dtype == "float32" else f"; passes run in {plan.dtype}."
    if gpu is not None and plan.dtype == "bfloat16" and not gpu.bfloat16:
        passes = f"; passes are 16-bit, and {gpu.name} has no bfloat16: the run will take float16 with loss scaling."
    yield f"Trained weights{copied}, gradients and AdamW's two states are fp32{passes}"
    if work.processes > 1:
        yield f"{work.processes} devices hold a whole copy each, and DDP's buckets hold the gradients again."
    if args.fsdp or args.deepspeed:
        yield "FSDP and DeepSpeed spread weights over the devices; that is not counted here."
    if args.teaches_itself:
        yield "The moving average is fp32: in 16 bits its small updates would round away."
    if work.other_teachers:
        yield (
            "With several teachers memory counts all of them, and work the dearest of them for every row: who judges "
            "what depends on the rows."
        )
    if work.offloads:
        yield "Teachers lie in the computer's memory (teacher_offload): the largest counts while it reads."
    if work.adapter and work.reference_bytes == 0 and "sequence" in args.signals:
        yield "With LoRA the reference is the student without its adapter."
    if not work.checkpointing:
        yield "Activations are all kept (gradient_checkpointing: false), with an attention that holds no square."
    if work.student.experts or (work.teacher is not None and work.teacher.experts):
        yield "A mixture of experts counts all its experts as active: an upper estimate."
    if work.keeps_states and work.teacher is not None and plan.rows is not None and plan.steps is not None:
        yield _kept_states_note(plan, plan.rows, plan.steps)
    if gpu is None:
        yield "Name a GPU (--gpu) for seconds and hours."
        return
    yield (
        f"Passes at {plan.utilisation:.0%} of the GPU's peak rate; decoding at {BANDWIDTH_SHARE:.0%} of its memory's "
        f"bandwidth and at least {SECONDS_PER_LAYER * 1e3:.1f} ms a layer and token (transformers' generate)."
    )
    yield "Loading, evaluation, checkpoints and the exchange of gradients are not counted."
    if plan.steps is None:
        yield "The number of rows is not known here: set max_steps or data.max_rows for hours."


def _kept_states_note(plan: Plan, rows: int, steps: int) -> str:
    """How large the kept states get, and what they save."""
    work = plan.work
    tokens = rows * workload.completion_length(work, "gold")
    size = tokens * max(shape.hidden for shape in work.readers) * work.element
    without = sum(workload.step_flops(dataclasses.replace(work, keeps_states=False)).values())
    saved = (without - plan.step_flops) * steps * work.processes
    gain = saved - workload.target_states_flops(work) * rows
    share = gain / (without * steps * work.processes)
    return (
        f"teacher_cache: up to {size / 1e9:,.2f} GB on the disk for {tokens:,} tokens. Made in this run it saves "
        f"{gain / 1e12:,.1f} of the steps' TFLOP ({share:.0%}), and {saved / 1e12:,.1f} where it is there."
    )
