"""Rows that are stacks: their stages, of which those that several rows share are trained once, and who is asked."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from dudi.config.layers import COMMAND_LINE, PlacedWord
from dudi.data.locate import asked_split
from dudi.data.records import records_of
from dudi.errors import ConfigError, DudiError, EnvironmentFault
from dudi.evaluation.records import STUDENT
from dudi.models.load import find_model, locate
from dudi.stacking.recipe import StackConfig, load_stack_config, read_words, readers_of
from dudi.stacking.set_card import task_words
from dudi.stacking.stages import task_of
from dudi.stacking.stored import MODEL, model_folder
from dudi.study.grid import WITH_HEAD, Study, StudyRow, verb_of
from dudi.study.identity import files_of, key_from, own_settings, weights
from dudi.training import checkpoints

_READS = {
    "adapt": ("llm",),
    "align": ("encoder", "llm", "start"),
    "teach": ("llm",),
    "distill": ("encoder", "llm", "start", "teacher"),
    "finetune": ("encoder", "llm", "start"),
}
"""The models that a stage reads, of those that its recipe names."""
_RUNS = ("start", "teacher")
_Kind = Literal["run", "part", "translator"]
"""Keys that take a run's folder, and find the model in it; others take the model's."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One stage of one seed, whichever rows have it.

    Attributes:
        verb: Of `dudi stack`.
        key: Hash of all that it depends on but the seed, the stages before it included.
        seed: Its seed.
        recipe: A file, or the name of a shipped recipe.
        words: `key=value` over the recipe.
        after: Keys that are an earlier stage, each with that stage's `id`.
    """

    verb: str
    key: str
    seed: int
    recipe: str
    words: tuple[str, ...]
    after: tuple[tuple[str, str], ...]

    @property
    def id(self) -> str:
        """Its name, and that of its folder, which is a run's folder."""
        return f"{self.verb}-{self.key}/seed-{self.seed}"

    def config(self) -> StackConfig:
        """Its recipe; an earlier stage is named by its `id`, which is no folder yet."""
        return _config(self.recipe, self.verb, (*self.words, *(f"{key}={stage}" for key, stage in self.after)))

    def command(self, runs: Path) -> list[str]:
        """What follows `dudi stack`."""
        before = [
            f"{key}={runs / stage if key.partition('.')[0] in _RUNS else runs / stage / MODEL}"
            for key, stage in self.after
        ]
        words = [*self.words, *before, f"seed={self.seed}", "--output", str(runs / self.id)]
        return [self.verb, self.recipe, *words]

    def is_trained(self, runs: Path) -> bool:
        """Whether its folder holds the model, whole."""
        model = runs / self.id / MODEL
        checkpoints.settle(model)
        try:
            return model.is_dir() and bool(checkpoints.verify(model))
        except ConfigError:  # damaged: trained again
            return False


@dataclasses.dataclass(frozen=True, slots=True)
class StackJob:
    """A row at one seed: its stages, and what the last one is asked.

    Attributes:
        key: Hash of all that the answers depend on but the seed.
        seed: The seed of every stage.
        stages: In order.
        asked: What follows the system in `dudi stack eval`: rows and options.
        translate: The words of translate-test, which name its MT model; else none.
        subjects: Who is asked.
    """

    kind: ClassVar[Literal["stack"]] = "stack"

    key: str
    seed: int
    stages: tuple[Stage, ...]
    asked: tuple[str, ...]
    translate: tuple[str, ...] = ()
    subjects: tuple[str, ...] = (STUDENT,)

    @property
    def id(self) -> str:
        """Its name, and that of its folder, which holds scores and answers."""
        return f"{self.kind}-{self.key}/seed-{self.seed}"

    @property
    def like(self) -> str:
        """What jobs that take about as long have in common: the stages."""
        return ", ".join(stage.verb for stage in self.stages)

    @property
    def recipe(self) -> str:
        """Of its last stage."""
        return self.stages[-1].recipe

    @property
    def words(self) -> tuple[str, ...]:
        """What tells it from others, for a person: all stages, the words of the last one, and whether it translates."""
        return (self.like, *self.stages[-1].words, *self.translate)

    def asking(self, runs: Path) -> list[str]:
        """What follows `dudi stack` to ask it."""
        system = f"{STUDENT}={runs / self.stages[-1].id}"
        return ["eval", system, *self.asked, *self.translate, "--output", str(runs / self.id)]

    def commands(self, runs: Path) -> list[str]:
        """The same as lines for a shell, in this order, without stages that are trained already."""
        lines = [stage.command(runs) for stage in self.stages if not stage.is_trained(runs)]
        return [shlex.join(["dudi", "stack", *line]) for line in (*lines, self.asking(runs))]


