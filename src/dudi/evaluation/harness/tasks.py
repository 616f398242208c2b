"""lm_eval's task objects: the shipped files over local data or the hub, and lm_eval's own."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from jinja2 import TemplateError
from lm_eval.api.group import Group
from lm_eval.api.task import ConfigurableTask, Task

from dudi.data.task_data import FILES, LocalData, has_split, local_data, local_documents
from dudi.data.task_files import Function, TaskFile, read_task, shipped_tasks
from dudi.errors import ConfigError, DataError, EnvironmentFault, did_you_mean
from dudi.evaluation.harness.names import GROUP_KEYS, Named, named_task, of_file, task_index, task_manager, told_apart
from dudi.evaluation.harness.options import Options
from dudi.models.hub_errors import explain_hub_error

_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


@dataclasses.dataclass(frozen=True, slots=True)
class Built:
    """Tasks with their data, by name; lm_eval's groups whose tasks are all there; what a person should know of them."""

    tasks: Mapping[str, tuple[Named, Task]]
    groups: Mapping[str, Group]
    notes: Sequence[str]


def build_tasks(named: Sequence[Named], options: Options) -> Built:
    """The tasks, their data loaded; a group or a tag stands for all its tasks.

    Raises:
        ConfigError: no data, no examples, a task that cannot be read, one that two groups ask in two ways, or one that
            dudi does not ask.
        EnvironmentFault: the hub cannot be reached.
    """
    found: dict[str, tuple[Named, Task]] = {}
    groups: dict[str, Group] = {}
    unsaid = {"metadata": None}  # in which lm_eval notes the file
    for one in named:
        loaded = _load(one, options)
        groups |= loaded.groups
        for name, (own, task) in loaded.tasks.items():
            _, known = found.setdefault(name, (own, task))
            if known is not task and known.dump_config() | unsaid != task.dump_config() | unsaid:
                raise ConfigError(f"--tasks: {name} is asked in two ways, one of them in {one.name}; ask one at a time")
    for name, (_, task) in found.items():
        _check_kind(name, task)
    apart, notes = told_apart(one for one, _ in found.values())
    fixed = [name for name, (_, task) in found.items() if not _set_fewshot(task, options.num_fewshot)]
    if fixed:
        notes.append(f"without examples, as the task has it, whatever --num-fewshot says: {', '.join(fixed)}")
    tasks = {name: (one, task) for one, (name, (_, task)) in zip(apart, found.items(), strict=True)}
    return Built(tasks, groups, notes)


def _check_kind(name: str, task: Task) -> None:
    """Refuse what lm_eval can ask and dudi cannot."""
    if getattr(task, "UNSAFE_CODE", False):
        raise ConfigError(f"--tasks: {name} runs code that a model has written, which dudi does not; see lm_eval run")
    if getattr(task, "MULTIMODAL", False):
        raise ConfigError(f"--tasks: {name} asks about images or sounds, and dudi asks text alone; see lm_eval run")


