"""A teacher with another tokenizer: every method that reads one trains under it, and nothing else changes."""

import json

import numpy as np
import pytest
import torch

from dudi import DudiTrainer
from dudi.errors import ConfigError
from dudi.objective.shared_events import SharedEvents
from dudi.program.cli import main
from helpers import ROWS, SPECIALS, make_args, make_model, make_tokenizer
from tokenizer_kinds import sentence_piece, word_piece

TEACHERS = {"sentencepiece": sentence_piece, "small": lambda: make_tokenizer(vocab_size=300)}


@pytest.fixture(scope="module", params=TEACHERS)
def other(request):
    return TEACHERS[request.param]()


def make_trainer(folder, method, teacher_tokenizer, eval_rows=None, tokenizer=None, padding=28, **keys):
    return DudiTrainer(
        make_model(seed=1, vocab_size=420 + padding),
        make_model(seed=2, hidden_size=48, vocab_size=len(teacher_tokenizer) + padding),
        make_args(folder, method, **keys),
        ROWS,
        eval_rows,
        tokenizer or make_tokenizer(),
        teacher_processing_class=teacher_tokenizer,
    )


def records_of(folder, stage):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in lines if record["stage"] == stage]


@pytest.mark.parametrize("keys", [{}, {"divergence": "jsd", "kd_temperature": 2.0, "loss_average": "sequence"}])
@pytest.mark.parametrize("method", ["gkd", "dudi"])
def test_both_token_signals_train_under_it(method, other, tmp_path, keys):
    trainer = make_trainer(tmp_path, method, other, cold_start="none", mixing="sum", **keys)
    trainer.train()
    records = records_of(tmp_path, method)
    assert [record["step"] for record in records] == [1, 2]
    for record in records:
        assert record["loss/off_policy"] > 0 and record["loss/on_policy"] > 0
        assert record["grad_norm"] > 0 and np.isfinite(record["grad_norm"])
        assert record["events/bytes_used"] > 0.5
        for name in ("same_event", "end_student", "end_teacher", "other_student", "other_teacher"):
            assert 0 <= record[f"events/{name}"] <= 1
        assert 0 <= record["overlap@16"] <= 1
        assert record["student_entropy"] > 0 and record["teacher_entropy"] > 0


def test_what_the_teacher_alone_has_is_in_the_metrics_and_not_in_the_loss(tmp_path):
    """Its special tokens hold nearly all: forward KL would be about 87, and the student's OTHER is not its specials."""
    theirs = make_tokenizer(421, [*SPECIALS, "<think>"])
    trainer = make_trainer(tmp_path, "gkd", theirs, padding=0, divergence="forward_kl", lmbda=0.0, max_steps=1)
    head = trainer.run.setup.teacher.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(len(theirs)))
    head.bias.data[theirs.get_vocab()["<think>"]] = 20.0
    trainer.train()
    (record,) = records_of(tmp_path, "gkd")
    assert record["events/other_student"] < 1e-30
    assert record["events/other_teacher"] > 0.99
    assert 0 <= record["loss/off_policy"] < 0.1


def test_what_it_covers_is_noted_before_training(other, tmp_path):
    notes = make_trainer(tmp_path, "gkd", other).setup.notes
    assert any(note.startswith("student and teacher ") for note in notes)
    table = next(note for note in notes if "their shared events are compared" in note)
    assert all(language in table for language in ("my", "ta", "th"))
    assert "100.0%" in table


def test_too_little_coverage_is_refused_with_the_table(other, tmp_path, monkeypatch):
    monkeypatch.setattr(SharedEvents, "encode", lambda self, ids: [])
    with pytest.raises(ConfigError, match=r"less than 50% of the bytes could be compared: en 0%.*\n.*\n.*bytes used"):
        make_trainer(tmp_path, "gkd", other)
    make_trainer(tmp_path, "gkd", other, min_shared_bytes=0.0)


def test_the_gradient_does_not_depend_on_how_the_batch_is_cut(other, tmp_path):
    gradients = []
    for size, accumulation in ((8, 1), (2, 4)):
        trainer = make_trainer(
            tmp_path / str(size),
            "dudi",
            other,
            cold_start="none",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            max_grad_norm=0.0,
            optim="sgd",
            learning_rate=1.0,
        )
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        trainer.train()
        gradients.append({name: before[name] - value for name, value in trainer.model.state_dict().items()})
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], rtol=1e-3, atol=1e-6)


