"""A recipe of `dudi train`: its sections and keys."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from dudi.config.layers import Origin
from dudi.config.recipe import Recipe
from dudi.config.recipe_files import refuse_other_verbs
from dudi.config.schema import LoraSection, ModelSection, Schema, Section, TrainingKey, keys_of
from dudi.data.built_in import SOURCES
from dudi.distill.keys import COLD_STARTS, METHOD_KEYS, DudiKeys, check_cold_start, method_default, refusal, unread
from dudi.distill.teacher_keys import DEFAULT, merge_keys
from dudi.errors import ConfigError
from dudi.objective.methods import METHODS
from dudi.training.keys import YAML_NAMES
from dudi.training.values import Place

if TYPE_CHECKING:
    from dudi.distill.arguments import DudiConfig


class TeacherSection(ModelSection):
    """The teacher; methods without one leave `model` empty."""

    model: Place | None = Field(default=None, description="As `student.model`; null: no second model.")  # type: ignore[assignment]
    device: str = Field(
        default="auto", description="Where the teacher lives: auto (the student's device), cpu, cuda:1 ..."
    )
    quantization: dict[str, Any] | None = Field(
        default=None, description="transformers' quantization config: {load_in_4bit: true}, {quant_method: gptq, ...}."
    )
    server: str | None = Field(
        default=None,
        description="Address of a server that holds the teacher (http://HOST:PORT); of `model` the tokenizer and the "
        "config are read (docs/served-teacher.md).",
    )
    server_timeout: float = Field(default=600.0, gt=0, description="Seconds to wait for an answer of `server`.")


OF_WEIGHTS = frozenset(("dtype", "attn_implementation", "gguf_file", "keep_layers", "device", "quantization"))
"""Keys of a teacher that say how its weights are loaded."""


class DataSection(Section):
    """The rows to train and evaluate on."""

    train: Place = Field(
        description="A JSONL or Parquet file, a folder, a hub name, or a built-in source (docs/data.md)."
    )
    eval: Place | None = Field(default=None, description="The same, for evaluation during training.")
    split: str = Field(default="train", description="Split of `data.train` on the hub or in a `datasets` folder.")
    eval_split: str | None = Field(
        default=None, description="Split of `data.eval`; alone, it names a split of `data.train`."
    )
    language: str | None = Field(default=None, description="The language of every row, where rows do not say it.")
    language_column: str = Field(default="language", description="The column that holds each row's language code.")
    max_rejected_share: float = Field(
        default=0.05, ge=0, le=1, description="The run stops when more rows than this are bad."
    )
    max_rows: int | None = Field(default=None, ge=1, description="Read at most this many rows.")
    rows_per_language: int | None = Field(
        default=None,
        ge=1,
        description="Rows per language of a built-in source, which alone reads it; null: the source's own number.",
    )
    tasks: list[str] | None = Field(
        default=None,
        description="Tasks of a built-in source that comes in tasks (docs/benchmark.md), to train on; null: all.",
    )


class BenchmarkSection(Section):
    """What a finished run is asked, and its base, cold start and teacher beside it."""

    name: Place | list[Place] = Field(
        description="A benchmark of `dudi eval` or a file of questions, or a list of them (docs/eval.md)."
    )
    part: Literal["test", "validation"] | None = Field(
        default=None, description="Of a benchmark in parts: `validation` to choose hyperparameters, `test` to report."
    )
    tasks: list[str] | None = Field(
        default=None, description="Tasks to ask about; null: those of `data.tasks`, or all."
    )
    per_split: int | None = Field(
        default=None, ge=1, description="At most this many questions per language and split; null: all."
    )
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Longest answer, the rest is cut; null: the benchmark's own."
    )
    batch_size: int = Field(default=64, ge=1, description="Questions that are decoded together.")
    languages: list[str] | None = Field(default=None, description="Only these; null: those of training, or all.")
    options: dict[str, Any] | None = Field(
        default=None, description="What only one benchmark takes, by the names of its own options (docs/eval.md)."
    )


SECTIONS: dict[str, type[Section]] = {
    "student": ModelSection,
    "teacher": TeacherSection,
    "data": DataSection,
    "lora": LoraSection,
    "benchmark": BenchmarkSection,
}


SHORTHAND: dict[str, str] = {
    "student": "model",
    "teacher": "model",
    "data": "train",
    "benchmark": "name",
    "teachers": "model",
}
"""A section given as text sets this key of it, and nothing else."""
FAMILIES: dict[str, type[Section]] = {"teachers": TeacherSection}
"""Sections by names of the recipe's own: languages, `default`, and values of a row's `teacher`."""


@functools.cache
def training_keys() -> Mapping[str, TrainingKey]:
    """All keys of `dudi train` by the name that YAML uses, its own in front of those of `TrainingArguments`."""
    from dudi.distill.arguments import DudiConfig

    return keys_of(DudiConfig)


DUDI = Schema(SECTIONS, SHORTHAND, training_keys, FAMILIES)


class RunConfig(Recipe):
    """Everything that `dudi train` needs to know.

    Attributes:
        teacher: The larger model; `teacher.model` is None for methods without one.
        teachers: Several of them instead, by language, by the value of a row's `teacher`, or `default`.
        training: The given keys of `DudiConfig`, by their Python names (`lmbda`); what is not here has its default.
    """

    schema_: ClassVar[Schema] = DUDI
    command: ClassVar[str] = "train"
    required: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("student", "model", "the model to train"),
        ("data", "train", "the rows to train on"),
    )

    student: ModelSection
    teacher: TeacherSection = Field(default_factory=TeacherSection)
    teachers: dict[str, TeacherSection] = Field(default_factory=dict)
    data: DataSection
    lora: LoraSection | None = None
    benchmark: BenchmarkSection | None = None

    _dropped: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def dropped(self) -> dict[str, Any]:
        """What bases gave to another method, by Python names: this one does not read it."""
        return dict(self._dropped)

    @property
    def main_teacher(self) -> TeacherSection:
        """The teacher of whatever nobody else is named for: the only one, `default`, or the first."""
        return next(iter(self.named_teachers.values()), self.teacher)

    @property
    def named_teachers(self) -> dict[str, TeacherSection]:
        """The second models, the main one in front: by their keys, joined where sections are equal (`my+ta`)."""
        if not self.teachers:
            return {} if self.teacher.model is None else {DEFAULT: self.teacher}
        return merge_keys(self.teachers)[0]

    @property
    def method(self) -> str:
        """The method's name: a key of `dudi.objective.methods.METHODS`."""
        return str(self.training.get("method", training_keys()["method"].default))

    def value(self, key: TrainingKey) -> Any:
        """The value of a training key: the given one, the method's own, or the default."""
        if key.name == "num_train_epochs" and METHODS[self.method].iterated:
            return float(self.training.get("spin_iterations", training_keys()["spin_iterations"].default))
        value = self.training.get(key.name)
        if value is None and key.name in METHOD_KEYS:
            return method_default(self.method, key.name, self.training)
        return self.training.get(key.name, key.default)

    def origin(self, key: str) -> Origin:
        """As of any recipe; what was left open comes from the `method`."""
        key = self.known(key)
        name = "lmbda" if key == "lambda" else key
        if name == "num_train_epochs" and METHODS[self.method].iterated:
            return "method"
        if name in METHOD_KEYS and self.training.get(name) is None:
            return "method"
        return super().origin(key)

    @property
    def named_places(self) -> dict[str, str | None]:
        """What the run reads, by the recipe's keys: names of models and of rows, which may be paths."""
        teachers = {f"{key}.model": one.model for key, one in self._teacher_sections().items()}
        data = {"data.train": self.data.train, "data.eval": self.data.eval}
        start = self.settings["cold_start"]
        folder = {} if start in COLD_STARTS else {"cold_start": str(start)}
        return {"student.model": self.student.model, **teachers, **data, **folder}

    def _teacher_sections(self) -> dict[str, TeacherSection]:
        """The teachers by the places that a recipe has for them: `teacher`, and `teachers.my`."""
        return {"teacher": self.teacher, **{f"teachers.{name}": one for name, one in self.teachers.items()}}

    def refuse_untold_code(self, told: Origin | None = "command line") -> None:
        """Let a model run code of its own only where a person says so: recipes are passed from hand to hand.

        Raises:
            ConfigError: it is said elsewhere than where it may be (`told`; None: nowhere).
        """
        for name, section in {"student": self.student, **self._teacher_sections()}.items():
            key = f"{name}.trust_remote_code"
            if section.trust_remote_code and self.origin(key) != told:
                raise ConfigError(
                    f"{self.place(key)}: {key}: a file may not let a model run its own code; if you trust the model, "
                    f"say {key}=true on the command line of `dudi train`"
                )

    def hold_together(self) -> None:
        """As of any recipe; and what nothing of this method reads is refused, or left behind where a base gave it.

        `method=` (or `cold_start=` and the like) brings another method over the keys of the layers below it.
        """
        super().hold_together()
        self._settle_teachers()
        self._settle_rows()
        values = self.settings
        for name, parts in unread(values | self.training, self.training).items():
            key = YAML_NAMES.get(name, name)
            given = self._sources[key]
            switches = {switch for part in parts for switch in part.switches} & self._sources.keys()
            if given.layer >= max((self._sources[switch].layer for switch in switches), default=0):
                raise ConfigError(f"{given.place}: {refusal(key, values, parts)}")
            value = self.training.pop(name)
            del self._sources[key]
            if name != "num_train_epochs":
                self._dropped[name] = value
            elif values["cold_start"] != "none" and values["cold_start_epochs"] is None:  # it would have had as many
                self.training["cold_start_epochs"], self._sources["cold_start_epochs"] = value, given
        try:
            check_cold_start(values["cold_start"])
        except ConfigError as error:
            raise ConfigError(self.placed(str(error))) from error
        other = values["teacher_top_k"] != DudiKeys.teacher_top_k  # a run's own recipe repeats the default
        if other and not any(one.server for one in self.named_teachers.values()):
            raise ConfigError(self.placed("teacher_top_k: no teacher has a `server`, which alone names so few tokens"))
        if (self.data.eval or self.data.eval_split) and not (
            values["eval_on_start"] or values["eval_strategy"] != "no" or values["teacher_weight"] == "auto"
        ):
            key = "data.eval" if self.data.eval else "data.eval_split"
            raise ConfigError(self.placed(f"{key}: nothing is evaluated on it; set eval_strategy: epoch, or steps"))

    def _settle_rows(self) -> None:
        """What built-in sources alone read is refused beside others, or left behind where a layer below gave it."""
        sources = {key: getattr(self.data, key) for key in ("train", "eval") if getattr(self.data, key) is not None}
        chosen = max(self._sources[f"data.{key}"].layer for key in sources)
        for name in ("rows_per_language", "tasks"):
            readers = [one for one, source in SOURCES.items() if name in source.reads]
            if getattr(self.data, name) is None or not set(readers).isdisjoint(sources.values()):
                continue
            key = f"data.{name}"
            given = self._sources[key]
            # A run's own recipe of an earlier version has in one file what lay in two.
            resolved = Path(given.place.rpartition(":")[0]).name == "resolved.yaml"
            if given.layer >= chosen and not resolved:
                raise ConfigError(
                    f"{given.place}: {key}: {self.data.train} does not read it: it belongs to the built-in source "
                    f"{' or '.join(readers)}; take it out"
                )
            setattr(self.data, name, None)
            del self._sources[key]

    def _settle_teachers(self) -> None:
        """One way of naming teachers: the one that the upper layer takes, where a base has the other."""
        for name, section in self._teacher_sections().items():
            if section.model is None and name != "teacher":
                raise ConfigError(f"{self.place(name)}: {name}.model is missing: name its model")
            if section.server is None:
                continue
            if section.model is None:
                raise ConfigError(f"{self.place(f'{name}.server')}: {name}.model is missing: it names the tokenizer")
            for key in OF_WEIGHTS & section.model_fields_set:
                if getattr(section, key) != TeacherSection.model_fields[key].default:
                    key = f"{name}.{key}"
                    raise ConfigError(
                        f"{self.place(key)}: {key}: is the server's affair; take it out, or {name}.server"
                    )
        if not self.teachers or self.teacher.model is None:
            return
        one = self._sources["teacher.model"].layer
        several = max(source.layer for key, source in self._sources.items() if key.startswith("teachers."))
        if one == several:
            place = self.place("teacher.model")
            raise ConfigError(
                f"{place}: teacher: there are `teachers` too; make it `teachers.default`, or take one out"
            )
        lower = "teacher" if one < several else "teachers"
        setattr(self, lower, TeacherSection() if lower == "teacher" else {})
        for key in [key for key in self._sources if key.partition(".")[0] == lower]:
            del self._sources[key]

    def dudi_config(self, output_dir: str | Path, **changes: Any) -> DudiConfig:
        """The run's `DudiConfig`; arguments and errors as in `arguments`."""
        from dudi.distill.arguments import DudiConfig

        return self.arguments(DudiConfig, output_dir, **changes)


load_run_config = RunConfig.load
"""Reads a recipe of `dudi train`."""


def load_named(name: str, overrides: Sequence[str]) -> RunConfig:
    """The recipe (a file, or a shipped one's name) that a person names behind a verb, with their `key=value` words.

    Raises:
        ConfigError: as `load_run_config`; it is one of `dudi stack`, or a file would let a model run its own code.
    """
    refuse_other_verbs(name, stacks=False)
    config = load_run_config(name, overrides)
    config.refuse_untold_code()
    return config
