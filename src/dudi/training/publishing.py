"""What others get of a trained model: what `save_model` writes, and what goes to the hub."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import nn
from transformers import PreTrainedModel, Trainer
from transformers.modelcard import TrainingSummary
from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import hf_api

from dudi.data.chat import ChatFormat
from dudi.errors import ConfigError
from dudi.files import write_text
from dudi.models.adapters import base_weights, check_adapter, innermost, is_adapted, merged, save_adapter
from dudi.models.image_text import copy_processor
from dudi.models.sharding import whole_weights
from dudi.training import checkpoints
from dudi.training.arguments import RunArguments
from dudi.training.published import published_tokenizer, stop_at
from dudi.training.ranks import together

CARD, RECIPE = "README.md", "resolved.yaml"
LOGS = ("metrics.jsonl", "eval.jsonl")
"""What a run logs that holds no word of a row or of a rollout."""
STAGED = ".hub"


class PublishingTrainer(Trainer):
    """A `Trainer` whose saved models stop and speak as they were trained to, and say nothing of the rows."""

    args: RunArguments
    model: nn.Module
    model_wrapped: nn.Module
    chat: ChatFormat | None = None
    """How the trained model reads a conversation and ends its turn, if it is one that talks."""
    trained_with: str = "dudi"
    """What the card says of how the model was made."""
    _tag_names: tuple[str, ...] = ("dudi",)
    base_changed: bool = False
    """Whether this run has changed what lies under the trained adapter: a cold start was merged into it."""
    _base_beside: Path | None = None

    def __init__(self, model: PreTrainedModel | nn.Module, **options: Any) -> None:
        check_adapter(model)
        args: RunArguments = options["args"]
        if args.push_to_hub and args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            raise ConfigError(
                f"hub_strategy: {HubStrategy(args.hub_strategy).value} would upload the optimizer's states; use end or "
                "every_save, which upload the model"
            )
        config = innermost(model).config
        before = {name: value for name, value in vars(config).items() if name == "use_cache"}
        super().__init__(model=model, **options)
        # `Trainer` switches the cache off in what will be published; passes that want none say so themselves.
        vars(config).pop("use_cache", None)
        vars(config).update(before)
        if self.chat is not None:
            stop_at(innermost(model), self.chat.stop_ids)

    def write_once(self, call: Callable[[], None]) -> None:
        """Let the rank that saves write, and all ranks wait; if it cannot, all stop with its message."""
        together(call if self.args.should_save else lambda: None)

    def inner_model(self) -> PreTrainedModel:
        """The causal language model inside every wrapper and adapter."""
        return innermost(self.accelerator.unwrap_model(self.model_wrapped, keep_torch_compile=False))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """What `save_model` and the hub hold: a model, or an adapter of a base that others can have as well.

        An adapter whose base this run has changed is merged into it. No pickle of the arguments is written.
        """
        folder = Path(output_dir or self.args.folder)
        if self.args.should_save and self.lost_base():
            self._save_merged(folder)
        elif self.args.should_save:
            self._save_trained(folder, state_dict)

    def _save_trained(self, folder: Path, state_dict: dict[str, Any] | None) -> None:
        """The whole model or, of one with adapters, the one that is trained: never those of reference and average."""
        model = self._stopping_model()
        if isinstance(model, PreTrainedModel):
            model.save_pretrained(folder, state_dict=state_dict)
        else:
            save_adapter(model, folder, state_dict, self._base_beside)
        self._save_beside(folder)

    def _save_merged(self, folder: Path) -> None:
        merged(self._stopping_model()).save_pretrained(folder)
        self._save_beside(folder)

    def _stopping_model(self) -> Any:
        """The model with its adapters, which `generate` stops where training did, whatever has changed it since."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if self.chat is not None:
            stop_at(innermost(model), self.chat.stop_ids)
        return model

    def lost_base(self) -> bool:
        """Whether the trained adapter's base cannot be had under the name that the adapter's config gives it."""
        model: Any = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if not is_adapted(model):
            return False
        return self.base_changed or not model.peft_config[model.active_adapter].base_model_name_or_path

    def _write_base(self) -> None:
        """Let the adapters of checkpoints lie on a base that can be loaded, once a process: `stages/base`."""
        if self._base_beside is not None or self.is_fsdp_enabled or not self.lost_base():
            return
        folder = (self.args.folder / "stages" / "base").resolve()
        model: Any = self._stopping_model()
        inner = innermost(model)
        weights = inner.state_dict()
        plain = {name: weights[inside] for name, inside in base_weights(model).items()}

        def fill(partial: Path) -> None:
            inner.save_pretrained(partial, state_dict=plain)
            self._save_beside(partial)

        self.write_once(lambda: checkpoints.seal(folder, fill, {}))
        self._base_beside = folder

    def _save_beside(self, folder: str | Path) -> None:
        """What goes with the weights: the tokenizer, with the template of training, and where `generate` stops."""
        tokenizer = self.processing_class
        if self.chat is not None:
            tokenizer = published_tokenizer(self.chat)
            self.inner_model().generation_config.save_pretrained(folder)  # an adapter would bring none
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        copy_processor(self.inner_model(), folder)

    def create_model_card(self, *given: Any, dataset_name: str | None = None, **about: Any) -> None:
        """Write `README.md` of a run in Python: arguments as `Trainer`'s, and `dataset_name` as in TRL's trainers.

        `dudi train` and `dudi report` write a fuller one, from the recipe.
        """
        about = inspect.signature(super().create_model_card).bind(*given, **about).arguments
        if self.is_world_process_zero():
            write_text(self.args.folder / CARD, self._card(dataset_name, **about))

    def _card(self, dataset_name: str | None = None, tags: str | list[str] | None = None, **about: Any) -> str:
        """`Trainer`'s card, which knows of no method and takes a student from a folder for one made from scratch."""
        given = [tags] if isinstance(tags, str) else tags or []
        about["tags"] = list(dict.fromkeys([*given, *self._tag_names]))
        about["dataset"] = about.get("dataset") or dataset_name
        base = Path(self.inner_model().config.name_or_path or "")
        summary = TrainingSummary.from_trainer(self, **about)
        start = f" from {base.name}" if summary.finetuned_from is None and base.name else ""
        text = summary.to_model_card().replace("trained from scratch on", f"trained{start} on", 1)
        text = text.replace(" on an unknown dataset.", ".", 1)
        return text.replace("\n## ", f"\nIt was trained with {self.trained_with}.\n\n## ", 1)

    # ---- the hub

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Upload the model with its tokenizer, its card and its recipe, and with `hub_logs` its metrics; nothing else.

        No row, no rollout, no optimizer state and no stage of the run leaves this machine.

        Args:
            commit_message: Of the upload.
            blocking: Wait for it.
            token: In place of `hub_token` and of the one that `hf auth login` keeps.
            revision: The branch; `hub_revision` when None.
            private: Whether a repository that is made anew is private; `hub_private_repo` when None.
            kwargs: What `create_model_card` takes, for a run that has no card yet.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self._finish_current_push()
        folder = self._staged(kwargs)
        if not self.is_world_process_zero():
            return None
        where = {"token": token, "revision": revision}
        done = upload(folder, self.args, self.hub_model_id, commit_message, run_as_future=not blocking, **where)
        if blocking:
            shutil.rmtree(folder)
        else:
            self.push_in_progress = done
        return done

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """The same at each save, while training goes on; a checkpoint itself is never uploaded."""
        pushing = self.push_in_progress if self.is_world_process_zero() else None
        busy = pushing is not None and not pushing.is_done()
        if self.args.hub_strategy == HubStrategy.END or (any(gather_object([busy])) and not self.args.hub_always_push):
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self._finish_current_push()
        folder = self._staged({})
        if self.is_world_process_zero():
            message = f"Training in progress, step {self.state.global_step}"
            self.push_in_progress = upload(folder, self.args, self.hub_model_id, message, run_as_future=True)

    def _finish_current_push(self) -> None:
        """Wait for an upload, and drop what was put together for it."""
        super()._finish_current_push()
        if self.is_world_process_zero():
            shutil.rmtree(self.args.folder / STAGED, ignore_errors=True)

    def _staged(self, about: dict[str, Any]) -> Path:
        """A folder of what is uploaded, made anew; every rank has to call it."""
        folder = self.args.folder / STAGED
        weights = whole_weights(self.model_wrapped, self.accelerator)

        def fill() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            self._save(str(folder), state_dict=weights)
            stage_beside(self.args.folder, folder, logs=self.args.hub_logs)
            if not (self.args.folder / CARD).is_file():
                (folder / CARD).write_text(self._card(**about), encoding="utf-8")

        self.write_once(fill)
        return folder


