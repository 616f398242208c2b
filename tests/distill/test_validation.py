"""Evaluation during training: every row once on however many processes, the same before training as inside of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dudi import DudiTrainer
from helpers import ROWS, make_args, make_model, make_tokenizer

SEVEN = ROWS[:7]
COUNTS = (1, 2, 3, 7, 8)


def make_trainer(folder, tokenizer, method="sft", rows=SEVEN, student=None, **keys):
    args = make_args(folder, method, **{"per_device_eval_batch_size": 2, **keys})
    return DudiTrainer(student or make_model(seed=1), make_model(seed=2), args, ROWS, rows, tokenizer)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__, str(folder)]
    found = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}  # where `helpers` lies
    done = subprocess.run(words, capture_output=True, text=True, timeout=280, check=False, env=found)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("count", COUNTS)
def test_two_processes_count_each_row_once(count, tmp_path, tokenizer, two_processes):
    measured = json.loads((two_processes / f"{count}.json").read_text())
    own = make_trainer(tmp_path, tokenizer, rows=ROWS[:count]).evaluate()
    for name in ("eval_loss", "eval_bits_per_byte"):
        assert measured[name] == pytest.approx(own[name], rel=1e-6), name


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


def main():
    tokenizer = make_tokenizer()
    for count in COUNTS:
        trainer = make_trainer(Path(sys.argv[1]) / f"run-{count}", tokenizer, rows=ROWS[:count])
        found = trainer.evaluate()
        if trainer.args.process_index == 0:
            (Path(sys.argv[1]) / f"{count}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
