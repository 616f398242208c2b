"""Heads as weights: the model's own logits, row by row, for every kind of head that transformers has."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    GraniteConfig,
    set_seed,
)

from dudi.errors import ConfigError
from dudi.objective.heads import Distance, Head, check_head, divergence, head_of, hidden_states
from dudi.objective.losses import token_divergence, token_log_probs
from helpers import make_model

SHAPE = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.4,
}
SCALED = {
    "gemma2": lambda: Gemma2Config(**SHAPE, final_logit_softcapping=5.0),
    "cohere": lambda: CohereConfig(**SHAPE, logit_scale=0.25),
    "granite": lambda: GraniteConfig(**SHAPE, logits_scaling=4.0),
}
KINDS = ["llama", "qwen2", "qwen3", *SCALED]


def build(kind, seed=0, **extra):
    if kind not in SCALED:
        return make_model(kind, seed=seed, vocab_size=90, **extra).eval()
    set_seed(seed)
    return AutoModelForCausalLM.from_config(SCALED[kind]()).eval()


def some_ids(rows=2, length=9, seed=0):
    return torch.randint(3, 90, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_the_models_own_logits(kind):
    model, ids = build(kind), some_ids()
    with torch.no_grad():
        own = model(input_ids=ids).logits
        ours = head_of(model).logits(hidden_states(model, ids).flatten(0, 1)).view_as(own)
    assert own.std() > 1e-2
    torch.testing.assert_close(ours, own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_check_head_accepts(kind):
    model = build(kind).train()
    check_head(model)
    assert model.training


@pytest.mark.parametrize(
    ("kind", "attribute", "value"),
    [("gemma2", "softcap", 5.0), ("cohere", "scale", 0.25), ("granite", "scale", 0.25)],
)
def test_scale_and_softcap_are_read_and_needed(kind, attribute, value):
    model, ids = build(kind), some_ids()
    head = head_of(model)
    assert getattr(head, attribute) == value
    with torch.no_grad():
        own = model(input_ids=ids).logits.flatten(0, 1)
        bare = Head(head.weight, head.bias).logits(hidden_states(model, ids).flatten(0, 1))
    assert not torch.allclose(bare, own, rtol=1e-2, atol=1e-2)


def test_falcon_h1_multiplies_its_logits():
    config = FalconH1Config(
        **{key: value for key, value in SHAPE.items() if key != "head_dim"},
        mamba_d_ssm=64,
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_d_state=8,
        lm_head_multiplier=0.5,
    )
    set_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert head_of(model).scale == 0.5
    check_head(model)


@pytest.mark.parametrize(
    "tamper",
    [lambda logits: logits * 1.5, lambda logits: logits + 0.2, lambda logits: logits.roll(1, -1)],
    ids=["multiplied", "shifted", "rolled"],
)
def test_check_head_refuses_logits_that_it_cannot_explain(tamper):
    model = build("llama")
    forward = model.forward

    def changed(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = tamper(output.logits)
        return output

    model.forward = changed
    with pytest.raises(ConfigError, match="LlamaForCausalLM computes its logits in a way dudi does not know") as caught:
        check_head(model)
    assert "\n" not in str(caught.value)


def test_check_head_does_not_touch_the_generators():
    model = make_model(dropout=0.5).train()
    before = torch.get_rng_state()
    check_head(model)
    assert torch.equal(before, torch.get_rng_state())


def test_lora_on_the_head_is_refused():
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(build("llama"), LoraConfig(target_modules=["lm_head", "q_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(ConfigError, match="leave lm_head out of the adapter's target modules"):
        head_of(wrapped.get_base_model())


def test_lora_elsewhere_is_fine():
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(build("llama"), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    check_head(wrapped.get_base_model())


def test_a_model_without_a_head_is_refused():
    model = BertModel(
        BertConfig(vocab_size=90, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(ConfigError, match="BertModel"):
        head_of(model)


@pytest.mark.parametrize("kind", KINDS)
def test_right_padding_changes_no_real_row(kind):
    model, ids = build(kind), some_ids(1, 12)
    padded = torch.cat([ids, torch.full((1, 7), 5)], dim=1)
    with torch.no_grad():
        alone, beside = hidden_states(model, ids), hidden_states(model, padded)
        masked = model.get_decoder()(
            input_ids=padded, attention_mask=torch.tensor([[1] * 12 + [0] * 7])
        ).last_hidden_state
    torch.testing.assert_close(beside[:, :12], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(beside[:, :12], masked[:, :12], rtol=1e-5, atol=1e-5)


def test_shared_with_cuts_the_padding():
    weight, bias, hidden = torch.randn(10, 4), torch.randn(10), torch.randn(3, 4)
    head = Head(weight, bias, scale=2.0, softcap=3.0)
    assert len(head) == 10 and head.shared_with(10) is head
    cut = head.shared_with(7)
    assert len(cut) == 7
    torch.testing.assert_close(cut.logits(hidden), head.logits(hidden)[:, :7])
    torch.testing.assert_close(head.logits(hidden), 3 * torch.tanh((hidden @ weight.T + bias) * 2 / 3))


def test_precision_of_logits():
    head, hidden = Head(torch.randn(10, 4, dtype=torch.float64)), torch.randn(3, 4)
    assert head.logits(hidden.double()).dtype == torch.float64
    assert head.logits(hidden).dtype == torch.float32
    assert head.logits(hidden.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("kernel", ["auto", "dense", "chunked"])
def test_every_kernel_gives_the_same_log_probs(kernel):
    model, ids = build("gemma2"), some_ids(1, 9)
    head, hidden = head_of(model), hidden_states(model, ids)[0, :-1]
    labels = ids[0, 1:]
    with torch.no_grad():
        expected = token_log_probs(model(input_ids=ids).logits[0, :-1], labels)
    torch.testing.assert_close(head.log_probs(hidden, labels, kernel), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", ["auto", "dense", "chunked"])
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_every_kernel_gives_the_same_divergence_and_no_gradient_to_the_teacher(kind, kernel):
    student, teacher, ids = build("granite", seed=1), build("gemma2", seed=2), some_ids(1, 9)
    rows, teacher_rows = hidden_states(student, ids)[0], hidden_states(teacher, ids)[0]
    value = divergence(head_of(student), rows, head_of(teacher), teacher_rows, Distance(kind, 0.3, 0.8), kernel)
    expected = token_divergence(student(input_ids=ids).logits[0], teacher(input_ids=ids).logits[0], kind, 0.3, 0.8)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    value.sum().backward()
    assert student.lm_head.weight.grad.abs().max() > 0
    assert teacher.lm_head.weight.grad is None


def test_auto_leaves_dense_where_the_logits_would_be_too_many(monkeypatch):
    head, hidden, labels = Head(torch.randn(50, 4), softcap=30.0), torch.randn(6, 4), torch.arange(6)
    called = []  # a soft cap keeps it from being fused
    monkeypatch.setattr("dudi.objective.heads.losses.chunked_log_probs", lambda *a, **k: called.append("chunked"))
    monkeypatch.setattr("dudi.objective.heads.DENSE_LOGITS", 300)
    head.log_probs(hidden, labels)
    assert called == []
    monkeypatch.setattr("dudi.objective.heads.DENSE_LOGITS", 299)
    head.log_probs(hidden, labels)
    assert called == ["chunked"]
