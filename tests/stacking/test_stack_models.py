"""The stack's models: what goes wrong unseen in libraries of this kind, and a round trip that loses nothing."""

import copy
import importlib.metadata
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stack_helpers import (
    CHOICE,
    FOREIGN,
    TASK,
    TEXTS,
    choice_rows,
    make_llm,
    make_llm_tokenizer,
    make_mt,
    make_mt5,
    make_nllb_tokenizer,
    make_xlmr,
)
from transformers import AutoModel, AutoModelForMultipleChoice, AutoModelForSequenceClassification

from dudi.errors import ConfigError, DataError
from dudi.stacking import (
    LoraSettings,
    MTLLMConfig,
    MTLLMForMultipleChoice,
    MTLLMForSequenceClassification,
    MTLLMModel,
    Source,
    build_stack,
    load_stack,
    merge,
    with_head,
)
from dudi.stacking import lora as adapters
from dudi.stacking.assembly import save_trained
from dudi.stacking.parts import load_encoder

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gpt2")


@pytest.fixture(scope="module")
def source():
    return Source(make_nllb_tokenizer())


@pytest.fixture(scope="module")
def batch(source):
    """Rows of unequal length: something is padded."""
    return source.batch([*TEXTS[:3], FOREIGN[0]], ["eng_Latn"] * 3 + ["ind_Latn"])


@pytest.fixture(scope="module")
def stack():
    return build_stack(make_mt(), make_llm())


@torch.no_grad()
def pooled(model, batch):
    return model(**batch).pooled


def moved_adapter(model):
    """An adapter that changes something: a new one has zeros in it."""
    adapters.add_lora(model.adapted, LoraSettings(r=4))
    model.config.lora = {"r": 4, "alpha": 32, "dropout": 0.0, "target_modules": "all-linear"}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return model


# ---- bidirectionality


@pytest.mark.parametrize("kind", FAMILIES)
def test_attention_is_what_the_config_says_in_batches_of_one_and_more(kind):
    llm = make_llm(kind)
    for attention in ("causal", "bidirectional"):
        model = build_stack(None, llm, attention=attention)
        for rows in (1, 3):
            ids = torch.arange(5, 11).repeat(rows, 1)
            other = ids.clone()
            other[:, -1] = 99
            for mask in (None, torch.ones_like(ids)):
                with torch.no_grad():
                    first = model(ids, mask).last_hidden_state[:, 0]
                    second = model(other, mask).last_hidden_state[:, 0]
                assert bool((first != second).any()) is (attention == "bidirectional")


@pytest.mark.parametrize("said", ["causal", "bidirectional"])
def test_a_model_that_attends_otherwise_than_its_config_says_is_refused(said, tmp_path, monkeypatch):
    """What an upgrade does to libraries that override the masks: the flag is set, and nobody reads it."""
    build_stack(None, make_llm(), attention=said).save_pretrained(tmp_path)
    from transformers.models.llama import modeling_llama

    make = modeling_llama.create_causal_mask

    def upgraded(config, **kwargs):
        other = copy.copy(config)
        other.is_causal = said != "causal"
        return make(config=other, **kwargs)

    monkeypatch.setattr(modeling_llama, "create_causal_mask", upgraded)
    with pytest.raises(DataError, match=f"the config says {said}"):
        AutoModel.from_pretrained(tmp_path)


# ---- padding


