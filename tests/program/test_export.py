"""`dudi export --gguf`: the file holds the folder's weights and tokenizer, and llama.cpp answers as the folder does."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import normalizers
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, set_seed

from dudi.data.chat import chat_format
from dudi.models.load import load_model, load_tokenizer
from dudi.program.cli import main
from helpers import TEXT, make_model, make_tokenizer, slow_but
from llama_cpp import LlamaCpp
from tokenizer_kinds import sentence_piece, word_piece

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def gemma(**extra):
    set_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}
    shape |= {"max_position_embeddings": 512, "initializer_range": 0.2, "vocab_size": 900}
    return Gemma3ForCausalLM(Gemma3TextConfig(**{**shape, **extra}))


MODELS = {
    "llama": lambda: (make_model("llama"), make_tokenizer()),
    "llama-tied": lambda: (make_model("llama", tie_word_embeddings=True), make_tokenizer()),
    "llama-biases": lambda: (make_model("llama", attention_bias=True), make_tokenizer()),
    "qwen2": lambda: (make_model("qwen2"), make_tokenizer()),
    "qwen3": lambda: (make_model("qwen3"), make_tokenizer()),
    "gemma3": lambda: (gemma(), sentence_piece()),
}


def saved(folder, model, tokenizer):
    with torch.no_grad():  # norms start at one and biases at zero, where a mistake would not show
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def exported(model, file, *words):
    assert main(["export", model, "--output", str(file), *words]) == 0
    return file


def conversations(folder):
    """A question in each language behind the folder's template, and where answers end."""
    chat = chat_format(load_tokenizer(folder), {}, folder)
    return [chat.render([{"role": "user", "content": question}]) for question, _ in TEXT.values()], chat.stop_ids


def greedy(model, ids, stops, most=12):
    kwargs = {"max_new_tokens": most, "do_sample": False, "eos_token_id": list(stops), "pad_token_id": 0}
    return model.generate(torch.tensor([ids]), **kwargs)[0, len(ids) :].tolist()


def read(file):
    return load_model(str(file.parent), gguf_file=file.name), load_tokenizer(str(file.parent), gguf_file=file.name)


SLOW = ("llama", "qwen2", "mini-qwen3")
EVERY = (*MODELS, "mini-llama", "mini-qwen3")
KINDS = slow_but({*EVERY} - {*SLOW}, EVERY)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_and_llama_cpp_find_the_folder_in_the_file(kind, tmp_path):
    packaged = {"mini-llama": "package:dudi/mini/llama", "mini-qwen3": "package:dudi/mini/small"}
    folder = packaged.get(kind) or saved(tmp_path / "model", *MODELS[kind]())
    file = exported(folder, tmp_path / "model.F32.gguf", "--gguf", "F32")
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    again, its_tokenizer = read(file)
    state = again.state_dict()
    if kind == "gemma3":  # 1 is added to a norm and taken away again
        assert all(torch.allclose(value, state[name], atol=1e-6, rtol=0) for name, value in model.state_dict().items())
    else:
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert again.config.eos_token_id == tokenizer.eos_token_id
    assert its_tokenizer.chat_template == tokenizer.chat_template
    there = LlamaCpp(file)
    texts, stops = conversations(folder)
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert there.tokenize(text) == ids
        assert its_tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        answer = greedy(model, ids, stops)
        assert answer == greedy(again, ids, stops)
        given = there.answer(ids, 12)
        assert given == answer[: len(given)] and len(answer) - len(given) < 4  # it keeps half a character to itself


def test_llama_cpp_slows_rotations_down_as_llama_3_does(tmp_path):
    model = make_model("llama", rope_parameters=LLAMA3, hidden_size=128, max_position_embeddings=512)
    folder = saved(tmp_path / "model", model, make_tokenizer())
    there = LlamaCpp(exported(folder, tmp_path / "model.gguf", "--gguf", "F32"))
    tokenizer = load_tokenizer(folder)
    texts, stops = conversations(folder)
    ids = tokenizer("".join(texts), add_special_tokens=False)["input_ids"][:300]
    assert there.answer(ids, 12) == greedy(load_model(folder), ids, stops)


def test_half_precision_and_eight_bits_are_as_near_as_they_say(tmp_path):
    folder = "package:dudi/mini/small"
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    texts, stops = conversations(folder)
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    answers = [greedy(model, ids, stops) for ids in prompts]
    for kind in ("BF16", "F16", "Q8_0"):
        file = exported(folder, tmp_path / f"{kind}.gguf", "--gguf", kind)
        again, _ = read(file)
        state = again.state_dict()
        for name, weight in model.state_dict().items():
            off = (weight - state[name]).abs()
            if kind == "BF16" or weight.ndim == 1:
                assert off.max() == 0  # the folder is bf16
            elif kind == "F16":
                assert (off <= weight.abs() * 2**-11 + 2**-25).all()
            else:  # a block of 32 is 127 steps high on each side, its height an fp16
                blocks = weight.reshape(-1, 32).abs().amax(1, keepdim=True) / 127
                assert (off.reshape(-1, 32) <= blocks * 0.57).all()
        there = LlamaCpp(file)
        same = [there.answer(ids, 12) == answer for ids, answer in zip(prompts, answers, strict=True)]
        assert sum(same) >= 6


