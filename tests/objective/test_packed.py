"""Sequences that are read as one: the states and gradients of each alone, and only where nothing else mixes tokens."""

import pytest
import torch

from dudi.objective import forward
from dudi.objective.forward import _padded_states, by_tokens, completion_states, packed_states, packs
from helpers import make_model

PAIRS = [([7, 8, 9], [10, 11]), ([3] * 17, [5, 6, 7, 8]), ([4], [9]), ([1, 2, 3, 4, 5], [6] * 9)]
LONGEST = 21


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma3"])
def test_states_and_gradients_are_those_of_padded_sequences(kind):
    model = make_model(kind, seed=2).double()
    assert packs(model, LONGEST)
    found = []
    for states_of in (packed_states, _padded_states):
        states = states_of(model, PAIRS)
        model.zero_grad()
        (states * torch.arange(1.0, len(states) + 1, dtype=torch.float64)[:, None].sin()).sum().backward()
        found.append([states.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) > 10
    for one, other in zip(*found, strict=True):
        rtol, atol = (1e-5, 1e-6) if kind == "gemma3" else (1e-9, 1e-11)  # Gemma's norms are in fp32
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)
    assert model.config._attn_implementation == "sdpa"


def test_packs_hold_so_many_tokens(monkeypatch):
    monkeypatch.setattr(forward, "PACK_TOKENS", 10)
    assert by_tokens([4, 5, 2, 11, 1, 9, 1]) == [[0, 1], [2], [3], [4, 5], [6]]
    assert by_tokens([]) == []


@torch.no_grad()
def test_several_packs_are_put_together_in_order(monkeypatch):
    model = make_model("llama").eval()
    whole = completion_states(model, PAIRS)
    monkeypatch.setattr(forward, "PACK_TOKENS", 22)
    torch.testing.assert_close(completion_states(model, PAIRS), whole)
    assert len(by_tokens([len(one) + len(other) for one, other in PAIRS])) == 3


class TestWhere:
    def test_dropout_of_attention(self):
        model = make_model("llama", dropout=0.5)
        assert packs(model.eval(), LONGEST) and not packs(model.train(), LONGEST)
        assert packs(make_model("llama").train(), LONGEST)

    def test_a_window_that_is_too_short(self):
        model = make_model("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=0)
        assert packs(model, 8) and not packs(model, 9)

    def test_checkpointed_activations(self):
        model = make_model("llama")
        model.gradient_checkpointing_enable()
        assert not packs(model, LONGEST)

    def test_another_attention(self):
        model = make_model("llama")
        model.set_attn_implementation("eager")
        assert not packs(model, LONGEST)

    def test_a_model_that_was_not_tried(self):
        model = make_model("llama")
        model.config.model_type = "another"
        assert not packs(model, LONGEST)

    def test_the_models_own_attention_comes_back_after_an_error(self, monkeypatch):
        model = make_model("llama")
        monkeypatch.setattr(model.model, "forward", lambda **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            packed_states(model, PAIRS)
        assert model.config._attn_implementation == "sdpa"
