"""`dudi prepare task`: training rows from the files that ask a benchmark's questions."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.data.overlap import find_benchmark, texts_of
from dudi.data.prepared import Draft, Prepared, at_most, prepare
from dudi.data.records import Located
from dudi.data.task_data import documents, local_data
from dudi.data.task_files import Prompts, TaskFile, find_tasks
from dudi.errors import ConfigError, DataError
from dudi.files import sha256_of


def prepare_task(
    word: str,
    output: Path,
    *,
    split: str = "train",
    languages: Sequence[str] | None = None,
    folder: Path | None = None,
    not_in: Sequence[str] = (),
    per_language: int | None = None,
    seed: int = 0,
) -> Prepared:
    """Write rows whose prompt is `doc_to_text` and whose completion is `doc_to_target`.

    Args:
        word: A task file, a folder of them, or the name of a shipped task or set (`sib200`).
        output: The `.jsonl` or `.parquet` file.
        split: `train`, `validation`, `test`, or the set's own name of a split.
        languages: Only tasks in these; None takes all.
        folder: Where local Parquet files are; None reads what the tasks name, or the hub.
        not_in: Tasks whose test questions must share no n-gram with a row.
        per_language: At most so many rows of each language, drawn with `seed`; None takes all.
        seed: Of that draw.

    Raises:
        ConfigError: no such task, split or data, a task that says no language, or templates that are functions.
        DataError: no good row, or too many bad ones.
        EnvironmentFault: the output cannot be written, or the hub cannot be reached.
    """
    tasks = find_tasks(word, languages)
    there = [task.language for task in tasks]
    notes = []
    if missing := [code for code in dict.fromkeys(languages or ()) if code not in there]:
        every = ", ".join(dict.fromkeys(task.language for task in find_tasks(word)))
        notes.append(f"{word}: has no task in {', '.join(missing)}; there is {every}")
    if untold := [task.path for task in tasks if not task.language]:
        raise ConfigError(f"{untold[0]}: says no language; rows have one: metadata: {{language: th}}")
    prompts = {task.name: Prompts(task) for task in tasks}
    splits = {task.name: task.split(split) for task in tasks}
    benchmark = find_benchmark(not_in, there, folder)

    def drafts() -> Iterator[Located]:
        for task in tasks:
            for located in documents(task, splits[task.name], folder):
                yield _draft(located, task, prompts[task.name], splits[task.name])

    licences = {str((task.config.get("metadata") or {}).get("licence") or "") for task in tasks}
    stated = "; ".join(sorted(filter(None, licences)))
    about = {
        "tasks": [task.name for task in tasks],
        "split": split,
        "licence": stated or "not stated by the task files: look at the set's own page",
        "inputs": _inputs(tasks, folder),
        "per_language": per_language,
    }
    quotas = functools.partial(at_most, per_language)
    return prepare(drafts, output, about, quotas=quotas, benchmark=benchmark, seed=seed, notes=lambda: notes)


def _draft(located: Located, task: TaskFile, prompts: Prompts, split: str) -> Located:
    document = located.value
    if located.problem is not None:
        return located
    if not isinstance(document, Mapping):
        problem = ("not_an_object", "a document is an object with keys")
        return Located(located.file, located.line, problem=problem)
    try:
        prompt, completion = prompts.prompt(document).strip(), prompts.completion(document).strip()
    except DataError as error:
        return Located(located.file, located.line, None, ("template_fails", str(error)))
    key = document.get("row", located.line)
    record = {"id": f"{task.name}/{split}/{key}", "language": task.language, "prompt": prompt, "completion": completion}
    return Located(located.file, located.line, Draft(record, (task.language,), tuple(texts_of(document))))


def _inputs(tasks: Sequence[TaskFile], folder: Path | None) -> list[dict[str, Any]]:
    """The local files with their hashes, and the sets on the hub by name."""
    found: dict[str, dict[str, Any]] = {}
    for task in tasks:
        data = local_data(task)
        if folder is not None and data is not None:
            file = folder / data.file
            if data.file not in found:
                found[data.file] = {"file": data.file, "sha256": sha256_of(file) if file.is_file() else None}
        else:
            name = ":".join(str(task.config[key]) for key in ("dataset_path", "dataset_name") if task.config.get(key))
            found[name] = {"dataset": name}
    return list(found.values())
