"""Frozen weights in 16 bits, computed with in fp32: the results of fp32, and the weights as they were."""

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, set_seed

from dudi.environment import multiplies_bfloat16
from dudi.models.frozen import frozen_copy
from dudi.models.widening import compute_in_float32
from dudi.objective.forward import open_forward, summed_log_probs
from helpers import make_model

IDS = torch.tensor([[5, 6, 7, 7, 8, 1, 2], [9, 3, 3, 1, 0, 4, 4]])


def gemma():
    """Scaled embeddings, and one layer of each kind of attention."""
    set_seed(0)
    return AutoModelForCausalLM.from_config(
        Gemma3TextConfig(
            vocab_size=96,
            hidden_size=40,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention"],
            tie_word_embeddings=True,
            pad_token_id=95,  # beyond the rows that are looked up
        )
    )


def gpt2():
    """Weights the other way round, biases, and norms with biases."""
    set_seed(0)
    return AutoModelForCausalLM.from_config(GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=2, n_positions=32))


MODELS = {"llama": lambda: make_model(tie_word_embeddings=True), "qwen2": lambda: make_model("qwen2"), "gemma3": gemma}
MODELS["gpt2"] = gpt2


def rounded(model):
    """The model with each weight rounded to bf16, in fp32: what the widened one has to compute."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(parameter.bfloat16())
    return twin.eval()


def narrowed(model):
    """The model with weights in bf16; its buffers (a rotary embedding's) stay in fp32, as `from_pretrained` has it."""
    return frozen_copy(model, torch.bfloat16).module


@pytest.mark.parametrize("name", MODELS)
def test_it_computes_what_fp32_computes_and_keeps_16_bits(name):
    model = MODELS[name]()
    expected = rounded(model)
    narrow = narrowed(model)
    assert compute_in_float32(narrow)
    before = {key: value.clone() for key, value in narrow.state_dict().items()}
    with torch.no_grad():
        ours = narrow(IDS).logits
        torch.testing.assert_close(ours, expected(IDS).logits, atol=1e-6, rtol=1e-5)
        in_16_bits = narrowed(model)(IDS).logits
    assert (in_16_bits.float() - ours).abs().max() > 1e-4, "16 bits all the way are told apart"
    assert ours.dtype == torch.float32
    for key, value in narrow.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(parameter.dtype == torch.bfloat16 for parameter in narrow.parameters())
    written = narrow.generate(IDS[:1], max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert torch.equal(written, expected.generate(IDS[:1], max_new_tokens=4, do_sample=False, pad_token_id=0))


def test_twice_is_once():
    """A run and its cold start are handed the same teacher."""
    expected, model = rounded(make_model()), narrowed(make_model())
    compute_in_float32(model)
    compute_in_float32(model)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, expected(IDS).logits, atol=1e-6, rtol=1e-5)


def test_an_error_inside_leaves_the_weights_as_they_were():
    model = narrowed(make_model())
    compute_in_float32(model)
    with pytest.raises(IndexError):
        model(torch.tensor([[10_000]]))
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    assert model.get_input_embeddings().weight.shape[0] == 448


def test_a_model_in_fp32_is_left_alone():
    model = make_model()
    assert not compute_in_float32(model)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", MODELS)
def test_a_rounded_copy_is_the_reference_of_rounded_weights(name):
    model = MODELS[name]()
    open_forward(model)
    copied = frozen_copy(model, torch.bfloat16)
    compute_in_float32(copied.module)
    tied = {id(p) for p in model.parameters()}
    assert len({id(p) for p in copied.module.parameters()}) == len(tied), "tied weights stay tied"
    assert not any(p.requires_grad for p in copied.module.parameters())
    assert all(p.dtype == torch.float32 for p in model.parameters())
    pairs = [([5, 6, 7], [8, 1]), ([3], [4, 4, 2])]
    twin = rounded(model)
    open_forward(twin)
    vocabulary = model.config.vocab_size
    with copied.opened() as module:
        ours = summed_log_probs(module, pairs, vocabulary)
    torch.testing.assert_close(ours, summed_log_probs(twin, pairs, vocabulary), atol=1e-5, rtol=1e-5)


def test_what_the_processor_says():
    assert multiplies_bfloat16() in (True, False)
    wide = nn.Linear(4, 4)
    assert frozen_copy(wide, torch.bfloat16).module.weight.dtype == torch.bfloat16
