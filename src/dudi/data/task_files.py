"""Task files of lm-evaluation-harness: found by path or name, their `include:` followed, their templates rendered.

What is read here is the YAML and its Jinja. Functions that a file names (`!function`) are never imported: whoever
needs one is told so. lm_eval itself need not be installed.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from dudi.errors import ConfigError, DataError, did_you_mean
from dudi.languages.registry import load_languages

PREFIX = "dudi_"
"""What the names of the shipped tasks begin with: lm_eval has an `xcopa_id` of its own."""
SPLIT_KEYS = {"train": "training_split", "validation": "validation_split", "test": "test_split"}


class Function(str):
    """The name of a Python function that a file asks for with `!function`."""


@dataclasses.dataclass(frozen=True, slots=True)
class TaskFile:
    """A task as its file describes it; `config` has the file's keys, and those of the included files below them."""

    path: Path
    name: str
    config: Mapping[str, Any]

    @property
    def language(self) -> str:
        """The code in `metadata.language`, else that of dudi's languages with which the name ends; empty for none."""
        metadata = self.config.get("metadata")
        given = metadata.get("language") if isinstance(metadata, Mapping) else None
        if given:
            return str(given)
        ending = self.name.rpartition("_")[2]
        return ending if ending in load_languages() else ""

    @property
    def family(self) -> str:
        """The name without the prefix of shipped tasks and without the language: `sib200` of `dudi_sib200_th`."""
        return self.name.removeprefix(PREFIX).removesuffix(f"_{self.language}" if self.language else "")

    def split(self, word: str) -> str:
        """What the set calls a split: `train`, `validation` and `test` are looked up, any other word is its name.

        Raises:
            ConfigError: the task has no such split.
        """
        if word not in SPLIT_KEYS:
            return word
        found = self.config.get(SPLIT_KEYS[word])
        if not found:
            there = [str(self.config[key]) for key in SPLIT_KEYS.values() if self.config.get(key)]
            raise ConfigError(f"{self.path}: has no {SPLIT_KEYS[word]}; it has {', '.join(there) or 'no split'}")
        return str(found)


@functools.cache
def shipped_tasks() -> tuple[TaskFile, ...]:
    """The tasks that come with the package, in the order of their names."""
    return tuple(_of_folder(tasks_folder()))


def tasks_folder() -> Path:
    """The folder of the tasks that come with the package; a path for lm_eval's `--include_path` (docs/tasks.md)."""
    return Path(str(resources.files("dudi") / "tasks"))


def find_tasks(word: str, languages: Sequence[str] | None = None) -> list[TaskFile]:
    """The tasks that a word names, in the languages that are wanted; in all where none are given.

    The word is a file, a folder of files, the name of a shipped task (`dudi_sib200_th`), or of all languages of a set
    (`sib200`, `dudi_sib200`).

    Raises:
        ConfigError: nothing has that name, a file is broken, or none of its tasks is in these languages.
    """
    path = Path(word)
    if path.is_dir():
        found = list(_of_folder(path))
    elif path.is_file():
        found = [read_task(path)]
    else:
        return of_family(word, languages)
    return _in_languages(word, found, languages)


def of_family(word: str, languages: Sequence[str] | None = None) -> list[TaskFile]:
    """The shipped tasks of a name, whatever files are called so; arguments as of `find_tasks`.

    Raises:
        ConfigError: no shipped task has that name, or none in these languages.
    """
    shipped = shipped_tasks()
    bare = word.removeprefix(PREFIX)
    found = [task for task in shipped if bare in (task.family, task.name.removeprefix(PREFIX))]
    if not found:
        names = sorted({name for task in shipped for name in (task.family, task.name)})
        hint = did_you_mean(word, names)
        raise ConfigError(f"{word}: is no task file, and no shipped task is called so{hint} (docs/tasks.md)")
    return _in_languages(word, found, languages)


def _in_languages(word: str, found: Sequence[TaskFile], languages: Sequence[str] | None) -> list[TaskFile]:
    chosen = [task for task in found if languages is None or task.language in languages]
    if not chosen:
        there = ", ".join(dict.fromkeys(task.language for task in found)) or "none"
        raise ConfigError(f"{word}: no task in {', '.join(languages or ())}; there is {there}")
    return chosen


