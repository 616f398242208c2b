"""The trainer's promises: one gradient however the batch is cut, the same bits for the same seed, no dead run."""

import copy
import json
import random

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from dudi import DudiTrainer
from dudi.errors import ConfigError, DataError, NumericError
from dudi.objective.methods import METHODS
from helpers import ROWS, THINKING, make_args, make_model, make_tokenizer

ALL = list(METHODS)


class Gradients(TrainerCallback):
    """Keeps the first step's gradients and stops there."""

    def __init__(self):
        self.seen = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if not self.seen:
            self.seen = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def metrics_of(folder, stage=None):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in lines if stage in (None, record["stage"])]


def make_trainer(folder, method="dudi", rows=ROWS, tokenizer=None, student=None, teacher=None, eval_rows=None, **keys):
    extra = {k: keys.pop(k) for k in ("peft_config", "callbacks") if k in keys}
    args = make_args(folder, method, **keys)
    student = student or make_model(seed=1)
    teacher = teacher or make_model(seed=2, hidden_size=48)
    return DudiTrainer(student, teacher, args, rows, eval_rows, tokenizer or make_tokenizer(), **extra)


def relative_difference(first, second):
    gap = sum(float((first[n].double() - second[n].double()).pow(2).sum()) for n in first)
    size = sum(float(first[n].double().pow(2).sum()) for n in first)
    return (gap / size) ** 0.5


@pytest.mark.parametrize("method", ALL)
def test_the_gradient_does_not_depend_on_how_the_batch_is_cut(method, tmp_path, tokenizer):
    seen = {}
    for size, accumulation in ((8, 1), (1, 8), (4, 2)):
        watcher = Gradients()
        make_trainer(
            tmp_path / f"{size}",
            method,
            tokenizer=tokenizer,
            callbacks=[watcher],
            cold_start="none",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            max_grad_norm=0.0,
        ).train()
        seen[size] = watcher.seen
    assert seen[8]
    assert relative_difference(seen[8], seen[1]) < 1e-6
    assert relative_difference(seen[8], seen[4]) < 1e-6


class Doubled(DudiTrainer):
    """Somebody's own loss, whose factor is not known beforehand."""

    def compute_loss(self, *args, **kwargs):
        return 2 * super().compute_loss(*args, **kwargs)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "method", ["dudi", "sft", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gated", "sdft"))]
)
def test_the_heads_gradient_is_gathered_in_place(method, tied, tmp_path, tokenizer):
    """As autograd adds it up with dense logits, a tied embedding's rows too; not where somebody reads it on its way."""
    kinds = {"ours": DudiTrainer, "dense": DudiTrainer, "own": Doubled, "put on": DudiTrainer, "watched": DudiTrainer}
    seen = {}
    for name, kind in kinds.items():
        watcher, kernel = Gradients(), "dense" if name == "dense" else "auto"
        args = make_args(tmp_path / name, method, cold_start="none", max_steps=1, loss_kernel=kernel, max_grad_norm=0)
        student, teacher = make_model(seed=1, tie_word_embeddings=tied), make_model(seed=2, hidden_size=48)
        trainer = kind(student, teacher, args, ROWS, ROWS[:8], tokenizer, callbacks=[watcher])
        if name == "put on":
            plain = trainer.compute_loss
            trainer.compute_loss = lambda *given, plain=plain, **more: 2 * plain(*given, **more)
        if name == "watched":
            student.get_output_embeddings().weight.register_hook(lambda grad: 2 * grad)
        trainer.train()
        embedding = student.get_input_embeddings()
        assert not embedding.sparse and not any(p.grad is not None and p.grad.is_sparse for p in student.parameters())
        seen[name] = watcher.seen
    assert relative_difference(seen["ours"], seen["dense"]) < 1e-5
    for name in ("own", "put on"):
        assert relative_difference(seen["ours"], {key: grad / 2 for key, grad in seen[name].items()}) < 1e-5
    head = "model.embed_tokens.weight" if tied else "lm_head.weight"
    assert relative_difference({head: 2 * seen["ours"][head]}, {head: seen["watched"][head]}) < 1e-5


