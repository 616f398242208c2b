"""Parameters that FSDP2 spreads over the ranks: read them whole, gather them for decoding, spread a frozen model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, fsdp2_prepare_model
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel, TrainingArguments
from transformers.training_args import ParallelMode

from dudi.errors import ConfigError
from dudi.models.adapters import innermost
from dudi.models.load import tied_head


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be spread over the ranks; a collective where it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def check_launch(args: TrainingArguments) -> None:
    """Refuse what cannot be done as a run was launched; asked before a model is touched.

    Raises:
        ConfigError: `fsdp` in one process; under DeepSpeed ZeRO-3, or checkpoints.
    """
    if args.fsdp and args.parallel_mode != ParallelMode.DISTRIBUTED:
        raise ConfigError(
            "fsdp: spreads a model over several processes, and this is one; start the run with accelerate launch or "
            "torchrun, or take it out"
        )
    plugin = args.deepspeed_plugin
    if plugin is None:
        return
    if plugin.zero_stage == 3:
        raise ConfigError(
            "deepspeed_config.zero_stage: ZeRO-3 gathers a weight only while its own module runs, and dudi reads the "
            "head's outside of it; use recipes/accelerate/fsdp2.yaml, which spreads the same, or stage 2"
        )
    if args.save_strategy != "no":
        raise ConfigError(
            "save_strategy: DeepSpeed's state is one pickle a rank, and dudi writes none; set save_strategy: no (the "
            "final model is saved), or use recipes/accelerate/fsdp2.yaml"
        )


def check_sharding(accelerator: Accelerator) -> None:
    """Refuse the settings of accelerate under which a run would be silently wrong.

    Raises:
        ConfigError: naming the key of accelerate's config file.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    plugin = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise ConfigError("fsdp_config.fsdp_version: dudi reads a head's weights, which FSDP1 flattens; set it to 2")
    if plugin.cpu_ram_efficient_loading:
        raise ConfigError(
            "fsdp_config.fsdp_cpu_ram_efficient_loading: every rank copies its student as reference and reads its "
            "teacher before they are spread, and with this only rank 0 has weights; set it to false"
        )


def whole_weights(model: nn.Module, accelerator: Accelerator) -> dict[str, Any] | None:
    """The state of a spread model on rank 0, empty elsewhere, for which every rank has to call it; else None."""
    if accelerator.distributed_type != DistributedType.FSDP:
        return None
    weights: dict[str, Any] = accelerator.get_state_dict(model)
    tied = tied_head(innermost(model))
    if tied is not None:
        weights.pop(tied[1], None)  # gathered, it is a copy that `save_pretrained` would keep
    return weights


def shard_frozen(model: PreTrainedModel, accelerator: Accelerator) -> None:
    """Spread a frozen model's weights over the ranks as accelerate spreads the student's, in place."""
    plugin = accelerator.state.fsdp_plugin
    names = plugin.transformer_cls_names_to_wrap
    plugin.transformer_cls_names_to_wrap = None  # those of this model; accelerate would keep them for the student
    try:
        fsdp2_prepare_model(accelerator, model)
    finally:
        plugin.transformer_cls_names_to_wrap = names


@contextlib.contextmanager
def gathered(model: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Keep all weights on every rank while it is inside, so that ranks decode without waiting for each other.

    `generate` ends on each rank when its own rows have ended: gathering in every forward would never finish.
    """
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if not sharded:
        yield
        return
    inner = innermost(model)
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
    with torch.no_grad():
        model(input_ids=torch.zeros((1, 1), dtype=torch.int64, device=inner.device), use_cache=False)
    try:
        yield
    finally:
        again = bool(accelerator.state.fsdp_plugin.reshard_after_forward)
        for module in _resharded(inner, sharded):
            module.set_reshard_after_forward(again, recurse=False)
        for module in sharded:
            module.reshard()


def _resharded(model: PreTrainedModel, sharded: list[Any]) -> list[Any]:
    """The parts whose weights accelerate lets go after a forward: the layers, and an embedding of its own.

    Root, final norm and head keep theirs, since the backward pass begins with them.
    """
    layers = set(model._no_split_modules or ())
    own = None if tied_head(model) is not None else model.get_input_embeddings()
    return [module for module in sharded if module is own or type(module).__name__.removeprefix("FSDP") in layers]


def whole_optimizer_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """`Optimizer.state_dict()` with whole tensors, in the memory of the CPU; every rank has to call it."""
    moments = {}
    for index, values in state["state"].items():
        moments[index] = {n: whole(value).cpu() if isinstance(value, Tensor) else value for n, value in values.items()}
    return {**state, "state": moments}


def spread_optimizer_state(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Whole tensors of a saved optimizer, spread as its parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {}
    for index, values in state["state"].items():
        moments[index] = {name: _spread(value, parameters[index]) for name, value in values.items()}
    return {**state, "state": moments}


def _spread(value: Any, like: Tensor) -> Any:
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def load_whole_weights(model: nn.Module, folder: Path) -> None:
    """Put the weights of a saved model into one that is spread; an adapter, which has none of these, is refused."""
    weights: dict[str, Any] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        weights |= load_file(file)
    if not weights:
        raise ConfigError(f"{folder}: no model*.safetensors; an adapter cannot be resumed under FSDP")
    # A tied head is saved once, under its embedding's name.
    set_model_state_dict(model, weights, options=StateDictOptions(full_state_dict=True, strict=False))