def test_rows_that_fill_no_blocks_are_said_to_be_f16(tmp_path, capsys):
    folder = saved(tmp_path / "model", make_model("llama", intermediate_size=80), make_tokenizer())
    exported(folder, tmp_path / "model.gguf", "--gguf")
    assert "F16 in place of Q8_0, since their rows do not fill blocks: 2 matrices" in capsys.readouterr().out


def test_an_adapter_is_merged(tmp_path):
    base = saved(tmp_path / "base", make_model("llama"), make_tokenizer())
    set_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    student = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    student.save_pretrained(tmp_path / "adapter")
    again, _ = read(exported(str(tmp_path / "adapter"), tmp_path / "model.gguf", "--gguf", "F32"))
    ids = torch.arange(20)[None]
    torch.testing.assert_close(again(ids).logits, student.eval()(ids).logits, atol=1e-4, rtol=1e-4)
    assert (again(ids).logits - load_model(base)(ids).logits).abs().max() > 0.1


def test_every_end_of_an_answer_is_kept(tmp_path):
    folder = saved(tmp_path / "model", make_model(), make_tokenizer())
    tokenizer = load_tokenizer(folder)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    file = exported(folder, tmp_path / "model.gguf", "--gguf", "F32")
    from transformers.integrations.gguf.reader import read_gguf_metadata

    header, _ = read_gguf_metadata(str(file))
    assert header["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id != end
    assert header["tokenizer.ggml.eot_token_id"] == end


def refusal(capsys, *words):
    code = main(["export", *map(str, words)])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_act": "relu"}, "hidden_act relu"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}, "rope_type linear"),
    ],
)
def test_what_llama_cpp_computes_in_another_way_is_refused(change, said, tmp_path, capsys):
    folder = saved(tmp_path / "model", make_model("llama", **change), make_tokenizer())
    code, error = refusal(capsys, folder, "--gguf", "--output", tmp_path / "no.gguf")
    assert code == 2 and said in error and not list(tmp_path.glob("*.gguf"))


def test_a_tokenizer_that_llama_cpp_does_not_have_is_refused(tmp_path, capsys):
    for tokenizer, said in ((word_piece(), "WordPiece"), (sentence_piece(kind="unigram"), "Unigram")):
        tokenizer.eos_token = tokenizer.eos_token or "[UNK]"
        folder = saved(tmp_path / said, make_model("llama", vocab_size=1000), tokenizer)
        code, error = refusal(capsys, folder, "--gguf", "--output", tmp_path / "no.gguf")
        assert code == 2 and f"{said} tokenizers cannot be exported" in error


def test_an_unknown_cut_wants_a_name(tmp_path, capsys):
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    folder = saved(tmp_path / "lower", make_model(), tokenizer)
    code, error = refusal(capsys, folder, "--gguf", "--output", tmp_path / "no.gguf")
    assert code == 2 and "Lowercase" in error
    folder = saved(tmp_path / "cut", make_model(), make_tokenizer())
    file = tmp_path / "cut" / "tokenizer.json"
    described = json.loads(file.read_text())
    described["pre_tokenizer"]["use_regex"] = False
    file.write_text(json.dumps(described))
    code, error = refusal(capsys, folder, "--gguf", "--output", tmp_path / "no.gguf")
    assert code == 2 and "--pre NAME" in error
    exported(folder, tmp_path / "yes.gguf", "--gguf", "--pre", "gpt-2")


def test_usage(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = saved(tmp_path / "little", make_model(), make_tokenizer())
    assert "say as what" in refusal(capsys, folder)[1]
    assert "'Q4_1' is not one of Q8_0, F16, BF16, F32" in refusal(capsys, folder, "--gguf", "Q4_1")[1]
    assert main(["export", folder, "--gguf"]) == 0
    assert (tmp_path / "little.Q8_0.gguf").is_file()
    assert "--force replaces it" in refusal(capsys, folder, "--gguf")[1]
    assert main(["export", folder, "--gguf", "--force"]) == 0


def test_weights_that_are_not_numbers_are_named(tmp_path, capsys):
    model = make_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    folder = saved(tmp_path / "model", model, make_tokenizer())
    code, error = refusal(capsys, folder, "--gguf", "--output", tmp_path / "no.gguf")
    assert code == 3 and "model.layers.1.mlp.up_proj.weight" in error and not (tmp_path / "no.gguf").exists()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = 1e5
    folder = saved(tmp_path / "large", model, make_tokenizer())
    code, error = refusal(capsys, folder, "--gguf", "F16", "--output", tmp_path / "no.gguf")
    assert code == 3 and "too large for F16" in error
