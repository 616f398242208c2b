"""A run's model holds what was trained: small, put together with its parents to the bit, and with no others."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stack_helpers import (
    FOREIGN,
    TASK,
    TEXTS,
    english_rows,
    make_llm,
    make_llm_tokenizer,
    make_mt,
    make_nllb_tokenizer,
    make_stack_args,
)
from transformers import AutoModel, AutoModelForSequenceClassification

from dudi.errors import ConfigError, DataError
from dudi.stacking import LoraSettings, Source, align, build_stack, finetune, load_stack, stored, with_head

LORA = LoraSettings(r=4)


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    root = tmp_path_factory.mktemp("parents")
    make_mt().save_pretrained(root / "encoder")
    make_llm("qwen3").save_pretrained(root / "llm")
    return root


@pytest.fixture(scope="module")
def batch():
    return Source(make_nllb_tokenizer()).batch([*TEXTS[:3], FOREIGN[0]], ["eng_Latn"] * 3 + ["ind_Latn"])


def saved(model, folder, **options):
    stored.save_model(folder, model, make_nllb_tokenizer(), make_llm_tokenizer(), {"stage": "x"}, **options)
    return folder


def stage_1(parents, folder, lora=LORA, **keys):
    stack = build_stack(str(parents / "encoder"), str(parents / "llm"))
    sources = Source(make_nllb_tokenizer()), Source(make_llm_tokenizer())
    return align(stack, *sources, english_rows(), make_stack_args(folder, learning_rate=1e-2, **keys), lora)


def read(model, batch):
    with torch.no_grad():
        return model.eval()(**batch).vectors if hasattr(model, "connector") else model.eval()(**batch).logits


def names(folder):
    return set(load_file(folder / "trained.safetensors"))


@pytest.mark.parametrize("merge", [False, True])
def test_stage_1_and_a_task_on_it_come_back_to_the_bit(parents, batch, tmp_path, merge):
    """The adapter of Stage 1, merged or not, that of the task, connector and head; nothing of the parents."""
    stack = stage_1(parents, tmp_path / "a", merge_lora=merge)
    first = saved(stack, tmp_path / "aligned")
    again = load_stack(first)
    assert torch.equal(read(again, batch), read(stack, batch))
    kept = names(first)
    assert {"connector.weight", "connector.bias"} < kept
    assert all("lora" in name for name in kept - {"connector.weight", "connector.bias"})
    assert not (first / "model.safetensors").exists()
    headed = with_head(again, TASK)
    finetune(headed, Source(make_nllb_tokenizer()), english_rows(), TASK, make_stack_args(tmp_path / "f"), LORA)
    second = saved(headed, tmp_path / "tuned")
    loaded = load_stack(second)
    assert torch.equal(read(loaded, batch), read(headed, batch))
    assert loaded.config.stage == "finetuned"
    assert "score.weight" in names(second)
    assert len(loaded.config.merged or []) == int(merge)


def test_it_is_small_and_a_whole_one_needs_no_parents(parents, batch, tmp_path):
    stack = stage_1(parents, tmp_path / "a")
    small, whole = saved(stack, tmp_path / "small"), saved(stack, tmp_path / "whole", whole=True)
    assert not (whole / "trained.safetensors").exists()
    sizes = [sum(file.stat().st_size for file in folder.glob("*.safetensors")) for folder in (small, whole)]
    assert sizes[0] < sizes[1] / 2
    again = load_stack(whole)
    assert torch.equal(read(again, batch), read(load_stack(small), batch))
    # What was loaded whole is saved whole: it has no parents any more.
    assert again.config.parents is None
    assert (saved(again, tmp_path / "again") / "model.safetensors").is_file()


def test_the_auto_classes_put_it_together(parents, batch, tmp_path):
    stack = stage_1(parents, tmp_path / "a")
    folder = saved(stack, tmp_path / "aligned")
    assert torch.equal(read(AutoModel.from_pretrained(folder), batch), read(stack, batch))
    headed = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    assert headed.score.weight.shape == (3, 32)
    assert torch.equal(headed.stack.connector.weight, stack.connector.weight)
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert type(model) is type(stack)
    assert not info["missing_keys"]
    named = type(stack).from_pretrained(pretrained_model_name_or_path=folder)
    assert torch.equal(read(named, batch), read(stack, batch))


def test_a_part_that_was_trained_whole_is_saved_whole(parents, batch, tmp_path):
    stack = stage_1(parents, tmp_path / "a", None)
    assert set(stack.config.parents) == {"encoder"}
    folder = saved(stack, tmp_path / "aligned")
    assert any(name.startswith("llm.layers.0.mlp") for name in names(folder))
    assert not any(name.startswith("encoder.") for name in names(folder))
    assert torch.equal(read(load_stack(folder), batch), read(stack, batch))


def test_precision_is_kept_or_chosen(parents, batch, tmp_path):
    stack = build_stack(str(parents / "encoder"), str(parents / "llm"), dtype="bfloat16")
    sources = Source(make_nllb_tokenizer()), Source(make_llm_tokenizer())
    align(stack, *sources, english_rows(), make_stack_args(tmp_path / "a", merge_lora=False), LORA)
    folder = saved(stack, tmp_path / "aligned")
    again = load_stack(folder)
    assert again.llm.dtype == again.encoder.dtype == torch.bfloat16
    adapters = [weights for name, weights in again.named_parameters() if ".lora_" in name]
    assert {weights.dtype for weights in [*adapters, again.connector.weight]} == {torch.float32}
    assert torch.equal(read(again, batch), read(stack, batch))
    assert load_stack(folder, dtype="float32").encoder.dtype == torch.float32


# ---- what goes wrong


def test_another_parent_and_a_missing_one_are_refused(parents, tmp_path):
    for name in ("encoder", "llm"):
        (make_mt() if name == "encoder" else make_llm("qwen3")).save_pretrained(tmp_path / name)
    folder = saved(stage_1(tmp_path, tmp_path / "a"), tmp_path / "aligned")
    make_mt(seed=9).save_pretrained(tmp_path / "encoder")
    with pytest.raises(DataError, match="is another encoder than the one that this was trained on"):
        load_stack(folder)
    make_mt().save_pretrained(tmp_path / "encoder")
    load_stack(folder)
    (tmp_path / "llm").rename(tmp_path / "gone")
    with pytest.raises(ConfigError, match="its llm cannot be had: llm: "):
        load_stack(folder)


def test_relative_parents_are_found_from_another_working_directory(batch, tmp_path, monkeypatch):
    """`models/llm` was taken for a name on the hub, with long retries."""
    home = tmp_path / "home"
    make_mt().save_pretrained(home / "models" / "encoder")
    make_llm("qwen3").save_pretrained(home / "models" / "llm")
    monkeypatch.chdir(home)
    stack = stage_1(Path("models"), tmp_path / "a")
    assert stack.config.parents["llm"]["name"] == "models/llm"
    folder = saved(stack, home / "runs" / "one" / "model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert torch.equal(read(load_stack(folder), batch), read(stack, batch))
    (home / "models").rename(home / "moved")
    with pytest.raises(ConfigError, match="its encoder is the folder models/encoder, relative to where the run was"):
        load_stack(folder)


def test_a_file_that_does_not_fit_is_refused(parents, tmp_path):
    folder = saved(stage_1(parents, tmp_path / "a", merge_lora=False), tmp_path / "aligned")
    text = (folder / "config.json").read_text(encoding="utf-8")
    config = json.loads(text)
    config["lora"]["r"] = 2
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(DataError, match="has no place in this model"):
        load_stack(folder)
    config["lora"] = None
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(DataError, match="has no place in this model"):
        load_stack(folder)
    (folder / "config.json").write_text(text, encoding="utf-8")
    load_stack(folder)
