"""Every kind of adapter that trains weights: what is saved is what was trained, and copies take all of it."""

import copy
import json
import math

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from dudi import DudiTrainer
from dudi.errors import ConfigError
from dudi.models.adapters import adapter_pairs, copy_adapter, merged
from helpers import ROWS, make_args, make_model, slow_but

LORA = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"}
KINDS = {
    "lora": lambda: LoraConfig(**LORA, target_modules="all-linear"),
    "dora": lambda: LoraConfig(**LORA, target_modules="all-linear", use_dora=True),
    "pissa": lambda: LoraConfig(**LORA, target_modules="all-linear", init_lora_weights="pissa"),
    "lora of embeddings": lambda: LoraConfig(**LORA, target_modules=["embed_tokens", "q_proj"]),
    "tokens": lambda: LoraConfig(**LORA, target_modules=["q_proj"], trainable_token_indices=list(range(40, 300))),
    "whole modules": lambda: LoraConfig(**LORA, target_modules=["q_proj"], modules_to_save=["norm", "embed_tokens"]),
    "biases": lambda: LoraConfig(**LORA, target_modules=["q_proj"], bias="all"),
    "biases of lora": lambda: LoraConfig(**LORA, target_modules=["q_proj"], lora_bias=True),
    "ia3": lambda: IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
    ),
    "norms": lambda: LNTuningConfig(target_modules=["input_layernorm", "norm"], task_type="CAUSAL_LM"),
    "vera": lambda: VeraConfig(r=8, target_modules=["q_proj"], task_type="CAUSAL_LM"),
}
IDS = torch.arange(40, 60).unsqueeze(0)


def make_base(folder, **shape):
    """A student that can be loaded again under the name that its adapter gives it."""
    kind = "qwen2"  # with biases
    make_model(kind, seed=1, **shape).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder)


def make_trainer(folder, tokenizer, student, peft_config=None, method="dudi", **keys):
    small = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "max_new_tokens": 4}
    args = make_args(folder, method, **{"learning_rate": 5e-2, "max_grad_norm": 0.0, **small, **keys})
    teacher = make_model("qwen2", seed=2, hidden_size=48)
    return DudiTrainer(student, teacher, args, ROWS[:4], None, tokenizer, peft_config=peft_config)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


def load(folder):
    loader = AutoPeftModelForCausalLM if (folder / "adapter_config.json").is_file() else AutoModelForCausalLM
    return loader.from_pretrained(folder)


def sequence_losses(folder, stage="dudi"):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["loss/sequence"] for record in lines if record["stage"] == stage]


STARTS = {
    "no cold start": {"cold_start": "none"},
    "merged": {"cold_start_adapter": "merge"},
    "continued": {"cold_start_adapter": "continue"},
}


SHORT = ("lora", "lora of embeddings", "ia3")
"""What `make test` takes of a test that trains twice with each kind; `make test-trust` takes all."""
KINDS_TWICE = slow_but(SHORT, KINDS)
CASES = [
    *((kind, "merged", False) for kind in KINDS),
    *(pytest.param(kind, "no cold start", False, marks=pytest.mark.slow) for kind in KINDS),
    *((kind, "continued", False) for kind in ("lora", "ia3", "whole modules")),
    *((kind, "merged", True) for kind in ("lora of embeddings", "tokens", "whole modules")),
    *(
        pytest.param(kind, start, True, marks=pytest.mark.slow)
        for kind in ("lora of embeddings", "tokens", "whole modules")
        for start in ("no cold start", "continued")
    ),
]


