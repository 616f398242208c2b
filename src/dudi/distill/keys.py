"""The keys of `dudi train`: each declared once, with all that anything in the package asks of it. No torch here.

A key that names parts of a run in `read_by` is read where one of them is there, and has no effect elsewhere: who gives
it to a method that lacks them (`alpha: 0.7` to `sft`) is told so.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from dudi.errors import ConfigError, did_you_mean, nearest
from dudi.objective.methods import (
    CHOOSING,
    METHODS,
    Divergence,
    Kernel,
    Method,
    MethodName,
    OffPolicyLoss,
    SignalName,
    VerbalizerMode,
)
from dudi.training.keys import RunKeys, default_of, key, rules_of, unread_message, unread_of
from dudi.training.values import Exactly, Place

Values = Mapping[str, Any]
ColdStart = Literal["none", "sft", "dft", "teacher_sft"]
COLD_STARTS: tuple[str, ...] = get_args(ColdStart)
SEA_LANGUAGES: tuple[str, ...] = ("id", "vi", "th", "ta", "tl", "ms", "my")


@dataclass(frozen=True, slots=True)
class KeyGroup:
    """A part of a run that reads keys, whether a run of a method with some values has it, and the keys that decide."""

    what: str
    there: Callable[[Method, Values], bool]
    switches: tuple[str, ...] = ("method",)


PARTS: dict[str, KeyGroup] = {
    "sequence": KeyGroup("the sequence signal", lambda method, _: "sequence" in method.signals),
    "off_policy": KeyGroup("the off-policy signal", lambda method, _: "off_policy" in method.signals),
    "on_policy": KeyGroup("the on-policy signal", lambda method, _: "on_policy" in method.signals),
    "tokens": KeyGroup("a token signal", lambda method, _: bool(method.signals & {"off_policy", "on_policy"})),
    "both_tokens": KeyGroup("both token signals", lambda method, _: method.signals >= {"off_policy", "on_policy"}),
    "rollouts": KeyGroup("the student's rollouts", lambda method, _: bool(method.signals & {"sequence", "on_policy"})),
    "both_rollouts": KeyGroup("both kinds of rollout", lambda method, _: method.signals >= {"sequence", "on_policy"}),
    "divergence": KeyGroup("a divergence from a teacher", lambda method, _: method.teacher != "none"),
    "jsd": KeyGroup(
        "a divergence that is jsd",
        lambda method, values: (
            method.teacher != "none"
            and "jsd" in (values["divergence"], values["off_policy_divergence"], values["on_policy_divergence"])
        ),
        ("method", "divergence", "off_policy_divergence", "on_policy_divergence"),
    ),
    "taught_targets": KeyGroup(
        "a divergence on the targets", lambda method, _: method.teacher != "none" and "off_policy" in method.signals
    ),
    "hybrid": KeyGroup(
        "a divergence on the targets with a share below 1: set `teacher_weight`",
        lambda method, values: (
            method.teacher == "model" and values["teacher_weight"] != 1 and values["off_policy_loss"] == "divergence"
        ),
        ("method", "teacher_weight", "off_policy_loss"),
    ),
    "probe": KeyGroup(
        "a probe: set `teacher_weight: auto`",
        lambda method, values: method.teacher == "model" and values["teacher_weight"] == "auto",
        ("method", "teacher_weight"),
    ),
    "second_model": KeyGroup("a second model as teacher", lambda method, _: method.teacher == "model"),
    "average": KeyGroup("a teacher that is the student's average", lambda method, _: method.teacher == "ema"),
    "iterations": KeyGroup("a method in iterations", lambda method, _: method.iterated),
    "epochs": KeyGroup("methods without iterations: set spin_iterations", lambda method, _: not method.iterated),
    "written": KeyGroup(
        "answers that the teacher writes",
        lambda _, values: values["targets"] == "teacher" or values["cold_start"] == "teacher_sft",
        ("method", "targets", "cold_start"),
    ),
    "start": KeyGroup("a cold start", lambda _, values: values["cold_start"] != "none", ("method", "cold_start")),
}
_any = functools.partial(key, stage="any", resume="binding")
_method = functools.partial(key, stage="method", resume="binding")
_quiet = functools.partial(key, stage="method", resume="free", read_by="rollouts")
_SHARE: Any = {"at_least": 0, "at_most": 1}


@dataclass
class DudiKeys(RunKeys):
    """What `DudiTrainer` can be told, beside the other fields of `TrainingArguments`.

    None for a key with a `common` value takes the method's own default, and where the method names none, that value.
    The types are those of a constructed `DudiConfig`.
    """

    method: MethodName = _any("dudi", "Which row of Table 1, or gated (docs/method.md).")
    alpha: float = _any(None, "Weight of the sequence signal (Eq. 8).", common=0.0, read_by="sequence", at_least=0)
    lmbda: float = _any(
        None, "Weight of the on-policy signal; the off-policy one has 1 - it.", common=0.0, read_by="tokens", **_SHARE
    )
    divergence: Divergence = _any(
        None, "D of the token signals: forward_kl, reverse_kl or jsd.", common="reverse_kl", read_by="divergence"
    )
    off_policy_divergence: Divergence | None = _method(
        None, "D on the targets; null: `divergence`.", read_by="taught_targets"
    )
    on_policy_divergence: Divergence | None = _method(
        None, "D on what the student writes; null: `divergence`.", read_by="on_policy"
    )
    # The order of report_to's union: HfArgumentParser reads no other.
    teacher_weight: Annotated[
        None | str | float | dict[str, float], Exactly(float | dict[str, float] | Literal["auto"])  # noqa: RUF036
    ] = _method(
        None,
        "Share w of the teacher in w D + (1 - w) gold_loss: a number, {my: 0, ta: 0.2}, or auto: from a probe.",
        common=1.0,
        read_by="second_model",
    )
    gold_loss: Literal["dft", "sft"] = _method(
        None, "The loss on the targets for the share 1 - w of `teacher_weight`.", common="dft", read_by="hybrid"
    )
    probe_rows: int = _method(
        48, "Rows of each language for the probe, held out where none are for evaluation.", read_by="probe", at_least=2
    )
    probe_examples: int = _method(
        0,
        "Other rows of the probe in the same language that the teacher reads, with their answers, before each of its "
        "questions: it then knows the form that the student has learnt.",
        read_by="probe",
        at_least=0,
    )
    teacher_route: Literal["given", "auto"] = _method(
        "given",
        "Who of several `teachers` judges a language: the one given for it, or the best of a probe "
        "(`teacher_weight: auto`).",
        read_by="probe",
    )
    teacher_offload: Literal["none", "cpu"] = key(
        "none",
        "cpu: teachers lie in the computer's memory and come to the device one by one, once a step.",
        stage="any",
        resume="free",
        read_by="second_model written",
    )
    teacher_cache: Place | None = key(
        None,
        "Folder that keeps the teacher's states on the targets: later epochs and runs read them (docs/method.md).",
        stage="any",
        resume="free",
        read_by="taught_targets",
    )
    teacher_top_k: int = _method(
        64,
        "Of a served teacher (`teacher.server`): tokens that are known at each position beside the label, the others "
        "as one (docs/served-teacher.md).",
        resume="free",
        read_by="second_model",
        at_least=1,
    )
    language_balance: bool = _method(
        None,
        "Scale a language's divergence on rollouts by clip(sigma_all / sigma_l, 1/4, 4) of log p_T - log p_S.",
        common=False,
        read_by="on_policy",
    )
    verbalizer_targets: Literal["uniform", "teacher"] = _method(
        None, "Languages to answer in: as likely, or as `teacher_weight`.", common="uniform", read_by="on_policy"
    )
    beta: float = _method(
        0.5, "Weight of the teacher in the mixture of the Jensen-Shannon divergence.", read_by="jsd", above=0, below=1
    )
    temperature: float = _method(0.9, "Sampling temperature of rollouts.", read_by="rollouts written", above=0)
    kd_temperature: float = _method(
        1.0, "Temperature of both distributions inside the divergence.", read_by="divergence", above=0
    )
    max_new_tokens: int = _method(256, "Longest rollout, in tokens.", read_by="rollouts written", at_least=1)
    max_length: int = _any(1024, "Longest prompt plus ground truth of the student, in tokens.", above=16)
    teacher_max_length: int = _method(
        2560, "Longest prompt z; a longer one leaves out the ground truth.", read_by="on_policy", at_least=1
    )
    verbalizer: VerbalizerMode = _any(
        None, "none, english, multilingual, cross_lingual or mix.", common="none", read_by="on_policy"
    )
    pivot: str | None = _method(
        None,
        "Code of a language in which z shows the example too, where a row with the same `parallel` is in it: en.",
        read_by="on_policy",
    )
    languages: list[str] = _method(list(SEA_LANGUAGES), "The training languages; English joins the targets by itself.")
    exclude_targets: list[str] = _method([], "Languages that the verbalizer never asks for.", read_by="on_policy")
    without: Annotated[list[str], Exactly(list[SignalName])] = _any(
        [], "Signals to leave out; the others keep their weights (Table 4)."
    )
    targets: Literal["gold", "teacher"] = _any(
        None, "gold, or teacher: answers that the teacher writes once before training (SeqKD).", common="gold"
    )
    off_policy_loss: OffPolicyLoss = _any(
        None, "divergence, cross_entropy or dft: the loss on the targets.", common="divergence", read_by="off_policy"
    )
    cold_start: Place = _any(None, "none, sft, dft, teacher_sft, or a folder to start the method from.", common="sft")
    cold_start_epochs: float | None = _any(
        None,
        "Epochs of the cold start; null: as many as the method's. `max_steps` is in force for both, whatever they are.",
        read_by="start",
        above=0,
    )
    cold_start_learning_rate: float | None = _method(
        None, "Learning rate of the cold start; null: the method's.", read_by="start", above=0
    )
    cold_start_optim: str | None = _method(
        None, "Optimizer of the cold start, by its name in `optim`; null: the method's.", read_by="start"
    )
    cold_start_adapter: Literal["merge", "continue"] = _method(
        "merge", "With LoRA: merge the cold start's adapter, or continue training it.", read_by="start"
    )
    share_rollouts: bool = _method(
        False, "Without a verbalizer: let the on-policy signal reuse the sequence signal's y'.", read_by="both_rollouts"
    )
    mixing: Literal["sum", "sample"] = _any(
        None, "sum: Eq. 8; sample: one coin a step chooses a token signal.", common="sum", read_by="both_tokens"
    )
    spin_beta: float = _any(
        None, "Regularisation of the sequence signal (lambda of Eq. 2).", common=0.1, read_by="sequence", above=0
    )
    reference_dtype: Literal["float32", "bfloat16"] = _method(
        "float32",
        "Precision of the copy of the student that the sequence signal compares it with; bfloat16 halves its memory, "
        "and rounds what the cold start has learned.",
        read_by="sequence",
    )
    spin_iterations: int = _method(
        3, "Iterations of the method spin, one epoch each.", read_by="iterations", at_least=1
    )
    spin_learning_rates: list[float] | None = _method(
        None, "One learning rate per iteration of spin; else learning_rate.", read_by="iterations"
    )
    loss_average: Literal["token", "sequence", "language"] = _any(
        None,
        "Mean over trained tokens, of the means of sequences, or of those of languages, weighed by their rows.",
        common="token",
        read_by="tokens",
    )
    skip_completion_tokens: int = _any(
        None, "First tokens of a rollout that are not trained.", common=0, read_by="on_policy", at_least=0
    )
    ema_rate: float = _method(
        0.01, "Share of the student in each update of its average.", read_by="average", above=0, at_most=1
    )
    chat_template_kwargs: dict[str, Any] = _any({}, "Arguments of the chat templates, beside the defaults.")
    overlap_k: int = _quiet(16, "k of the overlap ratio (Figure 5).", read_by="on_policy", at_least=1)
    eval_rollouts: bool = _quiet(
        False, "Let evaluation during training roll out too; seeded apart.", read_by="on_policy"
    )
    rollout_batch_size: int = _method(
        64, "Most rollouts decoded together on one device.", read_by="rollouts written", at_least=1
    )
    use_vllm: bool = _method(
        False, "Let vLLM write the student's rollouts (docs/vllm.md); else transformers.", read_by="rollouts"
    )
    vllm_mode: Literal["colocate", "server"] = _quiet(
        "colocate", "colocate: vLLM in each training process, on its device; server: one of its own."
    )
    vllm_gpu_memory_utilization: float = _quiet(
        0.3, "Share of the device's memory that a colocated vLLM may take.", above=0, at_most=1
    )
    vllm_max_model_length: int | None = _quiet(
        None, "Longest prompt plus rollout; null: both limits plus 512.", at_least=1
    )
    vllm_enable_sleep_mode: bool = _quiet(False, "Give a colocated vLLM's memory back between rollouts (CUDA only).")
    vllm_model_impl: Literal["auto", "vllm", "transformers"] = _quiet(
        "auto", "vLLM's own model code, or that of transformers: auto, vllm, transformers."
    )
    vllm_server_base_url: str | None = _quiet(None, "The server's URL; it wins over host and port.")
    vllm_server_host: str = _quiet("127.0.0.1", "The server's host.")
    vllm_server_port: int = _quiet(8000, "The server's port.", at_least=1)
    vllm_server_timeout: float = _quiet(240.0, "Seconds to wait for the server to be up.", above=0)
    vllm_group_port: int = _quiet(51216, "Port over which NCCL sends the weights to the server.", at_least=1)
    vllm_weight_sync: Literal["auto", "nccl", "disk"] = _quiet(
        "auto", "How a server gets the weights: nccl, disk (a file that it can read), or auto: nccl on CUDA."
    )
    loss_kernel: Kernel = _any(
        "auto", "dense, chunked or fused (neither holds the logits), or auto: by device and size."
    )
    min_shared_bytes: float = _method(
        0.5,
        "With a teacher of another tokenizer: least share of a language's bytes that has to be comparable.",
        read_by="second_model",
        at_least=0,
        at_most=1,
    )
    samples_per_step: int = _quiet(2, "Rollouts written to samples.jsonl each optimizer step.", at_least=0)
    alarm_steps: int = _quiet(10, "Optimizer steps over which the rates of the alarms below are averaged.", at_least=1)
    alarm_empty_rate: float = _quiet(0.2, "A warning when more rollouts than this share are empty.", **_SHARE)
    alarm_repetition_rate: float = _quiet(0.2, "A warning when more rollouts than this end in a loop.", **_SHARE)
    alarm_unended_rate: float = _quiet(0.8, "A warning when more rollouts than this reach max_new_tokens.", **_SHARE)
    alarm_wrong_language_rate: float = _quiet(
        0.6, "A warning when more rollouts than this are in a wrong language.", **_SHARE
    )
    cache_dir: Place | None = key(
        None, "Where cold starts and teacher-written answers are shared between runs.", stage="any", resume="free"
    )

    learning_rate: float = _any(2e-5, "The paper's learning rate.", at_least=0)
    num_train_epochs: float = key(3.0, "Passes over the rows.", stage="any", resume="open", read_by="epochs", above=0)
    per_device_train_batch_size: int = _any(8, "Rows a device reads at a time.", at_least=1)
    gradient_accumulation_steps: int = _any(
        4, "Micro-batches of one optimizer step: 8 x 4 is the paper's batch of 32.", at_least=1
    )
    train_sampling_strategy: Literal["random", "sequential"] = _any(
        "random", "The order of the rows: random, or sequential."
    )


RULES = rules_of(DudiKeys)
METHOD_KEYS: frozenset[str] = frozenset(name for name, rule in RULES.items() if rule.common is not None)
"""The keys whose default depends on the method."""
METHOD_STAGE_KEYS: frozenset[str] = frozenset(name for name, rule in RULES.items() if rule.stage == "method")
"""Keys that a cold start on the ground truth does not read, so that it is shared by runs that differ in them."""
_DEFAULTS: dict[str, Any] = {field.name: default_of(field) for field in dataclasses.fields(DudiKeys)}


def method_default(method: str, name: str, given: Values | None = None) -> Any:
    """The value that a method gives to a key of `METHOD_KEYS` when the user does not, who gave other keys."""
    if name == "verbalizer_targets":  # without a verbalizer that chooses, no method has a language to weigh
        verbalizer = (given or {}).get("verbalizer") or method_default(method, "verbalizer")
        if verbalizer not in CHOOSING:
            return RULES[name].common
    return METHODS[method].defaults.get(name, RULES[name].common)


def unread(values: Values, given: Iterable[str]) -> dict[str, list[KeyGroup]]:
    """The given keys that no part of the run reads, each with the parts that would.

    A key that has the value that it would have anyway says nothing, and is not among them. All keys of `DudiKeys` have
    to be among the values, by their Python names.
    """
    found, method = {}, METHODS[values["method"]]
    read_by = {name: RULES[name].read_by for name in given if name in RULES}
    for name in unread_of(read_by, lambda part: PARTS[part].there(method, values)):
        anyway = [_DEFAULTS.get(name), method_default(method.name, name) if name in METHOD_KEYS else None]
        if name == "num_train_epochs":
            anyway.append(values["spin_iterations"])
        if values[name] not in anyway:
            found[name] = [PARTS[part] for part in read_by[name]]
    return found


def refusal(name: str, values: Values, parts: Iterable[KeyGroup]) -> str:
    """What to tell a person who gave a key that nothing of a method reads."""
    return unread_message(name, f"method {values['method']}", [part.what for part in parts])


def check_cold_start(start: str) -> None:
    """Raise a `ConfigError` where `cold_start` is nearly one of its words, and no folder."""
    if start not in COLD_STARTS and nearest(start, COLD_STARTS) and not Path(start).exists():
        hint = did_you_mean(start, COLD_STARTS)
        raise ConfigError(f"cold_start: '{start}' is neither one of {', '.join(COLD_STARTS)} nor a folder{hint}")
