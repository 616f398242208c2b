"""The adapters of `peft` on a student: is there one, what is inside, put one on, copy one."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dudi.errors import ConfigError, first_of
from dudi.models.image_text import freeze_sight

if TYPE_CHECKING:
    from peft import PeftModel

CONFIG = "adapter_config.json"
REFERENCE_ADAPTER = "reference"
TEACHER_ADAPTER = "teacher"
WITHOUT_EFFECT: dict[str, str] = {
    "task_type": "names the class around the model, which computes the same",
    "auto_mapping": "names the base's class for those who load the adapter",
    "peft_version": "of no library the version is part of a run's identity",
    "base_model_name_or_path": "the base's weights are part of it, whatever they are called",
    "revision": "likewise",
    "inference_mode": "an adapter in this mode is not trained",
    "runtime_config": "where matrices are computed, not what",
}
"""The fields of adapters' configs that change no number, and why; every other one is part of what a run is."""


def is_adapted(model: nn.Module) -> TypeGuard[PeftModel]:
    """Whether a model carries adapters of `peft`, which need not be installed to ask."""
    return any(kind.__module__.partition(".")[0] == "peft" for kind in type(model).__mro__)


def innermost(model: nn.Module) -> PreTrainedModel:
    """The causal language model inside the adapters; nothing that distributes it may be around them.

    Raises:
        ConfigError: it is no model of `transformers`.
    """
    inner = model.get_base_model() if is_adapted(model) else model
    if not isinstance(inner, PreTrainedModel):
        kind = type(inner).__name__
        raise ConfigError(f"model: a {kind} is no model of transformers; load it with AutoModelForCausalLM")
    return inner


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Draws inside hang on the seed alone, and those afterwards on nothing inside; torch starts anywhere by itself."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def with_adapter(model: nn.Module, peft_config: Any, seed: int) -> nn.Module:
    """The model with a new adapter, if `peft_config` asks for one; its start depends on the seed alone.

    Raises:
        ConfigError: it has an adapter already.
    """
    if peft_config is None:
        freeze_sight(model, innermost(model))
        return model
    if is_adapted(model):
        raise ConfigError(
            "peft_config: the model is a PeftModel already; leave peft_config out to train its adapter, or give "
            "model.merge_and_unload() to train a new one"
        )
    from peft import get_peft_model

    with drawn_from(seed):
        adapted = get_peft_model(model, copy.deepcopy(peft_config))
    freeze_sight(adapted, innermost(adapted))
    return adapted


def check_adapter(model: nn.Module) -> None:
    """Refuse what could not be trained here, or would be lost when an adapter is saved.

    Raises:
        ConfigError: an adapter that adds to the prompt, one that `transformers` put into the model by itself, or
            parameters that are trained and belong to no adapter.
    """
    if not is_adapted(model):
        if getattr(model, "_hf_peft_config_loaded", False):
            raise ConfigError(
                "model: an adapter was loaded into it, of which only the adapter would be saved; load it with "
                "peft.AutoPeftModelForCausalLM to train the adapter, or merge it and give the whole model"
            )
        return
    from peft import get_peft_model_state_dict

    active = model.active_adapter
    config = model.peft_config[active]
    if config.is_prompt_learning:
        raise ConfigError(
            f"peft_config: {type(config).__name__} puts vectors before the prompt, which no pass of dudi does; "
            "use an adapter of the weights (LoRA, DoRA, IA3 ...)"
        )
    kept = get_peft_model_state_dict(model, adapter_name=active, save_embedding_layers=False)
    places = {tensor.untyped_storage().data_ptr() for tensor in kept.values()}
    lost = [name for name, p in trained(model) if p.untyped_storage().data_ptr() not in places]
    if lost:
        raise ConfigError(
            f"model: {first_of(lost, 1)} would be trained beside the adapter '{active}' and not be saved with it; "
            "freeze it, or name its module in modules_to_save"
        )


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that require a gradient, by name."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def lies_in_adapter(model: nn.Module) -> TypeGuard[PeftModel]:
    """Whether all that is trained belongs to the active adapter; biases of LoRA are the base's own."""
    if not is_adapted(model):
        return False
    return all(in_adapter(name, model.active_adapter) for name, _ in trained(model))


def adapter_settings(model: nn.Module) -> dict[str, Any] | None:
    """What decides how the active adapter learns, beside its weights; None without one.

    These are the fields of its config but those `WITHOUT_EFFECT`, as JSON values.
    """
    if not is_adapted(model):
        return None
    config = model.peft_config[model.active_adapter]
    return {name: _plain(value) for name, value in config.to_dict().items() if name not in WITHOUT_EFFECT}


