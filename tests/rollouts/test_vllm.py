"""What of the vLLM engine needs no vLLM: its sampling, its keys, its errors."""

import importlib.util
import json

import pytest

from dudi import DudiTrainer
from dudi.errors import ConfigError
from dudi.rollouts import NoiseKey
from dudi.rollouts.vllm import Sampling
from dudi.training.arguments import binding_keys
from dudi.training.keys import rules_of
from helpers import make_args


def test_the_sampling_is_given_in_full():
    values = Sampling(0.9, 256, (2, 7), range(420, 423)).parameters(11)
    assert values["temperature"] == 0.9 and values["max_tokens"] == 256 and values["seed"] == 11
    assert (values["top_k"], values["top_p"], values["min_p"]) == (0, 1.0, 0.0)
    assert (values["repetition_penalty"], values["presence_penalty"], values["frequency_penalty"]) == (1.0, 0.0, 0.0)
    assert values["stop_token_ids"] == [2, 7] and values["ignore_eos"]
    assert values["logit_bias"] == {420: -100.0, 421: -100.0, 422: -100.0}
    assert Sampling(0.9, 256, (2,), range(420, 420)).parameters(0)["logit_bias"] is None
    json.dumps(values)


def test_a_seed_is_a_function_of_the_request():
    keys = [NoiseKey(s, r, e, k) for s in (0, 1) for r in ("a", "b") for e in (0, 1) for k in ("plain", "verbalized")]
    seeds = [key.seed_of_request() for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds[0] == NoiseKey(0, "a", 0, "plain").seed_of_request()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed")
def test_without_vllm_the_run_does_not_start(tmp_path, student, teacher, tokenizer, rows):
    args = make_args(tmp_path, use_vllm=True)
    with pytest.raises(ConfigError, match="use_vllm: needs the package vllm; run: pip install 'dudi\\[vllm\\]'"):
        DudiTrainer(student, teacher, args, rows, None, tokenizer)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"vllm_mode": "colocated"},
            "vllm_mode: 'colocated' is not one of colocate, server \\(did you mean",
        ),
        ({"vllm_weight_sync": "http"}, "vllm_weight_sync: 'http' is not one of auto, nccl, disk"),
        ({"vllm_gpu_memory_utilization": 1.5}, "vllm_gpu_memory_utilization: must be at most 1"),
    ],
)
def test_a_wrong_key_is_an_error(tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        make_args(tmp_path, use_vllm=True, **keys)


def test_the_engine_belongs_to_a_run_and_its_place_does_not(tmp_path):
    args = make_args(tmp_path)
    keys = {name for name in rules_of(type(args)) if name.startswith("vllm_")}
    assert len(keys) == 11 and not keys & binding_keys(args).keys()
    assert "use_vllm" in binding_keys(args)
