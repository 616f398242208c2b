"""What a run is: everything that changes what comes out of it, so that no cache and no resume mixes two."""

import dataclasses
import json

import pytest
import torch
from peft import LoraConfig, get_peft_model

from dudi import DudiTrainer
from dudi.errors import ConfigError
from dudi.models.adapters import WITHOUT_EFFECT, adapter_settings
from helpers import ROWS, make_args, make_model

CHANGED = {
    "peft_type": "IA3",
    "r": 2,
    "target_modules": ["q_proj"],
    "exclude_modules": ["v_proj"],
    "lora_alpha": 64,
    "lora_dropout": 0.25,
    "fan_in_fan_out": True,
    "bias": "lora_only",
    "use_rslora": True,
    "modules_to_save": ["norm"],
    "init_lora_weights": "gaussian",
    "layers_to_transform": [0],
    "layers_pattern": "layers",
    "rank_pattern": {"q_proj": 2},
    "alpha_pattern": {"q_proj": 2},
    "megatron_config": {"a": 1},
    "megatron_core": "other",
    "trainable_token_indices": [3],
    "loftq_config": {"loftq_bits": 4},
    "eva_config": {"rho": 3.0},
    "corda_config": {"corda_method": "kpm"},
    "lora_ga_config": {"direction": "x"},
    "use_dora": True,
    "velora_config": {"x": 1},
    "alora_invocation_tokens": [5],
    "use_qalora": True,
    "qalora_group_size": 8,
    "monteclora_config": {"x": 1},
    "layer_replication": [(0, 2)],
    "lora_bias": True,
    "target_parameters": ["x"],
    "use_bdlora": {"x": 1},
    "arrow_config": {"x": 1},
    "kasa_config": {"x": 1},
    "ensure_weight_tying": True,
}


def lora(**keys):
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | keys)


def make_trainer(folder, tokenizer, peft_config=None, student=None, method="gkd", **keys):
    args = make_args(folder, method, **{"learning_rate": 1e-2, "cold_start": "sft", **keys})
    teacher = make_model(seed=2, hidden_size=48)
    return DudiTrainer(student or make_model(seed=1), teacher, args, ROWS, None, tokenizer, peft_config=peft_config)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(record["stage"], record["loss"]) for record in lines]


def test_every_field_of_an_adapter_is_classified():
    """A field that a new version of peft brings has to be looked at."""
    names = {field.name for field in dataclasses.fields(LoraConfig)}
    assert CHANGED.keys() | WITHOUT_EFFECT.keys() == names
    assert not CHANGED.keys() & WITHOUT_EFFECT.keys()


@pytest.mark.parametrize("name", CHANGED)
def test_each_of_them_is_part_of_what_a_run_is(name):
    model = get_peft_model(make_model(), lora())
    before = adapter_settings(model)
    setattr(model.peft_config["default"], name, CHANGED[name])
    after = adapter_settings(model)
    assert before != after
    assert json.loads(json.dumps(after)) == after


def test_what_has_no_effect_is_free():
    model = get_peft_model(make_model(), lora())
    before = adapter_settings(model)
    for name in WITHOUT_EFFECT:
        setattr(model.peft_config["default"], name, None)
    assert adapter_settings(model) == before
    assert adapter_settings(make_model()) is None


@pytest.mark.parametrize(
    "change",
    [
        {"lora_alpha": 64},
        *(pytest.param(one, marks=pytest.mark.slow) for one in ({"lora_dropout": 0.3}, {"use_rslora": True})),
    ],
    ids=str,
)
def test_a_cold_start_with_another_adapter_is_another(change, tmp_path, tokenizer, monkeypatch):
    def run(name, cache, config):
        monkeypatch.setenv("DUDI_CACHE", str(tmp_path / cache))
        trainer = make_trainer(tmp_path / name, tokenizer, config)
        trainer.train()
        return losses(tmp_path / name), trainer.inner_model().state_dict()

    run("first", "shared", lora())
    found, weights = run("second", "shared", lora(**change))
    expected, own_weights = run("alone", "own", lora(**change))
    assert found == expected
    assert all(torch.equal(weights[name], own_weights[name]) for name in weights)
    again, _ = run("third", "shared", lora(**change))
    assert again == expected
    assert '"cached": true' in (tmp_path / "third" / "metrics.jsonl").read_text()


def test_targets_that_the_teacher_wrote_hang_on_its_template(tmp_path, tokenizer):
    from dudi.distill.stages.cold_start import cold_start_key

    keys = []
    for template in (None, tokenizer.chat_template.replace("<|im_start|>{{", "<|im_start|>{{ 'the ' ~ ")):
        theirs = type(tokenizer).from_pretrained(_saved(tokenizer, tmp_path))
        theirs.chat_template = template or theirs.chat_template
        args = make_args(tmp_path, "gkd", cold_start="teacher_sft")
        trainer = DudiTrainer(
            make_model(seed=1), make_model(seed=2), args, ROWS, None, tokenizer, teacher_processing_class=theirs
        )
        keys.append(cold_start_key(trainer.run))
    assert keys[0] != keys[1]


def _saved(tokenizer, folder):
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder / "tokenizer"


def test_a_resume_with_another_adapter_is_refused(tmp_path, tokenizer):
    keys = {"save_strategy": "steps", "save_steps": 1, "cold_start": "none", "method": "sft"}
    make_trainer(tmp_path, tokenizer, lora(), **keys).train()
    start = str(tmp_path / "checkpoints" / "step-1")
    with pytest.raises(ConfigError, match=r"adapter\.lora_alpha: 8 -> 64"):
        make_trainer(tmp_path, tokenizer, lora(lora_alpha=64), **keys).train(resume_from_checkpoint=start)
    with pytest.raises(ConfigError, match=r"adapter\.use_dora"):
        make_trainer(tmp_path, tokenizer, lora(use_dora=True), **keys).train(resume_from_checkpoint=start)
    allowed = make_trainer(tmp_path, tokenizer, lora(lora_dropout=0.1), **keys)
    allowed.allow_changed = frozenset({"adapter.lora_dropout"})
    allowed.train(resume_from_checkpoint=start)


def test_a_key_that_a_later_version_brings_refuses_no_older_run(tmp_path, tokenizer):
    """Its default is what the older version did; set to anything else it is another run."""
    keys = {"save_strategy": "steps", "save_steps": 1, "cold_start": "none", "method": "sft"}
    trainer = make_trainer(tmp_path, tokenizer, **keys)
    full = trainer.identity()
    older = full | {"keys": {name: value for name, value in full["keys"].items() if name != "weight_decay"}}
    trainer._identity = older
    trainer.train()
    start = str(tmp_path / "checkpoints" / "step-1")
    make_trainer(tmp_path, tokenizer, **keys).train(resume_from_checkpoint=start)
    with pytest.raises(ConfigError, match=r"weight_decay: 0\.0 -> 0\.5"):
        make_trainer(tmp_path, tokenizer, **keys, weight_decay=0.5).train(resume_from_checkpoint=start)


def test_the_folder_that_a_run_starts_from_is_part_of_it(tmp_path, tokenizer):
    make_model(seed=7).save_pretrained(tmp_path / "start")
    keys = {"save_strategy": "steps", "save_steps": 1, "cold_start": str(tmp_path / "start")}
    make_trainer(tmp_path / "run", tokenizer, **keys).train()
    make_model(seed=8).save_pretrained(tmp_path / "start")
    with pytest.raises(ConfigError, match="start:"):
        make_trainer(tmp_path / "run", tokenizer, **keys).train(
            resume_from_checkpoint=str(tmp_path / "run" / "checkpoints" / "step-1")
        )
