"""Which tasks are meant: names of dudi's and lm_eval's, completed by the languages that are asked."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.data.task_files import TaskFile, find_tasks, of_family, read_config, read_task, shipped_tasks
from dudi.errors import ConfigError, did_you_mean, first_of
from dudi.evaluation.records import part_of
from dudi.languages.flores import FLORES

_WORDS = {
    "id": "indonesian",
    "vi": "vietnamese",
    "th": "thai",
    "ta": "tamil",
    "tl": "tagalog",
    "ms": "malay",
    "my": "burmese",
    "en": "english",
}
_OTHERS = (
    "af am ar as az be bg bn bo bs ca ceb cs cy da de el eo es et eu fa fi fil fr ga gl gu ha he hi hr ht hu hy ig is "
    "it ja jv ka kk km kn ko ku ky lo lt lv mg mi mk ml mn mr mt ne nl no ny om or pa pl ps pt qu ro ru rw sd si sk sl "
    "sn so sq sr su sv sw te tg tk tr tt ug uk ur uz wo xh yi yo yue zh zu"
)
"""Codes of other languages, with which names of lm_eval's end; `xcopa_et` is not asked where Indonesian is wanted."""
_FLORES_NAME = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
_SHOWN = 3
"""Names in a note."""
GROUP_KEYS = {"group", "group_alias", "task", "aggregate_metric_list", "metadata"}
"""What a group may say without changing its tasks."""


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """A task that is asked.

    Attributes:
        name: As lm_eval knows it, or as its file says.
        language: Its code; empty where nobody knows.
        family: The name without its language: what is one task in several languages.
        file: Its file, where it is one of dudi's own or of a user's that was named by path.
    """

    name: str
    language: str
    family: str
    file: TaskFile | None = None


def suffixes(language: str) -> list[str]:
    """How names of tasks say a language: `th`, `tha_Thai`, `tha`, `thai`, in lower case."""
    flores = FLORES.get(language, "")
    found = [language, flores, flores.partition("_")[0], _WORDS.get(language, "")]
    return [one.lower() for one in found if one]


def language_of(name: str) -> tuple[str, str]:
    """The code of the language that a name tells, or nothing, and the rest: of `belebele_tha_Thai` `th`, `belebele`."""
    parts = name.split("_")
    said = {suffix: code for code in FLORES for suffix in suffixes(code)}
    for length in (2, 1):
        for start in range(len(parts) - length, 0, -1):
            code = said.get("_".join(parts[start : start + length]).lower())
            if code:
                return code, "_".join(parts[:start] + parts[start + length :])
    return "", name


def named_tasks(
    words: Sequence[str], languages: Sequence[str] | None, include: Sequence[Path] = ()
) -> tuple[list[Named], list[str]]:
    """The tasks that a command line or a recipe names.

    A word is a task file; a shipped task (`dudi_sib200_th`) or set (`sib200`); a task, group, tag or pattern of
    lm_eval's or of a user's folder; or the beginning of such a name, which each language completes (`xstorycloze`
    with Indonesian and Burmese). A set of dudi's goes before one of lm_eval's under the same name.

    None for languages takes every language of a set; `include` are folders of task files.

    Returns:
        The tasks, each once, in the order of the words; and what a person should know: languages that a word has no
        task in, tasks of a group that are in another language, tasks whose language nobody knows.

    Raises:
        ConfigError: no task has that name, or none in these languages.
    """
    found: dict[str, Named] = {}
    notes: list[str] = []
    for word in words:
        own = _of_word(word, languages, include, notes)
        found |= {one.name: one for one in own if one.name not in found}
        there = {one.language for one in own}
        if absent := [code for code in languages or () if code not in there and there != {""}]:
            notes.append(f"{word}: no task in {', '.join(absent)}")
    return list(found.values()), notes


def _of_word(word: str, languages: Sequence[str] | None, include: Sequence[Path], notes: list[str]) -> list[Named]:
    path = Path(word)
    shipped = {task.name: task for task in shipped_tasks()}
    if word in shipped:
        return [of_file(shipped[word])]
    if any(word.removeprefix("dudi_") == task.family for task in shipped.values()):
        return [of_file(task) for task in of_family(word, languages)]
    if path.suffix not in (".yaml", ".yml") and not path.is_dir():
        return _of_index(word, languages, include, shipped, notes)
    if not path.exists():
        raise ConfigError(f"{word}: no such task file")
    own = find_tasks(word) if path.is_dir() else [read_task(path)]
    return [of_file(task) for task in own if languages is None or task.language in ("", *languages)]


def with_groups(words: Sequence[str], include: Sequence[Path]) -> tuple[list[str], tuple[Path, ...]]:
    """Words and folders: files in place of their pattern, a group's name in place of its file, its folder added.

    Raises:
        ConfigError: a file that is not valid YAML.
    """
    found, folders = [], list(include)
    for word in words:
        path = Path(word)
        if path.suffix not in (".yaml", ".yml") or path.is_dir():
            found.append(word)
            continue
        for file in [path] if path.exists() else sorted(path.parent.glob(path.name)) or [path]:
            group = read_config(file).get("group") if file.is_file() else None
            found.append(str(file) if group is None else str(group))
            folders += [] if group is None or file.parent in folders else [file.parent]
    return found, tuple(folders)


def of_file(task: TaskFile) -> Named:
    """A task that is known by its file."""
    return Named(task.name, task.language, task.family, task)


