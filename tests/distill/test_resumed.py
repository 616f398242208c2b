"""A run that is gone on with: wherever its folder lies now, with the best checkpoint, at the new schedule's rates."""

import json
import os
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file

from dudi import DudiTrainer
from helpers import ROWS, make_args, make_model

BEST = {
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "greater_is_better": True,  # the loss sinks: the first step stays the best
    "save_total_limit": 2,
    "lr_scheduler_type": "constant",
}


def make_trainer(folder, tokenizer, method="sft", **keys):
    args = make_args(folder, method, **keys)
    return DudiTrainer(make_model(seed=1), make_model(seed=2), args, ROWS[:16], ROWS[:8], tokenizer)


def rates(folder, stage):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["learning_rate"] for record in lines if record["stage"] == stage]


def same(folder, model):
    saved = load_file(folder / "model.safetensors")
    return all(torch.equal(saved[name], value) for name, value in model.state_dict().items())


MOVES = {
    "the same": lambda place: "run",
    "absolute": lambda place: str(place / "run"),
    "with dots": lambda place: "./run/../run",
    "through a link": lambda place: (os.symlink("run", "link"), "link")[1],
    "moved": lambda place: shutil.move("run", "moved"),
    "copied": lambda place: str(shutil.copytree("run", "copy")),
}


@pytest.mark.parametrize("move", MOVES)
def test_the_best_checkpoint_stays_wherever_the_folder_lies(move, tmp_path, tokenizer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = make_trainer("run", tokenizer, max_steps=2, **BEST)
    first.train()
    assert first.state.best_global_step == 1
    place = MOVES[move](tmp_path)
    second = make_trainer(place, tokenizer, max_steps=5, **BEST)
    second.train(resume_from_checkpoint=True)
    root = tmp_path / place / "checkpoints"
    assert sorted(path.name for path in root.iterdir()) == ["step-1", "step-5"]
    assert same(root / "step-1", second.model) and not same(root / "step-5", second.model)
    assert os.path.samefile(second.state.best_model_checkpoint, root / "step-1")


def test_a_best_checkpoint_that_is_gone_makes_room_for_the_next(tmp_path, tokenizer):
    make_trainer(tmp_path, tokenizer, max_steps=2, **BEST).train()
    shutil.rmtree(tmp_path / "checkpoints" / "step-1")
    second = make_trainer(tmp_path, tokenizer, max_steps=5, **BEST)
    with pytest.warns(UserWarning, match="the best checkpoint, step 1, is gone"):
        second.train(resume_from_checkpoint=True)
    assert second.state.best_global_step == 3
    assert same(tmp_path / "checkpoints" / f"step-{second.state.best_global_step}", second.model)


@pytest.mark.parametrize(
    "schedule",
    [
        "linear",
        "polynomial",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("cosine", "constant_with_warmup")),
    ],
)
def test_a_finished_run_that_is_made_longer_follows_the_longer_schedule(schedule, tmp_path, tokenizer):
    keys = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": schedule, "warmup_steps": 2}
    make_trainer(tmp_path / "cut", tokenizer, max_steps=4, **keys).train()
    again = make_trainer(tmp_path / "cut", tokenizer, max_steps=10, **keys)
    again.train(resume_from_checkpoint=True)
    whole = make_trainer(tmp_path / "whole", tokenizer, max_steps=10, **keys)
    whole.train()
    assert rates(tmp_path / "cut", "sft")[4:] == rates(tmp_path / "whole", "sft")[4:]


def test_another_learning_rate_that_is_allowed_is_taken(tmp_path, tokenizer):
    keys = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant", "max_steps": 4}
    make_trainer(tmp_path, tokenizer, **keys).train()
    again = make_trainer(tmp_path, tokenizer, learning_rate=3e-4, **keys)
    again.allow_changed = frozenset({"learning_rate"})
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "step-2"))
    assert rates(tmp_path, "sft") == [1e-3, 1e-3, 3e-4, 3e-4]


SPIN = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 1}


@pytest.mark.parametrize("steps", [-1, 6, *(pytest.param(one, marks=pytest.mark.slow) for one in (4, 8))])
def test_the_rates_of_spin_follow_its_iterations(steps, tmp_path, tokenizer):
    """Two steps an epoch: an iteration begins at steps 1, 3 and 5, however many steps there are."""
    keys = {**SPIN, "cold_start": "none", "spin_iterations": 3, "spin_learning_rates": [1e-3, 1e-4, 1e-5]}
    make_trainer(tmp_path, tokenizer, "spin", max_steps=steps, **keys).train()
    expected = [1e-3, 5e-4, 1e-4, 5e-5, 1e-5, 5e-6, 1e-5, 5e-6]
    count = 6 if steps < 0 else steps
    assert rates(tmp_path, "spin") == pytest.approx(expected[:count], rel=1e-6)
    pools = sorted(path.name for path in (tmp_path / "stages" / "spin").iterdir())
    assert len(pools) == -(-count // 2)


def test_starting_anew_beside_checkpoints_sets_them_aside(tmp_path, tokenizer):
    """As a script does that asks `get_last_checkpoint`, which looks for folders of other names."""
    keys = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*starts anew")
        make_trainer(tmp_path, tokenizer, **keys).train()
        make_trainer(tmp_path, tokenizer, **keys).train(resume_from_checkpoint=True)
        make_trainer(tmp_path, tokenizer, **keys).train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "step-1"))
    shorter = keys | {"max_steps": 1, "save_total_limit": 1, "learning_rate": 1e-4}
    with pytest.warns(
        UserWarning, match=r"starts anew: they are now .*old-step-2 .*train\(resume_from_checkpoint=True\)"
    ):
        make_trainer(tmp_path, tokenizer, **shorter).train(resume_from_checkpoint=None)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["old-step-1", "old-step-2", "step-1"]
    make_trainer(tmp_path, tokenizer, **shorter).train(resume_from_checkpoint=True)
