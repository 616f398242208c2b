"""Evaluation during training: every method has it, and a run is the same, to the bit, with it and without it."""

import json

import pytest
from kills import whole_run
from lab import numbers_of, weights_of

from dudi.objective.methods import METHODS
from helpers import ROWS


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_changes_nothing(lab, promise, tmp_path, method):
    short = ("max_steps=6", "num_train_epochs=2", "spin_iterations=2", "cold_start=none")
    lab.write_rows("held-out.jsonl", ROWS[16:22])
    keys = (f"data.eval={lab.folder}/held-out.jsonl", "eval_strategy=steps", "eval_steps=2", "eval_rollouts=true")
    # A probe of the teacher asks the rows that are held out: these must be the same.
    never = (keys[0], "eval_strategy=steps", "eval_steps=1000") if method == "gated" else ()
    whole, run = whole_run(lab, method, *short, *never), tmp_path / "run"
    child = lab.run(lab.words(run, method, *short, *keys))
    assert child.code == 0, child.said
    lines = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(line["eval_loss"] > 0 and line["eval_bits_per_byte"] > 0 for line in lines)
    same = weights_of(run) == whole.weights and numbers_of(run) == whole.numbers
    promise("evaluation during training: works, and changes no bit", 1, not same, "methods", method)
