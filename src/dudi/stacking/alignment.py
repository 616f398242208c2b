"""Stage 1: the stack learns to give the vectors that its own LLM gives, on English text without labels."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dudi.errors import ConfigError
from dudi.models.frozen import evaluating
from dudi.stacking import assembly, building, lora, parts
from dudi.stacking.arguments import StackArguments
from dudi.stacking.checks import check_reader
from dudi.stacking.connector import start_connector
from dudi.stacking.curriculum import Curriculum
from dudi.stacking.disturbing import Disturbance
from dudi.stacking.modeling import MTLLMModel, on_device
from dudi.stacking.probing import probe
from dudi.stacking.rows import StackRow
from dudi.stacking.store import TextRows
from dudi.stacking.tokens import SHORTENED, Source, read_inputs
from dudi.stacking.trainer import Batch, Objective, StackTrainer, Sums, check_there, run, trainable, trainable_lora

TAUGHT_IDS, TAUGHT_MASK = "taught_input_ids", "taught_attention_mask"
"""What the LLM alone reads of a text: the teacher of Stage 1."""


class AlignmentLoss(Objective):
    """Mean squared error between the stack's pooled vector and the LLM's own, as it was before Stage 1.

    Args:
        source: The encoder's tokenizer.
        llm_source: The LLM's.
        args: The keys.
        parallel: Rows with their English, for the probe.
        teacher: Holds the LLM as it was; None: it is the model's own with the adapter off.
    """

    stage = "align"

    def __init__(
        self,
        source: Source,
        llm_source: Source,
        args: StackArguments,
        parallel: Sequence[StackRow] = (),
        teacher: MTLLMModel | None = None,
    ) -> None:
        super().__init__(source, args, llm_source.tokenizer)
        self.teacher, self.llm_source = teacher, llm_source
        self.parallel = limited(parallel, args.probe_rows)

    def collate(self, rows: Sequence[StackRow], places: Sequence[int]) -> Batch:
        """The texts as both tokenizers write them; of a row that names its `english` the LLM alone reads that."""
        texts = [StackRow(row.text, row.language) for row in rows]
        batch = self.source.collate(self.source.encode_rows(texts, max_length=self.args.max_length))
        meant = [row.text if row.english is None else row.english for row in rows]
        languages = [row.language for row in rows]
        own = self.llm_source.collate(self.llm_source.encode(meant, languages, max_length=self.args.max_length))
        shortened = torch.maximum(batch[SHORTENED], own[SHORTENED])
        return batch | {TAUGHT_IDS: own["input_ids"], TAUGHT_MASK: own["attention_mask"], SHORTENED: shortened}

    def loss(self, model: nn.Module, inner: Any, batch: Batch) -> tuple[Tensor, Sums]:
        """Summed over rows, a mean over the vector's width; the teacher reads with its adapter and its dropout off."""
        teacher = self.teacher or inner.reader
        with evaluating(teacher), teacher.without_lora():
            taught = teacher.read_tokens(batch[TAUGHT_IDS], batch[TAUGHT_MASK]).vectors
        read = model(**read_inputs(batch)).vectors
        residual = (read - taught).square()
        sums = {
            "residual": residual.sum(),
            "cosine": nn.functional.cosine_similarity(read, taught, dim=-1).sum(),
            "taught": taught.sum(dim=0),
            "squares": taught.square().sum(),
        }
        return residual.mean(dim=-1).sum(), sums

    def metrics(self, sums: Sums, count: float) -> dict[str, float]:
        """The loss, the fraction of variance unexplained within the batch, the mean cosine."""
        width = sums["taught"].numel()
        variance = float(sums["squares"] - sums["taught"].square().sum() / count)
        found = {"loss": float(sums["residual"]) / count / width, "cosine": float(sums["cosine"]) / count}
        return found | ({"fvu": float(sums["residual"]) / variance} if variance > 0 else {})

    def probe(self, inner: Any, step: int, last: bool) -> dict[str, float]:
        """FVU and cosine of each language of the parallel rows; how many of them were shortened, where any were."""
        due = last or (self.args.probe_steps > 0 and step % self.args.probe_steps == 0)
        if not self.parallel or not due:
            return {}
        found = probe(
            inner.reader,
            self.source,
            self.llm_source,
            self.parallel,
            teacher=self.teacher,
            batch_size=self.args.per_device_eval_batch_size,
            max_length=self.args.max_length,
        )
        measured = {f"{key}/{code}": values[key] for code, values in found.items() for key in ("fvu", "cosine")}
        shortened = sum(values["shortened"] for values in found.values())
        return measured | ({"parallel/shortened": shortened} if shortened else {})


