"""Evaluation during training: the same before training as inside of it (`test_distributed.py`: several processes)."""

import json

import pytest
import torch

from dudi import DudiTrainer
from helpers import ROWS, make_args, make_model

SEVEN = ROWS[:7]


def make_trainer(folder, tokenizer, method="sft", rows=SEVEN, student=None, **keys):
    args = make_args(folder, method, **{"per_device_eval_batch_size": 2, **keys})
    return DudiTrainer(student or make_model(seed=1), make_model(seed=2), args, ROWS, rows, tokenizer)


def test_evaluation_before_training_has_the_precision_of_training(tmp_path, tokenizer):
    """With a learning rate of 0 the student inside a training is the one of before."""
    trainer = make_trainer(tmp_path, tokenizer, bf16=True, learning_rate=0.0, eval_strategy="steps", eval_steps=1)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "eval.jsonl").read_text().splitlines()]
    inside = [line["eval_loss"] for line in lines if line["step"]]
    assert inside == [before, before]
    assert trainer.evaluate()["eval_loss"] == before
    exact = make_trainer(tmp_path / "exact", tokenizer).evaluate()["eval_loss"]
    assert exact != before and exact == pytest.approx(before, rel=1e-2)


def test_evaluation_draws_nothing(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, tokenizer, "dudi", eval_rollouts=True)
    state = torch.get_rng_state()
    trainer.evaluate()
    assert torch.equal(state, torch.get_rng_state())
