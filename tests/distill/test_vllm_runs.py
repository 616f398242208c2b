"""DuDi on a real vLLM (`make test-vllm`): its CPU build, small models, colocated and as a server."""

import json
import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("vllm")

from dudi import DudiTrainer
from dudi.errors import ConfigError, EnvironmentFault, NumericError
from dudi.models.load import load_model, load_tokenizer, locate
from dudi.rollouts import NoiseKey, Request
from dudi.training.runlog import read_jsonl
from helpers import ROWS, make_args
from servers import free_port, wait_until_healthy

os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}
STUDENT, TEACHER = "package:dudi/mini/base", "package:dudi/mini/teacher"
NEAR = 1e-4
"""Nats: fp32 on both sides."""
OPTIONS = {"use_vllm": True, "cold_start": "none", "max_steps": 3, "learning_rate": 2e-3, "max_new_tokens": 24}


def trained(folder, method="dudi", **keys):
    """A trainer after its run, the weights it began with, and the lines of its metrics."""
    student = load_model(STUDENT)
    before = {name: weight.detach().clone() for name, weight in student.named_parameters()}
    peft_config = keys.pop("peft_config", None)
    trainer = DudiTrainer(
        student,
        load_model(TEACHER),
        make_args(folder, method, **{**OPTIONS, **keys}),
        ROWS,
        None,
        load_tokenizer(STUDENT),
        peft_config=peft_config,
        teacher_processing_class=load_tokenizer(TEACHER),
    )
    trainer.train()
    return trainer, before, read_jsonl(folder / "metrics.jsonl")


@pytest.fixture(scope="module")
def colocated(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("colocated"))


@pytest.fixture(scope="module")
def server():
    """`vllm serve` on a free port of loopback, as docs/vllm.md starts it on a CPU."""
    port = free_port()
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", locate(STUDENT)]
    words += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    words += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
    words += ["--hf-overrides", json.dumps({"tie_word_embeddings": False})]
    process = subprocess.Popen(words, env=os.environ | {"VLLM_SERVER_DEV_MODE": "1"})
    wait_until_healthy(process, port, 600)
    yield port
    process.terminate()
    process.wait(60)


def requests_of(trainer, count=8):
    examples = trainer.setup.train.examples[:count]
    return [Request(example.prompt, NoiseKey(5, example.row.id, 0, "plain")) for example in examples]


def gap_to(trainer, requests, rollouts, weights):
    """Mean difference of the rollouts' log-probabilities from those under some weights, in nats."""
    model = trainer.inner_model()
    own = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    model.load_state_dict(weights, strict=False)
    values = trainer.run.collector.engine.log_probs(
        [(request.prompt, rollout.ids) for request, rollout in zip(requests, rollouts, strict=True)], 0.9
    )
    model.load_state_dict(own, strict=False)
    theirs = torch.tensor([value for rollout in rollouts for value in rollout.log_probs])
    return (values - theirs).abs().mean().item()


def test_every_step_writes_with_the_weights_of_that_step(colocated):
    _, _, records = colocated
    assert len(records) == 3
    for record in records:
        assert 0 <= record["rollout/log_prob_mismatch"] <= record["rollout/log_prob_mismatch_max"] < NEAR
        assert 0 < record["time/weight_sync"] < record["time/rollout"]


def test_after_an_update_rollouts_come_from_the_new_weights(colocated):
    trainer, before, _ = colocated
    requests = requests_of(trainer)
    rollouts = trainer.run.collector.engine.generate(requests)
    after = dict(trainer.inner_model().named_parameters())
    assert gap_to(trainer, requests, rollouts, after) < NEAR
    assert gap_to(trainer, requests, rollouts, before) > 1000 * NEAR


def test_the_same_seeds_give_the_same_rollouts_and_others_do_not(colocated):
    trainer, _, _ = colocated
    requests = requests_of(trainer)
    first, again = trainer.run.collector.engine.generate(requests), trainer.run.collector.engine.generate(requests)
    assert [rollout.ids for rollout in first] == [rollout.ids for rollout in again]
    others = [Request(request.prompt, NoiseKey(6, request.key.row_id, 0, "plain")) for request in requests]
    assert [rollout.ids for rollout in trainer.run.collector.engine.generate(others)] != [
        rollout.ids for rollout in first
    ]