@pytest.mark.parametrize(("kind", "start", "tied"), CASES)
def test_what_is_saved_gives_the_logits_of_the_trainer(kind, start, tied, tmp_path, tokenizer):
    student = make_base(tmp_path / "base", tie_word_embeddings=tied)
    before = logits(student)
    keys = {"save_strategy": "steps", "save_steps": 2, **STARTS[start]}
    trainer = make_trainer(tmp_path / "run", tokenizer, student, KINDS[kind](), **keys)
    trainer.train()
    own = logits(trainer.model)
    assert (own - before).abs().max() > 1e-2
    assert sequence_losses(tmp_path / "run")[0] == pytest.approx(math.log(2), abs=1e-5)
    trainer.save_model(str(tmp_path / "python"))
    trainer.save_final(tmp_path / "model", {})
    for folder in (tmp_path / "python", tmp_path / "model", tmp_path / "run" / "checkpoints" / "step-2"):
        torch.testing.assert_close(logits(load(folder)), own, rtol=1e-4, atol=2e-4, msg=lambda m, f=folder: f"{f}: {m}")
    assert (tmp_path / "python" / "adapter_config.json").is_file() == (start != "merged")


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_takes_every_trained_tensor(kind, tmp_path):
    """So does the average: both are made of these pairs."""
    if kind == "biases":
        pytest.skip("they are the base's own; the whole model is copied")
    model = get_peft_model(make_model("qwen2", seed=1), KINDS[kind]())
    with torch.no_grad():
        for _, parameter in model.named_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter) * parameter.requires_grad)
    own = logits(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    name = copy_adapter(model, "reference")
    assert len(adapter_pairs(model, "default", name)) == len(trained)
    torch.testing.assert_close(logits(model), own)
    model.set_adapter(name)
    torch.testing.assert_close(logits(model), own)


@pytest.mark.parametrize("kind", KINDS)
def test_the_average_moves_with_every_trained_tensor(kind, tmp_path, tokenizer):
    """At a rate of 1 it is the student after each step: the second step's teacher is the student itself."""
    keys = {"cold_start": "none", "ema_rate": 1.0, "verbalizer": "none"}
    trainer = make_trainer(tmp_path, tokenizer, make_base(tmp_path / "base"), KINDS[kind](), "sdft", **keys)
    trainer.train()
    with trainer.run.teacher.opened() as module:
        average = logits(module)
    torch.testing.assert_close(average, logits(trainer.model), rtol=1e-5, atol=1e-5)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["loss/on_policy"] for record in lines] == pytest.approx([0.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS_TWICE)
def test_a_cold_start_from_the_cache_is_the_trained_one(kind, tmp_path, tokenizer):
    runs = []
    for name in ("first", "second"):
        make_trainer(tmp_path / name, tokenizer, make_base(tmp_path / "base"), KINDS[kind]()).train()
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        runs.append([record["loss"] for record in lines])
    assert lines[0]["cached"] is True
    assert runs[0] == pytest.approx(runs[1], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_from_a_folder_reaches_what_an_adapter_copies(kind, tmp_path, tokenizer):
    start = make_base(tmp_path / "start", layers=2)
    with torch.no_grad():
        start.get_input_embeddings().weight.mul_(1.5)
        start.model.norm.weight.mul_(0.5)
    start.save_pretrained(tmp_path / "start")
    keys = {"cold_start": str(tmp_path / "start"), "max_steps": 1}
    trainer = make_trainer(tmp_path / "run", tokenizer, make_base(tmp_path / "base"), KINDS[kind](), **keys)
    trainer.prepare()
    torch.testing.assert_close(logits(trainer.model), logits(start), rtol=1e-4, atol=1e-4)
    trainer.save_model(str(tmp_path / "python"))
    torch.testing.assert_close(logits(load(tmp_path / "python")), logits(start), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "name"), [("dudi", "default"), ("dudi", "reference"), ("sdft", "mine"), ("sdft", "teacher")]
)
def test_an_adapter_may_be_called_anything(method, name, tmp_path, tokenizer):
    student = get_peft_model(make_base(tmp_path / "base"), KINDS["lora"](), adapter_name=name)
    keys = {"cold_start": "none", "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(tmp_path / "run", tokenizer, student, method=method, **keys)
    trainer.train()
    step = tmp_path / "run" / "checkpoints" / "step-2"
    torch.testing.assert_close(logits(load(step)), logits(trainer.model), rtol=1e-4, atol=1e-4)
    again = get_peft_model(make_base(tmp_path / "base"), KINDS["lora"](), adapter_name=name)
    resumed = make_trainer(tmp_path / "run", tokenizer, again, method=method, **keys)
    resumed.train(resume_from_checkpoint=str(step.with_name("step-1")))
    assert torch.equal(logits(resumed.model), logits(trainer.model))


def test_a_teacher_may_have_adapters_of_any_name(tmp_path, tokenizer):
    teacher = make_model("qwen2", seed=2, hidden_size=48)
    adapted = get_peft_model(copy.deepcopy(teacher), KINDS["lora"](), adapter_name="teacher")
    adapted.add_adapter("reference", KINDS["lora"]())
    found = []
    for number, model in enumerate((teacher, adapted)):
        args = make_args(tmp_path / str(number), "dudi", cold_start="none")
        DudiTrainer(make_base(tmp_path / "base"), model, args, ROWS, None, tokenizer).train()
        lines = (tmp_path / str(number) / "metrics.jsonl").read_text().splitlines()
        found.append([json.loads(line)["loss"] for line in lines])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_an_adapter_of_a_cut_student_is_not_put_on_the_whole_one(tmp_path, tokenizer):
    from dudi.models.load import load_model

    make_base(tmp_path / "base", layers=3)
    student = load_model(str(tmp_path / "base"), keep_layers=2)
    trainer = make_trainer(tmp_path / "run", tokenizer, student, KINDS["lora"](), "sft", save_strategy="steps")
    trainer.train()
    trainer.save_model(str(tmp_path / "python"))
    for folder in (tmp_path / "python", tmp_path / "run" / "checkpoints" / "step-2"):
        torch.testing.assert_close(logits(load(folder)), logits(trainer.model), rtol=1e-4, atol=1e-4)


def test_a_peft_model_and_a_peft_config_are_refused(tmp_path, tokenizer):
    student = get_peft_model(make_model(seed=1), KINDS["lora"]())
    with pytest.raises(ConfigError, match="peft_config: the model is a PeftModel already"):
        make_trainer(tmp_path, tokenizer, student, KINDS["lora"](), cold_start="none")


@pytest.mark.parametrize("config", [PromptTuningConfig, PrefixTuningConfig])
def test_vectors_before_the_prompt_are_refused(config, tmp_path, tokenizer):
    with pytest.raises(ConfigError, match=f"peft_config: {config.__name__}"):
        make_trainer(tmp_path, tokenizer, make_model(seed=1), config(num_virtual_tokens=4, task_type="CAUSAL_LM"))


def test_what_no_adapter_would_keep_is_refused(tmp_path, tokenizer):
    student = get_peft_model(make_model(seed=1), KINDS["lora"]())
    student.base_model.model.model.norm.weight.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"norm\.weight would be trained beside"):
        make_trainer(tmp_path, tokenizer, student, method="sft")


def test_an_adapter_that_transformers_loaded_is_refused(tmp_path, tokenizer):
    get_peft_model(make_base(tmp_path / "base"), KINDS["lora"]()).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ConfigError, match="only the adapter would be saved"):
        make_trainer(tmp_path, tokenizer, AutoModelForCausalLM.from_pretrained(tmp_path / "adapter"), method="sft")
    student = PeftModel.from_pretrained(make_base(tmp_path / "base"), tmp_path / "adapter", is_trainable=True)
    make_trainer(tmp_path, tokenizer, student, method="sft").train()


@pytest.mark.parametrize("kind", ["lora", "lora of embeddings"])
def test_what_is_merged_is_tied_as_long_as_it_can_be(kind, tmp_path):
    base = make_model(tie_word_embeddings=True)
    model = get_peft_model(base, KINDS[kind]())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    whole = merged(model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    shared = {weight.data_ptr() for weight in whole.parameters()} & {weight.data_ptr() for weight in model.parameters()}
    assert (base.get_input_embeddings().weight.data_ptr() in shared) is (kind == "lora")  # a large part, and no copy
    whole.save_pretrained(tmp_path)
    apart = kind == "lora of embeddings"
    assert whole.config.tie_word_embeddings is not apart
    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        assert ("lm_head.weight" in weights.keys()) is apart  # noqa: SIM118  # it is no mapping
    torch.testing.assert_close(logits(load(tmp_path)), logits(model), rtol=1e-4, atol=1e-5)