@pytest.mark.parametrize("method", ALL)
def test_every_method_trains_and_writes_its_metrics(method, tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, method, tokenizer=tokenizer)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    assert any(not torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())
    records = metrics_of(tmp_path, method)
    assert [record["step"] for record in records] == [1, 2]
    for record in records:
        weights = {"loss/sequence": trainer.args.alpha, "loss/on_policy": trainer.args.lmbda}
        weights["loss/off_policy"] = 1 - trainer.args.lmbda
        present = [name for name in weights if name in record]
        if trainer.args.mixing == "sum":
            assert {name.removeprefix("loss/") for name in present} == set(METHODS[method].signals)
            total = sum(weights[name] * record[name] for name in present)
        else:
            assert len(present) == 1
            total = record[present[0]]
        assert record["loss"] == pytest.approx(total, rel=1e-6)
        for key in ("epoch", "time/step", "tokens_per_second", "memory/peak", "grad_norm", "learning_rate"):
            assert key in record
        if "loss/on_policy" in record:
            assert 0 <= record["overlap@16"] <= 1
            assert record["student_entropy"] > 0
            assert trainer.args.loss_average != "token" or record["tokens/on_policy"] > 0
        if "loss/sequence" in record or "loss/on_policy" in record:
            assert 0 <= record["rollout/eos_rate"] <= 1
            assert 1 <= record["rollout/mean_length"] <= 8


def test_the_sequence_loss_starts_at_log_2(tmp_path, tokenizer):
    make_trainer(tmp_path, "dudi", tokenizer=tokenizer).train()
    assert metrics_of(tmp_path, "dudi")[0]["loss/sequence"] == pytest.approx(float(np.log(2)), abs=1e-6)


@pytest.mark.parametrize("method", ["sft", "dudi", "gkd"])
def test_same_seed_same_run_bit_for_bit(method, tmp_path, tokenizer):
    states = []
    for name in ("a", "b"):
        trainer = make_trainer(tmp_path / name, method, tokenizer=tokenizer, student=make_model(seed=1, dropout=0.1))
        torch.rand(len(states) + 1)  # what was drawn before must not matter
        trainer.train()
        states.append(trainer.model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_another_seed_is_another_run(tmp_path, tokenizer):
    runs = [make_trainer(tmp_path / str(seed), seed=seed, tokenizer=tokenizer) for seed in (3, 4)]
    for run in runs:
        run.train()
    first, second = (run.model.state_dict() for run in runs)
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "method", ["dudi", "sdft", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sft", "gkd", "spin"))]
)
def test_a_resumed_run_ends_with_the_same_bits(method, tmp_path, tokenizer):
    keys = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "tokenizer": tokenizer}
    keys |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    whole = make_trainer(tmp_path / "whole", method, student=make_model(seed=1, dropout=0.1), **keys)
    whole.train()
    first = make_trainer(tmp_path / "cut", method, student=make_model(seed=1, dropout=0.1), **keys)

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5 and first.stage == method:
                raise KeyboardInterrupt

    first.add_callback(Kill())
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = make_trainer(tmp_path / "cut", method, student=make_model(seed=1, dropout=0.1), **keys)
    second.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoints" / "step-4"))
    mine, theirs = second.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    steps = [record["step"] for record in metrics_of(tmp_path / "cut", method)]
    assert steps == [1, 2, 3, 4, 5, 6]
    losses = [[r["loss"] for r in metrics_of(tmp_path / name, method)] for name in ("whole", "cut")]
    assert losses[0] == losses[1]


def test_a_checkpoint_of_another_run_is_refused(tmp_path, tokenizer):
    make_trainer(tmp_path, "sft", save_strategy="steps", tokenizer=tokenizer).train()
    other = make_trainer(tmp_path, "sft", learning_rate=5e-4, tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="learning_rate"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "step-2"))


def test_teacher_equal_to_the_student_gives_exactly_zero(tmp_path, tokenizer):
    student = make_model(seed=1)
    trainer = make_trainer(
        tmp_path,
        "gkd",
        tokenizer=tokenizer,
        student=student,
        teacher=copy.deepcopy(student),
        lmbda=1.0,
        divergence="reverse_kl",
        cold_start="none",
        learning_rate=0.0,
    )
    trainer.train()
    assert [record["loss/on_policy"] for record in metrics_of(tmp_path)] == [0.0, 0.0]


