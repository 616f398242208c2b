"""The five stages as a recipe asks for them: what each builds, trains and leaves behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi.errors import ConfigError
from dudi.models.load import load_model, load_tokenizer
from dudi.stacking import alignment, building, mntp, stored, tasks
from dudi.stacking.arguments import StackArguments
from dudi.stacking.lora import LoraSettings
from dudi.stacking.modeling import MTLLMModel, MTLLMPreTrainedModel, on_device
from dudi.stacking.recipe import StackConfig
from dudi.stacking.rows import StackRow, Task, fingerprint
from dudi.stacking.tokens import Source
from dudi.training.arguments import training_dtype


@dataclasses.dataclass(frozen=True, slots=True)
class StageJob:
    """One stage, ready to run.

    Attributes:
        config: The recipe.
        args: Its training keys.
        rows: What it is trained on.
        eval_rows: For evaluation during training.
        parallel: Texts with English, for Stage 1.
        start: The checkpoint to go on from.
        bitext: Texts with English that Stage 1 learns from first.

    Raises:
        ConfigError: the recipe lacks a model that the stage needs.
    """

    config: StackConfig
    args: StackArguments
    rows: Sequence[StackRow]
    eval_rows: list[StackRow]
    parallel: list[StackRow]
    start: Path | None
    bitext: Sequence[StackRow] = ()

    def __post_init__(self) -> None:
        self.config.check_models()

    @property
    def lora(self) -> LoraSettings | None:
        """The adapter that the recipe asks for."""
        section = self.config.lora
        return None if section is None else LoraSettings(**section.model_dump())

    def adapter_of(self, model: MTLLMPreTrainedModel) -> LoraSettings | None:
        """The adapter that is trained: the one that a model of an earlier stage brings along, else the recipe's."""
        return self.lora if model.config.lora is None else LoraSettings(**model.config.lora)

    @property
    def about(self) -> dict[str, Any]:
        """The parents: what a checkpoint belongs to, beside its keys and rows."""
        names = ("encoder", "llm", "start", "teacher", "lora")
        return {"parents": {name: self.config.model_dump(include={name})[name] for name in names}}


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """What a stage leaves: a model and the tokenizers that are saved with it.

    Attributes:
        model: The model.
        tokenizer: That it reads with.
        llm_tokenizer: Of its LLM.
        stand_ins: Languages of the rows that were read as others: {"hin_Latn": "hin_Deva, since ..."}.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    llm_tokenizer: PreTrainedTokenizerBase | None = None
    stand_ins: Mapping[str, str] = dataclasses.field(default_factory=dict)


def task_of(config: StackConfig) -> Task:
    """The task of a recipe.

    Raises:
        ConfigError: classes without names, or a stage that cannot learn the task.
    """
    section = config.task
    if section.kind == "generation" and config.stage != "finetune":
        raise ConfigError(f"task.kind: generation is learned by dudi stack finetune, not by {config.stage}")
    if section.kind == "classification" and len(section.labels) < 2:
        raise ConfigError("task.labels: name the classes, in the order of their numbers: task.labels=[yes, no]")
    return Task(section.kind, tuple(section.labels), section.separator, section.prompt)


def adapt(job: StageJob) -> Made:
    """MNTP on a causal language model."""
    name = str(job.config.llm.model)
    dtype = getattr(torch, training_dtype(job.args))
    llm = job.config.llm
    model = load_model(
        name, dtype=dtype, revision=llm.revision, attn_implementation=llm.attn_implementation,
        gguf_file=llm.gguf_file, keep_layers=llm.keep_layers,
    )  # fmt: skip
    source = _llm_source(job.config)
    if job.lora is None:
        raise ConfigError(
            "lora: null: adapt trains an adapter and merges it; leave `lora` out, or give its r and alpha"
        )
    mntp.adapt(model, source, job.rows, job.args, job.lora, resume=job.start, about=job.about)
    return Made(model, source.tokenizer)


def align(job: StageJob) -> Made:
    """Stage 1."""
    model, source, llm_source = open_stack(job)
    if llm_source is None:
        raise ConfigError("align: needs an encoder and an LLM")
    alignment.align(
        model, source, llm_source, job.rows, job.args, job.adapter_of(model), job.parallel,
        bitext=job.bitext, resume=job.start, about=job.about,
    )  # fmt: skip
    return Made(model, source.tokenizer, llm_source.tokenizer, source.stand_ins)


def teach(job: StageJob) -> Made:
    """Tune the LLM alone on the English task, and store its vectors of the training rows."""
    reader, source = _built(job, None, job.config.llm.model), _llm_source(job.config)
    task = task_of(job.config)
    model = building.with_head(reader, task, seed=job.args.seed)
    tasks.finetune(
        model, source, job.rows, task, job.args, job.lora,
        eval_rows=job.eval_rows, resume=job.start, about=job.about,
    )  # fmt: skip
    if job.args.process_index == 0:
        options = {"batch_size": job.args.per_device_eval_batch_size, "max_length": job.args.max_length}
        found = tasks.vectors(model, source, job.rows, **options)
        stored.save_vectors(job.args.folder / stored.VECTORS, found, fingerprint(job.rows))
    return Made(model, source.tokenizer)


def distill(job: StageJob) -> Made:
    """Stage 2 from a teacher's vectors."""
    name = str(job.config.teacher.model)
    found = stored.load_vectors(Path(name).expanduser(), fingerprint(job.rows))
    if found is None:
        options = {"batch_size": job.args.per_device_eval_batch_size, "max_length": job.args.max_length}
        teacher, own_source, _ = stored.open_model(name)
        found = tasks.vectors(on_device(teacher, job.args.device), own_source, job.rows, **options)
        del teacher
    model, source, llm_source = open_stack(job)
    llm_tokenizer = None if llm_source is None else llm_source.tokenizer
    taught = tasks.labels_of(building.read_config(stored.model_folder(name))[1])
    headed = tasks.distill(
        model, source, job.rows, task_of(job.config), found, stored.head_of(name), job.args, job.adapter_of(model),
        head_labels=taught, eval_rows=job.eval_rows, llm_tokenizer=llm_tokenizer, resume=job.start, about=job.about,
    )  # fmt: skip
    return Made(headed, source.tokenizer, llm_tokenizer, source.stand_ins)


