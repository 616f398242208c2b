"""The teaching file computes what the trainer computes."""

import ast
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

import dudi.by_hand
from dudi import DudiTrainer
from dudi.training.runlog import read_jsonl
from helpers import ROWS, make_args, make_model, make_tokenizer

FILE = Path(dudi.by_hand.__file__)
STEPS = 5
RATE = 1e-3
LOSSES = ("loss/sequence", "loss/off_policy", "loss/on_policy", "loss", "grad_norm")


@pytest.fixture(scope="module")
def by_hand():
    torch.set_num_threads(1)  # for models this small a second thread costs more than it brings
    return dudi.by_hand


def models():
    """Random students and teachers whose heads are padded to different sizes; every call gives the same weights."""
    return make_model(seed=1, vocab_size=460), make_model(seed=2, vocab_size=448, hidden_size=48)


@dataclass
class Trained:
    """What the trainer did: its metrics, its final weights, and what it was given in each step."""

    records: list
    weights: list
    steps: list = field(default_factory=list)  # (epoch, rows of each micro-batch, Collected)


@pytest.fixture(scope="module")
def trained(by_hand, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    student, teacher = models()
    args = make_args(
        folder,
        max_steps=STEPS,
        cold_start="none",
        gradient_accumulation_steps=2,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_length=64,  # cuts some ground truths
        max_new_tokens=16,
        logging_steps=STEPS,
    )
    trainer = DudiTrainer(student, teacher, args, ROWS, processing_class=make_tokenizer(), max_rejected_share=0.2)
    steps, collect = [], trainer.run.collector.collect

    def listening(micro_batches, signals, epoch, **keys):
        collected = collect(micro_batches, signals, epoch, **keys)
        steps.append((epoch, [[example.row for example in examples] for examples in micro_batches], collected))
        return collected

    trainer.run.collector.collect = listening
    trainer.train()
    weights = [parameter.detach().clone() for parameter in student.parameters()]
    return Trained(read_jsonl(folder / "metrics.jsonl"), weights, steps)


@pytest.fixture(scope="module")
def repeated(by_hand, trained):
    """The same steps by hand, on the same rows in the same order: losses, samples and final weights."""
    torch.set_num_threads(1)
    s = by_hand.Settings(max_new_tokens=16, max_length=64, learning_rate=RATE, seed=3)
    run = by_hand.Run(*models(), make_tokenizer(), s)
    losses, samples = [], []
    for epoch, micro_batches, _ in trained.steps:
        rows = [row for batch in micro_batches for row in batch]
        written = by_hand.write_samples(run, rows, epoch)
        left = iter(written)
        batches = [[next(left) for _ in batch] for batch in micro_batches]
        losses.append(by_hand.optimizer_step(run, batches))
        samples.append(written)
    return losses, samples, [parameter.detach() for parameter in run.student.parameters()]


def test_the_steps_are_worth_comparing(trained):
    """Micro-batches of several sizes, two epochs, cut and whole ground truths, rollouts of different lengths."""
    assert {len(batches) for _, batches, _ in trained.steps} == {1, 2}
    assert {epoch for epoch, _, _ in trained.steps} == {0, 1}
    batches = [batch for _, _, collected in trained.steps for batch in collected.batches]
    assert {scored.ended for batch in batches for scored in batch.sequences["gold"]} == {True, False}
    assert len({len(scored.completion) for batch in batches for scored in batch.sequences["plain"]}) > 1
    assert [record["step"] for record in trained.records] == list(range(1, STEPS + 1))


def test_both_read_the_same_tokens(trained, repeated):
    for (_, _, collected), written in zip(trained.steps, repeated[1], strict=True):
        for name, kind in (("gold", "gold"), ("plain", "plain"), ("crossed", "verbalized")):
            theirs = [(list(a.prompt), list(a.completion)) for b in collected.batches for a in b.sequences[kind]]
            assert [tuple(getattr(sample, name)) for sample in written] == theirs
        judged = [
            (list(a.teacher_prompt), list(a.completion)) for b in collected.batches for a in b.sequences["verbalized"]
        ]
        assert [tuple(sample.judged) for sample in written] == judged


@pytest.mark.parametrize("key", LOSSES)
def test_losses_equal_the_trainers_at_every_step(trained, repeated, key):
    ours = [losses[key.removeprefix("loss/")] for losses in repeated[0]]
    theirs = [record[key] for record in trained.records]
    assert ours == pytest.approx(theirs, rel=1e-5, abs=0)
    assert len(set(theirs)) == STEPS, "a constant would prove nothing"


def test_both_arrive_at_the_same_student(trained, repeated):
    start = models()[0]
    for ours, theirs, before in zip(repeated[2], trained.weights, start.parameters(), strict=True):
        assert (ours - theirs).norm() <= 1e-4 * (theirs - before).norm()


def test_it_starts_at_log_two(repeated):
    """The policy is the reference before the first step (Eq. 2)."""
    assert repeated[0][0]["sequence"] == pytest.approx(0.6931471805599453, rel=1e-6)
    assert repeated[0][-1]["sequence"] != pytest.approx(0.6931471805599453, rel=1e-4)


def test_settings_are_the_methods_own(by_hand):
    from dudi.distill.keys import method_default

    s = by_hand.Settings()._asdict()
    assert {key: s[key] for key in ("alpha", "lmbda")} == {
        key: method_default("dudi", key) for key in ("alpha", "lmbda")
    }
    assert s["beta"] == method_default("dudi", "spin_beta")


def test_it_can_be_read_in_one_sitting():
    text = FILE.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 200
    assert max(len(line) for line in text.splitlines()) <= 120
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    for module in (
        "dudi.distill.trainer",
        "dudi.distill.batch",
        "dudi.objective.signals",
        "dudi.objective.heads",
        "dudi.DudiTrainer",
        "transformers.Trainer",
    ):
        assert not any(name == module or name.startswith(module + ".") for name in imported), module
