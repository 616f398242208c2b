"""With adapters: where the reference is, that SPIN starts at log 2 in each case, and what is trained and saved."""

import json
import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from dudi import DudiTrainer
from dudi.errors import ConfigError
from dudi.models.frozen import AdapterOff, FrozenModel, MovingAverage, OtherAdapter
from helpers import ROWS, make_args, make_model


def lora(**keys):
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **keys)


def first_loss(folder, stage="dudi"):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return next(record["loss/sequence"] for record in lines if record["stage"] == stage)


def make_trainer(folder, tokenizer, method="dudi", student=None, peft_config=None, **keys):
    args = make_args(folder, method, learning_rate=1e-2, **keys)
    teacher = make_model(seed=2, hidden_size=48)
    return DudiTrainer(student or make_model(seed=1), teacher, args, ROWS, None, tokenizer, peft_config=peft_config)


CASES = {
    "full": ({}, None, FrozenModel),
    "new adapter on the merged cold start": ({}, lora, AdapterOff),
    "the cold start's adapter goes on": ({"cold_start_adapter": "continue"}, lora, OtherAdapter),
    "no cold start, new adapter": ({"cold_start": "none"}, lora, AdapterOff),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["dudi", pytest.param("spin", marks=pytest.mark.slow)])
def test_spin_starts_at_log_2(case, method, tmp_path, tokenizer):
    keys, make_config, reference = CASES[case]
    trainer = make_trainer(tmp_path, tokenizer, method, peft_config=make_config and make_config(), **keys)
    trainer.train()
    assert first_loss(tmp_path, method) == pytest.approx(math.log(2), abs=2e-6)
    expected = OtherAdapter if method == "spin" and make_config else reference
    assert isinstance(trainer.run.reference, expected)
    second = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()][-1]
    assert abs(second["loss/sequence"] - math.log(2)) > 1e-4  # the policy moved, the reference did not


def test_a_peft_model_goes_on_with_its_own_adapter(tmp_path, tokenizer):
    model = get_peft_model(make_model(seed=1), lora(init_lora_weights=False))
    trainer = make_trainer(tmp_path, tokenizer, student=model, cold_start="none")
    trainer.train()
    assert isinstance(trainer.run.reference, OtherAdapter)
    assert first_loss(tmp_path) == pytest.approx(math.log(2), abs=2e-6)


def test_the_average_is_a_third_adapter_and_follows(tmp_path, tokenizer):
    trainer = make_trainer(
        tmp_path, tokenizer, "sdft", peft_config=lora(), cold_start="none", ema_rate=0.25, max_steps=1
    )
    trainer.train()
    assert isinstance(trainer.run.teacher, MovingAverage)
    moved = [(own - average).abs().max() for own, average in trainer.run.teacher.pairs()]
    assert max(moved) > 0
    for name, parameter in trainer.model.named_parameters():
        assert parameter.requires_grad == (".default." in name), name


def test_the_average_of_full_weights_is_the_formula(tmp_path, tokenizer):
    student = make_model(seed=1)
    start = {name: value.clone() for name, value in student.named_parameters()}
    trainer = make_trainer(tmp_path, tokenizer, "sdft", student=student, cold_start="none", ema_rate=0.25, max_steps=1)
    trainer.train()
    end = dict(student.named_parameters())
    names = list(end)
    for name, (own, average) in zip(names, trainer.run.teacher.pairs(), strict=True):
        assert own is end[name]
        torch.testing.assert_close(average, 0.75 * start[name] + 0.25 * end[name].detach(), rtol=1e-6, atol=1e-7)


def test_an_average_in_16_bits_moves_as_one_in_32():
    """A hundredth of a step of 0.01 is nothing in bfloat16: the average would stand still."""
    student, average = torch.full((8,), 1.01), torch.ones(8)
    half = average.to(torch.bfloat16)
    policy = FrozenModel(torch.nn.Linear(1, 1))
    exact = MovingAverage(policy, 0.01, lambda: [(student, average)])
    rounded = MovingAverage(policy, 0.01, lambda: [(student, half)])
    for _ in range(200):
        exact.update()
        rounded.update()
    torch.testing.assert_close(rounded.state_dict()["00000"], average)
    assert torch.equal(half, average.to(torch.bfloat16)) and not torch.equal(half, torch.ones_like(half))
    again = MovingAverage(policy, 0.01, lambda: [(student, torch.ones(8, dtype=torch.bfloat16))])
    again.load_state_dict(rounded.state_dict())
    assert torch.equal(again.state_dict()["00000"], rounded.state_dict()["00000"])


@pytest.mark.parametrize("treatment", ["merge", "continue"])
def test_only_the_trained_adapter_is_saved_and_it_loads(treatment, tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, tokenizer, peft_config=lora(), cold_start_adapter=treatment)
    trainer.train()
    trainer.save_sealed(tmp_path / "model", {})
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert "adapter_model.safetensors" in names
    assert not {"reference", "teacher"} & names
    loaded = PeftModel.from_pretrained(make_model(seed=1), tmp_path / "model")
    weights = {n: p for n, p in loaded.named_parameters() if "lora_" in n}
    own = {n: p for n, p in trainer.model.named_parameters() if "lora_" in n and ".default." in n}
    assert all(torch.equal(weights[n], p) for n, p in own.items())


@pytest.mark.parametrize("treatment", ["merge", "continue"])
def test_the_final_model_is_whole(treatment, tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, tokenizer, peft_config=lora(), cold_start_adapter=treatment)
    trainer.train()
    trainer.save_final(tmp_path / "model", {})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    ids = torch.arange(20).unsqueeze(0)
    with torch.no_grad():
        own = trainer.model.eval()(input_ids=ids).logits
        torch.testing.assert_close(loaded.eval()(input_ids=ids).logits, own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("method", "treatment"), [("dudi", "merge"), ("sdft", "continue")])
def test_a_resumed_adapter_run_ends_with_the_same_bits(method, treatment, tmp_path, tokenizer):
    keys = {"cold_start_adapter": treatment, "save_strategy": "steps", "save_steps": 1, "max_steps": 3}
    whole = make_trainer(tmp_path, tokenizer, method, peft_config=lora(lora_dropout=0.1), **keys)
    whole.train()
    again = make_trainer(tmp_path, tokenizer, method, peft_config=lora(lora_dropout=0.1), **keys)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "step-2"))
    own = {n: p for n, p in whole.model.named_parameters() if ".default." in n}
    assert all(torch.equal(p, dict(again.model.named_parameters())[n]) for n, p in own.items())


def test_an_adapter_on_the_head_is_refused(tmp_path, tokenizer):
    config = LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM")
    trainer = make_trainer(tmp_path, tokenizer, "sft", peft_config=config)
    with pytest.raises(ConfigError, match="lm_head"):
        trainer.train()


def test_a_new_adapter_starts_from_the_seed_alone(tmp_path, tokenizer):
    """torch's own generator starts anywhere in a new process."""

    def start(run_seed, other):
        torch.manual_seed(other)
        trainer = make_trainer(tmp_path / f"{run_seed}-{other}", tokenizer, peft_config=lora(), seed=run_seed)
        return {name: tensor.clone() for name, tensor in trainer.model.named_parameters() if "lora_A" in name}

    first, second, third = start(1, 5), start(1, 6), start(2, 5)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], third[name]) for name in first)