def stage_beside(run: Path, folder: Path, logs: bool) -> None:
    """Put beside a model what may be read of its run: its card, its recipe and, where it is asked for, its metrics."""
    for name in (CARD, RECIPE, *(LOGS if logs else ())):
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)


def upload(folder: Path, args: RunArguments, repository: str | None, message: str | None, **options: Any) -> Any:
    """Send a staged folder to the hub; with `run_as_future` nobody waits for it."""
    options["token"] = options.get("token") or args.hub_token
    options["revision"] = options.get("revision") or args.hub_revision
    options |= {"repo_id": repository, "commit_message": message}
    return hf_api().upload_folder(folder_path=folder, **options)


def push_run(run: Path, args: RunArguments) -> str:
    """Upload the final model of a finished run, as `PublishingTrainer.push_to_hub` does; returns the repository."""
    folder = run / STAGED
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run / "model", folder, ignore=shutil.ignore_patterns(checkpoints.MANIFEST))
    stage_beside(run, folder, logs=args.hub_logs)
    name = args.hub_model_id or run.resolve().name
    made = hf_api().create_repo(name, token=args.hub_token, private=args.hub_private_repo, exist_ok=True)
    upload(folder, args, made.repo_id, "End of training", run_as_future=False)
    shutil.rmtree(folder, ignore_errors=True)
    return str(made.repo_id)
