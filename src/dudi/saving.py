"""What `Trainer` saves and loads, as sealed folders of safetensors and JSON instead of pickles."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, Trainer
from transformers.trainer_callback import ExportableState

from dudi import checkpoints
from dudi.adapters import innermost
from dudi.errors import ConfigError
from dudi.run_arguments import RunArguments

FREE_TO_CHANGE = frozenset(
    {
        *("output_dir", "run_name", "project", "report_to", "disable_tqdm", "log_level", "log_level_replica"),
        *("logging_strategy", "logging_steps", "logging_first_step", "logging_dir", "log_on_each_node"),
        *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "per_device_eval_batch_size", "eval_rollouts"),
        *("save_strategy", "save_steps", "save_total_limit", "save_only_model", "save_on_each_node"),
        *("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push"),
        *("hub_revision", "resume_from_checkpoint", "local_rank", "ddp_timeout", "do_train", "do_eval", "do_predict"),
        *("max_steps", "num_train_epochs", "cache_dir", "samples_per_step", "skip_memory_metrics", "debug"),
        *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
        *("dataloader_prefetch_factor", "load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
        *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "overlap_k"),
    }
)
"""Keys that a resumed run may change: they move no weight, or (the lengths) are what one resumes for."""


def binding_keys(args: RunArguments) -> dict[str, Any]:
    """The keys that decide a run's numbers, as JSON values."""
    values = args.to_dict()
    names = {f.name for f in dataclasses.fields(args) if f.init} - FREE_TO_CHANGE
    return {name: values[name] for name in sorted(names) if not name.startswith("_")}


class SealedTrainer(Trainer):
    """A `Trainer` whose checkpoints are `checkpoints/step-N`, whole or absent."""

    args: RunArguments
    model: nn.Module
    model_wrapped: nn.Module

    def identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to; a resume with another identity is refused."""
        return {"world_size": self.args.world_size, "keys": binding_keys(self.args)}

    def extra_tensors(self) -> dict[str, Tensor]:
        """State of the run beside the student and its optimizer."""
        return {}

    def load_extra_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put `extra_tensors` back."""

    @property
    def checkpoint_root(self) -> Path:
        """The folder of all checkpoints."""
        return self.args.folder / "checkpoints"

    def built_optimizer(self) -> tuple[Optimizer, LRScheduler]:
        """Optimizer and schedule, which exist once `train` has begun."""
        if self.optimizer is None or self.lr_scheduler is None:
            raise RuntimeError("train() makes the optimizer and its schedule; it has not been called")
        return self.optimizer, self.lr_scheduler

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = self.checkpoint_root / f"step-{self.state.global_step}"
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(folder)
        states = gather_object([checkpoints.random_states()])
        weights = self.accelerator.get_state_dict(self.model_wrapped) if self.is_fsdp_enabled else None
        optimizer, schedule = self.built_optimizer()

        def fill(partial: Path) -> None:
            self.save_weights(partial, weights)
            checkpoints.write_json(partial / "random.json", states)
            checkpoints.save_optimizer(partial, optimizer.state_dict())
            checkpoints.write_json(partial / "scheduler.json", schedule.state_dict())
            if self.accelerator.scaler is not None:
                checkpoints.write_json(partial / "scaler.json", self.accelerator.scaler.state_dict())
            extra = {name: tensor.cpu().contiguous() for name, tensor in self.extra_tensors().items()}
            if extra:
                checkpoints.save_file(extra, partial / "extra.safetensors")
            self._export_callbacks()
            self.state.save_to_json(str(partial / "trainer_state.json"))

        if self.args.should_save:
            checkpoints.seal(folder, fill, {"step": self.state.global_step, "identity": self.identity()})
            checkpoints.rotate(self.checkpoint_root, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))

    def save_weights(self, folder: Path, weights: dict[str, Any] | None) -> None:
        """What a checkpoint holds of the model: all of it."""
        self._save(str(folder), state_dict=weights)

    def _export_callbacks(self) -> None:
        states: Any = self.state.stateful_callbacks  # declared as a list, and made a dict by `TrainerState`
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                states[type(callback).__name__] = callback.state()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As `Trainer` does, without its pickle of the arguments."""
        if not self.args.should_save:
            return
        folder = output_dir or str(self.args.folder)
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if isinstance(model, PreTrainedModel):
            model.save_pretrained(folder, state_dict=state_dict)
        else:  # a PeftModel would also save the reference's and the average's adapters
            model.save_pretrained(folder, state_dict=state_dict, selected_adapters=[model.active_adapter])
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def save_sealed(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Save the student and its tokenizer as a folder that appears whole or not at all."""
        weights = self.accelerator.get_state_dict(self.model_wrapped) if self.is_fsdp_enabled else None
        if self.args.should_save:
            checkpoints.seal(folder, lambda partial: self._save(str(partial), state_dict=weights), about)
        self.accelerator.wait_for_everyone()

    def save_final(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Save what people use: the whole model, an adapter merged into the weights it was trained on.

        An adapter on a merged cold start means nothing on the original student, and `from_pretrained` should just work.
        """
        model = self.accelerator.unwrap_model(self.model_wrapped, keep_torch_compile=False)
        if isinstance(model, PreTrainedModel):
            self.save_sealed(folder, about)
            return

        def fill(partial: Path) -> None:
            copy.deepcopy(model).merge_and_unload().save_pretrained(partial)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(partial)

        if self.args.should_save:
            checkpoints.seal(folder, fill, about)
        self.accelerator.wait_for_everyone()

    def check_resume(self, folder: Path) -> None:
        """Refuse a checkpoint that is damaged or belongs to another run.

        Raises:
            ConfigError: naming the file, or each difference.
        """
        saved = checkpoints.verify(folder)["identity"]
        own = self.identity()
        differences = [
            f"{name}: {saved.get(name)} -> {own[name]}"
            for name in own
            if name != "keys" and saved.get(name) != own[name]
        ]
        differences += [
            f"{key}: {saved['keys'].get(key)} -> {value}"
            for key, value in own["keys"].items()
            if _as_json(value) != saved["keys"].get(key)
        ]
        if differences:
            raise ConfigError(
                f"{folder} belongs to a run with other settings ({'; '.join(differences[:4])}); "
                "use another --output, or --resume never"
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.check_resume(Path(resume_from_checkpoint))
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        optimizer, schedule = self.built_optimizer()
        optimizer.load_state_dict(checkpoints.load_optimizer(folder))
        schedule.load_state_dict(checkpoints.read_json(folder / "scheduler.json"))
        extra = folder / "extra.safetensors"
        self.load_extra_tensors(checkpoints.load_file(extra) if extra.exists() else {})

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(checkpoints.read_json(Path(checkpoint) / "scaler.json"))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            states = checkpoints.read_json(Path(checkpoint) / "random.json")
            checkpoints.restore_random_states(states[self.args.process_index])

    def inner_model(self) -> PreTrainedModel:
        """The causal language model inside every wrapper and adapter."""
        return innermost(self.accelerator.unwrap_model(self.model_wrapped, keep_torch_compile=False))


def _as_json(value: Any) -> Any:
    """The value as it comes back from a JSON file."""
    return json.loads(json.dumps(value, default=str))
