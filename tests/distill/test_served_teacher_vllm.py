"""A teacher behind `vllm serve` (`make test-vllm`): what it says is what the model here says."""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("vllm")

from dudi import DudiTrainer, ServedTeacher
from dudi.errors import ConfigError
from dudi.models.load import load_model, load_tokenizer, locate
from dudi.training.runlog import read_jsonl
from helpers import ROWS, make_args
from servers import free_port, wait_until_healthy

os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}
STUDENT, TEACHER = "package:dudi/mini/base", "package:dudi/mini/teacher"
K = 64


@pytest.fixture(scope="module")
def url():
    """The mini teacher, as docs/served-teacher.md serves one, on a free port of loopback."""
    port = free_port()
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", locate(TEACHER)]
    words += ["--served-model-name", TEACHER, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    words += ["--enforce-eager", "--max-logprobs", str(K), "--generation-config", "vllm"]
    process = subprocess.Popen(words)
    try:
        wait_until_healthy(process, port, 600)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def trained(folder, teacher, method="dudi", **keys):
    keys = {"cold_start": "none", "max_steps": 2, "max_new_tokens": 16, "teacher_max_length": 400, **keys}
    trainer = DudiTrainer(
        load_model(STUDENT),
        teacher,
        make_args(folder, method, **keys),
        ROWS,
        None,
        load_tokenizer(STUDENT),
        teacher_processing_class=load_tokenizer(TEACHER),
    )
    trainer.train()
    return trainer, read_jsonl(folder / "metrics.jsonl")


def test_what_it_names_are_the_models_likeliest_tokens_with_their_log_probabilities(url):
    tokenizer, model = load_tokenizer(TEACHER), load_model(TEACHER)
    teacher = ServedTeacher(TEACHER, url)
    teacher.check(K, teacher.vocabulary, reads_tokens=True)
    pairs = [(tokenizer(row["prompt"])["input_ids"], tokenizer(row["completion"])["input_ids"]) for row in ROWS[:8]]
    for (prompt, completion), top in zip(pairs, teacher.read(pairs, K, teacher.vocabulary), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
        exact = logits.log_softmax(-1)
        assert torch.equal(top.ids[:, 0], torch.tensor(completion))
        named = top.log_probs[:, :-1]
        there = ~named.isneginf()
        torch.testing.assert_close(named[there], exact.gather(1, top.ids)[there], rtol=0, atol=1e-4)
        left = exact.exp().scatter(1, top.ids, 0.0)
        torch.testing.assert_close(top.log_probs[:, -1].exp(), left.sum(1), rtol=0, atol=1e-5)
        assert bool((left.amax(1) <= exact.topk(K).values[:, -1].exp() + 1e-6).all()) and int(there.sum(1).min()) >= K


@pytest.mark.parametrize("method", ["dudi", "seqkd", "gated"])
def test_methods_train_under_it(method, url, tmp_path):
    keys = {"probe_rows": 2} if method == "gated" else {}
    _, records = trained(tmp_path, ServedTeacher(TEACHER, url), method, **keys)
    assert len(records) == 2
    assert all(record["teacher/requests"] == 1 and 0 < record["teacher/tail"] < 0.5 for record in records)


def test_its_loss_is_a_lower_bound_of_that_of_the_whole_distribution(url, tmp_path):
    _, served = trained(tmp_path / "served", ServedTeacher(TEACHER, url), max_steps=1)
    _, whole = trained(tmp_path / "whole", load_model(TEACHER), max_steps=1)
    for name in ("loss/off_policy", "loss/on_policy"):
        assert 0.5 * whole[0][name] < served[0][name] <= whole[0][name] * (1 + 1e-5)
    assert served[0]["overlap@16"] == pytest.approx(whole[0]["overlap@16"], abs=1e-4)


def test_more_than_its_max_logprobs_is_explained(url, tmp_path):
    with pytest.raises(ConfigError, match=r"refuses .400.*start it with --max-logprobs as large as teacher_top_k"):
        trained(tmp_path, ServedTeacher(TEACHER, url), teacher_top_k=K + 1)