def test_a_tokenizer_that_is_the_same_but_for_the_name_of_its_end_gives_the_same_loss(tmp_path):
    """On the targets; what an untrained student writes is seldom split as its bytes would be."""
    template = make_tokenizer().chat_template.replace("<|im_end|>", "<|turn|>")
    teachers = make_tokenizer(), make_tokenizer(specials=[*SPECIALS[:2], "<|turn|>"], template=template)
    losses = []
    for place, tokenizer in zip(("same", "renamed"), teachers, strict=True):
        make_trainer(
            tmp_path / place, "gkd", tokenizer, padding=0, cold_start="none", mixing="sum", max_steps=1
        ).train()
        losses.append(records_of(tmp_path / place, "gkd")[0])
    assert "events/bytes_used" not in losses[0] and losses[1]["events/bytes_used"] > 0.9
    assert losses[1]["loss/off_policy"] == pytest.approx(losses[0]["loss/off_policy"], rel=1e-5)


@pytest.mark.parametrize("method", ["seqkd", "gkd"])
def test_what_it_writes_is_taken_over_as_text(method, other, tmp_path):
    keys = {} if method == "seqkd" else {"cold_start": "teacher_sft"}
    tokenizer = make_tokenizer()
    trainer = make_trainer(tmp_path, method, other, tokenizer=tokenizer, max_new_tokens=24, **keys)
    trainer.train()
    assert len(records_of(tmp_path, method)) == 2
    folder = tmp_path / ("stages/targets" if method == "seqkd" else "stages/cold_start/stages/targets") / "answers"
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == len(ROWS)
    assert all(max(answer["ids"]) < len(other) + 28 for answer in answers)
    if method == "seqkd":
        for answer, example in zip(answers, trainer.setup.train.examples, strict=True):
            text = other.decode(answer["ids"], skip_special_tokens=True)
            said = tokenizer.decode(example.completion, skip_special_tokens=True)
            assert said == (text if answer["ended"] else text.rstrip("\ufffd"))
            assert (example.completion[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")) >= answer["ended"]


def test_a_teacher_that_only_writes_may_have_any_tokenizer(tmp_path):
    bert = word_piece()
    bert.chat_template = "{% for m in messages %}{{ m['content'] }}[SEP]{% endfor %}"
    bert.add_special_tokens({"sep_token": "[SEP]"})
    bert.eos_token = "[SEP]"
    make_trainer(tmp_path, "seqkd", bert, off_policy_loss="cross_entropy").train()
    assert len(records_of(tmp_path, "seqkd")) == 2
    with pytest.raises(ConfigError, match="a WordPiece tokenizer's tokens do not say where spaces are"):
        make_trainer(tmp_path / "kd", "seqkd", bert)


def test_a_method_that_is_its_own_teacher_takes_no_cold_start_from_another_tokenizer(other, tmp_path):
    with pytest.raises(ConfigError, match="method sdft is its own teacher after the cold start"):
        make_trainer(tmp_path, "sdft", other, cold_start="teacher_sft")


def test_evaluation_during_training_reads_it_too(other, tmp_path):
    trainer = make_trainer(tmp_path, "gkd", other, eval_rows=ROWS[:4], cold_start="none", eval_rollouts=True)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] > 0 and metrics["eval_loss/on_policy"] > 0
    assert metrics["eval_bits_per_byte"] > 0


def test_the_student_writes_with_all_of_its_own_ids(tmp_path):
    trainer = make_trainer(tmp_path, "gkd", make_tokenizer(vocab_size=300))
    assert trainer.setup.vocabulary == 448 > 300 + 28


@pytest.fixture
def recipe(other, tmp_path):
    """The words of `dudi train` for two saved models with tokenizers of their own."""
    student = make_tokenizer()
    for name, tokenizer, width in (("student", student, 32), ("teacher", other, 48)):
        make_model(seed=width, hidden_size=width, vocab_size=len(tokenizer)).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    keys = {
        "student": "student",
        "teacher": "teacher",
        "data": "rows.jsonl",
        "method": "dudi",
        "cold_start": "none",
        "max_steps": 2,
        "max_new_tokens": 8,
        "use_cpu": True,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
    }
    (tmp_path / "recipe.yaml").write_text("\n".join(f"{key}: {json.dumps(value)}" for key, value in keys.items()))
    return ["train", "recipe.yaml", "--output", "run"]


def test_the_dry_run_and_the_run_say_what_can_be_compared(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*recipe, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "common events" in said and "bytes used" in said
    assert main(recipe) == 0
    said = capsys.readouterr()
    assert "their shared events are compared" in said.out + said.err
    assert records_of(tmp_path / "run", "dudi")[-1]["events/bytes_used"] > 0.5
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_the_dry_run_refuses_what_the_run_would(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SharedEvents, "encode", lambda self, ids: [])
    for words in ([*recipe, "--dry-run"], recipe):
        assert main(words) == 2
        said = capsys.readouterr()
        assert "less than 50% of the bytes could be compared" in said.out + said.err
