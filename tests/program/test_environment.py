"""What `dudi env` reports, and which precision is chosen."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from dudi.environment import choose_precision, collect_environment, describe_environment, device_type, git_commit
from dudi.errors import ConfigError
from dudi.training.run_folder import write_records

ROOT = Path(__file__).parents[2]


def test_the_environment_is_json_and_true(tmp_path):
    found = json.loads(json.dumps(collect_environment(tmp_path / "not" / "yet" / "there")))
    assert found["packages"]["torch"] == torch.__version__
    assert found["device"]["type"] == device_type()
    assert found["threads"] == torch.get_num_threads()
    assert found["cores"] >= 1
    assert found["memory"] > 2**28
    assert found["free_disk"] > 0
    assert found["precision"]["dtype"] in {"float32", "bfloat16", "float16"}


def test_a_run_writes_down_the_precision_that_it_asked_for(tmp_path):
    write_records(tmp_path, "method: dudi\n", {}, dtype="bfloat16", use_cpu=True)
    found = json.loads((tmp_path / "env.json").read_text(encoding="utf-8"))
    assert found["precision"] == {"dtype": "bfloat16", "reason": "asked for"}
    assert found["device"]["type"] == "cpu"


def test_the_text_names_everything():
    found = collect_environment()
    found["packages"] |= {"vllm": None, "peft": "9.9"}
    text = describe_environment(found)
    assert "vllm" in text.splitlines()[-1]
    for part in ("python", "torch", "9.9", "precision", found["precision"]["reason"], "free disk", "GiB"):
        assert part in text


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_the_commit_is_the_checkouts():
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert git_commit() in {head, f"{head}-dirty"}


def test_a_cpu_trains_in_float32_with_a_reason():
    precision = choose_precision("auto", use_cpu=True)
    assert precision.dtype == "float32"
    assert "CPU" in precision.reason


def test_what_is_asked_for_is_taken():
    assert choose_precision("float32").dtype == "float32"
    assert choose_precision("bfloat16", use_cpu=True).dtype == "bfloat16"
    with pytest.raises(ConfigError, match="float16 needs a GPU"):
        choose_precision("float16", use_cpu=True)


@pytest.mark.parametrize(("hardware", "dtype"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_without_bfloat16_gets_float16(monkeypatch, hardware, dtype):
    """The rule for GPUs, with torch's answers of an H100 and of a T4."""
    monkeypatch.setattr("dudi.environment.device_type", lambda use_cpu=False: "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: hardware or including_emulation
    )
    assert choose_precision().dtype == dtype
    assert "Some GPU" in choose_precision().reason
    if hardware:
        assert choose_precision("bfloat16").dtype == "bfloat16"
    else:
        with pytest.raises(ConfigError, match="bfloat16 is not available"):
            choose_precision("bfloat16")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_precision_of_a_real_gpu_computes():
    precision = choose_precision()
    values = torch.ones(8, 8, device="cuda", dtype=getattr(torch, precision.dtype))
    assert (values @ values).sum().item() == 512
