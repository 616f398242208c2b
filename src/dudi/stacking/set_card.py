"""What is said of a prepared data set: its card for people and for programs, and its part of a recipe."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.config.yaml_tree import read_yaml
from dudi.data.rejections import Rejections
from dudi.errors import ConfigError, DudiError
from dudi.stacking.codes import LanguageCodes
from dudi.stacking.task_sets import SOURCE_LANGUAGE, TaskSet
from dudi.tables import grid_of, markdown
from dudi.training.values import render

CARD, RECIPE, REJECTED = "data_card.json", "task.yaml", "rejected.jsonl"


@dataclasses.dataclass(slots=True)
class PreparedSet:
    """What was written, and what was not.

    Attributes:
        of: The data set.
        folder: Where.
        counts: Rows by (split, language).
        labels: Rows by (split, label).
        left_out: Rows that are not wanted, by why.
        rejections: Records that give no row.
        files: SHA-256 by file.
        languages: What each language's code means.
    """

    of: TaskSet
    folder: Path
    counts: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    labels: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)
    rejections: Rejections = dataclasses.field(default_factory=Rejections)
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    languages: dict[str, LanguageCodes] = dataclasses.field(default_factory=dict)

    @property
    def trained(self) -> int:
        """Rows to train on."""
        return sum(count for (split, _), count in self.counts.items() if split == "train")


def recipe_part(done: PreparedSet) -> str:
    """The sections `task` and `data` of a recipe, for `--task` or `extends`."""
    data: dict[str, Any] = {}
    for key, place in (("train", ("train", SOURCE_LANGUAGE)), ("eval", ("dev", SOURCE_LANGUAGE))):
        if done.counts[place]:
            data[key] = (done.folder / place[0] / f"{place[1]}.jsonl").as_posix()
    lines = [f"# {done.of.title}. Made by `dudi stack prepare {done.of.name}`."]
    for name, section in (("task", done.of.task), ("data", data)):
        lines.append(f"{name}:" if section else f"{name}: {{}}")
        lines += [f"  {key}: {render(value)}" for key, value in section.items()]
    return "\n".join(lines) + "\n"


def task_words(folder: Path, given: Sequence[str] = ()) -> list[str]:
    """A prepared set's part of a recipe as words of the command line: its task, its rows, and nothing of another set's.

    A set without rows to train on is refused, unless a word that is `given` beside these names some.
    """
    file = folder / RECIPE
    try:
        part = read_yaml(file).plain()
        task, data = dict(part["task"]), dict(part["data"])
    except (DudiError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--task {folder}: holds no set of `dudi stack prepare` ({RECIPE})") from error
    if "train" not in data and not any(word.partition("=")[0] in ("data", "data.train") for word in given):
        name = folder.as_posix()
        raise ConfigError(
            f"--task {name}: the set has no train part, and the recipe's rows are of another task; prepare it again "
            "with --train FILE or --train hub, or name rows with data.train=FILE"
        )
    others: dict[str, Any] = {"eval": None, "eval_split": None, "split": "train", "columns": {}, "language": None}
    # Where the folder has been moved, its rows have moved with it.
    rows = {key: str(folder / Path(place).parent.name / Path(place).name) for key, place in data.items()}
    sections = {"task": task, "data": others | rows}
    return [f"{name}.{key}={json.dumps(value)}" for name, own in sections.items() for key, value in own.items()]


def card(done: PreparedSet, origin: Mapping[str, Any]) -> dict[str, Any]:
    """What `data_card.json` holds."""
    by_split: dict[str, dict[str, dict[str, int]]] = {"rows": {}, "labels": {}}
    for what, counts in (("rows", done.counts), ("labels", done.labels)):
        for (split, name), count in sorted(counts.items()):
            by_split[what].setdefault(split, {})[name] = count
    return {
        "name": done.of.name,
        "title": done.of.title,
        "licence": done.of.licence,
        "paper": done.of.paper,
        **origin,
        "task": done.of.task,
        **by_split,
        "read_as": {code: one.nllb for code, one in done.languages.items() if one.stand_in},
        "left_out": dict(done.left_out),
        "rejected": dict(done.rejections.counts),
        "files": done.files,
    }


def readme(done: PreparedSet, origin: Mapping[str, Any]) -> str:
    """The card for people."""
    of, counts = done.of, done.counts
    codes = sorted({language for _, language in counts})
    rows = []
    for code in codes:
        one = done.languages[code]
        read_as = f"{one.nllb or 'no code'}{f' ({one.stand_in})' if one.stand_in else ''}"
        rows.append((code, [*(f"{counts[split, code] or ''}" for split in ("train", "dev", "test")), read_as]))
    table = grid_of(("train", "dev", "test", "read by NLLB as"), rows, corner="language")
    left = [f"- {why}{f': {count:,} rows' if count else ''}" for why, count in done.left_out.items()]
    if done.rejections:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in done.rejections.counts.most_common())
        left.append(f"- records that give no row: {len(done.rejections):,} ({reasons}), each in `{REJECTED}`")
    training = f"training rows from `{origin['training']}`" if done.trained else "no training rows"
    revision = f" at revision {origin['revision']}" if origin["revision"] else ""
    fields = ", ".join([*of.fields, *(["choices"] if of.choices else [])])
    return "\n".join(
        [
            f"# {of.title}",
            "",
            f"{of.paper}. Licence: {of.licence}. Evaluation rows from `{origin['evaluation']}`, "
            f"{training}{revision}, by `dudi stack prepare {of.name}`. Nothing is cut, and {fields} stay "
            "fields of their own. The same `id` is the same item in every language, where the set is parallel.",
            "",
            markdown(table),
            "",
            "Left out:" if left else "Nothing was left out.",
            *left,
            "",
            *([f"    dudi stack teach RECIPE --task {done.folder}     # or finetune, distill"] if done.trained else []),
            f"    dudi stack eval RUN {done.folder}",
            "",
        ]
    )


def said(done: PreparedSet) -> str:
    """What the command says when it is done."""
    totals: Counter[str] = Counter()
    for (split, _), count in done.counts.items():
        totals[split] += count
    evaluated = {language for split, language in done.counts if split == "test"}
    counted = ", ".join(f"{totals[split]:,} {split}" for split in ("train", "dev", "test"))
    lines = [f"{done.folder}: {counted}; {len(evaluated)} languages in the test"]
    if not done.trained:
        lines.append("note: no training rows; --train FILE, or --train hub, brings English ones")
    for code, one in done.languages.items():
        if one.nllb is None:
            lines.append(f"note: {code} ({one.stand_in}) is read by no code of NLLB")
        elif one.stand_in:
            lines.append(f"note: {code} is no code of NLLB and is read as {one.nllb} ({one.stand_in})")
    lines += [f"left out: {why}{f' ({count:,} rows)' if count else ''}" for why, count in done.left_out.items()]
    if done.rejections:
        lines.append(f"{len(done.rejections):,} records give no row, each in {done.rejections.path}:")
        lines += done.rejections.summary()
    return "\n".join(lines)
