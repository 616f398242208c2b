"""`StackTrainer`: every stage of a stack is this trainer with another objective."""

from __future__ import annotations

import abc
import dataclasses
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import EvalLoopOutput

from dudi.environment import peak_memory
from dudi.errors import ConfigError, DataError, first_of
from dudi.models.adapters import trained
from dudi.stacking.arguments import StackArguments
from dudi.stacking.curriculum import Curriculum, lengths_of
from dudi.stacking.muon import Muon
from dudi.stacking.rows import StackRow, fingerprint
from dudi.stacking.sampling import LikeLength
from dudi.stacking.store import TextRows
from dudi.stacking.tokens import SHORTENED, Source
from dudi.training import checkpoints
from dudi.training.interrupts import current
from dudi.training.logged import LoggedTrainer

Batch = dict[str, Tensor]
Sums = dict[str, Tensor]
TRAINED, LLM_TOKENIZER = "trained.safetensors", "llm_tokenizer"


class Objective(abc.ABC):
    """What a stage learns. Losses are sums: the trainer divides by the count of the whole optimizer step."""

    stage: str

    def __init__(
        self, source: Source, args: StackArguments, llm_tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        self.source, self.args, self.llm_tokenizer = source, args, llm_tokenizer

    @abc.abstractmethod
    def collate(self, rows: Sequence[StackRow], places: Sequence[int]) -> Batch:
        """Rows, and their places in the training set, as tensors."""

    def prepare(self, batch: Batch) -> Batch:
        """What is drawn anew each time a row comes by (masks); nothing unless a stage says so."""
        return batch

    def count(self, batch: Batch) -> float:
        """What the summed loss is divided by: rows, unless a stage says otherwise."""
        return float(len(batch["input_ids"]))

    @abc.abstractmethod
    def loss(self, model: nn.Module, inner: Any, batch: Batch) -> tuple[Tensor, Sums]:
        """The summed loss of a micro-batch, and sums for the metrics; `model` is wrapped, `inner` is not."""

    def metrics(self, sums: Sums, count: float) -> dict[str, float]:
        """Metrics of sums over all micro-batches and ranks: loss and accuracy, unless a stage says otherwise."""
        return {"loss": float(sums["loss"]) / max(count, 1), "accuracy": float(sums["right"]) / max(count, 1)}

    def probe(self, inner: Any, step: int, last: bool) -> dict[str, float]:
        """What is measured now and then, beside the training rows; nothing unless a stage says so."""
        return {}


@dataclasses.dataclass(slots=True)
class StackStep:
    """One optimizer step: its denominator, its sums so far, its rows, how many were too long, what was not finite."""

    number: int
    count: float
    tokens: int
    shortened: int
    places: list[int]
    sums: Sums = dataclasses.field(default_factory=dict)
    bad_numbers: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    started: float = dataclasses.field(default_factory=time.perf_counter)


class StackTrainer(LoggedTrainer):
    """Trains what of a model requires a gradient, and keeps only that in its checkpoints: the rest is the parents'.

    What is said `about` them identifies the run too.
    """

    args: StackArguments
    objective: Objective
    weight_files = (TRAINED,)
    allows_changes = False

    def __init__(
        self,
        model: PreTrainedModel,
        args: StackArguments,
        objective: Objective,
        rows: Sequence[StackRow],
        eval_rows: Sequence[StackRow] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.objective = objective
        self.rows, self.eval_rows, self.about = rows, list(eval_rows or []), dict(about or {})
        super().__init__(
            model=model,
            args=args,
            data_collator=self._collate,
            # Numbers of rows, which the collator looks up; negative ones are rows for evaluation: one serves both.
            train_dataset=cast(Any, range(len(self.rows))),
            eval_dataset=cast(Any, range(-len(self.eval_rows), 0)) if self.eval_rows else None,
            processing_class=objective.source.tokenizer,
        )
        self.open_log(objective.stage, args.folder)
        self.interrupts = current()
        self.step: StackStep | None = None

    def _collate(self, places: Sequence[int]) -> Batch:
        rows = [self._row(place) for place in places]
        return self.objective.collate(rows, places) | {"place": torch.tensor(places)}

    def _row(self, place: int) -> StackRow:
        return self.rows[place] if place >= 0 else self.eval_rows[place]

    def describe(self) -> dict[str, Any]:
        """A run is its keys, its rows, its stage, its parents and its world size."""
        data = self.rows.digest if isinstance(self.rows, TextRows | Curriculum) else fingerprint(self.rows)
        return {"data": data, "stage": self.stage, **self.about, **super().describe()}

    # ---- what a run is made of

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Muon where it is asked for; else that of `transformers`."""
        if not self.args.muon:
            return super().create_optimizer(model)
        if self.optimizer is None:
            whole = self.model if model is None else model
            embeddings = {id(p) for m in whole.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
            groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
            for parameter in whole.parameters():
                if parameter.requires_grad:
                    groups[id(parameter) not in embeddings].append(parameter)
            given = [{"params": own, "muon": muon} for muon, own in groups.items() if own]
            self.optimizer = Muon(given, lr=self.args.learning_rate, weight_decay=self.args.weight_decay)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """A curriculum's order, or `group_by_length` by the length of the text; else that of `transformers`."""
        rows = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if isinstance(self.rows, Curriculum):
            return self.rows.order(rows, seed)
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        return LikeLength(lengths_of(self.rows), rows, seed)

    # ---- one optimizer step

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor | int | None]:
        """All micro-batches of one optimizer step, counted before any loss."""
        batches = [self.objective.prepare(batch) for batch in itertools.islice(epoch_iterator, num_batches)]
        if not batches:
            return [], None
        (count,) = self._over_ranks(sum(map(self.objective.count, batches)))
        tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
        shortened = sum(int(batch.pop(SHORTENED).sum()) for batch in batches)
        places = [int(place) for batch in batches for place in batch["place"]]
        self.step = StackStep(self.state.global_step + 1, count, tokens, shortened, places)
        if not count:
            raise DataError(f"step {self.step.number}: nothing to learn from; rows {first_of(self.rows_of_step(), 8)}")
        return batches, 1

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of one micro-batch, divided by the count of the whole optimizer step.

        DDP averages over ranks, so the sum is scaled by the world size.
        """
        step = self.step
        if step is None:
            raise RuntimeError("compute_loss is called by train(), after get_batch_samples")
        total, sums = self.objective.loss(model, self.inner_model(), inputs)
        for name, value in sums.items():
            step.sums[name] = step.sums[name] + value.detach() if name in step.sums else value.detach()
        loss = total / step.count * self.args.world_size
        if not torch.isfinite(loss):
            ids = [self._row(int(place)).id for place in inputs["place"]]
            step.bad_numbers.setdefault("the loss", []).extend(ids)
        return (loss, {}) if return_outputs else loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The norm where nothing is clipped too (`max_grad_norm: 0`): a bad number is found by it."""
        if grad_norm is None:
            found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            grad_norm = nn.utils.get_total_norm(found)
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    def rows_of_step(self) -> list[str]:
        """Ids of the rows of the current step."""
        return [] if self.step is None else [self._row(place).id for place in self.step.places]

    def finished_step(self) -> dict[str, Any] | None:
        """The metrics of the step that has just ended."""
        step = self.step
        if step is None or step.number != self.state.global_step:
            return None
        self.step = None
        metrics = self._metrics(step.sums, step.count)
        seconds = time.perf_counter() - step.started
        last = step.number >= self.state.max_steps
        read, shortened = self._over_ranks(len(step.places), step.shortened)
        return {
            **metrics,
            **self.objective.probe(self.inner_model(), step.number, last),
            "rows/read": int(read),
            "rows/shortened": int(shortened),
            "time/step": seconds,
            "tokens_per_second": step.tokens * self.args.world_size / seconds,
            "memory/peak": peak_memory(),
        }

    def _over_ranks(self, *values: float) -> list[float]:
        """Numbers summed over all ranks."""
        own = torch.tensor(values, dtype=torch.float64, device=self.args.device)
        return self.accelerator.reduce(own, "sum").tolist()

    def _metrics(self, sums: Sums, count: float) -> dict[str, float]:
        """The objective's metrics of this rank's sums and of the count of all ranks."""
        total = {name: self.accelerator.reduce(value.double(), "sum") for name, value in sums.items()}
        return self.objective.metrics(total, count)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: a frozen part costs less than a trained one, and a number that hides it would mislead."""
        return 0

    # ---- evaluation

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """`eval_loss` and the objective's other metrics over rows that are not trained on."""
        model, inner = self.model, self.inner_model()
        states, training = checkpoints.random_states(), model.training
        model.eval()
        sums: Sums = {}
        count = 0.0
        with torch.no_grad(), self.accelerator.autocast():
            for batch in dataloader:
                ready = self._prepare_inputs(self.objective.prepare(batch))
                _, found = self.objective.loss(model, inner, ready)
                sums = {name: value + sums[name] if name in sums else value for name, value in found.items()}
                count += self.objective.count(ready)
        model.train(training)
        checkpoints.restore_random_states(states)
        (whole,) = self._over_ranks(count)
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in self._metrics(sums, whole).items()}
        return EvalLoopOutput(predictions=[], label_ids=None, metrics=metrics, num_samples=int(whole))  # type: ignore[arg-type]

    # ---- saving

    def save_weights(self, folder: Path, weights: dict[str, Any] | None) -> None:
        """What a checkpoint holds of the model: what was trained. The parents' weights do not change."""
        own = {name: p.detach().cpu().contiguous() for name, p in trained(self.inner_model())}
        checkpoints.save_file(own, folder / TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._load_trained(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint:
            self._load_trained(Path(self.state.best_model_checkpoint))

    def _load_trained(self, folder: Path) -> None:
        saved, own = checkpoints.load_file(folder / TRAINED), dict(trained(self.inner_model()))
        if saved.keys() != own.keys():
            odd = sorted(saved.keys() ^ own.keys())[0]
            raise ConfigError(f"{folder}: holds other weights than this run trains ({odd})")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(saved[name])

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The model with the tokenizer that it reads with and, where it has one, its LLM's own."""
        super()._save(output_dir, state_dict)
        own = self.objective.llm_tokenizer
        if own is not None and self.args.should_save:
            own.save_pretrained(Path(output_dir or self.args.folder) / LLM_TOKENIZER)


def check_there(stage: str, rows: Sequence[StackRow]) -> None:
    """Refuse to train on nothing, or on something else than rows."""
    if not len(rows):
        raise DataError(f"{stage}: there are no rows to train on")
    if not isinstance(rows[0], StackRow):
        raise ConfigError(f"{stage}: rows have to be StackRow, got {type(rows[0]).__name__}; see rows_from_records")


def run(trainer: StackTrainer, resume: str | Path | None = None) -> None:
    """Train, from a checkpoint where one is given; what a killed process wrote after it is dropped."""
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    trainer.inner_model().eval()


def trainable(model: nn.Module, *parts: nn.Module | None) -> None:
    """Let a gradient reach these parts and nothing else."""
    model.requires_grad_(False)
    for part in parts:
        if part is not None:
            part.requires_grad_(True)


def trainable_lora(module: nn.Module) -> None:
    """Let a gradient reach the adapters inside a module too, held in fp32."""
    for name, parameter in module.named_parameters():
        if ".lora_" in name:
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
