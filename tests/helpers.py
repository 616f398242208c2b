"""Builders for tests: tokenizers, tiny models, rows, configs."""

import dataclasses

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    set_seed,
)

from dudi import DudiConfig
from dudi.distill.keys import METHOD_KEYS, DudiKeys, method_default, unread
from dudi.training.keys import default_of

CHATML = (
    "{%- for m in messages -%}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)
THINKING = (
    "{%- for m in messages -%}<|im_start|>{{ m['role'] }}\n"
    "{%- if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif -%}"
    "{{ m['content'] }}<|im_end|>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n"
    "{%- if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif -%}{%- endif -%}"
)
DATED = (
    "{%- if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif -%}"
    "<|im_start|>system\nToday is {{ date_string }}<|im_end|>\n" + CHATML
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

TEXT = {
    "id": ("Apa ibu kota Indonesia?", "Ibu kota Indonesia adalah Jakarta."),
    "vi": ("Thủ đô của Việt Nam là gì?", "Thủ đô của Việt Nam là Hà Nội."),
    "th": ("เมืองหลวงของไทยคือเมืองใด", "เมืองหลวงของไทยคือกรุงเทพมหานคร"),
    "ta": ("தமிழ்நாட்டின் தலைநகரம் எது?", "தமிழ்நாட்டின் தலைநகரம் சென்னை."),
    "tl": ("Ano ang kabisera ng Pilipinas?", "Maynila ang kabisera ng Pilipinas."),
    "ms": ("Apakah ibu negara Malaysia?", "Ibu negara Malaysia ialah Kuala Lumpur."),
    "my": ("မြန်မာနိုင်ငံ၏ မြို့တော်က ဘာလဲ။", "နေပြည်တော် ဖြစ်ပါတယ်။"),
    "en": ("What is the capital of Singapore?", "Singapore is a city state."),
}
ROWS = [
    {"id": f"{code}-{n}", "language": code, "prompt": question + " ?" * n, "completion": answer + " ok" * (n % 3)}
    for n in range(4)
    for code, (question, answer) in TEXT.items()
]


def make_tokenizer(vocab_size=420, specials=SPECIALS, template=CHATML, texts=None):
    """A byte-level BPE trained on the rows: any text can be encoded."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = texts or [part for row in ROWS for part in (row["prompt"], row["completion"])]
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=specials[0], pad_token=specials[0], additional_special_tokens=specials[1:]
    )
    tokenizer.chat_template = template
    return tokenizer


def make_model(kind="llama", seed=0, vocab_size=448, hidden_size=32, layers=2, dropout=0.0, **extra):
    """A tiny random causal language model."""
    shape = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "attention_dropout": dropout,
        "initializer_range": 0.2,
        **extra,
    }
    kinds = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config, "gemma3": Gemma3TextConfig}
    config = kinds[kind](**shape)
    if kind in ("qwen3", "gemma3"):
        config.head_dim = hidden_size // 4
    set_seed(seed)
    return AutoModelForCausalLM.from_config(config)


def read_by(method, keys):
    """Of keys that a test gives to every method, those that this one reads: it refuses the others."""
    values = {field.name: default_of(field) for field in dataclasses.fields(DudiKeys)}
    values |= {name: method_default(method, name) for name in METHOD_KEYS} | keys | {"method": method}
    return {name: value for name, value in keys.items() if name not in unread(values, keys)}


def words_read_by(method, words):
    """Likewise, of words of a command line."""
    keys = {word.partition("=")[0]: word.partition("=")[2] for word in words if word[:1] != "-" and "=" in word}
    python = {"lmbda" if name == "lambda" else name: value for name, value in keys.items()}
    kept = read_by(method, python)
    names = {name for name in keys if ("lmbda" if name == "lambda" else name) in kept}
    return [word for word in words if word.partition("=")[0] not in keys or word.partition("=")[0] in names]


def make_args(folder, method="dudi", **keys):
    """A config for a few quick steps on the CPU, without the keys that the method does not read."""
    defaults = {
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "max_new_tokens": 8,
        "max_length": 256,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
        "seed": 3,
    }
    return DudiConfig(output_dir=str(folder), method=method, **read_by(method, {**defaults, **keys}))


def slow_but(quick, every):
    """Cases of `every` kind, of which `make test` takes the quick ones and `make test-trust` the others."""
    return [one if one in quick else pytest.param(one, marks=pytest.mark.slow) for one in every]


def make_shared_args(folder, processes, method="dudi", **keys):
    """`make_args` for optimizer steps of 8 rows over so many processes, small enough to be compared."""
    return make_args(
        folder,
        method,
        **keys,
        max_grad_norm=0.0,
        learning_rate=2e-4,
        per_device_train_batch_size=4 // processes,
        num_train_epochs=100,
        logging_steps=1000,
    )