def _plain(value: Any) -> Any:
    """A config's value as JSON, the same whatever order a set has."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def in_adapter(name: str, adapter: str) -> bool:
    """Whether the parameter of this name belongs to an adapter: `...lora_A.default.weight`, `...ia3_l.default`."""
    return adapter in name.split(".")


def copy_adapter(peft_model: PeftModel, name: str) -> str:
    """Add a frozen copy of the active adapter; returns its name, which has a number where there is such an adapter."""
    active = peft_model.active_adapter
    free, number = name, 1
    while free in peft_model.peft_config:
        number += 1
        free = f"{name}_{number}"
    config = copy.deepcopy(peft_model.peft_config[active])
    if isinstance(getattr(config, "init_lora_weights", None), str):
        config.init_lora_weights = True  # some initialisations change the base, which has been changed already
    peft_model.add_adapter(free, config)
    with torch.no_grad():
        for own, twin in adapter_pairs(peft_model, active, free):
            twin.copy_(own)
    peft_model.set_adapter(active)
    return free


def adapter_pairs(peft_model: PeftModel, first: str, second: str) -> list[tuple[Tensor, Tensor]]:
    """Corresponding parameters of two adapters of one model: every one that the first has."""
    parameters = dict(peft_model.named_parameters())
    pairs: list[tuple[Tensor, Tensor]] = []
    for name, parameter in parameters.items():
        if in_adapter(name, first):
            twin = [second if part == first else part for part in name.split(".")]
            pairs.append((parameter, parameters[".".join(twin)]))
    return pairs


def base_weights(peft_model: PeftModel) -> dict[str, str]:
    """The base's weights as they are called without adapters, each with the name that it has inside of them."""
    names: dict[str, str] = {}
    for name in innermost(peft_model).state_dict():
        parts = name.split(".")
        if not any(adapter in parts for adapter in peft_model.peft_config):
            plain = [part for part in parts if part not in ("base_layer", "original_module", "token_adapter")]
            names[".".join(plain)] = name
    return names


def merged(peft_model: PeftModel) -> PreTrainedModel:
    """A copy of the model that the active adapter is merged into.

    What no adapter touches is shared and not copied. An adapter of the embeddings does not reach a head that
    is tied to them: the copy's are tied no longer, then.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    wrappers = [one for one in peft_model.modules() if isinstance(one, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    touched = {id(parameter) for one in wrappers for parameter in one.parameters()}
    twin = copy.deepcopy(peft_model, {id(one): one for one in peft_model.parameters() if id(one) not in touched})
    inner = innermost(twin)
    tied = [one for one in (inner.config, inner.config.get_text_config()) if getattr(one, "tie_word_embeddings", False)]
    head = inner.get_output_embeddings()
    if isinstance(head, nn.Linear) and id(innermost(peft_model).get_output_embeddings().weight) in touched:
        head.weight = nn.Parameter(head.weight.detach().clone())
    whole: PreTrainedModel = twin.merge_and_unload()  # peft unties the config of whatever has two tables
    head = whole.get_output_embeddings()
    same = head is not None and torch.equal(head.weight, cast("Tensor", whole.get_input_embeddings().weight))
    for config in tied:
        config.tie_word_embeddings = same
    if tied and same:
        whole.tie_weights()
    return whole


def save_adapter(peft_model: PeftModel, folder: Path, state_dict: dict[str, Any] | None, base: Path | None) -> None:
    """Save the active adapter alone, under whatever name, as `PeftModel.from_pretrained` looks for it.

    `state_dict` holds the whole weights where they are not in the model; the config names `base`, the folder of the
    weights that the adapter lies on, where no other place has them.
    """
    active = peft_model.active_adapter
    peft_model.save_pretrained(str(folder), state_dict=state_dict, selected_adapters=[active])
    inside = folder / active
    if inside.is_dir():  # of an adapter that is not called `default`
        for file in list(inside.iterdir()):
            file.replace(folder / file.name)
        inside.rmdir()
    if base is None:
        return
    settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    settings |= {"base_model_name_or_path": str(base), "revision": None}
    if isinstance(settings.get("init_lora_weights"), str):
        settings["init_lora_weights"] = True  # what it did to the base is in the base
    (folder / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@torch.no_grad()
def starts_as_its_base(peft_model: PeftModel) -> bool:
    """Whether a new adapter changes nothing yet, as nearly all do; some initialisations change the base as well."""
    vocabulary = innermost(peft_model).config.get_text_config().vocab_size
    ids = torch.arange(1, 9, device=peft_model.device).unsqueeze(0) % vocabulary
    training = peft_model.training
    peft_model.eval()
    own = peft_model(input_ids=ids, use_cache=False).logits
    with peft_model.disable_adapter():
        bare = peft_model(input_ids=ids, use_cache=False).logits
    peft_model.train(training)
    return torch.allclose(own, bare, rtol=1e-3, atol=1e-3)
