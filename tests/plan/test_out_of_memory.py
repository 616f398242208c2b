"""A full device ends in one message: which keys to change, and by how much, from the estimate of `dudi plan`."""

import json

import pytest
import torch

from dudi.distill.trainer import DudiTrainer
from dudi.plan import out_of_memory
from dudi.program.cli import main

RECIPE = """
student: package:dudi/mini/small
teacher: package:dudi/mini/base
data: {rows}
languages: [id]
method: gkd
cold_start: none
max_steps: 1
per_device_train_batch_size: 32
gradient_accumulation_steps: 2
max_length: 256
max_new_tokens: 8
use_cpu: true
"""
SAID = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which 1.2 GiB is free."
)


@pytest.fixture
def folder(tmp_path):
    rows = [{"id": str(n), "language": "id", "prompt": f"Apa {n}?", "completion": "Ya."} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(rows=tmp_path / "rows.jsonl"))
    return tmp_path


def run(folder, monkeypatch, error, device=1_300_000_000):
    """A real run in which the forward pass raises what torch raises."""

    def full(*args, **kwargs):
        raise error

    monkeypatch.setattr(DudiTrainer, "compute_loss", full)
    monkeypatch.setattr(out_of_memory, "_device_bytes", lambda: device)
    return main(["train", str(folder / "recipe.yaml"), "--output", str(folder / "run")])


def test_a_full_gpu_says_what_to_lower_and_by_how_much(folder, monkeypatch, capsys):
    assert run(folder, monkeypatch, torch.OutOfMemoryError(SAID)) == 1
    message = capsys.readouterr().err.partition("error: ")[2]
    assert message.startswith("out of memory (CUDA out of memory)\n") and message.count("\n") == 2
    assert "GB are estimated and the device has 1.30 GB. Set per_device_train_batch_size=" in message
    assert "gradient_accumulation_steps=" in message and "Traceback" not in message
    words = [word for word in message.split() if "=" in word]
    lowered = dict(word.rstrip(":").split("=") for word in words)
    assert int(lowered["per_device_train_batch_size"]) * int(lowered["gradient_accumulation_steps"]) == 64
    assert int(lowered["per_device_train_batch_size"]) < 32


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")],
)
def test_a_full_machine_says_so_too(folder, monkeypatch, capsys, error):
    assert run(folder, monkeypatch, error, device=2**20) == 1
    message = capsys.readouterr().err.partition("error: ")[2]
    assert message.startswith("out of memory (") and message.count("\n") == 2
    assert "are held throughout, whatever the batch" in message


def test_another_error_of_torch_is_not_taken_for_it(folder, monkeypatch):
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(folder, monkeypatch, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
