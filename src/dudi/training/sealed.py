"""What `Trainer` saves and loads, as sealed folders of safetensors and JSON instead of pickles."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, Trainer
from transformers.trainer_callback import ExportableState

from dudi.errors import ConfigError, EnvironmentFault, NumericError
from dudi.files import write_json
from dudi.models.adapters import innermost
from dudi.models.sharding import load_whole_weights, spread_optimizer_state, whole_optimizer_state, whole_weights
from dudi.training import checkpoints
from dudi.training.arguments import RunArguments
from dudi.training.identity import check_identity
from dudi.training.ranks import from_first, together

IDENTITY = "identity.json"

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
    names = {f.name for f in dataclasses.fields(args) if f.init} - FREE_TO_CHANGE - args.free_to_change()
    return {name: values[name] for name in sorted(names) if not name.startswith("_")}


class SealedTrainer(Trainer):
    """A `Trainer` whose checkpoints are `checkpoints/step-N`, whole or absent."""

    args: RunArguments
    model: nn.Module
    model_wrapped: nn.Module
    weight_files: tuple[str, ...] = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
    """One of them holds a checkpoint's weights."""
    allow_changed: frozenset[str] = frozenset()
    """Names of an identity that a resumed run may change (`--allow-changed`)."""
    _identity: dict[str, Any] | None = None

    def describe(self) -> dict[str, Any]:
        """What a checkpoint belongs to: a subclass adds its data, tokenizers and models."""
        return {"world_size": self.args.world_size, "keys": binding_keys(self.args)}

    def identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to, found out once, before anything is trained; a resume with another is refused.

        The first rank's answer is everybody's: hashing models of gigabytes once is enough.
        """
        if self._identity is None:
            # Reading a sharded model whole is a collective, in which one rank alone would wait for ever.
            own = self.describe() if self.is_fsdp_enabled else None
            self._identity = from_first(self.describe if own is None else lambda: own)
        return self._identity

    def needs(self) -> list[Path]:
        """Sealed folders of the run, outside the checkpoint, without which it cannot be resumed."""
        return []

    def has_extra_tensors(self) -> bool:
        """Whether a checkpoint holds `extra_tensors`."""
        return False

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
        self.refuse_bad_weights()
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(folder)
        states = gather_object([checkpoints.random_states()])
        weights = whole_weights(self.model_wrapped, self.accelerator) if self.is_fsdp_enabled else None
        optimizer, schedule = self.built_optimizer()
        moments = optimizer.state_dict()
        if self.is_fsdp_enabled:
            moments = whole_optimizer_state(moments)

        def fill(partial: Path) -> None:
            self.save_weights(partial, weights)
            checkpoints.write_json(partial / "random.json", states)
            checkpoints.save_optimizer(partial, moments)
            checkpoints.write_json(partial / "scheduler.json", schedule.state_dict())
            if self.accelerator.scaler is not None:
                checkpoints.write_json(partial / "scaler.json", self.accelerator.scaler.state_dict())
            if self.has_extra_tensors():
                extra = {name: tensor.cpu().contiguous() for name, tensor in self.extra_tensors().items()}
                checkpoints.save_file(extra, partial / "extra.safetensors")
            self._export_callbacks()
            self.state.save_to_json(str(partial / "trainer_state.json"))

        self.write_once(lambda: self._seal_checkpoint(folder, fill))
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))

    def _seal_checkpoint(self, folder: Path, fill: Callable[[Path], None]) -> None:
        run = self.args.folder
        try:
            self.checkpoint_root.mkdir(exist_ok=True)  # never the run's folder: one that is gone is not made anew
        except FileNotFoundError:
            raise EnvironmentFault(
                f"{run}: the run's folder is gone; step {self.state.global_step} was not saved"
            ) from None
        needs = {path.relative_to(run).as_posix(): checkpoints.read_manifest(path)["sha256"] for path in self.needs()}
        about = {"step": self.state.global_step, "identity": self.identity(), "needs": needs}
        checkpoints.seal(folder, fill, about, parents=False)
        best = self.state.best_model_checkpoint
        checkpoints.rotate(
            self.checkpoint_root, self.args.save_total_limit, {folder} | ({Path(best)} if best is not None else set())
        )

    def write_once(self, call: Callable[[], None]) -> None:
        """Let the rank that saves write, and all ranks wait; if it cannot, all stop with its message."""
        together(call if self.args.should_save else lambda: None)

    def refuse_bad_weights(self) -> None:
        """Never save weights that are not finite: the last checkpoint would be one that nobody can go on from.

        Raises:
            NumericError: on every rank.
        """
        bad = [name for name, p in self.model.named_parameters() if p.requires_grad and not _all_finite(p)]
        found = self.accelerator.reduce(torch.tensor([float(len(bad))], device=self.args.device), "sum")
        if float(found):
            where = f" ({', '.join(bad[:3])})" if bad else ""
            raise NumericError(f"step {self.state.global_step}: the weights are not finite{where}; nothing was saved")

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
        weights = whole_weights(self.model_wrapped, self.accelerator) if self.is_fsdp_enabled else None
        self.refuse_bad_weights()
        self.write_once(
            lambda: checkpoints.seal(folder, lambda partial: self._save(str(partial), state_dict=weights), about)
        )

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

        self.refuse_bad_weights()
        self.write_once(lambda: checkpoints.seal(folder, fill, about))

    def check_resume(self, folder: Path) -> dict[str, Any]:
        """Refuse a checkpoint that is damaged, lacks a part of the state, or belongs to another run.

        Returns:
            Its manifest.

        Raises:
            ConfigError: naming the file, or each difference.
        """
        manifest = checkpoints.verify_checkpoint(folder, self.args.folder)
        missing = [name for name in self._state_files() if name not in manifest["files"]]
        if not any(name.endswith(self.weight_files) for name in manifest["files"]):
            missing.append(self.weight_files[0])
        if missing:
            raise ConfigError(f"{folder}: lacks {', '.join(missing)}; a run cannot be resumed from a part of its state")
        check_identity(manifest["identity"], self.identity(), str(folder), self.allow_changed)
        return manifest

    def _state_files(self) -> list[str]:
        """The files of a checkpoint, beside the student's weights."""
        names = ["optimizer.json", "optimizer.safetensors", "scheduler.json", "random.json", "trainer_state.json"]
        names += ["scaler.json"] if self.accelerator.scaler is not None else []
        return names + (["extra.safetensors"] if self.has_extra_tensors() else [])

    def claim(self, folder: Path) -> None:
        """Make a folder this run's: refuse it to another run, also where there is no checkpoint yet.

        Raises:
            ConfigError: with each difference.
        """
        own, file = self.identity(), folder / IDENTITY

        def look() -> None:
            if file.is_file():
                check_identity(_read_identity(file), own, str(folder), self.allow_changed)
            write_json(file, own)

        from_first(look)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            load_whole_weights(self.model_wrapped, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        optimizer, schedule = self.built_optimizer()
        moments = checkpoints.load_optimizer(folder)
        optimizer.load_state_dict(spread_optimizer_state(moments, optimizer) if self.is_fsdp_enabled else moments)
        schedule.load_state_dict(checkpoints.read_json(folder / "scheduler.json"))
        if self.has_extra_tensors():
            self.load_extra_tensors(checkpoints.load_file(folder / "extra.safetensors"))

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(checkpoints.read_json(Path(checkpoint) / "scaler.json"))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            states = checkpoints.read_json(Path(checkpoint) / "random.json")
            # There are others only if another world size was allowed.
            checkpoints.restore_random_states(states[self.args.process_index % len(states)])

    def inner_model(self) -> PreTrainedModel:
        """The causal language model inside every wrapper and adapter."""
        return innermost(self.accelerator.unwrap_model(self.model_wrapped, keep_torch_compile=False))


def _read_identity(file: Path) -> dict[str, Any]:
    try:
        return dict(checkpoints.read_json(file))
    except (ValueError, TypeError):
        raise ConfigError(f"{file}: damaged; use another --output, or --resume never") from None


def _all_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
