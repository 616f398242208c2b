"""Stage 1: the stack learns to give the vectors that its own LLM gives, on English text without labels."""

from __future__ import annotations

import bisect
import copy
import dataclasses
import re
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
from dudi.stacking.curriculum import Curriculum
from dudi.stacking.modeling import MTLLMModel, on_device
from dudi.stacking.probing import probe
from dudi.stacking.rows import StackRow
from dudi.stacking.sequences import Disturbance
from dudi.stacking.store import TextRows
from dudi.stacking.tokens import SHORTENED, Ids, Source, read_inputs
from dudi.stacking.trainer import Batch, Objective, StackTrainer, Sums, check_there, run, trainable, trainable_lora

TAUGHT_IDS, TAUGHT_MASK = "taught_input_ids", "taught_attention_mask"
"""What the LLM alone reads of a text: the teacher of Stage 1."""
START_BATCH = 32
RIDGE = 1e-6
"""Relative to the mean square of the states: keeps rare directions from growing without bound."""
_WORD = re.compile(r"\S+")


class AlignmentLoss(Objective):
    """Mean squared error between the stack's pooled vector and the LLM's own, as it was before Stage 1.

    FVU and cosine of the parallel rows are measured on the way. `teacher` holds the LLM as it was; None: it is the
    model's own with the adapter off.
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
        by_language: dict[str, list[StackRow]] = {}
        for row in parallel:
            by_language.setdefault(row.language, []).append(row)
        self.parallel = [row for rows in by_language.values() for row in rows[: args.probe_rows]]

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
        sizes = {"batch_size": self.args.per_device_eval_batch_size, "max_length": self.args.max_length}
        found = probe(inner.reader, self.source, self.llm_source, self.parallel, teacher=self.teacher, **sizes)
        measured = {f"{key}/{code}": values[key] for code, values in found.items() for key in ("fvu", "cosine")}
        shortened = sum(values["shortened"] for values in found.values())
        return measured | ({"parallel/shortened": shortened} if shortened else {})


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
    teacher, whole = None, None
    if model.config.lora is None and lora_settings is None:
        frozen = copy.deepcopy(model.llm).requires_grad_(False)
        teacher = building.join(None, parts.Part(frozen, frozen.config), attention=model.config.attention)
        teacher, whole = on_device(teacher, args.device), model.llm.float()  # what is trained is held in fp32
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
    trainable(model, model.connector, model.boundary, whole)
    trainable_lora(model.llm)
    if whole is not None and model.boundary is None:
        model.llm.get_input_embeddings().requires_grad_(False)  # the stack reads no tokens
    learned: Any = Curriculum(bitext, rows, args) if bitext else rows
    model.disturbance = Disturbance(args.state_shuffle, args.state_repeat, args.state_drop)
    objective = AlignmentLoss(source, llm_source, args, parallel, teacher)
    run(StackTrainer(model, args, objective, learned, about=about), resume)
    model.disturbance = Disturbance()
    if args.merge_lora and model.config.lora is not None:
        building.merge(model)
    model.config.stage = "aligned"
    return model


# ---- where the connector starts


@torch.no_grad()
def start_connector(
    model: MTLLMModel, source: Source, llm_source: Source, texts: Sequence[str], language: str, *, max_length: int = 256
) -> float:
    """Set the connector to the least-squares map from words as the encoder sees them to words as the LLM spells them.

    For each word of each text: x is the mean of the encoder's states over its tokens, y the mean of the LLM's input
    embeddings over its tokens, and W minimises the sum of |W x + b - y|^2 (the authors' later recipe). The texts are
    English, of which `max_length` tokens are read, and `language` is its code.

    Returns:
        The share of the embeddings' variance that the map leaves unexplained.

    Raises:
        ConfigError: a tokenizer gives no offsets, or there is no word.
    """
    assert model.connector is not None and model.llm is not None
    for tokenizer in (source.tokenizer, llm_source.tokenizer):
        if not tokenizer.is_fast:
            raise ConfigError(
                f"connector_start: least_squares needs fast tokenizers, and this {type(tokenizer).__name__} is none; "
                "set connector_start: random"
            )
    width, size = model.config.encoder_size + 1, model.config.hidden_size
    xx, xy = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, size, dtype=torch.float64)
    y_sum, y_squares, words = torch.zeros(size, dtype=torch.float64), 0.0, 0
    embed = model.llm.get_input_embeddings()
    for begin in range(0, len(texts), START_BATCH):
        part = texts[begin : begin + START_BATCH]
        languages = [language] * len(part)
        below = source.encode(part, languages, max_length=max_length, offsets=True)
        above = llm_source.encode(part, languages, max_length=max_length, offsets=True)
        padded = {key: value.to(model.device) for key, value in source.pad(below).items()}
        states = model.encode(padded["input_ids"], padded["attention_mask"])
        for row, text in enumerate(part):
            ids = torch.tensor(above[row]["input_ids"], device=model.device)
            x, y = word_pairs(text, (below[row], states[row]), (above[row], embed(ids)))
            x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
            xx, xy = xx + x.T @ x, xy + x.T @ y
            y_sum, y_squares, words = y_sum + y.sum(dim=0), y_squares + float(y.square().sum()), words + len(y)
    if not words:
        raise ConfigError("connector_start: least_squares found no word that both tokenizers spell; use random")
    ridge = RIDGE * xx.diagonal().mean() * torch.eye(width, dtype=torch.float64)
    solved = torch.linalg.solve(xx + ridge, xy)  # (E + 1, D)
    model.connector.weight.copy_(solved[:-1].T)
    model.connector.bias.copy_(solved[-1])
    residual = y_squares - 2 * float((solved * xy).sum()) + float((solved * (xx @ solved)).sum())
    return residual / max(y_squares - float(y_sum.square().sum()) / words, 1e-12)


def word_pairs(text: str, below: tuple[Ids, Tensor], above: tuple[Ids, Tensor]) -> tuple[Tensor, Tensor]:
    """(words, E) and (words, D): means over the tokens of each word that both sides have in full, fp64 on the CPU.

    Each side is token ids with offsets, and a vector for each token.
    """
    spans = [match.span() for match in _WORD.finditer(text)]
    first, first_counts = _means(spans, *below)
    second, second_counts = _means(spans, *above)
    both = (first_counts > 0) & (second_counts > 0)
    return first[both], second[both]


def _means(spans: Sequence[tuple[int, int]], ids: Ids, vectors: Tensor) -> tuple[Tensor, Tensor]:
    starts = [start for start, _ in spans]
    # The last character decides: a token may begin with the blank in front of its word.
    words = [bisect.bisect_right(starts, last - 1) - 1 if last > first else -1 for first, last in ids["offset_mapping"]]
    kept = [column for column, word in enumerate(words) if word >= 0]
    index = torch.tensor([words[column] for column in kept], dtype=torch.long)
    sums = torch.zeros(len(spans), vectors.shape[-1], dtype=torch.float64)
    sums.index_add_(0, index, vectors[kept].double().cpu())
    counts = torch.bincount(index, minlength=len(spans))
    return sums / counts.clamp(min=1)[:, None], counts
