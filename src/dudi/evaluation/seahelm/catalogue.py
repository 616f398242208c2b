"""What a SEA-HELM checkout can ask: its tasks, its sets of tasks, and which of them are wanted."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dudi.errors import ConfigError, DataError, did_you_mean

REPOSITORY = "https://github.com/aisingapore/SEA-HELM"
PROGRAM = "src/seahelm_evaluation.py"
TASKS = "seahelm_tasks"
SETS = f"{TASKS}/task_config.yaml"
DEFAULT_SET = "seahelm"
METRICX = "metricx"
_REFERENCE = re.compile(r"\$\{([^.}]+)\.([^.}]+)\}")


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A task of SEA-HELM.

    Attributes:
        name: As in its `config.yaml` and in the results.
        competency: `nlu`, `safety`, `linguistic-diagnostics` ...
        metric: The key of its score in the results, 0 to 100.
        group: Tasks of one group are averaged before the competency is; None: it stands alone.
        files: By language, its data file in the checkout, or None when the data come from the hub.
        judge: How the model that judges the answers is served: `metricx`, `vllm` ...; None: nothing judges.
        logprobs: Whether it needs log-probabilities of the prompt, which only vLLM in SEA-HELM's own process gives.
    """

    name: str
    competency: str
    metric: str
    group: str | None
    files: Mapping[str, str | None]
    judge: str | None
    logprobs: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Catalogue:
    """A checkout's tasks and sets.

    Attributes:
        checkout: The folder.
        version: Of its `pyproject.toml`.
        tasks: By name.
        sets: By name: the names of tasks and groups, by language.
    """

    checkout: Path
    version: str
    tasks: Mapping[str, Task]
    sets: Mapping[str, Mapping[str, Sequence[str]]]

    def members(self, name: str) -> list[str]:
        """The tasks that a name in a set stands for: of that group, or the one of that name."""
        grouped = [task.name for task in self.tasks.values() if task.group == name]
        return grouped or ([name] if name in self.tasks else [])


def read_catalogue(checkout: Path) -> Catalogue:
    """Read the tasks of a checkout.

    Raises:
        ConfigError: the folder is not a checkout of SEA-HELM.
        DataError: one of its YAML files cannot be read.
    """
    checkout = checkout.expanduser().resolve()
    for part in (PROGRAM, SETS):
        if not (checkout / part).is_file():
            raise ConfigError(f"{checkout}: is not a checkout of SEA-HELM (no {part}); run: git clone {REPOSITORY}")
    configs: dict[str, Any] = {}
    for file in sorted((checkout / TASKS).rglob("config.yaml")):
        configs.update(_yaml(file))
    tasks = {name: _task(name, configs) for name in configs}
    return Catalogue(checkout, _version(checkout), tasks, _yaml(checkout / SETS))


def select(
    catalogue: Catalogue,
    names: Sequence[str],
    languages: Sequence[str] | None = None,
    skip: Iterable[str] = (),
    judges: bool = False,
) -> dict[str, list[str]]:
    """The tasks to run, by language.

    Args:
        catalogue: The checkout's.
        names: Sets, groups and tasks. A group or task is run in every language that it has.
        languages: Only these; None: those of a set, and for a group or task those of the set `seahelm` that it has.
        skip: Tasks and groups to leave out.
        judges: Whether to keep what a set holds of tasks that another language model judges. A task that is named
            itself is kept in any case. MetricX, which judges translations, is not meant.

    Raises:
        ConfigError: an unknown name or language, nothing left, or tasks that cannot be run against a server.
    """
    skipped = {task for name in skip for task in _known(catalogue, name)}
    chosen: dict[str, list[str]] = {}
    for name in names:
        for language, tasks in _by_language(catalogue, name, languages, judges).items():
            own = chosen.setdefault(language, [])
            own.extend(task for task in tasks if task not in skipped and task not in own)
    kept = {code: chosen[code] for code in languages or chosen if chosen.get(code)}
    if lost := [code for code in languages or () if code not in kept]:
        raise ConfigError(f"SEA-HELM has none of the tasks {', '.join(names)} in: {', '.join(lost)}")
    if not kept:
        raise ConfigError(f"no task is left of {', '.join(names)}; see --skip-tasks and --judges")
    _refuse_logprobs(catalogue, kept)
    return kept