def test_an_off_by_one_between_the_two_prompts_is_seen(tmp_path, tokenizer, monkeypatch):
    """The verbalized z is longer than p_z: only rows that line up give the divergence of the same next token."""
    student, teacher = make_model(seed=1), make_model(seed=2, hidden_size=48)
    trainer = make_trainer(
        tmp_path, "dudi", tokenizer=tokenizer, student=student, teacher=teacher, cold_start="none", max_steps=1
    )
    caught = []
    honest = trainer.run.collector.collect
    monkeypatch.setattr(trainer.run.collector, "collect", lambda *a, **k: caught.append(honest(*a, **k)) or caught[-1])
    before = make_model(seed=1)
    trainer.train()

    def by_hand(shift):
        total, count = 0.0, 0
        for batch in caught[0].batches:
            for scored in batch.sequences["verbalized"]:
                assert len(scored.teacher_prompt) > len(scored.prompt)
                logits = []
                for model, prompt, move in ((before, scored.prompt, 0), (teacher, scored.teacher_prompt, shift)):
                    ids = torch.tensor([[*map(int, prompt), *scored.completion]])
                    start = len(prompt) - 1 + move
                    logits.append(model(ids).logits[0, start : start + len(scored.completion)].double())
                p, q = logits[0].log_softmax(-1), logits[1].log_softmax(-1)
                total += float((p.exp() * (p - q)).sum())
                count += len(scored.completion)
        return total / count

    with torch.no_grad():
        measured = metrics_of(tmp_path)[0]["loss/on_policy"]
        assert measured == pytest.approx(by_hand(0), rel=1e-5)
        assert abs(measured - by_hand(-1)) > 1e-3


def test_a_signal_of_weight_zero_is_neither_rolled_out_nor_scored(tmp_path, tokenizer, monkeypatch):
    trainer = make_trainer(tmp_path, "dudi", alpha=0.0, lmbda=0.0, cold_start="none", tokenizer=tokenizer)
    monkeypatch.setattr(
        trainer.run.collector.engine, "generate", lambda requests: [] if not requests else pytest.fail("!")
    )
    trainer.train()
    record = metrics_of(tmp_path)[0]
    assert trainer.run.reference is None
    assert "loss/off_policy" in record
    assert not {"loss/sequence", "loss/on_policy", "rollout/mean_length"} & record.keys()


def test_without_leaves_the_other_weights(tmp_path, tokenizer):
    make_trainer(tmp_path, "dudi", without=["on_policy"], cold_start="none", tokenizer=tokenizer).train()
    record = metrics_of(tmp_path)[0]
    assert record["loss"] == pytest.approx(0.1 * record["loss/sequence"] + 0.5 * record["loss/off_policy"], rel=1e-6)


def test_rollouts_are_shared_when_asked(tmp_path, tokenizer, monkeypatch):
    trainer = make_trainer(
        tmp_path, "dudi", verbalizer="none", share_rollouts=True, cold_start="none", max_steps=1, tokenizer=tokenizer
    )
    asked = []
    engine = trainer.run.collector.engine
    honest = engine.generate
    monkeypatch.setattr(engine, "generate", lambda requests: asked.append(len(requests)) or honest(requests))
    trainer.train()
    assert asked == [8]
    assert metrics_of(tmp_path)[0]["tokens/on_policy"] > 0


def test_one_generation_per_optimizer_step(tmp_path, tokenizer, monkeypatch):
    trainer = make_trainer(tmp_path, "dudi", cold_start="none", tokenizer=tokenizer)
    asked = []
    engine = trainer.run.collector.engine
    honest = engine.generate
    monkeypatch.setattr(engine, "generate", lambda requests: asked.append(len(requests)) or honest(requests))
    trainer.train()
    assert asked == [16, 16]  # two kinds for 4 x 2 rows, once per optimizer step


