"""Builders for the tests of the stack: a translation tokenizer, tiny encoders and LLMs, rows in several languages."""

import gc
import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    NllbTokenizer,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    set_seed,
)

from dudi.stacking import StackArguments, StackRow, Task
from helpers import SPECIALS, make_model, make_tokenizer

gc.freeze()  # every trainer collects garbage once: over all of torch and transformers that is half of a tiny run

CODES = ["eng_Latn", "ind_Latn", "kaz_Cyrl", "uig_Arab", "tha_Thai"]
TEXTS = [
    "the cat sleeps in the house",
    "a dog runs over the green hill",
    "we read a good book today",
    "the sun is warm and bright",
    "she sings an old song at night",
    "they walk to the river and swim",
    "my friend cooks rice with fish",
    "the train leaves in the morning",
]
FOREIGN = [
    "kucing tidur di rumah",
    "anjing berlari di bukit",
    "kami membaca buku yang baik",
    "matahari hangat dan terang",
    "dia menyanyi lagu lama",
    "mereka berjalan ke sungai",
    "teman saya memasak nasi",
    "kereta berangkat pagi ini",
]
TASK = Task("classification", ("animal", "thing", "person"))
CHOICE = Task("choice")
LABELS = [0, 0, 2, 1, 2, 2, 2, 1]


def make_nllb_tokenizer(vocab_size=300):
    """A translation tokenizer as NLLB has it: BPE over words with a leading mark, `[lang] tokens </s>`."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False
    )
    core.train_from_iterator([*TEXTS, *FOREIGN, "yes no 1 2 3 4"], trainer)
    vocab, merges = core.get_vocab(), _merges(core)
    return NllbTokenizer(vocab=vocab, merges=merges, extra_special_tokens=CODES)


def _merges(core):
    return [tuple(pair) for pair in json.loads(core.to_str())["model"]["merges"]]


def make_llm_tokenizer():
    return make_tokenizer(texts=[*TEXTS, *FOREIGN], specials=SPECIALS)


def make_mt(seed=0, **extra):
    """A whole tiny translation model."""
    set_seed(seed)
    shape = {
        "vocab_size": 320,
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 128,
        "init_std": 0.3,
        "decoder_start_token_id": 2,
        **extra,
    }
    return M2M100ForConditionalGeneration(M2M100Config(**shape))


def make_mt5(seed=0):
    set_seed(seed)
    shape = {"d_model": 16, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 2, "d_kv": 8}
    return MT5ForConditionalGeneration(MT5Config(vocab_size=320, **shape))


def make_xlmr(seed=0):
    set_seed(seed)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return XLMRobertaForMaskedLM(XLMRobertaConfig(vocab_size=320, max_position_embeddings=140, **shape))


def make_llm(kind="llama", seed=1):
    """A tiny causal language model of a family."""
    if kind in ("llama", "qwen2", "qwen3"):
        return make_model(kind, seed=seed)
    set_seed(seed)
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=448, n_embd=32, n_layer=2, n_head=4, n_positions=256))
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return MistralForCausalLM(MistralConfig(vocab_size=448, num_key_value_heads=2, initializer_range=0.2, **shape))


def english_rows():
    return [StackRow(text, "eng_Latn", LABELS[n], id=f"en-{n}") for n, text in enumerate(TEXTS)]


def parallel_rows():
    return [StackRow(text, "ind_Latn", LABELS[n], english=TEXTS[n], id=f"id-{n}") for n, text in enumerate(FOREIGN)]


def choice_rows():
    """Rows with answers to choose from."""
    return [
        StackRow(text, "eng_Latn", n % 3, choices=(TEXTS[n - 1], TEXTS[n - 2], FOREIGN[n]), id=f"choice-{n}")
        for n, text in enumerate(TEXTS)
    ]


def make_stack_args(folder, **keys):
    """Keys for a few quick steps on the CPU."""
    defaults = {
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "learning_rate": 1e-3,
        "max_length": 64,
        "seed": 3,
    }
    return StackArguments(output_dir=str(folder), **{**defaults, **keys})


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