def finetune(job: StageJob) -> Made:
    """The direct route: labels."""
    reader, source, llm_source = open_stack(job)
    llm_tokenizer = None if llm_source is None else llm_source.tokenizer
    task = task_of(job.config)
    model = building.with_head(reader, task, seed=job.args.seed)
    tasks.finetune(
        model, source, job.rows, task, job.args, job.adapter_of(model),
        eval_rows=job.eval_rows, llm_tokenizer=llm_tokenizer, resume=job.start, about=job.about,
    )  # fmt: skip
    return Made(model, source.tokenizer, llm_tokenizer, source.stand_ins)


def open_stack(job: StageJob) -> tuple[MTLLMModel, Source, Source | None]:
    """The reader to train: an earlier stage's, or a new one of the recipe's parents; with its tokenizers."""
    config = job.config
    if config.start.model is not None:
        model, source, llm_source = stored.open_model(
            config.start.model, dtype=training_dtype(job.args), codes=config.encoder.codes
        )
        model.reader.config.codes = source.codes or None
        return model.reader, source, llm_source
    encoder = str(config.encoder.model)
    reader = _built(job, encoder, config.llm.model)
    reader.config.codes = dict(config.encoder.codes) or None
    source = Source(load_tokenizer(encoder, revision=config.encoder.revision), config.encoder.codes)
    return reader, source, None if config.llm.model is None else _llm_source(config)


def _built(job: StageJob, encoder: str | None, llm: str | None) -> MTLLMModel:
    config = job.config
    return building.build_stack(
        encoder,
        llm,
        adapters=config.llm.adapters,
        attention=config.llm.attention,
        dtype=training_dtype(job.args),
        seed=job.args.seed,
        revisions=(config.encoder.revision, config.llm.revision),
        attn_implementation=config.llm.attn_implementation,
        gguf_file=config.llm.gguf_file,
        keep_layers=config.llm.keep_layers,
    )


def _llm_source(config: StackConfig) -> Source:
    llm = config.llm
    return Source(load_tokenizer(str(llm.model), revision=llm.revision, gguf_file=llm.gguf_file))


STAGES: dict[str, Callable[[StageJob], Made]] = {
    "adapt": adapt,
    "align": align,
    "teach": teach,
    "distill": distill,
    "finetune": finetune,
}
WITH_TASK = frozenset({"teach", "distill", "finetune"})
