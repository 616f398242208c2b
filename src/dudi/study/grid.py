"""A study file: which runs make up a table, and what the paper has in its place."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from dudi.config.layers import COMMAND_LINE, PlacedWord
from dudi.config.recipe_files import STUDIES, find_study, recipes_folder
from dudi.config.yaml_tree import Node, read_yaml
from dudi.errors import ConfigError, did_you_mean
from dudi.evaluation.metrics import METRICS
from dudi.training.values import Word

View = Literal["language", "split", "kind", "task", "overall"]
Subject = Literal["student", "cold_start"]
StackVerb = Literal["adapt", "align", "teach", "distill", "finetune"]
WITH_HEAD = ("teach", "distill", "finetune")
"""The stages that can be asked."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    _file: str = PrivateAttr(default="")
    _node: Node = PrivateAttr(default=Node({}, 0))
    _told: tuple[str, ...] = PrivateAttr(default=())

    def place(self, *keys: str | int) -> str:
        """`FILE:LINE` of what it has there, or of the nearest around that; what messages begin with."""
        return _place(self._file, self._node, keys) if self._file else COMMAND_LINE

    @property
    def told(self) -> tuple[str, ...]:
        """The `key=value` words of the command line, as they were given; what a row or stage says stands above them."""
        return self._told


class _Keyed(_Strict):
    keys: dict[str, Any] = Field(default_factory=dict)  # what it sets over its recipe

    @property
    def words(self) -> tuple[str, ...]:
        """The keys as `key=value` words of a command line; errors of a recipe name their lines."""
        words = []
        for key, value in self.keys.items():
            words.append(PlacedWord(f"{key}={_written(value)}", self.place("keys", key)))
        return tuple(words)


class StudyStage(_Keyed):
    """One stage of a row that is a stack: what `dudi stack VERB RECIPE` trains."""

    verb: StackVerb
    recipe: str  # a file, relative to the study's, or the name of a shipped recipe
    name: str = ""  # what later stages of the row call it; empty: its verb
    task: str | None = None  # a folder of `dudi stack prepare`: rows and labels are its
    after: dict[str, str] = Field(default_factory=dict)  # keys that are an earlier stage of the row: {start: align}

    @property
    def called(self) -> str:
        """Its name in the row."""
        return self.name or self.verb


class AskedRows(_Strict):
    """What a study of stacks asks: the rows of `dudi stack eval`, and its options where they are not its defaults."""

    rows: str  # labelled: a folder of `dudi stack prepare`, a file, a pattern, or a hub name
    split: str | None = None
    source_language: str | None = None
    language: str | None = None
    languages: tuple[str, ...] | None = None
    max_rows: int | None = None
    max_length: int | None = None
    batch_size: int | None = None
    target: str | None = None
    beams: int | None = None
    max_new_tokens: int | None = None

    def words(self, *, translated: bool = True) -> tuple[str, ...]:
        """The rows and the options as `dudi stack eval` takes them; it refuses those of a translation without one."""
        words = [self.rows]
        exclude = {"rows"} if translated else {"rows", "target", "beams", "max_new_tokens"}
        for name, value in self.model_dump(exclude=exclude, exclude_none=True).items():
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
        return tuple(words)


class StudyRow(_Keyed):
    """One row of a table."""

    name: str  # what the table calls it
    stages: tuple[StudyStage, ...] = ()  # in the place of `keys`: those of a stack, in order; the last one is asked
    translate: str | None = None  # of a stack: the MT model that puts what is asked into English (translate-test)
    score: Subject = "student"  # `cold_start`: the row is what the others start from, and no second stage runs
    paper: float | None = None  # the paper's average for this row

    @property
    def words(self) -> tuple[str, ...]:
        """With those of the command line in front: what `dudi train` takes."""
        return (*self.told, *super().words)

    def wrong(self, what: str, *keys: str | int) -> ConfigError:
        """What is wrong with it, at the line of some keys."""
        return ConfigError(f"{self.place(*keys)}: row '{self.name}': {what}")


def _written(value: Any) -> str:
    """A value as JSON, which recipes read; but `no` as it was written: whether it is a boolean is the key's affair."""
    if isinstance(value, dict):
        pairs = [f"{json.dumps(key, ensure_ascii=False)}: {_written(own)}" for key, own in value.items()]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return str(value) if isinstance(value, Word) else json.dumps(value, ensure_ascii=False)


