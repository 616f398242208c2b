"""What a recipe says, held against the earlier stages that it goes on from; and what of it these stand in the place of.

Only configs are read: a dry run says the same as a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dudi.config.schema import LoraSection
from dudi.config.yaml_tree import read_yaml
from dudi.errors import ConfigError, DudiError
from dudi.models.load import locate
from dudi.stacking import assembly, llm2vec, parts, stored, tasks
from dudi.stacking.building import read_config
from dudi.stacking.configuration import MTLLMConfig, width_of
from dudi.stacking.recipe import ALONE, EncoderSection, LlmSection, StackConfig
from dudi.stacking.rows import Task
from dudi.stacking.systems import RECIPE
from dudi.training.values import render

_READ_WITH = ("revision", "adapters", "attn_implementation", "gguf_file", "keep_layers")
"""What a parent's name is read with."""


def check_earlier(config: StackConfig, task: Task | None) -> None:
    """Hold the earlier stages that a stage goes on from against the stage, and against what its recipe says of them.

    Raises:
        ConfigError: `start` lacks a part that the stage needs, or is another than the recipe says of it; `teacher` has
            no head, or was tuned on another task.
    """
    made = started_from(config)
    if made is not None:
        name = config.earlier["start"]
        if made.parts == "llm":
            raise ConfigError(
                f"start: {name} is an LLM alone, and {config.stage} needs an encoder: name a run of dudi stack align, "
                "or set start=null"
            )
        if config.stage == "align" and made.parts == "encoder":
            raise ConfigError(f"start: {name} is an encoder alone, and align needs an LLM on top of it; set start=null")
        for key, said, held in _contradictions(config, made, stored.model_folder(name)):
            raise ConfigError(
                f"{config.place(key)}: {key}: {said}, and {name} has {held}, with which {config.stage} goes on: take "
                "the key out, or set start=null for a new stack"
            )
    if "teacher" in config.earlier and task is not None:
        name = config.earlier["teacher"]
        tasks.check_teacher(*read_config(stored.model_folder(name)), task, name)


def started_from(config: StackConfig) -> MTLLMConfig | None:
    """The config of the stack that a stage goes on from; None where it builds a new one.

    Raises:
        ConfigError: there is no such stack.
    """
    name = config.earlier.get("start")
    return None if name is None else read_config(stored.model_folder(name))[1]


def held_by_start(config: StackConfig) -> set[str]:
    """Keys in whose place `start` stands: where nobody gave them, their defaults are not what is trained.

    Raises:
        ConfigError: there is no such stack.
    """
    made = started_from(config)
    if made is None:
        return set()
    held = {"encoder.model", "encoder.revision", *(f"llm.{name}" for name in LlmSection.model_fields)}
    if made.lora is not None:
        held |= {f"lora.{name}" for name in LoraSection.model_fields}
    return held | ({"llm_tokens"} if made.llm_tokens else set())


def parents_of(config: StackConfig) -> dict[str, str]:
    """What a stage reads that is no stage of a stack: encoder, LLM and its adapters, by the keys that name them.

    Of a stage with `start` these are its parents; a part that was trained whole has none.

    Raises:
        ConfigError: `start` is no stack, or its parent, a folder, is not there.
    """
    if "start" in config.earlier:
        folder = stored.model_folder(config.earlier["start"])
        parents = read_config(folder)[1].parents or {}
        named = {role: assembly.from_here(parent, role, str(folder)) for role, parent in parents.items()}
    else:
        roles = ("llm",) if config.stage in ALONE else ("encoder", "llm")
        named = {role: getattr(config, role).model_dump() for role in roles}
    found = {f"{role}.model": parent.get("name") or parent.get("model") for role, parent in named.items()}
    llm = found.get("llm.model")
    if llm is not None and Path(locate(llm)).is_dir() and (base := llm2vec.base_and_adapters(llm)[0]) != llm:
        found["llm.model's base"] = base
    for number, adapter in enumerate(named.get("llm", {}).get("adapters", [])):
        found[f"llm.adapters.{number}"] = adapter
    return {key: str(name) for key, name in found.items() if name}


def _contradictions(config: StackConfig, made: MTLLMConfig, folder: Path) -> Iterator[tuple[str, str, str]]:
    """(key, what the recipe says, what `start` has instead) of each key that was given and is otherwise there."""
    for role, what in (("encoder", "encoder"), ("llm", "LLM")):
        section, own, parent = getattr(config, role), getattr(made, f"{role}_config"), (made.parents or {}).get(role)
        if own is None:
            if section.model is not None:
                yield f"{role}.model", section.model, f"no {what}"
            continue
        name = _named(folder, role)
        if section.model is None:
            if key := config.emptied(role):
                yield key, "null", name or f"an {what}"
        elif not (_like(section, own) if name is None else _same_places([section.model], [name])):
            yield f"{role}.model", section.model, name or f"another {what}"
        for field, held in {} if parent is None else assembly.from_here(parent, role, str(folder)).items():
            if field in _READ_WITH and field in type(section).model_fields and config.says(f"{role}.{field}"):
                said = getattr(section, field)
                if said != held and not (field == "adapters" and _same_places(said, held)):
                    yield f"{role}.{field}", render(said), render(held)
    if made.llm_config is not None and config.says("llm.attention") and config.llm.attention != made.attention:
        yield "llm.attention", config.llm.attention, made.attention
    if made.lora is not None and config.lora is None:
        yield "lora", "null", "an adapter that is not merged"
    for field, value in (made.lora or {}).items():
        said = getattr(config.lora, field, value)
        if config.says(f"lora.{field}") and said != value:
            yield f"lora.{field}", render(said), render(value)
    if made.llm_tokens and config.says("llm_tokens") and not config.settings["llm_tokens"]:
        yield "llm_tokens", "false", "true"


def _named(folder: Path, role: str) -> str | None:
    """What a part of a stack was read from, as it is called from here; None where neither model nor run tell.

    A part that was trained whole has no parent any more: the recipe of its run, or of an earlier one, names it.
    """
    parent = (read_config(folder)[1].parents or {}).get(role)
    if parent is not None:
        return str(assembly.from_here(parent, role, str(folder))["name"])
    recipe = folder.parent / RECIPE
    if folder.name != stored.MODEL or not recipe.is_file():
        return None
    values = read_yaml(recipe).plain()
    named, earlier = ((values.get(key) or {}).get("model") for key in (role, "start"))
    if not named and not earlier:
        return None
    here = str(assembly.from_here({"name": named or earlier}, role, str(folder))["name"])
    if named:
        return here
    try:
        return _named(stored.model_folder(here), role)
    except ConfigError:  # it is not there any more
        return None


def _like(section: EncoderSection | LlmSection, own: Any) -> bool:
    """Whether a part could be the model that a recipe names: of its kind, width and vocabulary. Not known: it could."""
    name = str(section.model)
    try:
        place = locate(llm2vec.base_and_adapters(name)[0] if isinstance(section, LlmSection) else name)
        if not Path(place).is_dir():
            return True
        told: Any = parts.config_of("start", place, None)
    except DudiError:
        return True
    told = told.get_text_config() if isinstance(section, LlmSection) else told
    if told.model_type != own.model_type:
        return False
    first, second = ((width_of(one), getattr(one, "vocab_size", None)) for one in (told, own))
    return first == second


def _same_places(said: list[str], held: list[str]) -> bool:
    """Whether two lists name the same models, however their paths are spelled."""
    first = [Path(locate(name)).expanduser().resolve() for name in said]
    second = [Path(locate(name)).expanduser().resolve() for name in held]
    return first == second
