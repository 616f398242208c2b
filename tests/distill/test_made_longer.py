"""A run that is made longer: the method goes on from the cold start and the reference that it has."""

import json
import shutil

import pytest

from dudi import DudiTrainer
from dudi.errors import ConfigError
from dudi.training import checkpoints
from helpers import ROWS, make_args, make_model

LONGER = {
    "steps": ({"max_steps": 4}, {"max_steps": 6}),
    "epochs": ({"max_steps": -1, "num_train_epochs": 1}, {"max_steps": -1, "num_train_epochs": 2}),
    "steps, a cold start in epochs": (
        {"max_steps": 4, "cold_start_epochs": 1},
        {"max_steps": 6, "cold_start_epochs": 1},
    ),
}


def make_trainer(folder, tokenizer, **keys):
    args = make_args(
        folder, "dudi", cache_dir=str(folder / "cache"), lr_scheduler_type="constant", save_strategy="steps",
        save_steps=2, per_device_train_batch_size=8, gradient_accumulation_steps=1, **keys,
    )  # fmt: skip
    return DudiTrainer(make_model(seed=1), make_model(seed=2), args, ROWS[:16], None, tokenizer)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss/sequence"] for line in lines if line["stage"] == "dudi"], [
        line["step"] for line in lines if line["stage"] == "cold_start"
    ]


def seals(folder):
    return [checkpoints.read_manifest(folder / "stages" / name)["sha256"] for name in ("cold_start/model", "reference")]


@pytest.mark.parametrize("cold_start_of", ["run", pytest.param("run of an earlier version", marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", LONGER)
def test_cold_start_and_reference_stay(how, cold_start_of, tmp_path, tokenizer, capsys):
    """With a constant rate the longer run is, in its second half, what one that was as long at once would have been."""
    short, longer = LONGER[how]
    make_trainer(tmp_path, tokenizer, **short).train()
    if cold_start_of != "run":
        forget(tmp_path)
    before, (sequence, cold) = seals(tmp_path), losses(tmp_path)
    make_trainer(tmp_path, tokenizer, **longer).train(resume_from_checkpoint=True)
    after, still = losses(tmp_path)
    assert seals(tmp_path) == before and still == cold
    assert after[: len(sequence)] == sequence and len(after) > len(sequence)
    assert after[len(sequence)] < 0.693147  # on with what was learned, and not level with a new reference
    assert "which stays as long as it was" in capsys.readouterr().out


def forget(folder):
    """Take out of the checkpoints what earlier versions did not write."""
    for step in (folder / "checkpoints").iterdir():
        manifest = checkpoints.read_manifest(step)
        del manifest["began_from"], manifest["sha256"]
        (step / checkpoints.MANIFEST).write_text(
            checkpoints.json_text({**manifest, "sha256": checkpoints._digest_of(manifest)})
        )


def test_the_same_numbers_as_a_run_that_was_as_long_at_once(tmp_path, tokenizer):
    keys = {"cold_start_epochs": 1}
    make_trainer(tmp_path / "cut", tokenizer, max_steps=4, **keys).train()
    cold = tmp_path / "cut" / "stages" / "cold_start" / "model"
    make_trainer(tmp_path / "cut", tokenizer, max_steps=6, **keys).train(resume_from_checkpoint=True)
    make_trainer(tmp_path / "whole", tokenizer, max_steps=6, cold_start=str(cold)).train()
    assert losses(tmp_path / "cut")[0] == losses(tmp_path / "whole")[0]


def test_a_cold_start_that_is_gone_is_not_replaced_by_another(tmp_path, tokenizer):
    make_trainer(tmp_path, tokenizer, max_steps=4).train()
    shutil.rmtree(tmp_path / "stages" / "cold_start")
    make_trainer(tmp_path, tokenizer, max_steps=6).train(resume_from_checkpoint=True)  # the cache has it
    for place in (tmp_path / "stages" / "cold_start", tmp_path / "cache"):
        shutil.rmtree(place)
    with pytest.raises(ConfigError, match="the cold start that the method began from is gone"):
        make_trainer(tmp_path, tokenizer, max_steps=8).train(resume_from_checkpoint=True)
    again = make_trainer(tmp_path, tokenizer, max_steps=4)  # this one would train the same
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "step-4"))