@pytest.mark.parametrize("kind", FAMILIES)
def test_padding_changes_nothing(kind, source):
    model = build_stack(make_mt(), make_llm(kind), attention="causal" if kind == "gpt2" else "bidirectional")
    texts = [TEXTS[0], TEXTS[1] + " " + TEXTS[4]]
    together = pooled(model, source.batch(texts, ["eng_Latn"] * 2))
    alone = torch.cat([pooled(model, source.batch([text], ["eng_Latn"])) for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_model_in_which_padding_leaks_is_refused(stack, tmp_path, monkeypatch):
    stack.save_pretrained(tmp_path)
    forward = type(stack.llm).forward

    def leaking(self, *args, attention_mask=None, **kwargs):
        return forward(self, *args, attention_mask=None, **kwargs)

    monkeypatch.setattr(type(stack.llm), "forward", leaking)
    with pytest.raises(DataError, match="padding changes"):
        load_stack(tmp_path)


def test_what_stands_on_padding_does_not_reach_the_mean(stack, batch):
    states = stack(**batch).last_hidden_state.detach()
    from dudi.stacking.modeling import pooled_output

    broken = states.masked_fill(batch["attention_mask"][..., None] == 0, float("nan"))
    expected = torch.stack(
        [state[: int(n)].mean(dim=0) for state, n in zip(states, batch["attention_mask"].sum(1), strict=True)]
    )
    torch.testing.assert_close(pooled_output(broken, batch["attention_mask"], None).pooled, expected)


# ---- the encoder is there


@pytest.mark.parametrize("make", [make_mt, make_mt5, make_xlmr])
def test_the_encoder_of_a_checkpoint_is_loaded_whole(make, batch, tmp_path):
    whole = make().eval()
    whole.save_pretrained(tmp_path)
    inner = whole.get_encoder() if whole.config.is_encoder_decoder else whole.base_model
    loaded = load_encoder(str(tmp_path), dtype=torch.float32).model.eval()
    with torch.no_grad():
        assert torch.equal(loaded(**batch).last_hidden_state, inner(**batch).last_hidden_state)


def test_an_encoder_with_a_missing_weight_is_refused(tmp_path):
    make_mt().save_pretrained(tmp_path)
    drop_weight(tmp_path, "model.encoder.layers.0.fc1.weight")
    with pytest.raises(DataError, match=r"layers\.0\.fc1\.weight"):
        build_stack(str(tmp_path), make_llm())


def test_an_llm_with_a_missing_weight_is_refused(tmp_path):
    make_llm().save_pretrained(tmp_path)
    drop_weight(tmp_path, "model.layers.1.mlp.up_proj.weight")
    with pytest.raises(DataError, match=r"layers\.1\.mlp\.up_proj\.weight"):
        build_stack(make_mt(), str(tmp_path))


def test_a_stack_with_a_missing_weight_is_refused(stack, tmp_path):
    stack.save_pretrained(tmp_path)
    drop_weight(tmp_path, "connector.weight")
    with pytest.raises(DataError, match=r"connector\.weight"):
        AutoModel.from_pretrained(tmp_path)


def drop_weight(folder, name):
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_model_that_cannot_be_read_is_one_line():
    with pytest.raises(ConfigError, match="encoder: /no/such/model is no model"):
        build_stack("/no/such/model", None)


# ---- language codes


@pytest.mark.parametrize(
    ("code", "nearest"),
    [("kaz_Latn", "kaz_Cyrl"), ("ind_latn", "ind_Latn"), ("uig_Latn", "uig_Arab"), ("", "_")],
)
def test_an_unknown_code_names_the_nearest_valid_one(source, code, nearest):
    with pytest.raises(
        ConfigError, match=f"'{code}' is no source language .* did you mean '.*{nearest}".replace("did", r"\(did")
    ):
        source.check(code)


def test_codes_of_the_rows_are_mapped_and_change_what_is_read(stack):
    mapped = Source(make_nllb_tokenizer(), {"id": "ind_Latn"})
    ids = mapped.batch(FOREIGN[:1] * 2, ["id", "eng_Latn"])["input_ids"]
    codes = mapped.tokenizer.convert_ids_to_tokens(ids[:, 0])
    assert codes == ["ind_Latn", "eng_Latn"]
    assert torch.equal(ids[0, 1:], ids[1, 1:])
    with pytest.raises(ConfigError, match="ell_Latn"):
        Source(make_nllb_tokenizer(), {"el": "ell_Latn"})


def test_a_tokenizer_without_languages_takes_any_code():
    assert Source(make_llm_tokenizer()).check("xyz") == "xyz"


# ---- round trip


@pytest.mark.parametrize("adapter", [False, True])
def test_saving_and_loading_changes_nothing_and_needs_no_parents(adapter, batch, tmp_path):
    parents = {"encoder": make_mt(), "llm": make_llm("qwen3")}
    for name, parent in parents.items():
        parent.save_pretrained(tmp_path / name)
    model = build_stack(str(tmp_path / "encoder"), str(tmp_path / "llm"), seed=5)
    if adapter:
        moved_adapter(model)
    model.config.stage = "aligned"
    model.save_pretrained(tmp_path / "stack")
    for name in parents:
        shutil.rmtree(tmp_path / name)
    loaded = AutoModel.from_pretrained(tmp_path / "stack")
    assert type(loaded) is MTLLMModel
    assert loaded.config.stage == "aligned"
    assert float((pooled(loaded, batch) - pooled(model, batch)).abs().max()) == 0.0
    text = (tmp_path / "stack" / "config.json").read_text(encoding="utf-8")
    assert '"is_causal": false' in text
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    assert float((pooled(load_stack(again), batch) - pooled(model, batch)).abs().max()) == 0.0


def test_a_bf16_stack_keeps_what_was_trained_in_fp32(tmp_path, batch):
    model = moved_adapter(build_stack(make_mt().bfloat16(), make_llm().bfloat16()))
    for name, parameter in model.named_parameters():
        if ".lora_" in name or name.startswith("connector"):
            parameter.data = parameter.data.float() + 1e-4
    before = pooled(model, batch)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.llm.dtype == torch.bfloat16
    assert loaded.connector.weight.dtype == torch.float32
    assert float((pooled(loaded, batch) - before).abs().max()) == 0.0


def test_heads_round_trip_by_their_auto_classes(source, stack, tmp_path):
    pair = source.batch(TEXTS[:2], ["eng_Latn"] * 2, FOREIGN[:2])
    headed = with_head(copy.deepcopy(stack), TASK, seed=3).eval()
    headed.save_pretrained(tmp_path / "head")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "head")
    assert type(loaded) is MTLLMForSequenceClassification
    assert loaded.config.id2label == {0: "animal", 1: "thing", 2: "person"}
    with torch.no_grad():
        assert torch.equal(loaded(**pair).logits, headed(**pair).logits)
    choice = with_head(copy.deepcopy(stack), CHOICE).eval()
    choice.save_pretrained(tmp_path / "choice")
    loaded = AutoModelForMultipleChoice.from_pretrained(tmp_path / "choice")
    assert type(loaded) is MTLLMForMultipleChoice
    rows = source.collate(source.encode_rows(choice_rows()))
    with torch.no_grad():
        assert torch.equal(loaded(**rows).logits, choice(**rows).logits)


def test_a_head_can_be_put_on_a_saved_stack_by_from_pretrained(stack, batch, tmp_path):
    stack.save_pretrained(tmp_path)
    headed = MTLLMForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    assert headed.score.weight.shape == (3, 32)
    assert torch.equal(pooled(headed, batch), pooled(stack, batch))


# ---- adapters


def test_the_adapter_touches_the_llm_alone_and_is_off_for_the_teacher(batch):
    model = build_stack(make_mt(), make_llm())
    before = pooled(model, batch)
    moved_adapter(model)
    assert not adapters.lora_weights(model.encoder)
    assert not hasattr(model.connector, "lora_A")
    assert float((pooled(model, batch) - before).abs().max()) > 1e-3
    with model.without_lora():
        assert torch.equal(pooled(model, batch), before)
    after = pooled(model, batch)
    merge(model)
    assert not adapters.lora_weights(model)
    torch.testing.assert_close(pooled(model, batch), after)


def test_an_mlp_s_up_proj_is_not_taken_for_the_connector():
    """`modules_to_save=["up_proj"]` would catch every Llama layer's own; no other name ends as ours."""
    names = [name for name, _ in build_stack(make_mt(), make_llm()).named_modules()]
    assert [name for name in names if name.endswith("connector")] == ["connector"]


@pytest.mark.parametrize(
    ("headless", "more"),
    [
        (True, {}),
        (False, {}),
        (True, {"use_rslora": True}),
        (True, {"rank_pattern": {"up_proj": 3}, "alpha_pattern": {"q_proj": 9}}),
        (True, {"use_dora": True}),
    ],
)
def test_llm2vec_checkpoints_load_as_base_and_adapters(headless, more, batch, tmp_path):
    """MNTP, then SimCSE, as `peft` saves them from a model with its head or without; the result is peft's own merge."""
    from peft import LoraConfig, PeftModel, get_peft_model

    base = make_llm()
    base.save_pretrained(tmp_path / "base")
    for number, name in enumerate(("mntp", "simcse")):
        own = make_llm().base_model if headless else make_llm()
        targets = ["q_proj", "up_proj"]
        config = LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False, **more)
        torch.manual_seed(number)
        peft = get_peft_model(own, config)
        peft.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
        peft.save_pretrained(tmp_path / name)
    expected = make_llm().base_model if headless else make_llm()
    for name in ("mntp", "simcse"):
        expected = PeftModel.from_pretrained(expected, tmp_path / name).merge_and_unload()
    expected = build_stack(None, expected)
    ids = batch["input_ids"]
    chained = build_stack(None, str(tmp_path / "base"), adapters=[str(tmp_path / "mntp"), str(tmp_path / "simcse")])
    short = build_stack(None, str(tmp_path / "mntp"), adapters=[str(tmp_path / "simcse")])
    for found in (chained, short):
        torch.testing.assert_close(found(ids).pooled, expected(ids).pooled)
    assert float((build_stack(None, base)(ids).pooled - expected(ids).pooled).abs().max()) > 1e-3
    (tmp_path / "saved").mkdir()
    save_trained(with_head(chained, TASK), tmp_path / "saved")
    assert torch.equal(load_stack(tmp_path / "saved")(ids).pooled, chained(ids).pooled)
    shutil.copy(tmp_path / "mntp" / "adapter_model.safetensors", tmp_path / "simcse")
    with pytest.raises(DataError, match="base is another llm than the one that this was trained on"):
        load_stack(tmp_path / "saved")