def frozen_llm(model: MTLLMModel) -> MTLLMModel:
    """A reader of tokens alone that holds a copy of a stack's LLM."""
    llm = copy.deepcopy(model.llm)
    assert llm is not None
    frozen = parts.Part(llm.requires_grad_(False), llm.config)
    return building.join(None, frozen, attention=model.config.attention)


def limited(rows: Sequence[StackRow], most: int) -> list[StackRow]:
    """The first rows of each language."""
    kept: dict[str, list[StackRow]] = {}
    for row in rows:
        of_language = kept.setdefault(row.language, [])
        if len(of_language) < most:
            of_language.append(row)
    return [row for of_language in kept.values() for row in of_language]


def align(
    model: MTLLMModel,
    source: Source,
    llm_source: Source,
    rows: Sequence[StackRow],
    args: StackArguments,
    lora_settings: lora.LoraSettings | None = lora.AUTHORS,
    parallel: Sequence[StackRow] = (),
    *,
    bitext: Sequence[StackRow] = (),
    resume: str | Path | None = None,
    about: Mapping[str, Any] | None = None,
) -> MTLLMModel:
    """Stage 1, in place: connector and adapter learn, encoder and LLM stay as they are.

    Without an adapter the whole LLM learns, under a frozen copy of it.

    Args:
        model: Encoder and LLM.
        source: The encoder's tokenizer.
        llm_source: The LLM's.
        rows: English texts. Of one that names its `english` the encoder reads the text, and the LLM the English.
        args: The keys; `output_dir` gets `metrics.jsonl` and `checkpoints/`.
        lora_settings: Of the new adapter; None: the whole LLM learns. A model that carries an adapter goes on with it.
        parallel: Rows with `english`: FVU and cosine of each language are measured on them.
        bitext: Rows with `english` that come before the others, for `args.bitext_share` of the steps (MERLIN, arXiv
            2509.08105).
        resume: A checkpoint of the same run.
        about: More of what identifies the run.

    Raises:
        ConfigError: a part is missing; the model has another adapter than was given; Stage 1 does not read a key that
            was given; or there is bitext, and `max_steps` does not say how long Stage 1 is.
        DataError: there are no rows, a language code is unknown, or a row of the bitext has no English.
    """
    args.begin("align")
    if model.config.parts != "stack" or model.connector is None or model.llm is None:
        raise ConfigError("align: needs an encoder and an LLM")
    check_there("align", rows)
    lora.check_goes_on(lora_settings, model.config.lora)
    source.check_rows(rows.first_of_each() if isinstance(rows, TextRows) else rows)
    source.check_rows([*parallel, *bitext])
    if args.llm_tokens:
        building.read_own_tokens(model, args.seed)
    if model.boundary is not None:
        source.beside = llm_source
    check_reader(model.reads, source, args.max_length)
    check_reader(model.llm, llm_source, args.max_length if model.boundary is None else 2 * args.max_length + 1)
    teacher = None
    if model.config.lora is None and lora_settings is None:
        teacher = on_device(frozen_llm(model), args.device)
        model.llm.float()  # what is trained is held in fp32
        assembly.trained_whole(model, "llm")
    elif model.config.lora is None and lora_settings is not None:
        lora.add_lora(model.llm, lora_settings, args.seed)
        model.config.lora = dataclasses.asdict(lora_settings)
    for part in (model.connector, model.boundary):
        if part is not None:
            part.float()
    new = resume is None and model.config.stage == "untrained"  # a connector that has learned goes on as it is
    if new and args.connector_start == "least_squares":
        texts = [row.text for row in rows[: args.start_rows]]
        start_connector(model, source, llm_source, texts, rows[0].language, max_length=args.max_length)
    if teacher is None:
        trainable(model, model.connector, model.boundary)
        trainable_lora(model.llm)
    else:
        trainable(model, model.connector, model.boundary, model.llm)
        if model.boundary is None:
            model.llm.get_input_embeddings().requires_grad_(False)  # the stack reads no tokens
    learned = Curriculum(bitext, rows, args) if bitext else rows
    model.disturbance = Disturbance(args.state_shuffle, args.state_repeat, args.state_drop)
    objective = AlignmentLoss(source, llm_source, args, parallel, teacher)
    run(StackTrainer(model, args, objective, learned, about=about), resume)
    model.disturbance = Disturbance()
    if args.merge_lora and model.config.lora is not None:
        building.merge(model)
    model.config.stage = "aligned"
    return model