def stack_job(study: Study, row: StudyRow, seed: int) -> StackJob:
    """What gives a stack its score at one seed.

    Raises:
        ConfigError: a recipe or a key is wrong; with the study's file, the row and the stage.
    """
    assert study.asked is not None
    stages = _stages(study, row, seed)
    translator = None if row.translate is None else (row.translate, weights(row.translate))
    key = key_from([stages[-1].key, study.asked.words, files_of(study.asked.rows), translator])
    if row.translate is None:
        return StackJob(key, seed, stages, study.asked.untranslated)
    return StackJob(key, seed, stages, study.asked.words, ("--translate", row.translate))


def _stages(study: Study, row: StudyRow, seed: int) -> tuple[Stage, ...]:
    made: dict[str, Stage] = {}
    for one in row.stages:
        earlier = {key: made[name] for key, name in one.after.items()}
        beside = study.file.parent / one.recipe
        recipe = str(beside.resolve()) if beside.is_file() else one.recipe
        try:
            said = (*read_words(one.verb, one.told), *one.told_alone)
            task = () if one.task is None else read_words(one.verb, task_words(Path(one.task), (*said, *one.words)))
            words = (*said, *(PlacedWord(word, one.place("task")) for word in task), *one.words)
            # An earlier stage stands in a stage's key by its own: wherever the runs lie, and whichever seed.
            told = tuple(
                PlacedWord(f"{key}={stage.verb}-{stage.key}", one.place("after", key)) for key, stage in earlier.items()
            )
            key = _key_of(one.verb, recipe, (*words, *told))
        except ConfigError as error:
            if str(error).startswith(f"{study.file}:"):  # a key of the stage, with its line
                raise
            raise ConfigError(f"{one.place()}: row '{row.name}': stage '{one.called}': {error}") from error
        after = tuple((key, stage.id) for key, stage in earlier.items())
        made[one.called] = Stage(one.verb, key, seed, recipe, words, after)
    return tuple(made.values())


_config = functools.cache(load_stack_config)


@functools.cache
def _key_of(verb: str, recipe: str, words: tuple[str, ...]) -> str:
    """Hash of what a stage trains, as `jobs.key_of`: what a recipe names and the stage does not read changes none."""
    config = _config(recipe, verb, words)
    tree = config.model_dump(exclude={"training", "dtype"}, exclude_defaults=True)
    read = _READS[verb]
    if "start" in read and config.start.model is not None:  # in the place of the two
        read = tuple(name for name in read if name not in ("encoder", "llm"))
        tree["codes"] = config.encoder.codes
    for name in {"encoder", "llm", "start", "teacher"} - {*read}:
        tree.pop(name, None)
    named = [str(tree[name]["model"]) for name in read if tree.get(name, {}).get("model")]
    named += tree.get("llm", {}).get("adapters", [])
    # A model, a GGUF file in its folder, or a run.
    tree["weights"] = [weights(one) or weights(one, config.llm.gguf_file) or weights(f"{one}/{MODEL}") for one in named]
    sources = (config.data.train, config.data.eval, config.data.parallel, config.data.bitext)
    tree["files"] = {str(source): files_of(str(source)) for source in sources if source}
    return key_from([tree, own_settings(config, config.settings), config.dtype])


