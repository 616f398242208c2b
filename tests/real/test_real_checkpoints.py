"""Real checkpoints from folders: two steps of each method under LoRA, saved, loaded, stopped, evaluated, resumed."""

import math

import pytest
import torch
from lane import EN, ROWS, answer, encoded, folder_of, from_folder, logits, make_trainer
from transformers import AutoModelForCausalLM, AutoTokenizer

from dudi.data.chat import chat_format
from dudi.models.load import load_model
from dudi.objective.methods import METHODS
from dudi.training.runlog import read_jsonl


@pytest.mark.parametrize("method", METHODS)
def test_two_steps_of_each_method(checkpoint, method, tmp_path):
    trainer = make_trainer(tmp_path, checkpoint, method, learning_rate=1e-4)
    before = {name: value.clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
    trainer.train()
    steps = read_jsonl(tmp_path / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2]
    assert all(math.isfinite(step["loss"]) and step["grad_norm"] > 0 for step in steps)
    if "loss/sequence" in steps[0]:
        assert steps[0]["loss/sequence"] == pytest.approx(math.log(2), abs=1e-4)
    moved = [
        name for name, value in trainer.model.named_parameters() if name in before and (value != before[name]).any()
    ]
    assert len(moved) > len(before) // 4  # lora_B of every layer, and then lora_A


def test_a_student_learns_to_answer_and_to_stop(checkpoint, tmp_path):
    """Few steps of SFT on one row, and the folder answers it through `generate` as people call it, and stops."""
    trainer = make_trainer(tmp_path, checkpoint, "sft", rows=EN, max_steps=12, per_device_train_batch_size=1)
    trainer.train()
    trainer.save_final(tmp_path / "model", {})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(
        logits(model, tokenizer), logits(trainer.model, checkpoint.tokenizer), atol=5e-3, rtol=1e-3
    )
    ids = answer(model, tokenizer, EN[0]["prompt"], 40)
    assert ids == chat_format(checkpoint.tokenizer, {}, "").answer_ids(EN[0]["completion"])
    assert not list((tmp_path / "model").glob("*.bin"))


def test_evaluation_is_the_cross_entropy_in_bits_per_byte(checkpoint, tmp_path):
    trainer = make_trainer(tmp_path, checkpoint, "sft")
    trained = len(chat_format(checkpoint.tokenizer, {}, "").answer_ids(EN[0]["completion"]))
    nats = torch.nn.functional.cross_entropy(
        logits(checkpoint.model, checkpoint.tokenizer)[-1 - trained : -1],
        torch.tensor(encoded(checkpoint.tokenizer)[-trained:]),
        reduction="sum",
    )
    expected = float(nats) / math.log(2) / len(EN[0]["completion"].encode())
    assert trainer.evaluate()["eval_bits_per_byte"] == pytest.approx(expected, rel=1e-4)


def test_a_resumed_run_ends_with_the_same_bits(checkpoint, tmp_path):
    through = make_trainer(tmp_path / "through", checkpoint, save_strategy="steps", save_steps=1, cold_start="sft")
    through.train()
    again = make_trainer(tmp_path / "through", checkpoint, save_strategy="no", cold_start="sft")
    again.train(resume_from_checkpoint=str(tmp_path / "through" / "checkpoints" / "step-1"))
    ended, state = through.model.state_dict(), again.model.state_dict()
    assert [name for name in ended if not torch.equal(ended[name], state[name])] == []


def test_all_weights_of_the_smallest(tmp_path):
    """Without an adapter, the reference being a copy."""
    checkpoint = from_folder("smollm2-135m")
    trainer = make_trainer(tmp_path, checkpoint, peft=None, learning_rate=1e-5)
    trainer.train()
    first, second = read_jsonl(tmp_path / "metrics.jsonl")
    assert first["loss/sequence"] == pytest.approx(math.log(2), abs=1e-5)
    assert second["loss/off_policy"] > first["loss/off_policy"]


def test_the_folder_is_the_gguf_file_in_bf16(smollm2):
    """`scripts/real_models.py` changes no weight beyond rounding, and the digits stand alone as SmolLM2 read them."""
    folder = folder_of("smollm2-135m")
    own, theirs = smollm2.model.state_dict(), load_model(str(folder)).state_dict()
    assert own.keys() == theirs.keys()
    assert max(((own[n] - theirs[n]).norm() / own[n].norm()).item() for n in own) < 2**-8
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("in  2024") == ["in", "ĠĠ", "2", "0", "2", "4"]


def test_one_family_one_vocabulary(tmp_path):
    """The Qwen pair: the larger teaches the smaller, two steps of DuDi, the teacher held in bf16."""
    checkpoint = from_folder("qwen2.5-coder-0.5b")
    teacher = from_folder("qwen2.5-coder-1.5b", torch.bfloat16).model
    trainer = make_trainer(tmp_path, checkpoint, teacher=teacher, rows=ROWS[:2], max_steps=2)
    trainer.train()
    first, second = read_jsonl(tmp_path / "metrics.jsonl")
    assert first["loss/sequence"] == pytest.approx(math.log(2), abs=1e-4)
    assert first["loss/off_policy"] > 0.05  # they differ
    assert second["loss"] != first["loss"]
