"""A sealed trainer that writes a line of `metrics.jsonl` for each optimizer step, and stops when a number goes bad."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from dudi.errors import NumericError
from dudi.progress import RunProgress
from dudi.runlog import RunLog
from dudi.saving import SealedTrainer


class LoggedTrainer(SealedTrainer):
    """What trainers of the house share around a step: its record, the bar, the check of its numbers."""

    stage: str
    metrics_log: RunLog

    def open_log(self, stage: str, folder: Path) -> None:
        """Name this part of a run, and put our bar and our log in the place of `Trainer`'s."""
        self.stage = stage
        for default in (ProgressCallback, PrinterCallback):
            self.remove_callback(default)
        self.add_callback(RunProgress(stage, quiet=bool(self.args.disable_tqdm)))
        self.metrics_log = self.run_log(folder / "metrics.jsonl")
        self.loss_is_scaled_for_ga = True  # by the counts of the whole optimizer step
        self._pending: dict[str, float] = {}

    def run_log(self, path: Path) -> RunLog:
        """A log that the first process writes."""
        return RunLog(path, self.args.should_save and self.args.process_index == 0)

    def finished_step(self) -> dict[str, Any] | None:
        """The metrics of the optimizer step that has just ended, over all ranks; None when none has."""
        raise NotImplementedError

    def rows_of_step(self) -> Sequence[str]:
        """Names of the rows of the current step, for the message that stops a run."""
        raise NotImplementedError

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        metrics = self.finished_step()
        if metrics is not None:
            self._write_metrics(metrics, grad_norm, kwargs.get("learning_rate"))
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def _write_metrics(self, metrics: dict[str, Any], grad_norm: Any, learning_rate: float | None) -> None:
        record: dict[str, Any] = {
            "stage": self.stage,
            "step": self.state.global_step,
            "epoch": round(self.state.epoch or 0.0, 6),
            **metrics,
            "learning_rate": learning_rate,
            "grad_norm": None if grad_norm is None else float(grad_norm),
        }
        self.metrics_log.append(record)
        self._pending = {k: v for k, v in record.items() if isinstance(v, int | float) and k not in ("step", "epoch")}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As `Trainer`'s, with the last step's metrics beside the averaged loss."""
        super().log({**self._pending, **logs} if "loss" in logs else logs, start_time)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        scaled = self.accelerator.scaler is not None and self.accelerator.scaler.is_enabled()
        if norm is not None and not scaled and not torch.isfinite(torch.as_tensor(norm)):
            self.stop_on_bad_number("the gradient", self.rows_of_step())
        return norm

    def stop_on_bad_number(self, what: str, rows: Sequence[str]) -> None:
        """End the run before the update.

        Raises:
            NumericError: always.
        """
        named = f"Rows: {', '.join(rows[:16])}" if rows else ""
        raise NumericError(
            f"step {self.state.global_step + 1}: {what} is not finite; no update was made. {named}".rstrip()
        )