def fingerprint(catalogue: Catalogue, chosen: Mapping[str, Sequence[str]]) -> str:
    """SHA-256 over SEA-HELM's code and configuration, and the chosen tasks' data files in the checkout."""
    root = catalogue.checkout
    files = {path for folder in ("src", TASKS) for end in ("py", "yaml") for path in (root / folder).rglob(f"*.{end}")}
    data = (catalogue.tasks[task].files[language] for language, tasks in chosen.items() for task in tasks)
    files.update(root / name for name in data if name is not None and (root / name).is_file())
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _by_language(
    catalogue: Catalogue, name: str, languages: Sequence[str] | None, judges: bool
) -> dict[str, list[str]]:
    if name not in catalogue.sets:
        tasks = _known(catalogue, name)
        wanted = languages or catalogue.sets.get(DEFAULT_SET, {})
        return {code: [task for task in tasks if code in catalogue.tasks[task].files] for code in wanted}
    expanded = {
        language: [task for one in _names(catalogue, language, own) for task in catalogue.members(one)]
        for language, own in catalogue.sets[name].items()
    }
    return {
        language: [task for task in tasks if _wanted(catalogue.tasks[task], language, judges)]
        for language, tasks in expanded.items()
    }


def _names(catalogue: Catalogue, language: str, own: Sequence[str] | str) -> Sequence[str]:
    """A set may say `all` for a language."""
    return [name for name, task in catalogue.tasks.items() if language in task.files] if isinstance(own, str) else own


def _wanted(task: Task, language: str, judges: bool) -> bool:
    return language in task.files and (judges or task.judge in (None, METRICX))


def _known(catalogue: Catalogue, name: str) -> list[str]:
    if members := catalogue.members(name):
        return members
    valid = {*catalogue.sets, *catalogue.tasks, *(task.group for task in catalogue.tasks.values() if task.group)}
    raise ConfigError(f"SEA-HELM has no set, group or task '{name}'{did_you_mean(name, valid)}")


def _refuse_logprobs(catalogue: Catalogue, chosen: Mapping[str, Sequence[str]]) -> None:
    names = sorted({task for tasks in chosen.values() for task in tasks if catalogue.tasks[task].logprobs})
    if names:
        raise ConfigError(
            f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}: needs log-probabilities of the prompt, which a "
            "server does not give; name the task without -logprobs"
        )


def _task(name: str, configs: Mapping[str, Any]) -> Task:
    def value(key: str, default: Any = None) -> Any:
        return _resolved(configs, configs[name].get(key, default))

    languages = value("languages") or {}
    judge = value("judge") or {}
    return Task(
        name=name,
        competency=str(value("competency")),
        metric=str(value("metric")),
        group=value("aggregation_group"),
        files={str(code): _file(configs, own) for code, own in languages.items()},
        judge=_first(judge.get("judge_model_type", "unnamed")) if value("use_judges", False) else None,
        logprobs=bool(value("use_logprobs", False)),
    )


def _resolved(configs: Mapping[str, Any], value: Any) -> Any:
    """`${sentiment.languages}`: what that other task says."""
    while isinstance(value, str) and (found := _REFERENCE.fullmatch(value)):
        value = configs.get(found[1], {}).get(found[2])
    return value


def _file(configs: Mapping[str, Any], language: Any) -> str | None:
    own = _resolved(configs, language)
    name = own.get("filepath") if isinstance(own, Mapping) else None
    return name if isinstance(name, str) else None


def _first(value: Any) -> str:
    return str(value[0] if isinstance(value, list) else value).lower()


def _version(checkout: Path) -> str:
    try:
        return str(tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return "unknown"


def _yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: holds no tasks; is the checkout whole?")
    return content


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
