"""What a key of a run is, declared once in its field; and what the fields that `transformers` declares are to us.

Whoever wants a list of keys asks for it here: which ones a resumed run may change, which ones a cold start reads, which
ones a recipe refuses. No torch here.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from dudi.errors import ConfigError

Stage = Literal["any", "method"]
Resume = Literal["binding", "open", "free"]
YAML_NAMES: dict[str, str] = {"lmbda": "lambda"}
"""Fields whose name in YAML is no Python name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """What a key is, beside its type, its default and its line of help.

    Attributes:
        stage: `method`: a cold start does not read it, so that runs that differ in it share one; else `any`.
        resume: `binding`: a run goes on with the same value or not at all; `open`: another one is what one resumes for
            (lengths), and another model comes out; `free`: it moves no weight.
        read_by: Parts of a run (`distill/keys.py`) or stages of a stack (`stacking/recipe.py`), one of which has to be
            there; empty: every run reads it.
        common: For a key whose default is the method's: what holds for a method that does not name it.
        refused: Why no value but the default has an effect, and what to do instead.
        elsewhere: Where a person says it who writes a recipe; Python takes it.
    """

    stage: Stage
    resume: Resume
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    read_by: tuple[str, ...] = ()
    common: Any = None
    refused: str = ""
    elsewhere: str = ""

    def check(self, value: Any, default: Any, name: str) -> None:
        """Hold a number against the range, and any value against what would have no effect.

        Raises:
            ConfigError: it lies outside, or is not the default and refused.
        """
        if self.refused and value not in (default, None) and (value, default) != (False, "no"):
            raise ConfigError(f"{name}: {value} is refused: {self.refused}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        bounds = (
            (operator.gt, "above", self.above),
            (operator.ge, "at least", self.at_least),
            (operator.lt, "below", self.below),
            (operator.le, "at most", self.at_most),
        )
        for holds, word, limit in bounds:
            if limit is not None and not holds(value, limit):
                raise ConfigError(f"{name}: must be {word} {limit}, got {value}")


_DECLARED: dict[dataclasses.Field[Any], Rule] = {}
"""The rule of each field that `key` has made; in a field's metadata `HfArgumentParser` would hand it to argparse."""


def _refused(why: str) -> Rule:
    return Rule("any", "free", refused=why)


def key(default: Any, help: str, *, stage: Stage, resume: Resume, read_by: str = "", **more: Any) -> Any:
    """A field with its line of help and its `Rule`; a list or a mapping is made anew for each object."""
    made: dict[str, Any] = {"default": default}
    if isinstance(default, list | dict):
        made = {"default_factory": lambda: type(default)(default)}
    field: dataclasses.Field[Any] = dataclasses.field(**made, metadata={"help": help})
    _DECLARED[field] = Rule(stage, resume, read_by=tuple(read_by.split()), **more)
    return field


def declared_rule(field: dataclasses.Field[Any]) -> Rule | None:
    """The rule of a field that is a key of ours (`key`); None for one of `transformers`."""
    return _DECLARED.get(field)