def _set_fewshot(task: Task, num_fewshot: int | None) -> bool:
    """As lm_eval does it: a task that says 0 keeps it; returns whether it has as many examples as are wanted."""
    own = task.get_config("num_fewshot")
    if num_fewshot is not None and own != 0:
        task.set_config(key="num_fewshot", value=num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    return own != 0 or not num_fewshot


def _load(one: Named, options: Options) -> Built:
    """A task, or all that a group or tag stands for."""
    file = one.file or _file_of(one.name, options)
    if file is not None:
        return Built({one.name: (one, _of_file(file, options))}, {}, ())
    entry = task_index(options.include_path, False).get(one.name)
    config: Mapping[str, Any] = getattr(entry, "cfg", None) or {}
    members = config.get("task") if set(config) <= GROUP_KEYS else None
    names = [member for member in members if isinstance(member, str)] if isinstance(members, list) else []
    if names and names == members and any(_file_of(name, options) for name in names):
        return _group(config, names, options)
    loaded = _of_lm_eval(one.name, options)
    tasks: dict[str, tuple[Named, Task]] = {}
    for name, task in loaded["tasks"].items():
        tasks[name] = (one if name == one.name else named_task(name, task.get_config("metadata"))), task
    return Built(tasks, loaded["groups"], ())


def _file_of(name: str, options: Options) -> TaskFile | None:
    """The file of a shipped task, or of a user's that says how it reads the local data that there are."""
    shipped = {task.name: task for task in shipped_tasks()}
    if name in shipped or options.data is None:
        return shipped.get(name)
    entry = task_index(options.include_path, False).get(name)
    if entry is None or not isinstance((entry.cfg or {}).get("task"), str):
        return None
    file = read_task(entry.yaml_path)
    return file if local_data(file) is not None else None


def _group(config: Mapping[str, Any], members: Sequence[str], options: Options) -> Built:
    """A user's group with tasks that lm_eval does not know, or would read from the hub."""
    group = Group.from_config(dict(config))
    tasks: dict[str, tuple[Named, Task]] = {}
    groups = {group.name: group}
    for member in members:
        file = _file_of(member, options)
        loaded = _load(Named(member, "", "") if file is None else of_file(file), options)
        for name, (own, task) in loaded.tasks.items():
            tasks[name] = (own if own.family else named_task(name, task.get_config("metadata"))), task
            if member not in loaded.groups:
                group.add(task)
        if member in loaded.groups:
            group.add(loaded.groups[member])
        groups |= loaded.groups
    return Built(tasks, groups, ())


def _of_lm_eval(name: str, options: Options) -> Mapping[str, Any]:
    """A name in a user's folders, whose groups may hold tasks of lm_eval's, or among lm_eval's own."""
    include, told = options.include_path, json.dumps(options.metadata)
    if name in task_index(include, False):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            found: Mapping[str, Any] = task_manager(include, False, told).load([name])
            return found
    try:
        found = task_manager(include, True, told).load([name])
    except TypeError as error:  # lm_eval takes what it does not know for a task without a data set
        index = task_index(include, True)
        members = (index[name].cfg or {}).get("task") or []
        unknown = [one for one in members if isinstance(one, str) and one not in index]
        names = [*index, *(task.name for task in shipped_tasks())]
        what = f"there is no task '{unknown[0]}'{did_you_mean(unknown[0], names)}" if unknown else str(error)
        raise ConfigError(f"{name}: {what}") from error
    except (OSError, datasets.exceptions.DatasetsError, ValueError, KeyError) as error:
        raise _explained(name, error) from error
    return found


def _of_file(file: TaskFile, options: Options) -> Task:
    # A copy: --gen-kwargs changes a task's own, and the files are read once a process.
    config = copy.deepcopy({key: value for key, value in file.config.items() if key not in ("tag", "group")})
    if options.metadata:
        config["metadata"] = {**(config.get("metadata") or {}), **options.metadata}
    functions = [key for key, value in config.items() if isinstance(value, Function)]
    described, data = local_data(file), options.data
    if functions and (data is None or described is None):  # lm_eval knows how to find them
        return _of_lm_eval_file(file, options)
    if functions:
        raise ConfigError(f"{file.path}: {functions[0]} is a function; --data needs templates")
    if data is not None and described is not None:
        config = _with_local_data(file, config, described, data, options.num_fewshot)
    try:
        return ConfigurableTask(config=config)
    except TemplateError as error:
        raise ConfigError(f"{file.path}: a template fails: {str(error).partition(chr(10))[0][:200]}") from error
    except (OSError, datasets.exceptions.DatasetsError, ValueError) as error:
        if config["dataset_path"] in FILES and described is not None:
            hint = f"--data DIR reads {described.file} of a folder"
            raise ConfigError(f"{file.name}: its set is on no hub; {hint} (docs/tasks.md)") from error
        raise _explained(str(config["dataset_path"]), error) from error


def _with_local_data(
    file: TaskFile, config: Mapping[str, Any], described: LocalData, data: Path, num_fewshot: int | None
) -> dict[str, Any]:
    """A task's config with the rows of a folder in place of the hub's."""
    splits = {key: config[key] for key in _SPLITS if config.get(key)}
    if not (num_fewshot or config.get("num_fewshot")):  # examples that nobody asks for need no reading
        key = "test_split" if "test_split" in splits else "validation_split"
        splits = {key: splits[key]} if key in splits else {}
    elif splits.get("fewshot_split") and not has_split(described, splits["fewshot_split"], data):
        raise ConfigError(
            f"{file.name}: {data / described.file} has no split '{splits['fewshot_split']}' to take examples from; "
            "leave out --num-fewshot"
        )
    loaded = datasets.DatasetDict()
    for split in dict.fromkeys(splits.values()):
        documents = []
        for located in local_documents(file, described, split, data):
            if located.problem is not None:
                raise DataError(f"{located.file}:{located.line}: {located.problem[1]}")
            documents.append(located.value)
        loaded[split] = datasets.Dataset.from_list(documents)
    kept = {key: value for key, value in config.items() if key not in _SPLITS}
    return {**kept, **splits, "custom_dataset": lambda **metadata: loaded}


def _of_lm_eval_file(file: TaskFile, options: Options) -> Task:
    try:
        (task,) = task_manager((), False, json.dumps(options.metadata)).load([str(file.path)])["tasks"].values()
    except (OSError, datasets.exceptions.DatasetsError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise _explained(str(file.path), error) from error
    return task


def _explained(name: str, error: Exception) -> ConfigError | EnvironmentFault | Any:
    """What a person should read of a set that cannot be loaded."""
    found = explain_hub_error(name, "dataset", error)
    what = str(error).partition("\n")[0][:200] or type(error).__name__
    if found is not None:
        return found
    if isinstance(error, ConnectionError) or "offline" in what.lower() or "reach" in what.lower():
        where = f"its data cannot be had from the hub ({what})"
        return EnvironmentFault(f"{name}: {where}; for shipped tasks see --data DIR")
    return ConfigError(f"{name}: cannot be loaded: {what}")