class Study(_Strict):
    """One table."""

    name: str
    file: Path
    title: str
    about: str = ""
    recipe: str = ""  # the one that every row starts from, relative to the study's file
    asked: AskedRows | None = None  # of a study of stacks, in the place of `recipe`: the rows that they are asked about
    seeds: int = Field(ge=1)  # how many, from 0 on
    views: tuple[View, ...] = ("language",)
    metrics: tuple[str, ...] = ()  # of students: what the tables show, each; empty: exact match. Of stacks: accuracy
    candidate: str | None = None  # the row whose diamonds are shown
    rivals: tuple[str, ...] = ()  # the rows that the candidate is tested against, each; empty: the best other overall
    baseline: str | None = None  # the row that differences are taken from
    size: bool = False  # draw the rows in score against size, the paper's Figure 1
    curves: tuple[str, ...] = ()  # metrics of `metrics.jsonl` that are drawn over the steps
    cost: bool = False  # count the FLOPs of every row
    rows: tuple[StudyRow, ...]

    @field_validator("asked", mode="before")
    @classmethod
    def _rows_alone(cls, given: Any) -> Any:
        return {"rows": given} if isinstance(given, str) else given

    @field_validator("metrics", mode="before")
    @classmethod
    def _names_of_metrics(cls, given: Any) -> Any:
        names = [given] if isinstance(given, str) else given
        for name in names if isinstance(names, list) else ():
            if name not in METRICS and (hint := did_you_mean(str(name), METRICS)):
                raise ValueError(f"there is no '{name}'{hint}")
        return tuple(dict.fromkeys(names)) if isinstance(names, list) else names

    @property
    def shown(self) -> tuple[str, ...]:
        """What its tables show; the first is what a row's single number is."""
        return self.metrics or ("exact_match" if self.asked is None else "accuracy",)

    @property
    def recipe_path(self) -> Path:
        """The recipe's file."""
        return (self.file.parent / self.recipe).resolve()

    @property
    def shown_file(self) -> str:
        """Its file as a page names it: from the folder of the recipes on where it lies there."""
        file, recipes = self.file.resolve(), recipes_folder().resolve()
        return f"recipes/{file.relative_to(recipes).as_posix()}" if file.is_relative_to(recipes) else self.file.name


def read_study(file: Path) -> Study:
    """Read a study file.

    Raises:
        ConfigError: it cannot be read, a key is unknown or of the wrong type, or a name is missing or there twice; with
            the line, where it has one.
        EnvironmentFault: the disk does not let it be read.
    """
    root = dataclasses.replace(read_yaml(file), line=0)  # what is missing at the top has no line
    content = root.plain()
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{file}: a study is a mapping with title, seeds, rows, and recipe or asked")
    for key in [key for key in _OF_THE_FILE if key in content]:
        raise ConfigError(f"{_place(str(file), root, [key])}: {key}: is not a key of a study: its name is the file's")
    try:
        study = Study(name=file.stem, file=file, **content)
    except ValidationError as error:
        raise ConfigError(_first_problem(error, str(file), root)) from error
    _remember_lines(study, root)
    _check_names(study)
    for row in study.rows:
        if row.keys and row.stages:
            raise row.wrong("has both keys and stages; the keys of a stage are its own", "keys")
    if study.asked is None:
        _check_students(study)
    else:
        _check_stacks(study)
    return study


_OF_THE_FILE = ("name", "file")
"""What a study has from its file alone."""


def _place(file: str, root: Node, keys: Sequence[str | int]) -> str:
    """`FILE:LINE` of a value, or of the nearest around it; the file alone where that is all of it."""
    node = root
    for key in keys:
        inside = node.value
        if not (key in inside if isinstance(inside, dict) else isinstance(inside, list) and key in range(len(inside))):
            break
        node = inside[key]
    return f"{file}:{node.line}" if node.line else file


def _remember_lines(study: Study, root: Node) -> None:
    parts: list[tuple[_Strict, Node]] = [(study, root)]
    for row, node in zip(study.rows, root.value["rows"].value, strict=True):
        parts.append((row, node))
        if row.stages:
            parts += zip(row.stages, node.value["stages"].value, strict=True)
    for part, node in parts:
        part._file, part._node = str(study.file), node


