"""A base student that was trained stops where others serve it: vLLM, SEA-HELM's server, `transformers serve`.

Nobody tells them where to stop (`make test-vllm`; without vLLM this file skips).
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from dudi import DudiTrainer
from dudi.evaluation.seahelm.vllm import StartedServer
from dudi.models.load import load_model, load_tokenizer
from helpers import ROWS, make_args
from servers import free_port, wait_until_healthy

os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}
STUDENT = "package:dudi/mini/base"
FEW = ROWS[:3]
SHORT = {"max_steps": 40, "learning_rate": 3e-3, "lr_scheduler_type": "constant", "gradient_accumulation_steps": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a student whose own end of text is another token than the end of a turn that it has learnt."""
    student, tokenizer = load_model(STUDENT), load_tokenizer(STUDENT)
    end_of_turn, tokenizer.eos_token = tokenizer.eos_token_id, tokenizer.pad_token
    assert tokenizer.eos_token_id != end_of_turn
    student.config.eos_token_id = student.generation_config.eos_token_id = tokenizer.eos_token_id
    folder = tmp_path_factory.mktemp("served")
    args = make_args(folder / "run", "sft", per_device_train_batch_size=len(FEW), **SHORT)
    trainer = DudiTrainer(student, None, args, FEW, None, tokenizer)
    trainer.train()
    trainer.save_final(folder / "run" / "model", {})
    return folder / "run" / "model"


def check_answers(url, name):
    """Each taught answer comes whole, and then nothing."""
    for row in FEW:
        turns = [{"role": "user", "content": row["prompt"]}]
        body = {"model": name, "messages": turns, "temperature": 0, "max_tokens": 60}
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(asked, timeout=120) as answer:
            (choice,) = json.loads(answer.read())["choices"]
        # `transformers serve` gives a model of a Qwen type its question back, and the end of its turn.
        assert choice["message"]["content"].removesuffix("<|end|>").strip().endswith(row["completion"])
        assert choice["finish_reason"] == "stop"


def test_the_server_that_seahelm_asks_stops(model, tmp_path):
    words = ["--dtype", "float32", "--enforce-eager"]
    server = StartedServer(str(model), tmp_path / "log", Path(sys.executable), words)
    server.up()
    try:
        check_answers(server.url, server.model)
    finally:
        server.stop()


def test_transformers_serve_stops(model):
    port = free_port()
    words = [str(Path(sys.executable).parent / "transformers"), "serve", str(model), "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*words, "--port", str(port), "--device", "cpu"], env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    try:
        wait_until_healthy(process, port, 180)
        check_answers(f"http://127.0.0.1:{port}/v1", str(model))
    finally:
        process.terminate()
        process.wait(60)
