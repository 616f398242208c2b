"""What `Trainer` saves and loads, as sealed folders of safetensors and JSON instead of pickles."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers.trainer_callback import ExportableState

from dudi.errors import ConfigError, EnvironmentFault, NumericError, first_of
from dudi.files import write_json, write_json_inside
from dudi.models.adapters import is_adapted
from dudi.models.sharding import load_whole_weights, spread_optimizer_state, whole_optimizer_state, whole_weights
from dudi.training import checkpoints
from dudi.training.arguments import binding_keys
from dudi.training.identity import check_identity
from dudi.training.keys import default_of
from dudi.training.publishing import PublishingTrainer
from dudi.training.ranks import from_first

IDENTITY = "identity.json"


class SealedTrainer(PublishingTrainer):
    """A `Trainer` whose checkpoints are `checkpoints/step-N`, whole or absent."""

    weight_files: tuple[str, ...] = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
    """One of them holds a checkpoint's weights."""
    allow_changed: frozenset[str] = frozenset()
    """Names of an identity that a resumed run may change (`--allow-changed`)."""
    allows_changes: bool = True
    """Whether the verb that trains has `--allow-changed`."""
    has_extra_tensors: bool = False
    """Whether a checkpoint holds `extra_tensors`."""
    began_from: Mapping[str, str] = {}
    """Keys of the stages that the method began from, by their names: a resumed run goes on from the same."""
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

    def extra_tensors(self) -> dict[str, Tensor]:
        """State of the run beside the student and its optimizer."""
        return {}

    def load_extra_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put `extra_tensors` back."""

    @property
    def checkpoint_root(self) -> Path:
        return self.args.folder / "checkpoints"

    def built_optimizer(self) -> tuple[Optimizer, LRScheduler]:
        """Optimizer and schedule, which exist once `train` has begun."""
        if self.optimizer is None or self.lr_scheduler is None:
            raise RuntimeError("train() makes the optimizer and its schedule; it has not been called")
        return self.optimizer, self.lr_scheduler

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = checkpoints.step_folder(self.checkpoint_root, self.state.global_step)
        self.refuse_bad_weights()
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(folder)
        states = gather_object([checkpoints.random_states()])
        weights = whole_weights(self.model_wrapped, self.accelerator)
        optimizer, schedule = self.built_optimizer()
        moments = optimizer.state_dict()
        if self.is_fsdp_enabled:
            moments = whole_optimizer_state(moments)
        self._write_base()

        def fill(partial: Path) -> None:
            self.save_weights(partial, weights)
            write_json_inside(partial / "random.json", states)
            checkpoints.save_optimizer(partial, moments)
            write_json_inside(partial / "scheduler.json", schedule.state_dict())
            if self.accelerator.scaler is not None:
                write_json_inside(partial / "scaler.json", self.accelerator.scaler.state_dict())
            if self.has_extra_tensors:
                extra = {name: tensor.cpu().contiguous() for name, tensor in self.extra_tensors().items()}
                checkpoints.save_file(extra, partial / "extra.safetensors")
            callbacks: Any = self.state.stateful_callbacks  # declared as a list, and made a dict by `TrainerState`
            for callback in [*self.callback_handler.callbacks, self.control]:
                if isinstance(callback, ExportableState):
                    callbacks[type(callback).__name__] = callback.state()
            self.state.save_to_json(str(partial / "trainer_state.json"))

        self.write_once(lambda: self._seal_checkpoint(folder, fill))
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))

    def _seal_checkpoint(self, folder: Path, fill: Callable[[Path], None]) -> None:
        run, step, best = self.args.folder, self.state.global_step, self.state.best_global_step
        try:
            self.checkpoint_root.mkdir(exist_ok=True)  # never the run's folder: one that is gone is not made anew
        except FileNotFoundError:
            raise EnvironmentFault(f"{run}: the run's folder is gone; step {step} was not saved") from None
        needs = {path.relative_to(run).as_posix(): checkpoints.read_manifest(path)["sha256"] for path in self.needs()}
        about = {"step": step, "identity": self.identity(), "needs": needs, "began_from": self.began_from}
        checkpoints.seal(folder, fill, about, parents=False)
        safe = {step}
        if best is not None and checkpoints.step_folder(self.checkpoint_root, best).is_dir():
            safe.add(best)
        checkpoints.rotate(self.checkpoint_root, self.args.save_total_limit, safe)

    def refuse_bad_weights(self) -> None:
        """Never save weights that are not finite: the last checkpoint would be one that nobody can go on from.

        Raises:
            NumericError: on every rank.
        """
        bad = [name for name, p in self.model.named_parameters() if p.requires_grad and not torch.isfinite(p).all()]
        found = self.accelerator.reduce(torch.tensor([float(len(bad))], device=self.args.device), "sum")
        if float(found):
            where = f" ({first_of(bad, 3)})" if bad else ""
            raise NumericError(f"step {self.state.global_step}: the weights are not finite{where}; nothing was saved")

    def save_weights(self, folder: Path, weights: dict[str, Any] | None) -> None:
        """What a checkpoint holds of the model: all of it, or its adapter and where its base lies."""
        self._save_trained(folder, weights)

    def save_sealed(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Save the student, or its adapter, and its tokenizer as a folder that appears whole or not at all."""
        weights = whole_weights(self.model_wrapped, self.accelerator)
        self.refuse_bad_weights()
        self.write_once(lambda: checkpoints.seal(folder, lambda partial: self._save_trained(partial, weights), about))

    def save_final(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Save what people use: the whole model, an adapter merged into the weights it was trained on.

        An adapter on a merged cold start means nothing on the original student, and `from_pretrained` should just work.
        """
        if not is_adapted(self.accelerator.unwrap_model(self.model_wrapped, keep_torch_compile=False)):
            self.save_sealed(folder, about)
            return
        self.refuse_bad_weights()
        self.write_once(lambda: checkpoints.seal(folder, self._save_merged, about))

    def check_resume(self, folder: Path) -> dict[str, Any]:
        """The manifest of a checkpoint; one that is damaged, lacks a part of the state, or is another run's is refused.

        Raises:
            ConfigError: naming the file, or each difference.
        """
        manifest = checkpoints.verify_checkpoint(folder, self.args.folder)
        wanted = ["optimizer.json", "optimizer.safetensors", "scheduler.json", "random.json", "trainer_state.json"]
        wanted += ["scaler.json"] if self.accelerator.scaler is not None else []
        wanted += ["extra.safetensors"] if self.has_extra_tensors else []
        missing = [name for name in wanted if name not in manifest["files"]]
        if not any(name.endswith(self.weight_files) for name in manifest["files"]):
            missing.append(self.weight_files[0])
        if missing:
            raise ConfigError(f"{folder}: lacks {', '.join(missing)}; a run cannot be resumed from a part of its state")
        self._check_identity(manifest["identity"], folder)
        return manifest

    def _check_identity(self, saved: Mapping[str, Any], folder: Path) -> None:
        own, keys = self.identity(), binding_keys(self.args)
        defaults = {field.name: default_of(field) for field in dataclasses.fields(self.args) if field.name in keys}
        check_identity(saved, own, str(folder), self.allow_changed, defaults, allows=self.allows_changes)

    def claim(self, folder: Path) -> None:
        """Make a folder this run's: refuse it to another run, also where there is no checkpoint yet.

        Raises:
            ConfigError: with each difference.
        """
        self.check_claim(folder)
        own = self.identity()
        from_first(lambda: write_json(folder / IDENTITY, own))

    def check_claim(self, folder: Path) -> None:
        """Refuse a folder that is another run's; nothing is written.

        Raises:
            ConfigError: with each difference.
        """
        self.identity()  # of all ranks together, before one of them looks
        from_first(lambda: self._look_at_claim(folder))

    def _look_at_claim(self, folder: Path) -> None:
        file = folder / IDENTITY
        if not file.is_file():
            return
        try:
            saved = dict(checkpoints.read_json(file))
        except (ValueError, TypeError):
            raise ConfigError(f"{file}: damaged; use another --output, or --resume never") from None
        self._check_identity(saved, folder)

    def _init_training_state(
        self, max_steps: int, per_epoch: int, epochs: int, resume_from_checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        """As `Trainer`'s; the best checkpoint is looked for where this run's lie, and not where they were written.

        A run's folder has many spellings, and may have moved or been copied since.
        """
        done = super()._init_training_state(max_steps, per_epoch, epochs, resume_from_checkpoint, trial)
        state, step = self.state, self.state.best_global_step
        if not step or resume_from_checkpoint is None:
            return done
        roots = (self.checkpoint_root, Path(resume_from_checkpoint).parent)
        places = [checkpoints.step_folder(root, step) for root in roots]
        best = next((place for place in places if place.is_dir()), None)
        if best is not None:
            state.best_model_checkpoint = str(best)
        elif state.best_model_checkpoint is None:
            warnings.warn(f"the best checkpoint, step {step}, is gone: the best of those to come is kept", stacklevel=2)
            state.best_metric = state.best_global_step = None
        return done

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled:
            load_whole_weights(self.model_wrapped, Path(str(self.state.best_model_checkpoint)))
        else:
            super()._load_best_model()

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
        bases = [group["initial_lr"] for group in optimizer.param_groups if "initial_lr" in group]
        optimizer.load_state_dict(spread_optimizer_state(moments, optimizer) if self.is_fsdp_enabled else moments)
        schedule.load_state_dict(checkpoints.read_json(folder / "scheduler.json"))
        follow_schedule(optimizer, schedule, bases)
        if self.has_extra_tensors:
            self.load_extra_tensors(checkpoints.load_file(folder / "extra.safetensors"))

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(checkpoints.read_json(Path(checkpoint) / "scaler.json"))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            states = checkpoints.read_json(Path(checkpoint) / "random.json")
            # There are others only if another world size was allowed.
            checkpoints.restore_random_states(states[self.args.process_index % len(states)])


def follow_schedule(optimizer: Optimizer, schedule: LRScheduler, bases: Sequence[float]) -> None:
    """Let the next step have the rate of this run's schedule.

    A checkpoint carries the rate of the schedule that it was saved under, which may have ended there, or begun with
    another rate. The functions of a loaded schedule are this run's; they multiply `bases`, by parameter group.
    """
    inner: Any = getattr(schedule, "scheduler", schedule)  # accelerate wraps it
    if not isinstance(inner, LambdaLR) or len(bases) != len(inner.base_lrs):
        return
    inner.base_lrs = list(bases)
    rates = [base * shape(inner.last_epoch) for base, shape in zip(bases, inner.lr_lambdas, strict=True)]
    for group, base, rate in zip(optimizer.param_groups, bases, rates, strict=True):
        group["initial_lr"], group["lr"] = base, rate
    inner._last_lr = list(rates)
