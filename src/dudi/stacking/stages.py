"""The five stages as a recipe asks for them: what each builds, trains and leaves behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
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
    """One stage, ready to run, anew or from the checkpoint `start`.

    `parallel` and `bitext` are texts with English: Stage 1 is measured on the ones, and learns from the others first.
    """

    config: StackConfig
    args: StackArguments
    rows: Sequence[StackRow]
    eval_rows: list[StackRow]
    parallel: list[StackRow]
    start: Path | None
    bitext: Sequence[StackRow] = ()

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
        return {"parents": self.config.model_dump(include={"encoder", "llm", "start", "teacher", "lora"})}


Made = tuple[PreTrainedModel, Source, PreTrainedTokenizerBase | None]
"""What a stage leaves: a model, what it reads with, and its LLM's own tokenizer where an encoder reads."""


def task_of(config: StackConfig) -> Task:
    """The task of a recipe; a ConfigError where its classes have no names, or the stage cannot learn it."""
    section = config.task
    if section.kind == "generation" and config.stage != "finetune":
        raise ConfigError(f"task.kind: generation is learned by dudi stack finetune, not by {config.stage}")
    if section.kind == "classification" and len(section.labels) < 2:
        raise ConfigError("task.labels: name the classes, in the order of their numbers: task.labels=[yes, no]")
    return Task(section.kind, tuple(section.labels), section.separator, section.prompt)


def adapt(job: StageJob) -> Made:
    """MNTP on a causal language model."""
    llm = job.config.llm
    model = load_model(
        str(llm.model), dtype=getattr(torch, training_dtype(job.args)), revision=llm.revision,
        attn_implementation=llm.attn_implementation, gguf_file=llm.gguf_file, keep_layers=llm.keep_layers,
    )  # fmt: skip
    source = _llm_source(job.config)
    if job.lora is None:
        raise ConfigError(
            "lora: null: adapt trains an adapter and merges it; leave `lora` out, or give its r and alpha"
        )
    mntp.adapt(model, source, job.rows, job.args, job.lora, resume=job.start, about=job.about)
    return model, source, None


def align(job: StageJob) -> Made:
    """Stage 1."""
    model, source, llm_source = open_stack(job)
    if llm_source is None:
        raise ConfigError("align: needs an encoder and an LLM")
    alignment.align(
        model, source, llm_source, job.rows, job.args, job.adapter_of(model), job.parallel,
        bitext=job.bitext, resume=job.start, about=job.about,
    )  # fmt: skip
    return model, source, llm_source.tokenizer


def teach(job: StageJob) -> Made:
    """Tune the LLM alone on the English task, and store its vectors of the training rows."""
    reader, source = _built(job, None), _llm_source(job.config)
    model = _tuned(job, reader, source)
    if job.args.process_index == 0:
        found = _vectors(job, model, source)
        stored.save_vectors(job.args.folder / stored.VECTORS, found, fingerprint(job.rows))
    return model, source, None


def distill(job: StageJob) -> Made:
    """Stage 2 from a teacher's vectors."""
    name = str(job.config.teacher.model)
    found = stored.load_vectors(Path(name).expanduser(), fingerprint(job.rows))
    if found is None:
        teacher, own_source, _ = stored.open_model(name)
        found = _vectors(job, on_device(teacher, job.args.device), own_source)
        del teacher
    model, source, llm_source = open_stack(job)
    llm_tokenizer = None if llm_source is None else llm_source.tokenizer
    taught = tasks.labels_of(building.read_config(stored.model_folder(name))[1])
    headed = tasks.distill(
        model, source, job.rows, task_of(job.config), found, stored.head_of(name), job.args, job.adapter_of(model),
        head_labels=taught, eval_rows=job.eval_rows, llm_tokenizer=llm_tokenizer, resume=job.start, about=job.about,
    )  # fmt: skip
    return headed, source, llm_tokenizer


def finetune(job: StageJob) -> Made:
    """The direct route: labels."""
    reader, source, llm_source = open_stack(job)
    llm_tokenizer = None if llm_source is None else llm_source.tokenizer
    return _tuned(job, reader, source, llm_tokenizer), source, llm_tokenizer


def _tuned(
    job: StageJob, reader: MTLLMModel, source: Source, llm_tokenizer: PreTrainedTokenizerBase | None = None
) -> MTLLMPreTrainedModel:
    """A reader with a head that has learned the task."""
    task = task_of(job.config)
    model = building.with_head(reader, task, seed=job.args.seed)
    return tasks.finetune(
        model, source, job.rows, task, job.args, job.adapter_of(model),
        eval_rows=job.eval_rows, llm_tokenizer=llm_tokenizer, resume=job.start, about=job.about,
    )  # fmt: skip


def _vectors(job: StageJob, teacher: MTLLMPreTrainedModel, source: Source) -> list[Tensor]:
    size, longest = job.args.per_device_eval_batch_size, job.args.max_length
    return tasks.vectors(teacher, source, job.rows, batch_size=size, max_length=longest)


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
    reader = _built(job, encoder)
    reader.config.codes = dict(config.encoder.codes) or None
    source = Source(load_tokenizer(encoder, revision=config.encoder.revision), config.encoder.codes)
    return reader, source, None if config.llm.model is None else _llm_source(config)


def _built(job: StageJob, encoder: str | None) -> MTLLMModel:
    config = job.config
    options = config.llm.model_dump(exclude={"model", "revision"})
    return building.build_stack(
        encoder,
        config.llm.model,
        dtype=training_dtype(job.args),
        seed=job.args.seed,
        revisions=(config.encoder.revision, config.llm.revision),
        **options,
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