_RULES: tuple[tuple[Rule, str], ...] = (
    (
        Rule("any", "binding"),
        """lr_scheduler_type lr_scheduler_kwargs optim optim_args optim_target_modules full_determinism tf32 use_cpu
        activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs
        use_liger_kernel liger_kernel_config ignore_data_skip accelerator_config dataloader_drop_last
        dataloader_in_order train_sampling_strategy ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers
        ddp_static_graph ddp_backend fsdp fsdp_config deepspeed restore_callback_states_from_checkpoint""",
    ),
    (
        Rule("any", "binding", at_least=0),
        "learning_rate weight_decay max_grad_norm warmup_steps neftune_noise_alpha data_seed",
    ),
    (Rule("any", "binding", at_least=0, below=2**32), "seed"),
    (Rule("any", "binding", at_least=0, below=1), "adam_beta1 adam_beta2"),
    (Rule("any", "binding", above=0), "adam_epsilon"),
    (Rule("any", "binding", at_least=1), "per_device_train_batch_size gradient_accumulation_steps"),
    (Rule("any", "open", above=0), "num_train_epochs"),
    (Rule("any", "open", at_least=-1), "max_steps"),
    (Rule("any", "open"), "load_best_model_at_end metric_for_best_model greater_is_better"),
    (
        Rule("any", "free"),
        """run_name project trackio_space_id trackio_bucket_id trackio_static_space_id disable_tqdm log_level
        log_level_replica log_on_each_node logging_strategy logging_first_step eval_strategy eval_on_start
        save_strategy save_on_each_node push_to_hub hub_private_repo hub_model_id hub_strategy hub_always_push
        hub_revision dataloader_persistent_workers dataloader_multiprocessing_context use_cache debug
        skip_memory_metrics do_train do_eval do_predict""",
    ),
    (Rule("any", "free", at_least=0), "eval_steps eval_delay dataloader_num_workers dataloader_prefetch_factor"),
    (Rule("any", "free", above=0), "save_steps ddp_timeout torch_empty_cache_steps"),
    (Rule("any", "free", at_least=1), "per_device_eval_batch_size"),
    (Rule("any", "free", elsewhere="the run's folder is given with --output DIR"), "output_dir"),
    (Rule("any", "free", elsewhere="write --resume PATH"), "resume_from_checkpoint"),
    (
        Rule("any", "free", elsewhere="a recipe is no place for a secret; run `hf auth login` or set HF_TOKEN"),
        "hub_token",
    ),
    (Rule("any", "free", elsewhere="the launcher (torchrun, accelerate launch) sets it"), "local_rank"),
    (Rule("any", "binding", elsewhere="write dtype: bfloat16"), "bf16"),
    (Rule("any", "binding", elsewhere="write dtype: float16"), "fp16"),
    (Rule("any", "binding", elsewhere="it is a Python object; use accelerate's config file"), "parallelism_config"),
    (_refused("the losses are those of the method's signals, and have no labels to smooth"), "label_smoothing_factor"),
    (_refused("each signal is a mean over the tokens of all processes"), "average_tokens_across_devices"),
    (_refused("evaluation has the precision of training (dtype)"), "bf16_full_eval fp16_full_eval"),
    (
        _refused("the passes of a step have other shapes each time, and are not compiled"),
        "torch_compile torch_compile_backend torch_compile_mode",
    ),
    (_refused("another batch is another run; `dudi plan` says which one fits into memory"), "auto_find_batch_size"),
    (_refused("`tokens/*` in metrics.jsonl count what is trained"), "include_num_input_tokens_seen"),
    (
        _refused("evaluation during training measures losses and bits per byte, and nothing else"),
        """prediction_loss_only eval_do_concat_batches eval_use_gather_object eval_accumulation_steps
        include_for_metrics batch_eval_metrics label_names""",
    ),
    (_refused("a checkpoint is all that a run goes on from; save_total_limit keeps few"), "save_only_model"),
    (_refused("`dudi train` saves a checkpoint at SIGTERM by itself"), "enable_jit_checkpoint"),
    (_refused("lengths are found out, and no column holds them"), "length_column_name"),
    (_refused("it must stay off, since rows carry their text to the verbalizer"), "remove_unused_columns"),
    (_refused("it must stay off, so that a non-finite loss stops the run"), "logging_nan_inf_filter"),
)
INHERITED: dict[str, Rule] = {name: rule for rule, names in _RULES for name in names.split()}
"""What each field of `transformers.TrainingArguments` is that we do not declare ourselves. A test wants all of them."""


_free = functools.partial(key, stage="any", resume="free")


@dataclasses.dataclass
class RunKeys:
    """The keys that every trainer of the house declares anew."""

    logging_steps: float = _free(1, "Optimizer steps between two reports to the bar and to `report_to`.", at_least=0)
    save_total_limit: int | None = _free(2, "Checkpoints that are kept; the newest always is.", at_least=1)
    dataloader_pin_memory: bool = _free(False, "Rows arrive as ids, not as tensors: there is nothing to pin.")
    hub_logs: bool = _free(False, "Let `push_to_hub` send metrics.jsonl and eval.jsonl beside model, card and recipe.")
    # HfArgumentParser reads this union only in the order in which TrainingArguments writes it.
    report_to: None | str | list[str] = _free(  # noqa: RUF036
        "none", "tensorboard, trackio and the other integrations of Trainer."
    )
    remove_unused_columns: bool = False
    logging_nan_inf_filter: bool = False


def unread_of(read_by: Mapping[str, tuple[str, ...]], there: Callable[[str], bool]) -> list[str]:
    """The keys that nothing reads which is there; one for which no reader is named is read by every run."""
    return [name for name, readers in read_by.items() if readers and not any(map(there, readers))]


def unread_message(name: str, who: str, readers: Iterable[str]) -> str:
    """What to tell a person who gave a key that nothing reads."""
    return f"{name}: {who} does not read it: it belongs to {' or '.join(readers)}; take it out"


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A field's default, made anew."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def rules_of(kind: type[Any]) -> dict[str, Rule]:
    """The rule of each field of a class of arguments, by its Python name.

    A field that only a later `transformers` has binds a resumed run, as the careful answer.
    """
    unknown = Rule("any", "binding")
    fields = [field for field in dataclasses.fields(kind) if field.init]
    return {field.name: declared_rule(field) or INHERITED.get(field.name, unknown) for field in fields}