def _of_folder(folder: Path) -> Iterator[TaskFile]:
    for path in sorted(folder.rglob("*.yaml")):
        config = read_config(path)
        if isinstance(config.get("task"), str):  # a group names its tasks in a list
            yield TaskFile(path, config["task"], config)


def read_task(path: Path) -> TaskFile:
    """Read one task.

    Raises:
        ConfigError: no such file, broken YAML, an `include` that goes in a circle, or no single `task`.
    """
    config = read_config(path)
    if not isinstance(config.get("task"), str):
        raise ConfigError(f"{path}: names no task; a task file has `task: NAME` (docs/tasks.md)")
    return TaskFile(path, config["task"], config)


def read_config(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a file, those of the files that it includes below its own.

    Raises:
        ConfigError: as `read_task`.
    """
    if path.resolve() in above:
        raise ConfigError(f"{path}: includes itself")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}{place}: is not valid YAML: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: is not a mapping of keys to values")
    included = content.pop("include", [])
    merged: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included]:
        merged |= read_config(path.parent / str(name), (*above, path.resolve()))
    return merged | content


# PyYAML as lm_eval reads its own files: YAML 1.1, `<<`, a tag for functions; our reader refuses the last two.
class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """Plain YAML, and the names of functions as names."""


_LOADER = _Loader
_LOADER.add_constructor("!function", lambda loader, node: Function(node.value if node.id == "scalar" else ""))


# --- templates


class Prompts:
    """A task's templates, ready to be rendered.

    Raises:
        ConfigError: `doc_to_text` or `doc_to_target` is missing, or a function.
    """

    def __init__(self, task: TaskFile) -> None:
        self.task = task
        for key in ("doc_to_text", "doc_to_target", "doc_to_choice", "process_docs"):
            if isinstance(task.config.get(key), Function):
                what = f"{key} is the function {task.config[key]}, and no code of a task file is run here"
                raise ConfigError(f"{task.path}: {what}; write it as a Jinja template")
        for key in ("doc_to_text", "doc_to_target"):
            if task.config.get(key) in (None, ""):
                raise ConfigError(f"{task.path}: has no {key}: nothing to ask, or nothing to answer")

    def prompt(self, document: Mapping[str, Any]) -> str:
        """`doc_to_text` of a document.

        Raises:
            DataError: a column that the template reads is missing, or it fails.
        """
        return str(self._rendered("doc_to_text", document))

    def completion(self, document: Mapping[str, Any]) -> str:
        """`doc_to_target` of a document; where that is a number, the choice that it counts to.

        Raises:
            DataError: as `prompt`, or there is no such choice.
        """
        target = self._rendered("doc_to_target", document)
        if self.task.config.get("doc_to_choice") is None:
            several = _literal(target) if isinstance(target, str) and target[:1] + target[-1:] == "[]" else target
            return str(several[0] if isinstance(several, list) and several else target)
        choices = self._choices(document)
        if isinstance(target, str) and target in choices:
            return target
        try:
            return str(choices[int(target)])
        except (TypeError, ValueError, IndexError) as error:
            raise DataError(f"{self.task.path}: doc_to_target is {target!r}, one of {len(choices)} choices") from error

    def _choices(self, document: Mapping[str, Any]) -> list[Any]:
        choices = self._rendered("doc_to_choice", document)
        choices = list(choices.values()) if isinstance(choices, Mapping) else choices
        choices = _literal(choices) if isinstance(choices, str) else choices
        if not isinstance(choices, list):
            raise DataError(f"{self.task.path}: doc_to_choice makes no list: {str(choices)[:60]!r}")
        return choices

    def _rendered(self, key: str, document: Mapping[str, Any]) -> Any:
        template = self.task.config[key]
        if not isinstance(template, str):
            return template
        if template in document:
            return document[template]
        try:
            return _template(template).render(**document)
        except (TemplateError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            what = str(error).partition("\n")[0][:160]
            raise DataError(f"{self.task.path}: {key} cannot be made of {', '.join(document)}: {what}") from error


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
# The filter that lm_eval adds to Jinja's.
_ENVIRONMENT.filters["regex_replace"] = lambda text, pattern, new, count=0: re.sub(pattern, new, text, count=count)
_template = functools.lru_cache(maxsize=256)(_ENVIRONMENT.from_string)