def test_an_adapter_that_does_not_fit_is_refused(tmp_path):
    from peft import LoraConfig, get_peft_model

    other = get_peft_model(make_llm("gpt2"), LoraConfig(r=2, target_modules=["c_fc"], fan_in_fan_out=True))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises((DataError, ConfigError), match="c_fc"):
        build_stack(None, make_llm(), adapters=[str(tmp_path / "other")])
    with pytest.raises(ConfigError, match=r"adapter_config\.json"):
        build_stack(None, make_llm(), adapters=[str(tmp_path)])


# ---- config


def test_the_config_says_the_stage_and_refuses_unknown_words():
    with pytest.raises(ConfigError, match=r"stage: 'alined' .* \(did you mean 'aligned'\?\)"):
        MTLLMConfig(llm_config=make_llm().config, stage="alined")
    with pytest.raises(ConfigError, match="attention"):
        MTLLMConfig(llm_config=make_llm().config, attention="both")
    with pytest.raises(ConfigError, match="encoder_config, llm_config"):
        MTLLMModel(MTLLMConfig())


def test_the_transformers_here_is_one_that_pyproject_allows():
    """The masks are transformers' own: a version is allowed when these tests have passed on it."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    low, high = (
        tuple(map(int, part.split("."))) for part in re.search(r'"transformers>=([\d.]+),<([\d.]+)"', text).groups()
    )
    assert low <= tuple(map(int, importlib.metadata.version("transformers").split(".")[:2])) < high
