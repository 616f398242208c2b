"""What a SEA-HELM checkout can ask: its tasks, its sets of tasks, and which of them are wanted."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dudi.errors import ConfigError, DataError, did_you_mean
from dudi.files import sha256_of

REPOSITORY = "https://github.com/aisingapore/SEA-HELM"
PROGRAM, TASKS = "src/seahelm_evaluation.py", "seahelm_tasks"
SETS = f"{TASKS}/task_config.yaml"
DEFAULT_SET, METRICX = "seahelm", "metricx"
_REFERENCE = re.compile(r"\$\{([^.}]+)\.([^.}]+)\}")


@dataclasses.dataclass(frozen=True, slots=True)
class SeaHelmTask:
    """A task of SEA-HELM.

    Attributes:
        name: As in its `config.yaml` and in the results.
        competency: `nlu`, `safety`, `linguistic-diagnostics` ...
        metric: The key of its score in the results, 0 to 100.
        group: Tasks of one group are averaged before the competency is; None: it stands alone.
        judge: How the model that judges the answers is served: `metricx`, `vllm` ...; None: nothing judges.
        logprobs: Whether it needs log-probabilities of the prompt, which no server gives.
    """

    name: str
    competency: str
    metric: str
    group: str | None
    languages: Collection[str]
    judge: str | None
    logprobs: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Catalogue:
    """A checkout's folder and version, its tasks by name, and its sets: names of tasks and groups by language."""

    checkout: Path
    version: str
    tasks: Mapping[str, SeaHelmTask]
    sets: Mapping[str, Mapping[str, Sequence[str]]]

    def members(self, name: str) -> list[str]:
        """The tasks of a group, or the one of that name.

        Raises:
            ConfigError: there is no such task or group.
        """
        grouped = [task.name for task in self.tasks.values() if task.group == name]
        if grouped or name in self.tasks:
            return grouped or [name]
        valid = {*self.sets, *self.tasks, *(task.group for task in self.tasks.values() if task.group)}
        raise ConfigError(f"SEA-HELM has no set, group or task '{name}'{did_you_mean(name, valid)}")


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
    try:
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        version = str(project["version"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        version = "unknown"
    return Catalogue(checkout, version, {name: _task(name, configs) for name in configs}, _yaml(checkout / SETS))


def select(
    catalogue: Catalogue,
    names: Sequence[str],
    languages: Sequence[str] | None = None,
    skip: Iterable[str] = (),
    judges: bool = False,
) -> dict[str, list[str]]:
    """The tasks of some sets, groups and tasks, by language.

    Args:
        catalogue: The checkout's.
        names: Sets, groups and tasks.
        languages: Only these; None: those of a set, and for a group or task those of the set `seahelm` that it has.
        skip: Tasks and groups to leave out.
        judges: Keep what a set holds of tasks that another language model judges (MetricX aside); a task that is named
            itself is kept in any case.

    Raises:
        ConfigError: an unknown name or language, nothing left, or tasks that cannot be run against a server.
    """
    skipped = {task for name in skip for task in catalogue.members(name)}
    chosen: dict[str, dict[str, None]] = {}
    for name in names:
        for language, tasks in _by_language(catalogue, name, languages, judges).items():
            chosen.setdefault(language, {}).update(dict.fromkeys(task for task in tasks if task not in skipped))
    kept = {code: list(chosen[code]) for code in languages or chosen if chosen.get(code)}
    if lost := [code for code in languages or () if code not in kept]:
        raise ConfigError(f"SEA-HELM has none of the tasks {', '.join(names)} in: {', '.join(lost)}")
    if not kept:
        raise ConfigError(f"no task is left of {', '.join(names)}; see --skip-tasks and --judges")
    if refused := sorted({task for own in kept.values() for task in own if catalogue.tasks[task].logprobs}):
        why = "needs log-probabilities of the prompt, which a server does not give; name the task without -logprobs"
        raise ConfigError(f"{', '.join(refused[:3])}: {why}")
    return kept


def _by_language(
    catalogue: Catalogue, name: str, languages: Sequence[str] | None, judges: bool
) -> dict[str, list[str]]:
    every = catalogue.tasks
    found: dict[str, list[str]] = {}
    if name not in catalogue.sets:
        tasks, wanted = catalogue.members(name), languages or catalogue.sets.get(DEFAULT_SET, {})
        for code in wanted:
            found[code] = [task for task in tasks if code in every[task].languages]
        return found
    for language, own in catalogue.sets[name].items():
        named = every if isinstance(own, str) else own  # a set may say `all` for a language
        there = [task for one in named for task in catalogue.members(one) if language in every[task].languages]
        found[language] = [task for task in there if judges or every[task].judge in (None, METRICX)]
    return found


def fingerprint(checkout: Path) -> str:
    """SHA-256 over SEA-HELM's code, configuration and data in the checkout."""
    digest = hashlib.sha256()
    for path in (path for folder in ("src", TASKS) for path in sorted((checkout / folder).rglob("*"))):
        if path.suffix in (".py", ".yaml", ".json", ".jsonl", ".csv") and path.is_file():
            digest.update(f"{sha256_of(path)}  {path.relative_to(checkout).as_posix()}\n".encode())
    return digest.hexdigest()


def _task(name: str, configs: Mapping[str, Any]) -> SeaHelmTask:
    def resolved(value: Any) -> Any:
        """`${sentiment.languages}`: what that other task says."""
        while isinstance(value, str) and (found := _REFERENCE.fullmatch(value)):
            value = configs.get(found[1], {}).get(found[2])
        return value

    own = {key: resolved(value) for key, value in configs[name].items()}
    judge = (own.get("judge") or {}).get("judge_model_type", "unnamed")
    judge = judge[0] if isinstance(judge, list) else judge
    return SeaHelmTask(
        name=name,
        competency=str(own.get("competency")),
        metric=str(own.get("metric")),
        group=own.get("aggregation_group"),
        languages=[str(code) for code in own.get("languages") or ()],
        judge=str(judge).lower() if own.get("use_judges") else None,
        logprobs=bool(own.get("use_logprobs")),
    )


# SEA-HELM's own files, written for readers of YAML 1.1; they are many, and so read in C where that is there.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: holds no tasks; is the checkout whole?")
    return content
