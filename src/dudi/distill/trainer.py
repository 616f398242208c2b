"""`DudiTrainer`: a `transformers.Trainer` that collects, generates, scores and sums."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import EvalLoopOutput

from dudi.data.examples import Example, ExampleSet
from dudi.data.rejections import Rejections
from dudi.data.sources import fingerprint
from dudi.distill.alarms import CollapseAlarm
from dudi.distill.arguments import DudiConfig, build_signals
from dudi.distill.batch import MicroBatch
from dudi.distill.by_language import balance
from dudi.distill.collect import Collector
from dudi.distill.dataset import MAX_REJECTED_SHARE, Records, RowTrainer, listed
from dudi.distill.engines import student_engine, vllm_engine
from dudi.distill.habits import as_config, as_name, refuse_habits, warn_of_rounding
from dudi.distill.passes import judge_all, losses_of
from dudi.distill.served import ServedTeacher
from dudi.distill.setup import build_setup
from dudi.distill.stages.answers import write_targets
from dudi.distill.stages.cache import hash_of, judges
from dudi.distill.stages.cold_start import COLD_START, cold_start, start_folder_hash
from dudi.distill.stages.iterations import begin_iteration, opponents, repeated
from dudi.distill.stages.probe import describe_probe, probe_teacher
from dudi.distill.stages.reference import (
    check_reference,
    make_moving_average,
    make_reference,
    reads_rows_once,
    store_gold_reference,
)
from dudi.distill.stages.teacher_states import keep_states
from dudi.distill.state import Run
from dudi.distill.step import BALANCE_STEPS, Step, begin_step, end_step, row_ids
from dudi.distill.teacher_setup import Given, identity_of
from dudi.distill.teachers import Trust, found_trust
from dudi.distill.validation import evaluate_examples
from dudi.errors import ConfigError
from dudi.models.adapters import adapter_settings, in_adapter, with_adapter
from dudi.models.frozen import FrozenModel, MovingAverage, OffloadedModel
from dudi.models.sharding import check_launch, check_sharding, shard_frozen
from dudi.objective.methods import METHODS
from dudi.training.identity import hash_of_model, hash_of_tokenizer
from dudi.training.interrupts import Interrupts

RATIOS = "language_ratios"
Teaching = PreTrainedModel | ServedTeacher | str | Path
"""A teacher as it may be given."""


class DudiTrainer(RowTrainer):
    """Distils a student with the signals of a method.

    It is used as TRL's trainers are:

        trainer = DudiTrainer("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-3B-Instruct", DudiConfig(output_dir="out"), rows)
        trainer.train()

    Args:
        model: The student: a model, a `PeftModel`, or a name or folder to load, in float32. A model's precision is left
            as it is; trained weights in 16 bits are warned of.
        teacher_model: The teacher, a name or folder, or a `ServedTeacher`; None for methods without one, and where
            `teachers` are given.
        args: The run's keys; plain `TrainingArguments` are converted, as TRL's SFT trainer does.
        train_dataset: Rows with `id`, `language`, and `messages` or `prompt` + `completion`. A method without a
            verbalizer takes rows of any language, and rows that name none.
        eval_dataset: The same, for evaluation during training; several of them as a dict or a `DatasetDict`.
        processing_class: The student's tokenizer, or its processor; loaded from the student's name when None.
        callbacks: As in `Trainer`.
        peft_config: Train an adapter of this kind. `save_model` writes it; after a cold start, which is merged into the
            base, it writes the whole model instead, for nobody else has that base.
        teacher_processing_class: The teacher's tokenizer; loaded from the teacher's name, else the student's. Of
            several teachers by their keys, or one for all.
        teachers: Several teachers instead of `teacher_model`: by language, by the value of a row's `teacher`, and
            `default` for whatever else there is.
        optimizers: As in `Trainer`.
        stage: How metrics name this part of a run; the method's name when None.
        log_dir: Where `metrics.jsonl` and `samples.jsonl` go; `output_dir` when None.
        rejections: Where rows that are not taken are counted, by a caller who shows and judges them; when None they are
            written to `output_dir/rejected.jsonl` and a warning says how many and why.
        max_rejected_share: Largest share of rows that may be rejected, where no caller judges them.
        interrupts: Tells when a signal has asked to stop; None leaves signals to the caller.
        unknown: Arguments of other trainers, each refused with what to do instead (`dudi.distill.habits.REFUSED`).

    Raises:
        ConfigError: the method's teacher is missing, the tokenizers differ, a template has no end of turn.
        DataError: no row is left, or too many are bad.
    """

    args: DudiConfig

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | str | Path,
        teacher_model: Teaching | None = None,
        args: DudiConfig | TrainingArguments | None = None,
        train_dataset: Records | ExampleSet | None = None,
        eval_dataset: Records | ExampleSet | Mapping[str, Records] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        callbacks: list[TrainerCallback] | None = None,
        peft_config: Any = None,
        *,
        teacher_processing_class: PreTrainedTokenizerBase | Mapping[str, PreTrainedTokenizerBase] | None = None,
        teachers: Mapping[str, Teaching] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        stage: str | None = None,
        log_dir: Path | None = None,
        rejections: Rejections | None = None,
        max_rejected_share: float = MAX_REJECTED_SHARE,
        interrupts: Interrupts | None = None,
        **unknown: Any,
    ) -> None:
        refuse_habits(unknown)
        args = as_config(args)
        check_launch(args)
        parts = build_setup(
            as_name(model),
            _given_teachers(teacher_model, teachers),
            args,
            train_dataset,
            eval_dataset,
            processing_class,
            teacher_processing_class,
            rejections,
            max_rejected_share,
        )
        self.setup, self.reader, self.max_rejected_share = parts, parts.reader, max_rejected_share
        self.chat = parts.student_format
        self.trained_with = f"dudi's method `{args.method}`"
        self.has_extra_tensors = args.teaches_itself or args.language_balance
        self.peft_config = peft_config
        self.signals = build_signals(args)
        super().__init__(
            model=with_adapter(parts.model, peft_config, args.seed),
            args=args,
            data_collator=list,  # a micro-batch stays one of examples: they are lined up once rollouts are there
            train_dataset=listed(parts.train),
            eval_dataset=listed(parts.eval),
            processing_class=parts.student_format.tokenizer,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        check_sharding(self.accelerator)
        unshared = parts.teachers.several or args.teacher_offload != "none" or args.teacher_cache is not None
        if unshared and (self.is_fsdp_enabled or args.deepspeed):
            raise ConfigError(
                "teachers: several of them, teacher_offload and teacher_cache work on one process and under DDP; under "
                "FSDP and DeepSpeed give one teacher without them"
            )
        check_reference(args, self.model)
        if stage is None and args.process_index == 0:  # a stage's trainer is given the model of the run's
            warn_of_rounding(self.model)
        if self.is_fsdp_enabled and not isinstance(parts.teacher, ServedTeacher | None):
            shard_frozen(parts.teacher, self.accelerator)
        self.add_callback(StepHooks(self))
        self.alarm = CollapseAlarm(args)
        folder = args.folder if log_dir is None else log_dir
        self.open_log(stage or args.method, folder)
        self.samples_log = self.run_log(folder / "samples.jsonl")
        self.logs.append(self.samples_log)
        frozen = functools.partial(OffloadedModel, device=args.device) if args.teacher_offload == "cpu" else FrozenModel
        self.run = Run(
            args,
            parts,
            self.accelerator,
            self.signals,
            model=lambda: self.model,
            wrapped=lambda: self.model_wrapped,
            step=lambda: self.state.global_step,
            write_once=self.write_once,
            log=self.metrics_log,
            policies={name: frozen(model) for name, model in parts.teachers.local.items()},
        )
        self.run.teacher = next(iter(self.run.policies.values()), None)
        engine = vllm_engine(self.run) if args.use_vllm else student_engine(self.run, args.temperature)
        self.run.collector = Collector(args, parts, engine)
        if args.language_balance:
            self.run.ratios = torch.zeros(len(parts.languages), 3, dtype=torch.float64)
        self.step: Step | None = None
        self.epoch = 0
        self.steps_of_epoch: int | None = None
        self.interrupts = interrupts

    # ---- before the first step

    def use_examples(self, examples: ExampleSet) -> None:
        """Train on these, and let the whole run know of them."""
        self.setup.train = examples
        super().use_examples(examples)

    def prepare(self) -> None:
        """The stages that come first: cold start, teacher-written targets, reference, moving average."""
        run, args = self.run, self.args
        same_adapter = self.run_cold_start()
        run.trust = self._trust()
        if args.verbalizer_targets == "teacher":
            verbalizer = self.setup.verbalizer
            verbalizer.target_weights = {code: run.trust.of(code) for code in verbalizer.targets}
        if args.targets == "teacher":
            self.use_examples(write_targets(run))
        run.kept_states = keep_states(run)
        if "sequence" in args.signals:
            run.reference = make_reference(run, on_new_adapter=not same_adapter)
            if not METHODS[args.method].iterated and not reads_rows_once(args, len(run.rows.examples)):
                run.gold_reference = store_gold_reference(run)
        if args.teaches_itself:
            run.teacher = make_moving_average(run)
        # A cached stage draws nothing from the global generators: without this, dropout would depend on the cache.
        set_seed(args.seed)

    def _trust(self) -> Trust:
        """The share of the teacher in each language: given, or found by the probe."""
        weight, probe, setup = self.args.teacher_weight, self.setup.probe, self.setup
        if isinstance(weight, dict):
            return Trust(weight)
        if not isinstance(weight, str):
            return Trust(elsewhere=1.0 if weight is None else weight)
        if probe is None:
            return Trust()
        found = probe_teacher(self.run, probe)
        if self.args.process_index == 0:
            rows = {example.row.language for example in self.run.rows.examples}
            written = setup.verbalizer.targets if self.args.chooses_target else ()
            self.progress.say(describe_probe(found, sorted({*rows, *written} - {*found})))
        if self.args.teacher_route == "auto":
            setup.teachers.chosen = {language: one["teacher_name"] for language, one in found.items()}
        return found_trust(found)

    def run_cold_start(self) -> bool:
        """Bring the student to where stage 2 starts; whether it goes on with its adapter (`Started.same_adapter`)."""
        started = cold_start(self.run, self.peft_config, self._trainer_of_cold_start, self.resumed)
        # Its length is that of the run that made it.
        self.began_from = {} if started.key is None else {COLD_START: started.key}
        self.base_changed = started.base_changed
        if started.model is not self.model:
            self.model = self.model_wrapped = started.model
        return started.same_adapter

    def _trainer_of_cold_start(self, model: nn.Module, args: DudiConfig) -> DudiTrainer:
        setup = self.setup
        models, tokenizers = setup.teachers.by_key() if self.args.cold_start == "teacher_sft" else ({}, {})
        trainer = type(self)(
            model,
            None,
            args,
            setup.train,
            processing_class=setup.student_format.tokenizer,
            teacher_processing_class=tokenizers or setup.teacher_format.tokenizer,
            teachers=models or None,
            stage=COLD_START,
            log_dir=self.metrics_log.path.parent,
            interrupts=self.interrupts,
        )
        trainer.allow_changed = self.allow_changed
        return trainer

    def begin_iteration(self) -> None:
        """SPIN: a new opponent and its answers, and a fresh optimizer, unless the iteration is gone on with."""
        run, resumed = self.run, (self.state.epoch or 0) != self.epoch
        run.collector.pool = begin_iteration(run, self.epoch, self.identity(), resumed=resumed)
        run.gold_reference = store_gold_reference(run)
        if not resumed:
            optimizer, _ = self.built_optimizer()
            optimizer.state.clear()

    def describe(self) -> dict[str, Any]:
        """A run is its keys, its rows, its tokenizers and templates, its models and its world size."""
        setup, rows = self.setup, self.run.rows
        others = list(setup.teachers.members.values())[1:]
        formats = [setup.student_format, setup.teacher_format, *(one.chat for one in others)]
        tokenizers = [hash_of_tokenizer(one.tokenizer) for one in formats]
        # Beside the ids of the tokens: the verbalizer reads texts and languages. Where a row was read from is no part.
        texts = fingerprint(example.row for example in rows.examples)
        found: dict[str, Any] = {
            "data": {"rows": len(rows.examples), "sha256": texts},
            "token_ids": rows.digest,
            "tokenizers": tokenizers,
            "chat_templates": [one.digest for one in formats],
            "student": hash_of_model(self.model, "the student", self._is_new),
            "adapter": adapter_settings(self.model),
            "start": start_folder_hash(self.args),
            "teacher": None if setup.teacher is None else identity_of(setup.teacher),
        }
        if others:
            found["teachers"] = {one.name: identity_of(one.model, f"the teacher '{one.name}'") for one in others}
            found["judges"] = hash_of([setup.teachers.routes, judges(self.run)[-1]])
        if self.args.pivot is not None:
            shown = [setup.verbalizer.pivot_of(example.row) for example in rows.examples]
            found["pivots"] = hash_of([None if one is None else one.id for one in shown])
        if self.args.teacher_cache is not None:
            found["teacher_states"] = "kept"
        if setup.teachers.served:
            found["teacher_top_k"] = self.args.teacher_top_k
        return found | {"stage": self.stage} | super().describe()

    def _is_new(self, name: str) -> bool:
        """Whether this run made a weight itself, from its seed: where it comes from says nothing of it."""
        return self.peft_config is not None and in_adapter(name, self.run.peft_model.active_adapter)

    def needs(self) -> list[Path]:
        """The opponents of SPIN, which their iteration alone could write."""
        return opponents(self.run, self.epoch)

    def extra_tensors(self) -> dict[str, Tensor]:
        """The moving average's weights, and what the balance is made of."""
        teacher, ratios = self.run.teacher, self.run.ratios
        average = teacher.state_dict() if isinstance(teacher, MovingAverage) else {}
        return average | ({} if ratios is None else {RATIOS: ratios})

    def load_extra_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the moving average and the balance back."""
        run = self.run
        if run.ratios is not None:
            run.ratios = tensors[RATIOS]
            if self.state.global_step >= BALANCE_STEPS:
                run.balance = balance(run.ratios, self.setup.languages)
        if isinstance(run.teacher, MovingAverage):
            run.teacher.load_state_dict({name: tensor for name, tensor in tensors.items() if name != RATIOS})

    def set_initial_training_values(self, args: Any, dataloader: Any) -> Any:
        """As `Trainer`'s; an iteration of a method in iterations is an epoch, however many steps there are in all."""
        values = super().set_initial_training_values(args, dataloader)
        self.steps_of_epoch = values[1]
        return values

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule of `Trainer`; a method in iterations runs it once per iteration."""
        if not METHODS[self.args.method].iterated or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        per_iteration = self.steps_of_epoch or max(1, -(-num_training_steps // self.args.spin_iterations))
        one = super().create_scheduler(per_iteration, optimizer)
        if not isinstance(one, LambdaLR):
            raise ConfigError(f"lr_scheduler_type: {self.args.lr_scheduler_type} cannot be repeated per iteration")
        rates = self.args.spin_learning_rates or [self.args.learning_rate] * self.args.spin_iterations
        self.lr_scheduler = repeated(one, per_iteration, rates, self.args.learning_rate)
        return self.lr_scheduler

    # ---- one optimizer step

    def get_batch_samples(
        self, epoch_iterator: Iterator[list[Example]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, MicroBatch]], Tensor | int | None]:
        """All micro-batches of one optimizer step: rolled out together, counted before any loss."""
        # `Trainer` would make one step more when it resumes from the last one.
        wanted = num_batches if self.state.global_step < self.state.max_steps else 0
        micro_batches = list(itertools.islice(epoch_iterator, wanted))
        if not micro_batches:
            return [], None
        step = begin_step(self.run, micro_batches, self.epoch)
        step.promised = self._multiplies_nothing()
        if self.args.teacher_offload != "none" or self.setup.teachers.served:
            with self.keeping_what_was_trained():
                judge_all(self.run, step.collected.batches, step.signals, step)
        self.step = step
        return [{"batch": batch} for batch in step.collected.batches], 1

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward of one micro-batch; what teacher and reference took is not the student's time."""
        step = self.step
        if step is None:
            raise RuntimeError("training_step is called by train(), after get_batch_samples")
        before = step.seconds["teacher"] + step.seconds["reference"]
        with step.clock("student"):
            loss = super().training_step(model, inputs, num_items_in_batch)
        step.seconds["student"] -= step.seconds["teacher"] + step.seconds["reference"] - before
        return loss

    def _multiplies_nothing(self) -> bool:
        """Whether what is differentiated is Eq. 8 as it stands here: in one process, unscaled, overridden by nobody."""
        own = {
            self.compute_loss: DudiTrainer.compute_loss,
            self.training_step: DudiTrainer.training_step,
            self.accelerator.backward: Accelerator.backward,
        }
        untouched = all(getattr(bound, "__func__", None) is plain for bound, plain in own.items())
        return untouched and self.args.world_size == 1 and self.accelerator.scaler is None

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Eq. 8 for one micro-batch, divided by the counts of the whole optimizer step.

        DDP averages over ranks, so the sum is scaled by the world size.
        """
        step, batch = self.step, inputs["batch"]
        if step is None:
            raise RuntimeError("compute_loss is called by train(), after get_batch_samples")
        out = losses_of(self.run, model, batch, step.signals, step)
        loss = torch.zeros((), device=self.args.device)
        for name, total in out["sums"].items():
            loss = loss + step.weights[name] * total / max(step.counts[name], 1.0)
        step.add(out["sums"], out["losses"], out["agreement"], out["masses"])
        step.scored += sum(len(s.completion) for part in batch.sequences.values() for s in part)
        loss = loss * self.args.world_size
        if not torch.isfinite(loss):
            step.note_bad_loss(batch, out["teacher_states"])
        return (loss, out) if return_outputs else loss

    # ---- after the step

    def rows_of_step(self) -> list[str]:
        """Ids of the rows of the current step."""
        return [] if self.step is None else row_ids(self.step.collected.batches)

    def finished_step(self) -> dict[str, Any] | None:
        """The metrics of the step that has just ended; its samples are written here."""
        step = self.step
        if step is None or step.number != self.state.global_step:
            return None
        record = end_step(self.run, step)
        for sample in step.collected.samples:
            self.samples_log.append({"stage": self.stage, "step": step.number, **sample})
        self.step = None
        return record

    def warnings_of(self, record: dict[str, Any]) -> list[str]:
        """Signs that rollouts have collapsed."""
        return self.alarm.see(record)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """2 FLOPs a parameter and token forward, 4 backward, over what the student was scored on."""
        batch: MicroBatch = inputs["batch"]
        tokens = sum(len(s.prompt) + len(s.completion) for part in batch.sequences.values() for s in part)
        return 6 * tokens * self._parameters

    @functools.cached_property
    def _parameters(self) -> int:
        return sum(p.numel() for p in self.inner_model().parameters())

    # ---- evaluation

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """`eval_loss` (the off-policy term) and bits per byte; with `eval_rollouts` every signal, seeded apart.

        The loader is not opened: it would repeat rows, so that all ranks have as many, and count them twice.
        """
        with self.keeping_what_was_trained():
            metrics, rows = evaluate_examples(self.run, dataloader.dataset.examples, metric_key_prefix)
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=rows)  # type: ignore[arg-type]


def _given_teachers(one: Teaching | None, several: Mapping[str, Teaching] | None) -> Given | dict[str, Given] | None:
    """The one teacher, or several by their keys."""
    if several is None:
        return as_name(one)
    if one is not None:
        raise ConfigError("teachers: there is a teacher_model too; make it teachers['default'], or take one out")
    if not isinstance(several, Mapping):
        kind = type(several).__name__
        raise ConfigError(f"teachers: got a {kind}; give models by their keys, {{'default': MODEL, 'my': OTHER}}")
    if not several:
        raise ConfigError("teachers: it is empty; name a 'default'")
    for key, model in several.items():
        if model is None:
            raise ConfigError(f"teachers: there is no model at {key!r}")
    return {key: as_name(model) for key, model in several.items()}


@dataclasses.dataclass(eq=False)
class StepHooks(TrainerCallback):
    """What has to happen between `Trainer`'s steps."""

    trainer: DudiTrainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Number the pass over the data; a method in iterations starts its next one."""
        self.trainer.epoch = int(state.epoch or 0)
        if METHODS[self.trainer.args.method].iterated:
            self.trainer.begin_iteration()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the average after the student."""
        if isinstance(self.trainer.run.teacher, MovingAverage):
            self.trainer.run.teacher.update()
