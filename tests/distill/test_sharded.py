"""FSDP2 on two gloo processes, through `accelerate launch` and the shipped config: it trains as one process does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sharding import everything

from dudi.config.recipe_files import recipes_folder
from dudi.objective.methods import METHODS
from dudi.training.runlog import read_jsonl

pytestmark = pytest.mark.distributed
RUNS = [*METHODS, "tied", "cold"]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    everything(folder, processes=1)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    config = recipes_folder() / "accelerate" / "fsdp2.yaml"
    worker = Path(__file__).with_name("sharding.py")
    words = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file", str(config)]
    words += ["--num_processes", "2", str(worker), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DUDI_CACHE": str(tmp_path_factory.mktemp("cache"))}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])  # where `helpers` lies
    done = subprocess.run(words, capture_output=True, text=True, timeout=1500, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def losses(folder):
    return [record["loss"] for record in read_jsonl(folder / "metrics.jsonl")]


@pytest.mark.parametrize("name", RUNS)
def test_sharded_weights_train_as_whole_ones(name, one, two):
    ours, theirs = losses(two / name), losses(one / name)
    assert len(ours) == len(theirs) >= 4
    assert ours == pytest.approx(theirs, abs=1e-4)
    spread = json.loads((two / name / "spread.json").read_text())
    assert spread == {"student": True, "teacher": name in ("seqkd", "gkd", "dudi", "gated", "tied", "cold")}


@pytest.mark.parametrize("name", RUNS)
def test_the_gradient_of_every_parameter_is_that_of_one_process(name, one, two):
    ours, theirs = (torch.load(folder / name / "gradients.pt", weights_only=True) for folder in (two, one))
    for parameter, gradient in theirs.items():
        gap = (ours[parameter].double() - gradient.double()).norm() / gradient.double().norm()
        assert gap < 1e-5, parameter


@pytest.mark.parametrize("name", RUNS)
def test_the_final_model_is_whole(name, one, two):
    ours, theirs = (load_file(folder / name / "model" / "model.safetensors") for folder in (two, one))
    assert ours.keys() == theirs.keys()
    for parameter, weight in theirs.items():
        torch.testing.assert_close(ours[parameter], weight, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["dudi", "sdft", "spin"])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(name, two):
    whole, again = losses(two / name), losses(two / f"{name}-again")
    assert again == pytest.approx(whole[2:], abs=1e-6)
    ours, theirs = (load_file(two / f"{n}" / "model" / "model.safetensors") for n in (f"{name}-again", name))
    for parameter, weight in theirs.items():
        torch.testing.assert_close(ours[parameter], weight, rtol=0, atol=1e-6)
