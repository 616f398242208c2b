"""`DudiConfig`: the keys of a training run, as a `transformers.TrainingArguments`."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from transformers import IntervalStrategy

from dudi.errors import ConfigError, did_you_mean
from dudi.objective.heads import Distance, Kernel
from dudi.objective.losses import Divergence
from dudi.objective.methods import METHOD_KEYS, METHODS, SignalName, method_default
from dudi.objective.signals import OffPolicyLoss, OffPolicySignal, OnPolicySignal, SequenceSignal, Signal
from dudi.training.arguments import RunArguments
from dudi.training.arguments import key as _key

SIGNALS: tuple[SignalName, ...] = ("sequence", "off_policy", "on_policy")
CHOICES: dict[str, tuple[str, ...]] = {
    "method": tuple(METHODS),
    "divergence": get_args(Divergence),
    "off_policy_loss": get_args(OffPolicyLoss),
    "verbalizer": ("none", "english", "multilingual", "cross_lingual", "mix"),
    "targets": ("gold", "teacher"),
    "mixing": ("sum", "sample"),
    "loss_average": ("token", "sequence"),
    "loss_kernel": get_args(Kernel),
    "cold_start_adapter": ("merge", "continue"),
    "vllm_mode": ("colocate", "server"),
    "vllm_weight_sync": ("auto", "nccl", "disk"),
}
VLLM_KEYS: tuple[str, ...] = (
    *("vllm_mode", "vllm_weight_sync", "vllm_server_base_url", "vllm_server_host", "vllm_server_port"),
    *("vllm_server_timeout", "vllm_group_port", "vllm_gpu_memory_utilization", "vllm_max_model_length"),
    *("vllm_enable_sleep_mode", "vllm_model_impl"),
)
"""Where vLLM runs and how it is reached: they decide no number, and a resumed run may change them."""
COLD_STARTS: tuple[str, ...] = ("none", "sft", "dft", "teacher_sft")
ALARM_RATES: tuple[str, ...] = (
    "alarm_empty_rate",
    "alarm_repetition_rate",
    "alarm_unended_rate",
    "alarm_wrong_language_rate",
)
METHOD_STAGE_KEYS: frozenset[str] = frozenset(
    {
        *("beta", "temperature", "kd_temperature", "max_new_tokens", "teacher_max_length", "languages"),
        *("exclude_targets", "share_rollouts", "cold_start_adapter", "spin_iterations", "spin_learning_rates"),
        *("ema_rate", "rollout_batch_size", "eval_rollouts", "overlap_k", "cold_start_learning_rate"),
        "min_shared_bytes",
        *("use_vllm", *VLLM_KEYS),
        *("alarm_steps", *ALARM_RATES),
    }
)
"""Keys that a cold start on the ground truth does not read, so that it is shared by runs that differ in them."""
SEA_LANGUAGES: tuple[str, ...] = ("id", "vi", "th", "ta", "tl", "ms", "my")


@dataclass
class DudiConfig(RunArguments):
    """Everything `DudiTrainer` can be told, beside the fields of `TrainingArguments`.

    A key of `METHOD_KEYS` that is given as None takes the method's own default (`docs/method.md`). `__post_init__`
    fills it in, so that a constructed config holds the values that the run will use; the types are those of a
    constructed config. `given_keys` remembers which of them were set by hand, `stage_epochs` the epochs of a stage
    before `spin_iterations` took their place.

    Raises:
        ConfigError: a value is outside its choices or range, or keys contradict each other.
    """

    method: str = _key("dudi", "Which row of Table 1: sft, dft, spin, sdft, seqkd, gkd or dudi.")
    alpha: float = _key(None, "Weight of the sequence signal (Eq. 8).")
    lmbda: float = _key(None, "Weight of the on-policy token signal; the off-policy one has 1 - lambda (Eq. 8).")
    divergence: Divergence = _key(None, "D of the token signals: forward_kl, reverse_kl or jsd.")
    beta: float = _key(0.5, "Weight of the teacher in the mixture of the Jensen-Shannon divergence.")
    temperature: float = _key(0.9, "Sampling temperature of rollouts.")
    kd_temperature: float = _key(1.0, "Temperature of both distributions inside the divergence.")
    max_new_tokens: int = _key(256, "Longest rollout, in tokens.")
    max_length: int = _key(1024, "Longest prompt plus ground truth of the student, in tokens.")
    teacher_max_length: int = _key(
        2560, "Longest verbalized prompt of the teacher; a longer one leaves out the ground truth."
    )
    verbalizer: str = _key(None, "none, english, multilingual, cross_lingual or mix.")
    languages: list[str] = _key(list(SEA_LANGUAGES), "The training languages; English joins the targets by itself.")
    exclude_targets: list[str] = _key([], "Languages that the verbalizer never asks for.")
    without: list[str] = _key([], "Signals to leave out; the others keep their weights (Table 4).")
    targets: str = _key(None, "gold, or teacher: answers that the teacher writes once before training (SeqKD).")
    off_policy_loss: OffPolicyLoss = _key(None, "divergence, cross_entropy or dft: the loss on the targets.")
    cold_start: str = _key(None, "none, sft, dft, teacher_sft, or a folder to start the method from.")
    cold_start_epochs: float | None = _key(None, "Epochs of the cold start; null: as many as the method's.")
    cold_start_learning_rate: float | None = _key(None, "Learning rate of the cold start; null: the method's.")
    cold_start_adapter: str = _key("merge", "With LoRA: merge the cold start's adapter, or continue training it.")
    share_rollouts: bool = _key(False, "Without a verbalizer: let the on-policy signal reuse the sequence signal's y'.")
    mixing: str = _key(None, "sum: Eq. 8; sample: one coin a step chooses the off- or the on-policy signal.")
    spin_beta: float = _key(None, "Regularisation of the sequence signal (lambda of Eq. 2).")
    spin_iterations: int = _key(3, "Iterations of the method spin, one epoch each.")
    spin_learning_rates: list[float] | None = _key(None, "One learning rate per iteration of spin; else learning_rate.")
    loss_average: str = _key(None, "token: mean over trained tokens; sequence: mean of the sequences' means.")
    skip_completion_tokens: int = _key(None, "First tokens of a rollout that the on-policy signal leaves out.")
    ema_rate: float = _key(0.01, "Share of the student in each update of the moving-average teacher (SDFT).")
    chat_template_kwargs: dict[str, Any] = _key({}, "Arguments of the chat templates, beside the defaults.")
    overlap_k: int = _key(16, "k of the overlap ratio (Figure 5).")
    eval_rollouts: bool = _key(False, "Let evaluation during training roll out too; seeded apart.")
    rollout_batch_size: int = _key(64, "Most rollouts decoded together on one device.")
    use_vllm: bool = _key(False, "Let vLLM write the student's rollouts (docs/vllm.md); else transformers.")
    vllm_mode: str = _key("colocate", "colocate: vLLM in each training process, on its device; server: one of its own.")
    vllm_gpu_memory_utilization: float = _key(0.3, "Share of the device's memory that a colocated vLLM may take.")
    vllm_max_model_length: int | None = _key(None, "Longest prompt plus rollout; null: both limits plus 512.")
    vllm_enable_sleep_mode: bool = _key(False, "Give a colocated vLLM's memory back between rollouts (CUDA only).")
    vllm_model_impl: str = _key("auto", "vLLM's own model code, or that of transformers: auto, vllm, transformers.")
    vllm_server_base_url: str | None = _key(None, "The server's URL; it wins over host and port.")
    vllm_server_host: str = _key("127.0.0.1", "The server's host.")
    vllm_server_port: int = _key(8000, "The server's port.")
    vllm_server_timeout: float = _key(240.0, "Seconds to wait for the server to be up.")
    vllm_group_port: int = _key(51216, "Port over which NCCL sends the weights to the server.")
    vllm_weight_sync: str = _key(
        "auto", "How a server gets the weights: nccl, disk (a file that it can read), or auto: nccl on CUDA."
    )
    loss_kernel: Kernel = _key(
        "auto", "dense, chunked or fused (neither holds the logits), or auto: by device and size."
    )
    min_shared_bytes: float = _key(
        0.5, "With a teacher of another tokenizer: least share of a language's bytes that has to be comparable."
    )
    samples_per_step: int = _key(2, "Rollouts written to samples.jsonl each optimizer step.")
    alarm_steps: int = _key(10, "Optimizer steps over which the rates of the alarms below are averaged.")
    alarm_empty_rate: float = _key(0.2, "A warning when more rollouts than this share are empty.")
    alarm_repetition_rate: float = _key(0.2, "A warning when more rollouts than this end in a loop.")
    alarm_unended_rate: float = _key(0.8, "A warning when more rollouts than this reach max_new_tokens.")
    alarm_wrong_language_rate: float = _key(0.6, "A warning when more rollouts than this are in a wrong language.")
    cache_dir: str | None = _key(None, "Where cold starts and teacher-written answers are shared between runs.")

    learning_rate: float = _key(2e-5, "The paper's learning rate.")
    per_device_train_batch_size: int = _key(8, "Rows a device reads at a time.")
    gradient_accumulation_steps: int = _key(4, "Micro-batches of one optimizer step: 8 x 4 is the paper's batch of 32.")

    given_keys: frozenset[str] = field(default=frozenset(), init=False, repr=False, compare=False)
    stage_epochs: float = field(default=3.0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.given_keys = frozenset(key for key in METHOD_KEYS if getattr(self, key) is not None)
        self._check_choice("method", self.method)
        for key in METHOD_KEYS:
            if getattr(self, key) is None:
                setattr(self, key, method_default(self.method, key))
        for key in CHOICES:
            self._check_choice(key, getattr(self, key))
        self._check_ranges()
        self._check_lists()
        self.stage_epochs = self.num_train_epochs
        if METHODS[self.method].iterated:
            self.num_train_epochs = float(self.spin_iterations)
        super().__post_init__()

    def _check_choice(self, key: str, value: str) -> None:
        if value not in CHOICES[key]:
            raise ConfigError(
                f"{key}: '{value}' is not one of {', '.join(CHOICES[key])}{did_you_mean(value, CHOICES[key])}"
            )

    def _check_ranges(self) -> None:
        checks: tuple[tuple[str, bool, str], ...] = (
            ("alpha", self.alpha >= 0, "at least 0"),
            ("lambda", 0 <= self.lmbda <= 1, "between 0 and 1"),
            ("beta", 0 < self.beta < 1, "between 0 and 1, both excluded (use forward_kl or reverse_kl for the ends)"),
            ("temperature", self.temperature > 0, "above 0"),
            ("kd_temperature", self.kd_temperature > 0, "above 0"),
            ("spin_beta", self.spin_beta > 0, "above 0"),
            ("spin_iterations", self.spin_iterations >= 1, "at least 1"),
            ("ema_rate", 0 < self.ema_rate <= 1, "between 0 (excluded) and 1"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("max_length", self.max_length > 16, "above 16"),
            ("skip_completion_tokens", self.skip_completion_tokens >= 0, "at least 0"),
            ("overlap_k", self.overlap_k >= 1, "at least 1"),
            ("min_shared_bytes", 0 <= self.min_shared_bytes <= 1, "between 0 and 1"),
            ("rollout_batch_size", self.rollout_batch_size >= 1, "at least 1"),
            (
                "vllm_gpu_memory_utilization",
                0 < self.vllm_gpu_memory_utilization <= 1,
                "between 0 (excluded) and 1",
            ),
            ("alarm_steps", self.alarm_steps >= 1, "at least 1"),
            *((key, 0 <= getattr(self, key) <= 1, "between 0 and 1") for key in ALARM_RATES),
            ("cold_start_epochs", self.cold_start_epochs is None or self.cold_start_epochs > 0, "above 0, or null"),
            (
                "cold_start_learning_rate",
                self.cold_start_learning_rate is None or self.cold_start_learning_rate > 0,
                "above 0, or null",
            ),
        )
        for key, holds, wanted in checks:
            if not holds:
                value = self.lmbda if key == "lambda" else getattr(self, key)
                raise ConfigError(f"{key}: must be {wanted}, got {value}")

    def _check_lists(self) -> None:
        for name in self.without:
            if name not in SIGNALS:
                raise ConfigError(f"without: '{name}' is not one of {', '.join(SIGNALS)}{did_you_mean(name, SIGNALS)}")
        if not self.languages:
            raise ConfigError("languages: name at least one training language")
        rates = self.spin_learning_rates
        if rates is not None and len(rates) != self.spin_iterations:
            raise ConfigError(f"spin_learning_rates: {len(rates)} values for {self.spin_iterations} iterations")
        if self.share_rollouts and self.verbalizer != "none":
            raise ConfigError("share_rollouts: needs `verbalizer: none`, since y' answers the plain prompt")
        if not self.signals:
            raise ConfigError(
                f"method {self.method}: no signal is left (without={self.without}, alpha={self.alpha}, "
                f"lambda={self.lmbda}); nothing would be trained"
            )

    @classmethod
    def free_to_change(cls) -> frozenset[str]:
        """Where vLLM runs, and when an alarm is given."""
        return frozenset({*VLLM_KEYS, "alarm_steps", *ALARM_RATES})

    @property
    def signals(self) -> dict[str, float]:
        """The signals that will run, with their weights in Eq. 8; weight 0 and `without` remove one."""
        weights = {
            "sequence": self.alpha,
            "off_policy": 1.0 - self.lmbda,
            "on_policy": self.lmbda,
        }
        has = METHODS[self.method].signals
        return {name: weights[name] for name in SIGNALS if name in has and name not in self.without and weights[name]}

    @property
    def on_policy_kind(self) -> Literal["plain", "verbalized"]:
        """The rollouts that the on-policy signal reads: its own, or the sequence signal's when they are shared."""
        return "plain" if self.share_rollouts else "verbalized"

    def require_teacher(self, given: bool) -> None:
        """Hold a method that reads a second model against whether there is one.

        Raises:
            ConfigError: it is missing.
        """
        if self.needs_teacher and not given:
            raise ConfigError(
                f"method {self.method} needs a teacher: set teacher (teacher_model in Python) to a larger model"
            )

    @property
    def needs_teacher(self) -> bool:
        """Whether a second model has to be given: for a divergence, or to write the targets."""
        if self.targets == "teacher" or self.cold_start == "teacher_sft":
            return True
        if METHODS[self.method].teacher != "model":
            return False
        return "on_policy" in self.signals or ("off_policy" in self.signals and self.off_policy_loss == "divergence")

    @property
    def reads_teacher_tokens(self) -> bool:
        """Whether a second model's probabilities are read: not where it only writes targets."""
        return METHODS[self.method].teacher == "model" and any(s.teacher_reads for s in build_signals(self).values())

    def for_cold_start(self, output_dir: str) -> DudiConfig:
        """The config of the cold-start stage: the same keys, with SFT or DFT as the method.

        Args:
            output_dir: The folder of the stage.
        """
        # A copy, not a new object: TrainingArguments resets the process group's state when it is constructed.
        stage = copy.copy(self)
        stage.method = "dft" if self.cold_start == "dft" else "sft"
        for key in METHOD_KEYS:
            setattr(stage, key, method_default(stage.method, key))
        stage.output_dir = output_dir
        stage.targets = "teacher" if self.cold_start == "teacher_sft" else "gold"
        stage.without, stage.share_rollouts = [], False
        stage.num_train_epochs = self.stage_epochs if self.cold_start_epochs is None else self.cold_start_epochs
        if self.cold_start_learning_rate is not None:
            stage.learning_rate = self.cold_start_learning_rate
        stage.cold_start_epochs = stage.cold_start_learning_rate = None
        stage.eval_strategy = IntervalStrategy.NO
        stage.load_best_model_at_end = stage.push_to_hub = False
        return stage


def build_signals(args: DudiConfig) -> dict[str, Signal]:
    """The signals that a config runs; one of weight 0 is left out, and so never rolled out or scored."""
    distance = Distance(args.divergence, args.beta, args.kd_temperature)
    everything: dict[str, Signal] = {
        "sequence": SequenceSignal(args.spin_beta),
        "off_policy": OffPolicySignal(args.off_policy_loss, distance),
        "on_policy": OnPolicySignal(distance, args.on_policy_kind),
    }
    return {name: everything[name] for name in args.signals}