def _first_problem(error: ValidationError, file: str, root: Node) -> str:
    # A misspelt key is missing too: the word that was written says more.
    problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    loc, hint = problem["loc"], ""
    if problem["type"] == "extra_forbidden":
        kinds: dict[str | int, type[_Strict]] = {"rows": StudyRow, "stages": StudyStage, "asked": AskedRows}
        inside = next((kinds[part] for part in reversed(loc[:-1]) if part in kinds), Study)
        own = _OF_THE_FILE if inside is Study else ()
        hint = did_you_mean(str(loc[-1]), [name for name in inside.model_fields if name not in own])
    return f"{_place(file, root, loc)}: {'.'.join(map(str, loc))}: {problem['msg']}{hint}"


def _check_names(study: Study) -> None:
    names: list[str] = []
    for row in study.rows:
        if row.name in names:
            raise ConfigError(f"{row.place('name')}: two rows are called '{row.name}'")
        names.append(row.name)
    named = [(key, getattr(study, key), study.place(key)) for key in ("candidate", "baseline")]
    named += [("rivals", name, study.place("rivals", number)) for number, name in enumerate(study.rivals)]
    for key, wanted, place in named:
        if wanted is not None and wanted not in names:
            raise ConfigError(f"{place}: {key}: there is no row '{wanted}'{did_you_mean(wanted, names)}")
    if study.rivals and (study.candidate is None or study.candidate in study.rivals):
        raise ConfigError(f"{study.place('rivals')}: rivals: are the others that a `candidate` is tested against")


def _check_students(study: Study) -> None:
    """Rows that `dudi train` runs."""
    for row in study.rows:
        if row.stages or row.translate:
            what = "a stack is asked about rows that the study names: asked: ROWS, as `dudi stack eval` takes them"
            raise row.wrong(what, "stages" if row.stages else "translate")
    if not study.recipe:
        raise ConfigError(f"{study.place('recipe')}: recipe: name the recipe that every row starts from")
    if not study.recipe_path.is_file():
        raise ConfigError(f"{study.place('recipe')}: recipe: there is no file {study.recipe_path}")


def _check_stacks(study: Study) -> None:
    """Rows that `dudi stack` runs."""
    for key in ("recipe", "cost", "size", "curves", "metrics"):
        if getattr(study, key):
            raise ConfigError(f"{study.place(key)}: {key}: is of studies of `dudi train`, and `asked` of stacks")
    for row in study.rows:
        if row.keys or not row.stages or row.score != "student":
            raise row.wrong("is no stack; where a study has `asked`, every row has stages and no score")
        _check_stages(row)


def _check_stages(row: StudyRow) -> None:
    earlier: list[str] = []
    for number, stage in enumerate(row.stages):
        if stage.called in earlier:
            raise row.wrong(f"two stages are called '{stage.called}'; give one a name", "stages", number, "name")
        for key, wanted in stage.after.items():
            if wanted not in earlier:
                hint = did_you_mean(wanted, earlier) or (f"; there is {', '.join(earlier)}" if earlier else "")
                what = f"stage '{stage.called}': after.{key}: there is no earlier stage '{wanted}'{hint}"
                raise row.wrong(what, "stages", number, "after", key)
        earlier.append(stage.called)
    if row.stages[-1].verb not in WITH_HEAD:
        what = f"its last stage, '{earlier[-1]}', has no head to ask; end with {', '.join(WITH_HEAD)}"
        raise row.wrong(what, "stages", len(earlier) - 1, "verb")


def read_studies(files: Sequence[Path], words: Sequence[str] = ()) -> list[Study]:
    """Read study files; the shipped ones, in their order, when none is named.

    Args:
        files: The files, or names of shipped ones (`study/1-methods`).
        words: `key=value` for every row, or every stage of stacks that reads the key; `align.key=value` for the
            stages of one verb alone, which stands above the other wherever it is written.

    Raises:
        ConfigError: as `read_study`.
    """
    studies = [read_study(find_study(file)) for file in files or shipped_studies()]
    for study in studies:
        for part in (study, *study.rows, *(stage for row in study.rows for stage in row.stages)):
            part._told = tuple(words)
    return studies


def verb_of(word: str) -> str | None:
    """The verb whose stages alone a `key=value` word is for; None: it is for all."""
    first, dot, _ = word.partition("=")[0].partition(".")
    return first if dot and first in get_args(StackVerb) else None


def shipped_studies() -> list[Path]:
    """The files of `recipes/study/`, in the order in which they run: their names begin with a number."""
    return sorted((recipes_folder() / STUDIES).glob("*.yaml"))
