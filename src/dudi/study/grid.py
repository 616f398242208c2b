"""A study file: which runs make up a table, and what the paper has in its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dudi.config.recipe_files import STUDIES, recipes_folder
from dudi.errors import ConfigError, did_you_mean

View = Literal["language", "split", "kind"]
Subject = Literal["student", "cold_start"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StudyRow(_Part):
    """One row of a table."""

    name: str = Field(description="What the table calls it.")
    keys: dict[str, Any] = Field(default_factory=dict, description="What the row sets over the study's recipe.")
    score: Subject = Field(
        default="student", description="`cold_start`: this row is what the others start from, and no second stage runs."
    )
    paper: float | None = Field(default=None, description="The paper's average for this row.")

    @property
    def words(self) -> tuple[str, ...]:
        """The keys as `dudi train` takes them on the command line."""
        return tuple(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in self.keys.items())


class Study(_Part):
    """One table."""

    name: str
    file: Path
    title: str
    about: str = ""
    recipe: str = Field(description="The recipe that every row starts from, relative to the study's file.")
    seeds: int = Field(ge=1, description="How many, from 0 on.")
    views: tuple[View, ...] = ("language",)
    candidate: str | None = Field(default=None, description="The row whose diamonds are shown.")
    baseline: str | None = Field(default=None, description="The row that differences are taken from.")
    size: bool = Field(default=False, description="Draw the rows in score against size, the paper's Figure 1.")
    curves: tuple[str, ...] = Field(default=(), description="Metrics of `metrics.jsonl` that are drawn over the steps.")
    cost: bool = Field(default=False, description="Count the FLOPs of every row.")
    rows: tuple[StudyRow, ...]

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
        ConfigError: it cannot be read, a key is unknown or of the wrong type, or a name is missing or there twice.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: a study is a mapping with title, recipe, seeds and rows")
    try:
        study = Study(name=file.stem, file=file, **content)
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{file}: {_first_problem(error)}") from error
    _check_names(study)
    return study


def _first_problem(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return "`name` and `file` are not keys of a study: its name is the file's"
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def _check_names(study: Study) -> None:
    names = [row.name for row in study.rows]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{study.file}: two rows are called '{name}'")
    for key, wanted in (("candidate", study.candidate), ("baseline", study.baseline)):
        if wanted is not None and wanted not in names:
            raise ConfigError(f"{study.file}: {key}: there is no row '{wanted}'{did_you_mean(wanted, names)}")
    if not study.recipe_path.is_file():
        raise ConfigError(f"{study.file}: recipe: there is no file {study.recipe_path}")


def read_studies(files: Sequence[Path]) -> list[Study]:
    """Read study files; the shipped ones, in their order, when none is named.

    Raises:
        ConfigError: as `read_study`.
    """
    return [read_study(file) for file in files or shipped_studies()]


def shipped_studies() -> list[Path]:
    """The files of `recipes/study/`, in the order in which they run: their names begin with a number."""
    return sorted((recipes_folder() / STUDIES).glob("*.yaml"))
