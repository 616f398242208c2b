"""What a stage will need, from its models' configs alone: memory, FLOPs and hours, as `dudi plan` says of a student."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from dudi.environment import device_type
from dudi.errors import EnvironmentFault
from dudi.models.shape import Shape, forward_flops
from dudi.plan.costs import FP32, activation_bytes, inference_bytes
from dudi.plan.estimate import UTILISATION, steps_of
from dudi.plan.footprint import CONTEXT, LIBRARIES
from dudi.plan.hardware import Gpu, find_gpu
from dudi.plan.models import precision_for
from dudi.plan.text import fits, shortened
from dudi.stacking import lora
from dudi.stacking.arguments import StackArguments
from dudi.stacking.recipe import StackConfig
from dudi.stacking.unloaded import configs_of, empty_part
from dudi.tables import DASH, grid_of, terminal

_SHOWN = {"encoder": "encoder", "llm": "LLM"}


@dataclasses.dataclass(frozen=True, slots=True)
class Pass:
    """One thing that is done in every step: its FLOPs on one device, and the bytes it holds at most beside `held`."""

    name: str
    flops: float
    bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class StagePlan:
    """What a stage is expected to need on each device.

    Attributes:
        title: The stage, the device and the precision.
        parts: (role, model, parameters).
        trained: Weights that are trained.
        rows: Of one optimizer step on one device, and tokens of each.
        held: (what, bytes) that are there throughout.
        passes: What is done in a step, one after the other.
        steps: Optimizer steps; None: not known.
        gpu: The device; None: hours are not known.
        rate: FLOPs a second that are reached on it.
        notes: What the numbers assume.
    """

    title: str
    parts: tuple[tuple[str, str, int], ...]
    trained: int
    rows: tuple[int, int]
    held: tuple[tuple[str, int], ...]
    passes: tuple[Pass, ...]
    steps: int | None
    gpu: Gpu | None
    rate: float
    notes: tuple[str, ...]

    @property
    def memory(self) -> int:
        """Bytes at the peak."""
        return sum(size for _, size in self.held) + self.widest.bytes

    @property
    def widest(self) -> Pass:
        """The pass that holds most."""
        return max(self.passes, key=lambda one: one.bytes)

    @property
    def step_flops(self) -> float:
        """FLOPs of one optimizer step on one device."""
        return sum(one.flops for one in self.passes)

    @property
    def hours(self) -> float | None:
        """Of all steps; None without a GPU, or where their number is not known."""
        return None if self.gpu is None or self.steps is None else self.step_flops * self.steps / self.rate / 3600

    def text(self) -> str:
        """A plain table of at most 80 columns: models, memory, work, time, assumptions."""
        parts = [(f"  {role}  {shortened(name)}", (f"{count:,}",)) for role, name, count in self.parts]
        parts.append(("  trained", (f"{self.trained:,}",)))
        step = f"  one step {self.rows[0]} rows of {self.rows[1]} tokens on each device"
        held = (*self.held, (f"widest pass: {self.widest.name}", self.widest.bytes))
        memory = [(f"  {name}", (f"{size / 1e9:,.2f}",)) for name, size in held]
        memory.append(("total", (f"{self.memory / 1e9:,.2f}",)))
        work = [(f"  {one.name}", (f"{one.flops / 1e12:,.2f}",)) for one in self.passes]
        count = "  steps unknown" if self.steps is None else f"  {self.steps:,} steps"
        hours = DASH if self.hours is None else f"{self.hours:,.2f}"
        blocks = [
            f"{terminal(grid_of(('parameters',), parts, corner=self.title))}\n{step}",
            terminal(grid_of(("GB",), memory, corner="Memory on each device")),
        ]
        if self.gpu is not None and not fits(self.memory, self.gpu.memory):
            blocks.append("Does not fit: lower per_device_train_batch_size, or set gradient_checkpointing=true")
        blocks += [
            terminal(grid_of(("TFLOP",), work, corner="Work of one step on each device")),
            terminal(grid_of(("hours",), [(count, (hours,))], corner="Time")),
            "\n".join(["Assumptions", *(f"  - {note}" for note in self.notes)]),
        ]
        return "\n\n".join(blocks)


def plan_stage(config: StackConfig, *, rows: int | None = None, gpu: str | None = None, gpus: int = 1) -> StagePlan:
    """What a stage will need.

    Args:
        config: The recipe, which names the stage.
        rows: Rows to train on; None where they are not known.
        gpu: A name of `dudi.plan.hardware.GPUS`, for hours; None leaves them out.
        gpus: How many.

    Raises:
        ConfigError: an unknown GPU, or a model of a kind that cannot be read.
        EnvironmentFault: a model's config cannot be read from here.
    """
    dtype, device = precision_for(config.dtype, gpu), None if gpu is None else find_gpu(gpu)
    # The recipe's precision is the planned GPU's affair: this computer may be a laptop without one.
    args = config.model_copy(update={"dtype": "float32"}).stack_arguments("plan")
    shapes: dict[str, Shape] = {}
    for role, (name, own) in configs_of(config).items():
        model = empty_part(role, own)
        shapes[role] = shape_of_part(model, name)
    if not shapes:
        raise EnvironmentFault("no part of this stage has a config that can be read from here")
    *under, on_top = shapes.values()
    cpu, element = device is None and device_type(bool(args.use_cpu)) == "cpu", FP32 if dtype == "float32" else 2
    connector = sum((shape.hidden + 1) * on_top.hidden for shape in under)
    frozen, copied = sum(element * shape.parameters for shape in under), 0
    if config.lora is not None:
        learned = trained = _adapter(model, lora.LoraSettings(**config.lora.model_dump()))
        frozen += element * on_top.parameters
    else:
        learned = on_top.parameters
        trained = learned - (on_top.vocabulary * on_top.hidden if under and not args.llm_tokens else 0)
        copied = element * learned if config.stage == "align" else 0
    if config.stage != "distill" or args.train_connector:
        trained += connector
    held = [
        ("frozen weights", frozen),
        ("the LLM as it was, which teaches", copied),
        ("weights of what is trained, in fp32", FP32 * (connector + learned)),
        ("gradients", FP32 * trained * (2 if gpus > 1 else 1)),
        ("optimizer's states", 2 * FP32 * trained),  # AdamW has two for each weight
        ("Python and its libraries" if cpu else "context and allocator", LIBRARIES if cpu else CONTEXT),
    ]
    notes = [
        f"every row has max_length tokens ({args.max_length}); shorter ones cost less",
        f"{UTILISATION:.0%} of the device's peak rate",
    ]
    if config.stage == "distill":
        notes.append("the teacher's vectors are those that dudi stack teach has stored")
    return StagePlan(
        title=f"{config.stage} on {gpus} x {'CPU' if cpu else 'device' if device is None else device.name}, {dtype}",
        parts=tuple((_SHOWN[role], shape.name, shape.parameters) for role, shape in shapes.items()),
        trained=trained,
        rows=(args.per_device_train_batch_size * args.gradient_accumulation_steps, args.max_length),
        held=tuple((name, size) for name, size in held if size),
        passes=tuple(_passes(config, args, shapes, element)),
        steps=steps_of(args, rows, gpus),
        gpu=device,
        rate=UTILISATION * (0.0 if device is None else device.single if dtype == "float32" else device.half),
        notes=tuple(notes),
    )


def shape_of_part(model: PreTrainedModel, name: str) -> Shape:
    """The shape of a part, which has no head; everything with two axes or more but embeddings is multiplied."""
    config = model.config.get_text_config()
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    values, heads = config.to_dict(), config.num_attention_heads
    width = values.get("head_dim") or values.get("d_kv") or config.hidden_size // heads
    multiplied = [weight for weight in model.parameters() if weight.dim() > 1 and id(weight) not in embedded]
    normed = any(own.endswith("q_norm.weight") for own, _ in model.named_parameters())
    return Shape(
        name=name,
        parameters=model.num_parameters(),
        text=model.num_parameters(),
        linear=sum(weight.numel() for weight in multiplied),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        query=heads * width,
        key_value=(values.get("num_key_value_heads") or heads) * width,
        heads=heads,
        intermediate=values.get("intermediate_size") or 4 * config.hidden_size,
        vocabulary=config.vocab_size,
        normed_heads=normed,
    )


def _adapter(model: PreTrainedModel, settings: lora.LoraSettings) -> int:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        lora.add_lora(model, settings)
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def _passes(config: StackConfig, args: StackArguments, shapes: Mapping[str, Shape], element: int) -> Iterator[Pass]:
    """The encoder, the teacher of Stage 1, what is trained forward, and what is trained backward."""
    *under, on_top = shapes.values()
    rows, tokens = args.per_device_train_batch_size, args.max_length
    batches = args.gradient_accumulation_steps

    def forward(shape: Shape, length: int, head_rows: float = 0.0) -> float:
        return batches * forward_flops(shape, rows * length, rows * length**2, head_rows)

    for encoder in under:
        yield Pass("encoder", forward(encoder, tokens), inference_bytes(encoder, rows * tokens, element))
    if config.stage == "align":
        read = inference_bytes(on_top, rows * tokens, element)
        yield Pass("teacher: the LLM on its own tokens", forward(on_top, tokens), read)
    length = 2 * tokens + 1 if under and args.llm_tokens else tokens
    predicted = args.mask_share * rows * tokens if config.stage == "adapt" else 0.0
    own, checkpointing = forward(on_top, length, predicted), bool(args.gradient_checkpointing)
    kept = activation_bytes(on_top, rows * length, mixed=element != FP32, checkpointing=checkpointing)
    logits = int(2 * FP32 * predicted * on_top.vocabulary)
    yield Pass("what is trained, forward", own, 0)
    times = (1 if config.lora is not None else 2) + checkpointing  # of frozen weights there is no gradient
    yield Pass("what is trained, backward", times * own, kept + logits)
