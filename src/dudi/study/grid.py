"""A study file: which runs make up a table, and what the paper has in its place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dudi.config.recipe_files import STUDIES, recipes_folder
from dudi.errors import ConfigError, did_you_mean
from dudi.evaluation.metrics import METRICS

View = Literal["language", "split", "kind", "task", "overall"]
Subject = Literal["student", "cold_start"]
StackVerb = Literal["adapt", "align", "teach", "distill", "finetune"]
WITH_HEAD = ("teach", "distill", "finetune")
"""The stages that can be asked."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StudyStage(_Part):
    """One stage of a row that is a stack: what `dudi stack VERB RECIPE` trains."""

    verb: StackVerb
    recipe: str = Field(description="A file, relative to the study's, or the name of a shipped recipe.")
    name: str = Field(default="", description="What later stages of the row call it; empty: its verb.")
    task: str | None = Field(default=None, description="A folder of `dudi stack prepare`: rows and labels are its.")
    keys: dict[str, Any] = Field(default_factory=dict, description="What the stage sets over its recipe.")
    after: dict[str, str] = Field(
        default_factory=dict,
        description="Keys that are an earlier stage of the row, by its name: {start: align, teacher: teach}.",
    )

    @property
    def called(self) -> str:
        """Its name in the row."""
        return self.name or self.verb

    @property
    def words(self) -> tuple[str, ...]:
        """The keys as `dudi stack` takes them on the command line."""
        return words_of(self.keys)


class Asked(_Part):
    """What a study of stacks asks: the rows of `dudi stack eval`, and its options where they are not its defaults."""

    rows: str = Field(description="Labelled rows: a folder of `dudi stack prepare`, a file, a pattern, or a hub name.")
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

    @property
    def words(self) -> tuple[str, ...]:
        """The rows and the options as `dudi stack eval` takes them."""
        words = [self.rows]
        for name, value in self.model_dump(exclude={"rows"}, exclude_none=True).items():
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
        return tuple(words)


class StudyRow(_Part):
    """One row of a table."""

    name: str = Field(description="What the table calls it.")
    keys: dict[str, Any] = Field(default_factory=dict, description="What the row sets over the study's recipe.")
    stages: tuple[StudyStage, ...] = Field(
        default=(), description="In the place of `keys`: the stages of a stack, in order; the last one is asked."
    )
    translate: str | None = Field(
        default=None, description="Of a stack: the MT model that puts what is asked into English (translate-test)."
    )
    score: Subject = Field(
        default="student", description="`cold_start`: this row is what the others start from, and no second stage runs."
    )
    paper: float | None = Field(default=None, description="The paper's average for this row.")

    @property
    def words(self) -> tuple[str, ...]:
        """The keys as `dudi train` takes them on the command line."""
        return words_of(self.keys)


def words_of(keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys as `key=value` words of a command line."""
    return tuple(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in keys.items())


class Study(_Part):
    """One table."""

    name: str
    file: Path
    title: str
    about: str = ""
    recipe: str = Field(default="", description="The recipe that every row starts from, relative to the study's file.")
    asked: Asked | None = Field(
        default=None, description="Of a study of stacks, in the place of `recipe`: the rows that they are asked about."
    )
    seeds: int = Field(ge=1, description="How many, from 0 on.")
    views: tuple[View, ...] = ("language",)
    metrics: tuple[str, ...] = Field(
        default=(),
        description="Of students: what the tables show, one after the other; empty: exact match. Of stacks: accuracy.",
    )
    candidate: str | None = Field(default=None, description="The row whose diamonds are shown.")
    rivals: tuple[str, ...] = Field(
        default=(), description="The rows that the candidate is tested against, each; empty: the best other overall."
    )
    baseline: str | None = Field(default=None, description="The row that differences are taken from.")
    size: bool = Field(default=False, description="Draw the rows in score against size, the paper's Figure 1.")
    curves: tuple[str, ...] = Field(default=(), description="Metrics of `metrics.jsonl` that are drawn over the steps.")
    cost: bool = Field(default=False, description="Count the FLOPs of every row.")
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
        ConfigError: it cannot be read, a key is unknown or of the wrong type, or a name is missing or there twice.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: a study is a mapping with title, seeds, rows, and recipe or asked")
    try:
        study = Study(name=file.stem, file=file, **content)
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{file}: {_first_problem(error)}") from error
    _check_names(study)
    if both := [row.name for row in study.rows if row.keys and row.stages]:
        raise ConfigError(f"{file}: row '{both[0]}': has both keys and stages; the keys of a stage are its own")
    if study.asked is None:
        _check_students(study)
    else:
        _check_stacks(study)
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
    rivals = [("rivals", name) for name in study.rivals]
    for key, wanted in (("candidate", study.candidate), ("baseline", study.baseline), *rivals):
        if wanted is not None and wanted not in names:
            raise ConfigError(f"{study.file}: {key}: there is no row '{wanted}'{did_you_mean(wanted, names)}")
    if study.rivals and (study.candidate is None or study.candidate in study.rivals):
        raise ConfigError(f"{study.file}: rivals: are the others that a `candidate` is tested against")


def _check_students(study: Study) -> None:
    """Rows that `dudi train` runs."""
    for row in study.rows:
        if row.stages or row.translate:
            raise ConfigError(
                f"{study.file}: row '{row.name}': a stack is asked about rows that the study names: "
                "asked: ROWS, as `dudi stack eval` takes them"
            )
    if not study.recipe:
        raise ConfigError(f"{study.file}: recipe: name the recipe that every row starts from")
    if not study.recipe_path.is_file():
        raise ConfigError(f"{study.file}: recipe: there is no file {study.recipe_path}")


def _check_stacks(study: Study) -> None:
    """Rows that `dudi stack` runs."""
    names = ("recipe", "cost", "size", "curves", "metrics")
    given = {name: getattr(study, name) for name in names}
    if foreign := [key for key, value in given.items() if value]:
        raise ConfigError(f"{study.file}: {foreign[0]}: is of studies of `dudi train`, and `asked` of stacks")
    for row in study.rows:
        where = f"{study.file}: row '{row.name}'"
        if row.keys or not row.stages or row.score != "student":
            raise ConfigError(f"{where}: is no stack; where a study has `asked`, every row has stages and no score")
        _check_stages(row, where)


def _check_stages(row: StudyRow, where: str) -> None:
    earlier: list[str] = []
    for stage in row.stages:
        if stage.called in earlier:
            raise ConfigError(f"{where}: two stages are called '{stage.called}'; give one a name")
        for key, wanted in stage.after.items():
            if wanted not in earlier:
                hint = did_you_mean(wanted, earlier) or (f"; there is {', '.join(earlier)}" if earlier else "")
                raise ConfigError(
                    f"{where}: stage '{stage.called}': after.{key}: there is no earlier stage '{wanted}'{hint}"
                )
        earlier.append(stage.called)
    if row.stages[-1].verb not in WITH_HEAD:
        raise ConfigError(
            f"{where}: its last stage, '{earlier[-1]}', has no head to ask; end with {', '.join(WITH_HEAD)}"
        )


def read_studies(files: Sequence[Path]) -> list[Study]:
    """Read study files; the shipped ones, in their order, when none is named.

    Raises:
        ConfigError: as `read_study`.
    """
    return [read_study(file) for file in files or shipped_studies()]


def shipped_studies() -> list[Path]:
    """The files of `recipes/study/`, in the order in which they run: their names begin with a number."""
    return sorted((recipes_folder() / STUDIES).glob("*.yaml"))