def _of_index(
    word: str, languages: Sequence[str] | None, include: Sequence[Path], shipped: Iterable[str], notes: list[str]
) -> list[Named]:
    """Names in a user's folders, then among all that lm_eval brings (which takes it half a minute to read)."""
    for defaults in (False, True) if include else (True,):
        index = task_index(tuple(include), defaults)
        exact = [name for name in index if fnmatch.fnmatchcase(name, word)]
        completed = list(_completed(word, languages or FLORES, index))
        if completed and (languages is not None or not exact):
            return completed
        if exact:
            return _in_languages(word, exact, languages, index, notes)
    names = [*shipped, *index]
    families = {language_of(name)[1] for name in names}
    raise ConfigError(
        f"--tasks: there is no '{word}'{did_you_mean(word, [*families, *names])} (docs/tasks.md; lm_eval ls tasks)"
    )


def _in_languages(
    word: str, exact: Sequence[str], languages: Sequence[str] | None, index: Mapping[str, Any], notes: list[str]
) -> list[Named]:
    """What a pattern, group or tag stands for without the tasks in other languages; a task that is named is asked."""
    whole = [named_task(name, part_of(index[name].cfg, "metadata")) for name in exact]
    names = list(dict.fromkeys(task for name in exact for task in _members(name, index)))
    if languages is None or names == [word]:
        return whole
    named = [named_task(name, part_of(index[name].cfg, "metadata")) for name in names]
    stay = []
    for one in named:
        parts = one.name.split("_")
        other = parts[-1] in _OTHERS.split() or bool(_FLORES_NAME.fullmatch("_".join(parts[-2:])))
        if one.language in languages or not (one.language or (other and len(parts) > 1)):
            stay.append(one)
    if len(stay) < len(named):
        left = [one.name for one in named if one not in stay]
        notes.append(f"{word}: not asked, in other languages: {first_of(left, _SHOWN)}")
        if any((index[name].cfg or {}).get("aggregate_metric_list") for name in exact):
            notes.append(f"{word}: without its own score, which is one of all its tasks")
    if unknown := [one.name for one in stay if not one.language]:
        notes.append(f"{word}: asked, and nobody knows in which language: {first_of(unknown, _SHOWN)}")
    return whole if stay == named else stay


def _members(name: str, index: Mapping[str, Any]) -> list[str]:
    """The tasks of a group or tag, the name itself for a task and for a group that asks its tasks in its own way."""
    entry = index.get(name)
    kind = getattr(getattr(entry, "kind", None), "name", "")
    inside: Any = sorted(entry.tags) if entry is not None and kind == "TAG" else ()
    if entry is not None and kind == "GROUP" and set(entry.cfg or {}) <= GROUP_KEYS:
        inside = entry.cfg.get("task")
    if not isinstance(inside, list) or not inside or any(one == name or not isinstance(one, str) for one in inside):
        return [name]
    return [task for one in inside for task in _members(one, index)]


def told_apart(named: Iterable[Named]) -> tuple[list[Named], list[str]]:
    """Tasks of which no two are called the same in one language, and a line for each that was renamed.

    `xcopa` is dudi's in five languages, `xcopa_id` lm_eval's own: in other words, and so not one task in several
    languages. Where a family would hold both, or two tasks of one language, lm_eval's, or those two, keep their whole
    name as their family.
    """
    tasks = list(named)
    ours = {one.family for one in tasks if one.file is not None}
    mixed = [one for one in tasks if one.file is None and one.family in ours]
    places = collections.Counter((one.family, one.language) for one in tasks if one not in mixed)
    found, notes = [], []
    for one in tasks:
        if one.family != one.name and (one in mixed or places[one.family, one.language] > 1):
            notes.append(f"{one.name}: a task of its own, since another is called {one.family}")
            found.append(dataclasses.replace(one, family=one.name))
        else:
            found.append(one)
    return found, notes


def _completed(word: str, languages: Iterable[str], index: Mapping[str, Any]) -> Iterator[Named]:
    by_lower = {name.lower(): name for name in index}
    for code in languages:
        names = [by_lower.get(f"{word.lower()}_{suffix}") for suffix in suffixes(code)]
        if any(names):
            yield Named(next(filter(None, names)), code, word)


def named_task(name: str, metadata: object) -> Named:
    """A task of lm_eval's or of a user's, in the language that its metadata says, or else its name."""
    told, family = language_of(name)
    stated = metadata.get("language") if isinstance(metadata, Mapping) else None
    if stated and str(stated) != told:
        family = re.sub(f"_{re.escape(str(stated))}$", "", name)
    return Named(name, str(stated or told), family)


def task_index(include: tuple[Path, ...], defaults: bool) -> Mapping[str, Any]:
    """What lm_eval finds in folders of task files, and with `defaults` among its own, by name.

    Raises:
        ConfigError: a folder is not there.
    """
    for folder in include:
        if not folder.is_dir():
            raise ConfigError(f"--include-path {folder}: no such folder")
    return task_manager(include, defaults).task_index


@functools.lru_cache(maxsize=8)
def task_manager(include: tuple[Path, ...], defaults: bool, metadata: str = "{}") -> Any:
    """lm_eval's `TaskManager` over folders, as `task_index` takes them; lm_eval's own tasks take it half a minute.

    `metadata` is what tasks are told over their own, as JSON.
    """
    from lm_eval.tasks import TaskManager

    folders = [str(folder) for folder in include]
    return TaskManager(include_path=folders, include_defaults=defaults, metadata=json.loads(metadata))
