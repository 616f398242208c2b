"""What is saved speaks and stops elsewhere as it was trained to: here a base student, whose texts end otherwise."""

import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from dudi import DudiTrainer
from dudi.data.chat import chat_format
from dudi.errors import ConfigError
from helpers import CHATML, DATED, ROWS, THINKING, make_args, make_model, make_tokenizer

END_OF_TEXT, END_OF_TURN = 0, 2
FEW = ROWS[:2]
QUICK = {"max_steps": 60, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "gradient_accumulation_steps": 1}


def base_student():
    """Its configs stop at the end of a text, as a base model's do."""
    model = make_model(seed=1)
    model.config.eos_token_id = model.generation_config.eos_token_id = END_OF_TEXT
    return model


def make_trainer(folder, tokenizer, student=None, method="sft", rows=FEW, peft_config=None, **keys):
    args = make_args(folder, method, **{"per_device_train_batch_size": len(rows), **keys})
    return DudiTrainer(student or base_student(), None, args, rows, None, tokenizer, peft_config=peft_config)


def answers(model, tokenizer, generation_config=None):
    """What `generate` writes when nobody tells it where to stop."""
    written = []
    for row in FEW:
        turns = [{"role": "user", "content": row["prompt"]}]
        asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            ids = model.generate(**asked, generation_config=generation_config, max_new_tokens=60, do_sample=False)
        written.append(tokenizer.decode(ids[0, asked["input_ids"].shape[1] :]))
    return written


TAUGHT = [row["completion"] + "<|im_end|>" for row in FEW]


def test_what_a_base_model_became_stops_wherever_it_is_loaded(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, tokenizer, save_strategy="steps", save_steps=60, **QUICK)
    trainer.train()
    trainer.save_final(tmp_path / "model", {})
    trainer.save_model(str(tmp_path / "python"))
    for folder in (tmp_path / "model", tmp_path / "python", tmp_path / "checkpoints" / "step-60"):
        model, own = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert answers(model, own) == TAUGHT, folder
        saved = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
        assert set(saved) == set(json.loads((folder / "config.json").read_text())["eos_token_id"])
        assert set(saved) == {END_OF_TURN, END_OF_TEXT}
        assert own.eos_token_id == END_OF_TURN  # what a GGUF's header and other servers read
        assert own.pad_token_id == END_OF_TEXT
        chat = chat_format(own, {}, "the saved one")
        assert chat.stop_ids == trainer.setup.student_format.stop_ids == (END_OF_TURN, END_OF_TEXT)
    assert tokenizer.eos_token_id == END_OF_TEXT  # the caller's own is as it was
    assert answers(trainer.model.eval(), own) == TAUGHT


def test_an_adapter_says_where_it_stops(tmp_path, tokenizer):
    base_student().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    adapter = LoraConfig(r=16, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    trainer = make_trainer(tmp_path / "run", tokenizer, student, peft_config=adapter, **{**QUICK, "max_steps": 100})
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    own = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert answers(loaded, own, GenerationConfig.from_pretrained(tmp_path / "adapter")) == TAUGHT
    trainer.save_final(tmp_path / "model", {})
    assert answers(AutoModelForCausalLM.from_pretrained(tmp_path / "model"), own) == TAUGHT


OPENS_A_THOUGHT = CHATML.replace("assistant\n{%- endif", "{{ 'assistant\n<think>\n' }}{%- endif")
ENDS = {
    "lead": (CHATML, "assistant\n"),
    "thinking": (THINKING, "assistant<think>\n\n</think>\n\n"),
    "dated": (DATED, "assistant\n"),
    "cut": (OPENS_A_THOUGHT, "assistant\n"),
}


@pytest.mark.parametrize("kind", ENDS)
def test_a_template_is_saved_as_it_was_trained_with(kind, tmp_path):
    template, end = ENDS[kind]
    tokenizer = make_tokenizer(template=template)
    trainer = make_trainer(tmp_path, tokenizer, max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    own = AutoTokenizer.from_pretrained(tmp_path / "model")
    turns = [{"role": "user", "content": "?"}]
    said = own.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert said == trainer.setup.student_format.render(turns)
    assert said.endswith(end)
    answered = [*turns, {"role": "assistant", "content": "!"}]
    kwargs = trainer.setup.student_format.kwargs
    spoken, trained = (t.apply_chat_template(answered, tokenize=False, **kwargs) for t in (own, tokenizer))
    assert spoken == trained
    assert ("26 Jul 2024" in said) == (template == DATED)
    assert tokenizer.chat_template == template
    if template == THINKING:  # who asks for thoughts still gets them
        thinking = own.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, enable_thinking=True)
        assert "</think>" not in thinking


def test_stops_of_the_base_are_kept(tmp_path, tokenizer):
    student = base_student()
    student.generation_config.eos_token_id = [END_OF_TEXT, 7]
    trainer = make_trainer(tmp_path, tokenizer, student)
    assert trainer.model.generation_config.eos_token_id == [END_OF_TURN, END_OF_TEXT, 7]


def test_a_published_generation_config_that_transformers_would_not_write_again(tmp_path, tokenizer):
    """Llama 2's has a temperature and no `do_sample`: it can be read, and once changed not be written."""
    student = base_student()
    student.generation_config.temperature = 0.6
    trainer = make_trainer(tmp_path / "a", tokenizer, student)
    trainer.train()
    trainer.save_final(tmp_path / "model", {})
    saved = GenerationConfig.from_pretrained(tmp_path / "model")
    assert saved.do_sample and saved.temperature == 0.6
    student.generation_config.num_beams, student.generation_config.num_return_sequences = 1, 3
    student.generation_config.do_sample = False
    student.generation_config.max_new_tokens = -1
    with pytest.raises(ConfigError, match="generation_config is wrong"):
        make_trainer(tmp_path / "b", tokenizer, student)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("method", ["sft", "dudi"])
def test_the_cache_of_training_is_not_published(method, gradient_checkpointing, tmp_path, tokenizer):
    keys = {"gradient_checkpointing": gradient_checkpointing, "save_strategy": "steps", "save_steps": 1}
    args = make_args(tmp_path, method, max_steps=1, **keys)
    trainer = DudiTrainer(base_student(), make_model(seed=2), args, ROWS, None, tokenizer)
    trainer.train()
    trainer.save_final(tmp_path / "model", {})
    folders = [tmp_path / "model", tmp_path / "checkpoints" / "step-1"]
    folders += [tmp_path / "stages" / "cold_start" / "model"] if method == "dudi" else []
    for folder in folders:
        assert json.loads((folder / "config.json").read_text())["use_cache"] is True, folder


def test_a_student_without_a_cache_stays_so(tmp_path, tokenizer):
    student = base_student()
    student.config.use_cache = False
    trainer = make_trainer(tmp_path, tokenizer, student)
    trainer.save_final(tmp_path / "model", {})
    assert json.loads((tmp_path / "model" / "config.json").read_text())["use_cache"] is False