def test_gradient_checkpointing_keeps_the_cache_and_the_loss(tmp_path, tokenizer):
    losses = []
    for checkpointing in (False, True):
        folder = tmp_path / str(checkpointing)
        make_trainer(folder, cold_start="none", activation_checkpointing=checkpointing, tokenizer=tokenizer).train()
        losses.append([record["loss"] for record in metrics_of(folder)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_cold_start_is_shared_and_changes_nothing(tmp_path, tokenizer):
    first = make_trainer(tmp_path / "a", "gkd", tokenizer=tokenizer, student=make_model(seed=1, dropout=0.1))
    first.train()
    assert not any(record.get("cached") for record in metrics_of(tmp_path / "a"))
    again = make_trainer(tmp_path / "b", "gkd", tokenizer=tokenizer, student=make_model(seed=1, dropout=0.1))
    again.train()
    assert all(record["cached"] for record in metrics_of(tmp_path / "b", "cold_start"))
    mine, theirs = first.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    other = make_trainer(tmp_path / "c", "dudi", tokenizer=tokenizer, student=make_model(seed=1, dropout=0.1))
    other.train()
    assert all(record["cached"] for record in metrics_of(tmp_path / "c", "cold_start"))


def test_a_cold_start_can_be_a_folder(tmp_path, tokenizer):
    make_trainer(tmp_path / "a", "sft", tokenizer=tokenizer).save_sealed(tmp_path / "model", {})
    trainer = make_trainer(tmp_path / "b", "dudi", cold_start=str(tmp_path / "model"), tokenizer=tokenizer)
    trainer.train()
    assert {record["stage"] for record in metrics_of(tmp_path / "b")} == {"dudi"}
    with pytest.raises(ConfigError, match="neither a folder"):
        make_trainer(tmp_path / "c", "dudi", cold_start=str(tmp_path / "nowhere"), tokenizer=tokenizer).train()


def test_spin_runs_its_iterations(tmp_path, tokenizer):
    rows = ROWS[:8]
    trainer = make_trainer(
        tmp_path, "spin", rows=rows, spin_iterations=2, max_steps=-1, cold_start="none", tokenizer=tokenizer
    )
    trainer.train()
    records = metrics_of(tmp_path, "spin")
    assert [record["step"] for record in records] == [1, 2]  # one epoch of 8 rows each
    assert [record["loss/sequence"] for record in records] == pytest.approx([float(np.log(2))] * 2, abs=1e-5)
    assert sorted(p.name for p in (tmp_path / "stages" / "spin").iterdir()) == ["iteration-0", "iteration-1"]
    assert records[0]["learning_rate"] == records[1]["learning_rate"]


def test_seqkd_trains_on_what_the_teacher_wrote(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, "seqkd", cold_start="none", tokenizer=tokenizer)
    gold = [example.completion.tolist() for example in trainer.setup.train.examples]
    trainer.train()
    written = [example.completion.tolist() for example in trainer.setup.train.examples]
    assert written != gold
    assert all(len(ids) <= 8 for ids in written)
    lines = (tmp_path / "stages" / "targets" / "answers" / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["ids"] for line in lines] == written


def test_evaluation_reports_and_draws_nothing(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, "dudi", eval_rows=ROWS[:6], eval_rollouts=True, tokenizer=tokenizer)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    result = trainer.evaluate()
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert states[2] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert result["eval_loss"] > 0
    assert result["eval_bits_per_byte"] > 0
    assert result["eval_loss/on_policy"] > 0


def test_a_run_is_the_same_with_and_without_evaluation(tmp_path, tokenizer):
    losses = []
    for strategy in ("no", "steps"):
        trainer = make_trainer(
            tmp_path / strategy,
            "dudi",
            eval_rows=ROWS[:3],
            eval_strategy=strategy,
            eval_steps=1,
            student=make_model(seed=1, dropout=0.1),
            tokenizer=tokenizer,
        )
        trainer.train()
        losses.append([record["loss"] for record in metrics_of(tmp_path / strategy, "dudi")])
    assert losses[0] == losses[1]


# ---- no silent dead run


def test_one_model_as_student_and_teacher_is_an_error(tmp_path, tokenizer):
    model = make_model()
    with pytest.raises(ConfigError, match="is the student itself"):
        DudiTrainer(model, model, make_args(tmp_path), ROWS, processing_class=tokenizer)


def test_a_missing_teacher_is_an_error(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match="needs a teacher"):
        DudiTrainer(make_model(), None, make_args(tmp_path, "gkd"), ROWS, processing_class=tokenizer)


def test_a_step_without_a_trained_token_is_an_error(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, "sdft", skip_completion_tokens=50, cold_start="none", tokenizer=tokenizer)
    with pytest.raises(DataError, match="no token is left"):
        trainer.train()


def test_all_rows_too_long_is_an_error(tmp_path, tokenizer):
    with pytest.raises(DataError, match="max_length"):
        make_trainer(tmp_path, "sft", max_length=18, tokenizer=tokenizer)


def test_other_tokenizers_are_told_by_id(tmp_path):
    tokenizer, other = make_tokenizer(), make_tokenizer(texts=["zzz yyy xxx www " * 9, "qqq rrr sss ttt " * 9])
    trainer = DudiTrainer(
        make_model(),
        make_model(),
        make_args(tmp_path),
        ROWS,
        processing_class=tokenizer,
        teacher_processing_class=other,
    )
    assert any("different tokenizers" in note for note in trainer.setup.notes)
    assert trainer.setup.teachers.main.events is not None


def test_padded_vocabularies_are_cut_to_the_shared_ids(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, teacher=make_model(seed=2, vocab_size=512), tokenizer=tokenizer)
    assert trainer.setup.vocabulary == 448
    trainer.train()
    assert np.isfinite(metrics_of(tmp_path, "dudi")[-1]["loss"])


def test_a_student_without_a_template_takes_its_teachers(tmp_path):
    bare, instructed = make_tokenizer(), make_tokenizer(template=THINKING)
    bare.chat_template = None
    trainer = DudiTrainer(
        make_model(), make_model(), make_args(tmp_path), ROWS, None, bare, teacher_processing_class=instructed
    )
    assert trainer.processing_class.chat_template == THINKING
    assert any("takes its teacher's" in note for note in trainer.setup.notes)
    bare.chat_template = instructed.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        DudiTrainer(
            make_model(), make_model(), make_args(tmp_path), ROWS, None, bare, teacher_processing_class=instructed
        )


def test_a_bad_number_stops_before_the_update(tmp_path, tokenizer):
    student = make_model(seed=1)
    trainer = make_trainer(tmp_path, "sft", student=student, tokenizer=tokenizer)
    with torch.no_grad():
        student.lm_head.weight[5, 5] = float("nan")
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(NumericError, match="not finite"):
        trainer.train()
    assert all(torch.equal(before[n].nan_to_num(), v.nan_to_num()) for n, v in student.state_dict().items())


def test_rows_that_are_not_taken_are_written_and_said(tmp_path, tokenizer):
    bad = [
        {"id": "x", "language": "xx", "prompt": "?", "completion": "!"},
        {"id": "y", "language": "id", "prompt": "?"},
    ]
    good = [row | {"id": f"{row['id']}-{n}"} for n in range(2) for row in ROWS]
    with pytest.warns(UserWarning, match="unknown_language"):
        trainer = make_trainer(tmp_path, "dudi", rows=[*good, *bad], tokenizer=tokenizer)
    assert len(trainer.setup.train.examples) == len(good)
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert reasons == ["unknown_language", "missing_key"]


def test_metrics_reach_the_integrations(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, "dudi", cold_start="none", report_to="tensorboard", tokenizer=tokenizer)
    trainer.train()
    events = [path.read_bytes() for path in tmp_path.rglob("events.out.tfevents*")]
    assert any(b"loss/on_policy" in content for content in events)


def test_the_cold_start_can_have_epochs_of_its_own(tmp_path):
    args = make_args(tmp_path, "dudi", max_steps=-1, num_train_epochs=1, cold_start_epochs=2)
    assert args.for_cold_start("x").num_train_epochs == 2
    same = make_args(tmp_path, "dudi", max_steps=-1, num_train_epochs=2)
    assert same.for_cold_start("x").num_train_epochs == 2
    with pytest.raises(ConfigError, match="cold_start_epochs"):
        make_args(tmp_path, "dudi", cold_start_epochs=0)


def test_sharding_in_one_process_is_refused(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match="fsdp: spreads a model over several processes, and this is one"):
        make_trainer(tmp_path, tokenizer=tokenizer, fsdp="full_shard")