def check_words(studies: Sequence[Study], words: Sequence[str]) -> None:
    """Refuse words of the command line that no row of some studies reads: the page would name them all the same.

    Args:
        studies: The tables that the words are for.
        words: `key=value`, or `align.key=value`.

    Raises:
        ConfigError: naming the word, and who would read it. A key that there is not is the recipe's to refuse.
    """
    if any(study.asked is None for study in studies):
        return  # rows of students read every word, and refuse what they do not know
    verbs = dict.fromkeys(stage.verb for study in studies for row in study.rows for stage in row.stages)
    for word in words:
        verb, key = verb_of(word), word.partition("=")[0]
        readers = readers_of(key) if verb is None else (verb,)
        if readers and not set(readers) & set(verbs):
            raise ConfigError(
                f"{COMMAND_LINE}: {key}: no row of these studies reads it: it belongs to {' or '.join(readers)}; take "
                "it out"
            )


def check_stages(study: Study) -> dict[str, str]:
    """Look for what a study of stacks needs before its first stage, not after its last: models, labels and rows.

    Returns:
        Models on the hub that cannot be looked for from here, each with why.

    Raises:
        ConfigError: a stage names no model or no labels, or there is no such file or folder; with the study's file.
        DataError: a file of a model is damaged or hostile.
    """
    assert study.asked is not None
    unknown: dict[str, str] = {}
    for row in study.rows:
        where = f"{row.place()}: row '{row.name}'"
        if row.translate is not None:
            try:
                why = _why_unknown(row.translate, None, None, "translate", "translator")
            except DudiError as error:
                raise type(error)(f"{row.place('translate')}: row '{row.name}': {error}") from error
            unknown |= {row.translate: why} if why else {}
        for stage, own in zip(_stages(study, row, 0), row.stages, strict=True):
            config = stage.config()
            try:
                config.check_models()
                if stage.verb in WITH_HEAD:
                    task_of(config)
            except ConfigError as error:
                key = str(error).partition(":")[0].removesuffix(".model")
                raise ConfigError(
                    f"{where}: stage '{own.called}': {error}. Set it in the stage's `keys`, or for every row on the "
                    f"command line: {key}=..."
                ) from error
            try:
                unknown |= _look_for_models(stage, config)
            except DudiError as error:
                raise type(error)(f"{where}: stage '{own.called}': {error}") from error
            _look_for(f"{where}: data.train", str(config.data.train), config.data.split)
    rows = study.asked.rows
    _look_for(f"{study.place('asked', 'rows')}: asked", rows, asked_split(rows, study.asked.split))
    return unknown


def _look_for_models(stage: Stage, config: StackConfig) -> dict[str, str]:
    """Look for the models that a stage reads and no stage before it makes; what cannot be looked for, and why.

    Raises:
        ConfigError, DataError: as in `check_stages`; with the key.
    """
    read, unknown = set(_READS[stage.verb]), {}
    if "start" in read and config.start.model is not None:  # in the place of the two
        read -= {"encoder", "llm"}
    read -= {key.partition(".")[0] for key, _ in stage.after}
    for name in sorted(read):
        section = getattr(config, name)
        if section.model is not None:
            gguf_file = section.gguf_file if name == "llm" else None
            revision = None if name in _RUNS else section.revision
            kind: _Kind = "run" if name in _RUNS else "part"
            if why := _why_unknown(section.model, revision, gguf_file, f"{name}.model", kind):
                unknown[section.model] = why
    return unknown


@functools.cache
def _why_unknown(name: str, revision: str | None, gguf_file: str | None, key: str, kind: _Kind) -> str:
    """Why a model cannot be looked for from here; empty where it is there.

    A translator's weights may be of any kind that `transformers` reads.

    Raises:
        ConfigError: there is none; with the key.
        DataError: a file of it is damaged or hostile.
    """
    try:
        if kind == "run":
            model_folder(name)
        elif kind == "part" or not (Path(locate(name)) / "config.json").is_file():
            find_model(name, revision=revision, gguf_file=gguf_file)
    except EnvironmentFault as error:
        return str(error)
    except DudiError as error:
        raise type(error)(f"{key}: {error}") from error
    return ""


def _look_for(where: str, source: str, split: str) -> None:
    try:
        records_of(source, split)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