def test_rollouts_end_at_our_end_tokens_and_nowhere_else(colocated):
    trainer, _, _ = colocated
    stop = set(trainer.setup.student_format.stop_ids)
    rollouts = trainer.run.collector.engine.generate(requests_of(trainer, 16))
    assert any(rollout.ended for rollout in rollouts)
    for rollout in rollouts:
        assert 1 <= len(rollout.ids) <= 24 and len(rollout.log_probs) == len(rollout.ids)
        assert not stop & set(rollout.ids[:-1])
        assert rollout.ended == (rollout.ids[-1] in stop)
        assert rollout.ended or len(rollout.ids) == 24
        assert max(rollout.ids) < trainer.setup.vocabulary


def test_weights_that_never_arrived_stop_the_run(colocated):
    trainer, _, _ = colocated
    own = {name: weight.detach().clone() for name, weight in trainer.inner_model().named_parameters()}
    trainer.run.collector.engine.generate(requests_of(trainer))
    with torch.no_grad():
        for weight in trainer.inner_model().parameters():
            weight.mul_(1.5)
    with pytest.raises(NumericError, match="nats a token away from the trainer's"):
        trainer.run.collector.engine.generate(requests_of(trainer))  # the step has not changed: nothing is sent
    trainer.inner_model().load_state_dict(own, strict=False)


def test_a_prompt_that_vllm_cannot_take_is_named(colocated):
    trainer, _, _ = colocated
    long = Request([5] * 600, NoiseKey(5, "row-9", 0, "plain"))
    with pytest.raises(ConfigError, match="vllm_max_model_length: row row-9 needs 600 tokens of prompt and 24 of"):
        trainer.run.collector.engine.generate([long])


@pytest.mark.parametrize("method", ["spin", "sdft", "gkd"])
def test_the_other_methods_that_roll_out(method, tmp_path):
    _, _, records = trained(tmp_path, method, max_steps=2, **({"spin_iterations": 1} if method == "spin" else {}))
    assert len(records) == 2
    assert any("rollout/log_prob_mismatch" in record for record in records)
    assert all(record.get("rollout/log_prob_mismatch_max", 0) < NEAR for record in records)


def test_adapters_are_merged_for_vllm_and_taken_out_again(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer, before, records = trained(tmp_path, peft_config=config, learning_rate=2e-2)
    assert all(record["rollout/log_prob_mismatch_max"] < NEAR for record in records)
    inner = {name.replace(".base_layer.", "."): w for name, w in trainer.inner_model().named_parameters()}
    for name, weight in before.items():
        torch.testing.assert_close(inner[name], weight, rtol=0, atol=1e-5)


def test_a_server_writes_with_the_weights_of_the_step(tmp_path, server):
    trainer, before, records = trained(tmp_path, vllm_mode="server", vllm_server_port=server)
    assert len(records) == 3
    assert all(record["rollout/log_prob_mismatch_max"] < NEAR for record in records)
    requests = requests_of(trainer)
    rollouts = trainer.run.collector.engine.generate(requests)
    assert gap_to(trainer, requests, rollouts, dict(trainer.inner_model().named_parameters())) < NEAR
    assert gap_to(trainer, requests, rollouts, before) > 1000 * NEAR
    assert not (tmp_path / "stages" / "vllm").exists()


def test_no_server_is_an_error_of_one_line(tmp_path):
    with pytest.raises(EnvironmentFault, match=r"vllm_server: http://127\.0\.0\.1:9 does not answer"):
        trained(tmp_path, vllm_mode="server", vllm_server_port=9, vllm_server_timeout=0.1)


def test_nccl_needs_cuda(tmp_path):
    with pytest.raises(ConfigError, match="vllm_weight_sync: nccl needs CUDA, and this run is on cpu; use disk"):
        trained(tmp_path, vllm_mode="server", vllm_weight_sync="nccl")
