"""`DudiConfig`: the keys of a training run, as a `transformers.TrainingArguments`."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal

from transformers import IntervalStrategy
from transformers.training_args import OptimizerNames

from dudi.distill.keys import METHOD_KEYS, DudiKeys, check_cold_start, method_default, refusal, unread
from dudi.environment import multiplies_bfloat16
from dudi.errors import ConfigError, did_you_mean
from dudi.languages.registry import check_codes, load_languages
from dudi.objective.heads import Distance
from dudi.objective.methods import CHOOSING, METHODS, SIGNALS, MethodName
from dudi.objective.signals import OffPolicySignal, OnPolicySignal, SequenceSignal, Signal
from dudi.training.arguments import RunArguments
from dudi.training.keys import YAML_NAMES
from dudi.training.values import fit


@dataclass
class DudiConfig(DudiKeys, RunArguments):  # type: ignore[misc]  # its words are fewer than those of transformers
    """Everything `DudiTrainer` can be told: the keys of `DudiKeys`, and the fields of `TrainingArguments`.

    `__post_init__` fills in the method's own defaults (`docs/method.md`), so that a constructed config holds the values
    that the run will use. `stage_epochs` are the epochs of a stage before `spin_iterations` took their place.

    Raises:
        ConfigError: a value is outside its choices or range, keys contradict each other, or a key was given that the
            method does not read, or a share of the teacher is for a language that is not known.
    """

    stage_epochs: float = field(default=3.0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.method = fit(self.method, MethodName, "method")
        for key in METHOD_KEYS:
            if getattr(self, key) is None:
                setattr(self, key, method_default(self.method, key, vars(self)))
        if isinstance(self.teacher_weight, str):  # HfArgumentParser hands text on, as it does for keys of transformers
            with contextlib.suppress(ValueError):
                self.teacher_weight = json.loads(self.teacher_weight)
        super().__post_init__()
        self._check_together()
        if METHODS[self.method].iterated:
            self.num_train_epochs = float(self.spin_iterations)
        else:
            self.stage_epochs = self.num_train_epochs

    def _check_together(self) -> None:
        values = vars(self)
        for name, parts in unread(values, [key.name for key in dataclasses.fields(DudiKeys)]).items():
            raise ConfigError(refusal(YAML_NAMES.get(name, name), values, parts))
        check_cold_start(self.cold_start)
        known = [name.value for name in OptimizerNames]
        if self.cold_start_optim is not None and self.cold_start_optim not in known:
            hint = did_you_mean(self.cold_start_optim, known)
            raise ConfigError(f"cold_start_optim: '{self.cold_start_optim}' is no optimizer of transformers{hint}")
        if not self.languages:
            raise ConfigError("languages: name at least one training language")
        rates = self.spin_learning_rates
        if rates is not None and len(rates) != self.spin_iterations:
            raise ConfigError(f"spin_learning_rates: {len(rates)} values for {self.spin_iterations} iterations")
        if self.share_rollouts and self.verbalizer != "none":
            raise ConfigError("share_rollouts: needs `verbalizer: none`, since y' answers the plain prompt")
        given = self.teacher_weight
        for weight in given.values() if isinstance(given, dict) else [given]:
            if isinstance(weight, int | float) and not 0 <= weight <= 1:
                raise ConfigError(f"teacher_weight: must lie between 0 and 1, got {weight}")
        if isinstance(given, dict):
            check_codes(given, load_languages(), "teacher_weight")
        if given != 1 and self.targets == "teacher":
            raise ConfigError(
                "teacher_weight: what is not the teacher's share is learned from the ground truth, which `targets: "
                "teacher` replaces by what the teacher writes; take one of them out"
            )
        if given != 1 and not self.reads_teacher_tokens:
            raise ConfigError("teacher_weight: no divergence from a second model is read; take it out")
        if given == 0:
            self.refuse_no_share()
        if self.teacher_route == "auto" and self.cold_start == "teacher_sft":
            raise ConfigError(
                "teacher_route: auto is found out after the cold start, which would need it; take another cold_start "
                "than teacher_sft"
            )
        if self.probe_examples >= self.probe_rows:
            raise ConfigError(
                f"probe_examples: {self.probe_examples} other rows of a language need more than {self.probe_rows} "
                "(`probe_rows`)"
            )
        if self.verbalizer_targets == "teacher" and self.verbalizer not in CHOOSING:
            raise ConfigError("verbalizer_targets: needs `verbalizer: cross_lingual` or `mix`, which choose a language")
        if self.teacher_cache is not None and (not self.reads_teacher_tokens or "off_policy" not in self.signals):
            raise ConfigError("teacher_cache: no divergence from a second model is read on the targets; take it out")
        if self.teacher_cache is not None and self.off_policy_loss != "divergence":
            raise ConfigError(f"teacher_cache: off_policy_loss: {self.off_policy_loss} reads no teacher; take it out")
        if self.pivot is not None and self.verbalizer == "none":
            raise ConfigError("pivot: needs a verbalizer, whose z shows an example; take it out, or set verbalizer")
        if not self.signals:
            raise ConfigError(
                f"method {self.method}: no signal is left (without={self.without}, alpha={self.alpha}, "
                f"lambda={self.lmbda}); nothing would be trained"
            )
        teacher = METHODS[self.method].teacher
        if "off_policy" in self.signals and self.off_policy_loss == "divergence" and teacher == "none":
            raise ConfigError(f"off_policy_loss: method {self.method} has no teacher to diverge from; use method seqkd")

    @property
    def signals(self) -> dict[str, float]:
        """The signals that will run, with their weights in Eq. 8; weight 0 and `without` remove one."""
        weights = {"sequence": self.alpha, "off_policy": 1.0 - self.lmbda, "on_policy": self.lmbda}
        has = METHODS[self.method].signals
        return {name: weights[name] for name in SIGNALS if name in has and name not in self.without and weights[name]}

    @property
    def widens_frozen(self) -> bool:
        """Whether frozen weights in 16 bits are computed with in fp32: on a CPU that has no 16-bit products."""
        return self.device.type == "cpu" and not (self.bf16 or self.fp16) and not multiplies_bfloat16()

    @property
    def chooses_target(self) -> bool:
        """Whether rollouts are asked for in languages that the verbalizer chooses."""
        return self.verbalizer in CHOOSING and "on_policy" in self.signals

    @property
    def on_policy_kind(self) -> Literal["plain", "verbalized"]:
        """The rollouts that the on-policy signal reads: its own, or the sequence signal's when they are shared."""
        return "plain" if self.share_rollouts else "verbalized"

    def require_teacher(self, given: bool) -> None:
        """Raise a `ConfigError` where the method reads a second model, and none is given."""
        if self.needs_teacher and not given:
            raise ConfigError(
                f"method {self.method} needs a teacher: set teacher (teacher_model in Python) to a larger model"
            )

    def refuse_no_share(self) -> None:
        """Raise a `ConfigError` where nothing is trained beside a teacher without a share in any completion."""
        if self.signals.keys() == {"on_policy"}:
            raise ConfigError(
                "teacher_weight: 0 leaves nothing to train on: the rollouts are the teacher's affair alone, and the "
                "signals that read the ground truth are out"
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

    @property
    def teaches_itself(self) -> bool:
        """Whether divergences are from the student's own moving average: a second model only writes targets."""
        return METHODS[self.method].teacher == "ema" and any(s.teacher_reads for s in build_signals(self).values())

    def for_cold_start(self, output_dir: str) -> DudiConfig:
        """The config of the cold-start stage in its own folder: the same keys, with SFT or DFT as the method."""
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
        if self.cold_start_optim is not None:
            stage.optim = OptimizerNames(self.cold_start_optim)
        stage.cold_start_epochs = stage.cold_start_learning_rate = stage.cold_start_optim = None
        stage.eval_strategy = IntervalStrategy.NO
        stage.load_best_model_at_end = stage.push_to_hub = False
        return stage


def build_signals(args: DudiConfig) -> dict[str, Signal]:
    """The signals that a config runs; one of weight 0 is left out, and so never rolled out or scored."""
    off_policy = Distance(args.off_policy_divergence or args.divergence, args.beta, args.kd_temperature)
    on_policy = Distance(args.on_policy_divergence or args.divergence, args.beta, args.kd_temperature)
    everything: dict[str, Signal] = {
        "sequence": SequenceSignal(args.spin_beta),
        "off_policy": OffPolicySignal(args.off_policy_loss, off_policy, args.gold_loss),
        "on_policy": OnPolicySignal(on_policy, args.on_policy_kind),
    }
    return {name: everything[name] for name in args.signals}
