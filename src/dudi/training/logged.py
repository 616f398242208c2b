"""A sealed trainer that logs each optimizer step, stops at a bad number, and obeys a signal between two steps."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import TrainOutput

from dudi.errors import ConfigError, EnvironmentFault, Interrupted, NumericError, first_of
from dudi.files import write_json
from dudi.training import checkpoints
from dudi.training.interrupts import Interrupts
from dudi.training.lock import FolderLock
from dudi.training.progress import RunProgress
from dudi.training.ranks import from_first, on_first
from dudi.training.runlog import RunLog, read_jsonl
from dudi.training.sealed import SealedTrainer

SHOWN = 16
"""Most row ids in the message about a bad number; the file has all."""


class LoggedTrainer(SealedTrainer):
    """What trainers of the house share around a step: its record, the bar, the check of its numbers, the end by signal.

    Attributes:
        stage: How metrics name this part of a run.
        interrupts: Tells when a signal has asked to stop; None leaves signals to the caller.
        resumed: The manifest of the checkpoint that `train` goes on from; None for a fresh start.
        step: The current optimizer step; its `bad_numbers` hold what was not finite in it on this rank, with the ids of
            its rows. None outside of a step.
        logs: What is written step by step: a resumed run takes back what a killed process wrote after its checkpoint.
        epoch_end: The step at which the last epoch ended, and the state of the global generators there.
    """

    stage: str
    metrics_log: RunLog
    interrupts: Interrupts | None = None
    resumed: dict[str, Any] | None = None
    step: Any = None

    def open_log(self, stage: str, folder: Path) -> None:
        """Name this part of a run, and put our bar and our logs in the place of `Trainer`'s."""
        self.stage = stage
        for default in (ProgressCallback, PrinterCallback):
            self.remove_callback(default)
        self.progress = RunProgress(stage, quiet=bool(self.args.disable_tqdm))
        self.add_callback(self.progress)
        self.add_callback(SignalHooks(self))
        self.metrics_log = self.run_log(folder / "metrics.jsonl")
        self.eval_log = self.run_log(folder / "eval.jsonl")
        self.logs = [self.metrics_log, self.eval_log]
        self.epoch_end: tuple[int, dict[str, Any]] = (0, {})
        self.loss_is_scaled_for_ga = True  # by the counts of the whole optimizer step
        self._pending: dict[str, float] = {}

    def run_log(self, path: Path) -> RunLog:
        """A log that the first process writes."""
        return RunLog(path, self.args.should_save and self.args.process_index == 0)

    # ---- what a subclass tells

    def prepare(self) -> None:
        """What comes before the first step."""

    def finished_step(self) -> dict[str, Any] | None:
        """The metrics of the optimizer step that has just ended, over all ranks; None when none has."""
        raise NotImplementedError

    def rows_of_step(self) -> Sequence[str]:
        """Ids of the rows of the current step."""
        raise NotImplementedError

    def warnings_of(self, record: dict[str, Any]) -> list[str]:
        """What a person should be told about a step's metrics, a line each."""
        return []

    # ---- around all steps

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Find the checkpoint to go on from, prepare, take the steps; arguments as `Trainer`'s.

        `resume_from_checkpoint=True` goes on from the newest whole checkpoint, a path from that one; None starts anew,
        and renames the checkpoints of an earlier run, which would count in `save_total_limit`. They are
        `checkpoints/step-N` of `output_dir`, which transformers' `get_last_checkpoint` does not find.

        Raises:
            ConfigError: the checkpoint is not whole, or belongs to another run; another process works in the folder.
            Interrupted: a signal asked to stop; a checkpoint is saved.
        """
        with on_first(FolderLock(self.args.folder)):
            self._refuse_no_step()
            self.identity()
            start = self._find_start(resume_from_checkpoint)
            self.resumed = None if start is None else self.check_resume(start)
            step = 0 if self.resumed is None else int(self.resumed["step"])
            self.prepare()
            for log in self.logs:
                log.rewind(self.stage, step)
            for record in read_jsonl(self.metrics_log.path):  # a warning may look at several steps, and comes once
                if record.get("stage") == self.stage:
                    self.warnings_of(record)
            output = super().train(None if start is None else str(start), trial, ignore_keys_for_eval)
        asked = None if self.interrupts is None else self.interrupts.received
        if asked is not None:
            saved = checkpoints.step_folder(self.checkpoint_root, self.state.global_step)
            raise Interrupted(f"{asked} in {self.stage}; {saved} is saved, the same command goes on from it")
        if not self.state.global_step:
            raise ConfigError("no step was taken: the rows make no whole batch; nothing was trained")
        return output

    def _refuse_no_step(self) -> None:
        """Refuse rows that make no whole batch where only whole ones are read: before models work for an hour."""
        args, dataset = self.args, self.train_dataset
        rows = len(dataset) if isinstance(dataset, Sized) else 0
        split = getattr(args.accelerator_config, "split_batches", False)  # then a batch is that of all processes
        batch = args.train_batch_size * (1 if split else args.world_size)
        if args.dataloader_drop_last and 0 < rows < batch:
            raise ConfigError(
                f"dataloader_drop_last: {rows} rows make no whole batch of {batch}, so that 0 steps train nothing; "
                "take it out, or lower per_device_train_batch_size"
            )

    def _seal_checkpoint(self, folder: Path, fill: Callable[[Path], None]) -> None:
        """As always, with the lines of its steps on the disk before it: a checkpoint must not outlive them."""
        for log in self.logs:
            log.sync()
        super()._seal_checkpoint(folder, fill)

    def _find_start(self, wanted: str | bool | None) -> Path | None:
        """The checkpoint to go on from; True is the newest whole one."""
        if wanted and wanted is not True:
            return Path(wanted)
        root = self.checkpoint_root
        newest, skipped = from_first(lambda: checkpoints.newest_valid(root))
        if wanted and newest is None:
            raise ConfigError(f"{root}: no whole checkpoint {'; '.join(skipped)}".rstrip())
        if wanted or newest is None:
            return newest
        moved = from_first(lambda: checkpoints.set_aside_after(root, 0))
        warnings.warn(
            f"a run has left checkpoints, and this one starts anew: they are now {moved[0]} and the like; "
            "train(resume_from_checkpoint=True) would have gone on",
            stacklevel=3,
        )
        return None

    @contextlib.contextmanager
    def keeping_what_was_trained(self) -> Iterator[None]:
        """Around what is asked of others between two steps: where they fail, on every rank, a checkpoint is saved.

        Raises:
            DudiError: what was raised inside, with what is saved.
        """
        try:
            yield
        except (ConfigError, EnvironmentFault) as error:
            step = self.state.global_step
            if not self.is_in_train or not step:
                raise
            folder = checkpoints.step_folder(self.checkpoint_root, step)
            if not from_first(folder.is_dir):
                if step == self.epoch_end[0]:
                    checkpoints.restore_random_states(self.epoch_end[1])
                self._save_checkpoint(self.model, None)
            raise type(error)(f"{error}; {folder} is saved, the same command goes on from it") from error

    # ---- after a step

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient's norm, once a step and before the update: where bad numbers stop the run, on every rank."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if self.step is not None:
            bad: dict[str, list[str]] = self.step.bad_numbers
            # With a scaler a gradient that overflows is daily business: it leaves out the step and scales less.
            scaled = self.accelerator.scaler is not None and self.accelerator.scaler.is_enabled()
            if norm is not None and not scaled and not torch.isfinite(torch.as_tensor(norm)):
                bad.setdefault("the gradient", []).extend(self.rows_of_step())
            self._stop_on_bad_numbers(bad)
        return norm

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
        told = self.warnings_of(record)
        self.metrics_log.append(record | ({"warnings": told} if told else {}))
        for warning in told if self.args.process_index == 0 else []:
            self.progress.say(f"warning: {warning}", style="bold")
        self._pending = {k: v for k, v in record.items() if isinstance(v, int | float) and k not in ("step", "epoch")}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As `Trainer`'s, with the last step's metrics beside the averaged loss; evaluations go to `eval.jsonl`."""
        if any(key.startswith("eval_") for key in logs):
            self.eval_log.append({"stage": self.stage, "step": self.state.global_step, **logs})
        super().log({**self._pending, **logs} if "loss" in logs else logs, start_time)

    def _stop_on_bad_numbers(self, own: Mapping[str, list[str]]) -> None:
        """Stop if any rank has noted a bad number in this step; ranks that found none would wait for it for ever.

        `own` is what was not finite on this rank, with the ids of the rows that it came from. The ids of all ranks are
        written to `bad_numbers.json`.
        """
        found = torch.tensor([float(len(own))], device=self.args.device)
        if not float(self.accelerator.reduce(found, "sum")):
            return
        noted: list[tuple[str, list[str]]] = gather_object(list(own.items()))
        kinds = dict.fromkeys(what for what, _ in noted)
        causes = [name for name in kinds if name != "the gradient"] or ["the gradient"]
        rows = list(dict.fromkeys(row for what, ids in noted if what in causes for row in ids))
        step, what = self.state.global_step + 1, " and ".join(causes)
        report = self.metrics_log.path.with_name("bad_numbers.json")
        if self.args.process_index == 0:
            write_json(report, {"stage": self.stage, "step": step, "what": what, "rows": rows})
        shown = first_of(rows, SHOWN) + (f" in {report}" if len(rows) > SHOWN else "")
        raise NumericError(f"step {step}: {what} is not finite; no update was made. Rows: {shown}")


@dataclasses.dataclass(eq=False)
class SignalHooks(TrainerCallback):
    """What a checkpoint between two steps needs, and the one that a signal asks for."""

    trainer: LoggedTrainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.interrupts is not None:
            self.trainer.interrupts.armed = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.interrupts is not None:
            self.trainer.interrupts.armed = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember the generators: the next epoch draws from them before its first step, and again when resumed."""
        self.trainer.epoch_end = (state.global_step, checkpoints.random_states())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save here and stop. One rank's signal is everybody's."""
        interrupts = self.trainer.interrupts
        if interrupts is None:
            return
        asked = torch.tensor([float(interrupts.received is not None)], device=args.device)
        if float(self.trainer.accelerator.reduce(asked, "sum")):
            interrupts.received = interrupts.received or "a signal to another process"
            control.should_save = control.should_training_stop = True
