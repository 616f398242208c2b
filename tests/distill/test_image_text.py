"""Models that read images too: their text is trained, judged and asked, and they are saved as what they are."""

import json

import gguf
import pytest
import torch
import transformers
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, Gemma3Processor, SiglipImageProcessor

from dudi import DudiTrainer
from dudi.evaluation.records import read_evaluations
from dudi.models.image_text import PROCESSORS
from dudi.models.load import load_model
from dudi.models.shape import shape_of
from dudi.program.cli import main
from helpers import ROWS, make_args, make_model, make_tokenizer, slow_but

TEXT = {
    "vocab_size": 448,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "head_dim": 8,
}
SIGHT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
QWEN_SIGHT = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
DEEP = {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
HYBRID = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "rope_parameters": SECTIONS["rope_parameters"] | {"partial_rotary_factor": 1.0},
}
KINDS = {
    "gemma3": ("Gemma3Config", TEXT | {"query_pre_attn_scalar": 8}, SIGHT),
    "llava": ("LlavaConfig", {**TEXT, "model_type": "llama"}, {**SIGHT, "model_type": "clip_vision_model"}),
    "mistral3": ("Mistral3Config", {**TEXT, "model_type": "mistral"}, {**SIGHT, "model_type": "pixtral"}),
    "qwen2_5_vl": ("Qwen2_5_VLConfig", TEXT | SECTIONS, QWEN_SIGHT),
    "qwen3_5": ("Qwen3_5Config", TEXT | HYBRID, QWEN_SIGHT | DEEP),
    "qwen3_vl": ("Qwen3VLConfig", TEXT | SECTIONS, QWEN_SIGHT | DEEP),
}


QUICK = ("qwen3_5",)
EVERY = slow_but(QUICK, KINDS)
"""`make test-trust` takes all of them."""


@pytest.fixture
def folder(request, tmp_path):
    name, text, sight = KINDS[request.param]
    torch.manual_seed(0)
    config = getattr(transformers, name)(text_config=dict(text), vision_config=dict(sight))
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path / "whole")
    make_tokenizer().save_pretrained(tmp_path / "whole")
    for name in PROCESSORS[:2]:
        (tmp_path / "whole" / name).write_text('{"image_seq_length": 4}', encoding="utf-8")
    return tmp_path / "whole"


def trainer_of(folder, student, teacher, **keys):
    peft_config = keys.pop("peft_config", None)
    args = make_args(folder, "dudi", **{"max_steps": 1, "cold_start": "none", "max_new_tokens": 6, **keys})
    return DudiTrainer(student, teacher, args, ROWS, processing_class=make_tokenizer(), peft_config=peft_config)


def sight_of(model):
    return {name: value for name, value in model.state_dict().items() if "vis" in name or "projector" in name}


@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("folder", EVERY, indirect=True)
def test_a_student_is_saved_as_what_it_is_and_sees_as_before(folder, adapter, tmp_path):
    before = AutoModelForImageTextToText.from_pretrained(folder)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if adapter else None
    trainer = trainer_of(tmp_path / "run", load_model(str(folder)), make_model(seed=2), peft_config=lora)
    learns = [name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad]
    assert learns and not any("vis" in name or "projector" in name for name in learns)
    trainer.train()
    trainer.save_final(tmp_path / "model", {})
    after = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    assert type(after) is type(before)
    assert all((tmp_path / "model" / name).is_file() for name in PROCESSORS[:2])
    own, now = sight_of(before), sight_of(after)
    assert len(own) > 10 and own.keys() == now.keys()
    assert all(torch.equal(value, now[name]) for name, value in own.items())
    assert not torch.equal(before.get_input_embeddings().weight, after.get_input_embeddings().weight) or adapter
    ids = torch.arange(40, 60).unsqueeze(0)
    with torch.no_grad():
        logits = [model.eval()(input_ids=ids).logits for model in (trainer.model, after, before)]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-5)
    assert (logits[1] - logits[2]).abs().max() > 1e-6


@pytest.mark.parametrize("folder", EVERY, indirect=True)
def test_it_judges_as_a_teacher_and_starts_at_log_2_as_a_student(folder, tmp_path):
    trainer = trainer_of(tmp_path / "run", make_model(seed=1), str(folder))
    trainer.train()
    (record,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert record["loss/on_policy"] > 0
    alone = trainer_of(tmp_path / "alone", load_model(str(folder)), make_model(seed=2))
    alone.train()
    assert abs(json.loads((tmp_path / "alone" / "metrics.jsonl").read_text())["loss/sequence"] - 0.693147) < 1e-5


@pytest.mark.parametrize("folder", QUICK, indirect=True)
def test_it_is_asked(folder, tmp_path):
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"id": "a", "language": "id", "question": "Apa?", "answer": "Ya"}\n', encoding="utf-8")
    assert main(["eval", str(folder), "--benchmark", str(questions), "--output", str(tmp_path / "e")]) == 0
    assert len(read_evaluations(tmp_path / "e" / "evaluation.json")) == 1


def recipe_of(folder, tmp_path, **keys):
    """A recipe of two steps whose student and teacher are models that read images."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), encoding="utf-8")
    kept = {
        "method": "dudi",
        "max_steps": 2,
        "max_length": 256,
        "max_new_tokens": 6,
        "cold_start": "none",
        **keys,
    }
    recipe = {
        "student": {"model": str(folder)},
        "teacher": {"model": str(folder)},
        "data": {"train": str(rows)},
        **kept,
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    return ["train", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "run")]


@pytest.mark.parametrize("folder", ["gemma3"], indirect=True)
def test_its_processor_is_taken_for_its_tokenizer(folder, tmp_path):
    tokenizer = make_tokenizer()
    for name in ("boi", "eoi", "image"):
        setattr(tokenizer, f"{name}_token", "<|im_end|>")
        setattr(tokenizer, f"{name}_token_id", tokenizer.eos_token_id)
    processor = Gemma3Processor(SiglipImageProcessor(), tokenizer)
    args = make_args(tmp_path / "run", "dudi", max_steps=1, cold_start="none", max_new_tokens=6)
    student, teacher = load_model(str(folder)), load_model(str(folder))
    trainer = DudiTrainer(
        student, teacher, args, ROWS, processing_class=processor, teacher_processing_class={"default": processor}
    )
    assert trainer.processing_class is tokenizer
    trainer.train()


@pytest.mark.parametrize("folder", EVERY, indirect=True)
def test_a_dry_run_counts_what_is_trained(folder, tmp_path, capsys):
    assert main([*recipe_of(folder, tmp_path), "--dry-run"]) == 0
    assert "nothing was trained" in capsys.readouterr().out
    model = load_model(str(folder))
    shape = shape_of(model.config)
    assert shape.parameters == model.num_parameters() == shape.text + sum(x.numel() for x in sight_of(model).values())


@pytest.mark.parametrize("adapter", [pytest.param(False, marks=pytest.mark.slow), True], ids=["whole", "lora"])
@pytest.mark.parametrize("folder", EVERY, indirect=True)
def test_a_recipe_starts_from_a_folder_and_from_fewer_layers(folder, adapter, tmp_path):
    lora = {"lora": {"r": 4}} if adapter else {}
    command = recipe_of(folder, tmp_path, cold_start=str(folder), **lora)
    assert main(command) == 0
    cut = load_model(str(folder), keep_layers=[1])
    assert cut.config.get_text_config().num_hidden_layers == 1 and type(cut) is type(load_model(str(folder)))
    assert all(torch.equal(tensor, sight_of(cut)[name]) for name, tensor in sight_of(load_model(str(folder))).items())
    assert main([*command[:-1], str(tmp_path / "cut"), "student.keep_layers=[1]", "cold_start=none"]) == 0


@pytest.mark.parametrize("folder", ["gemma3"], indirect=True)
def test_the_text_of_it_is_exported(folder, tmp_path, capsys):
    assert main(["export", str(folder), "--gguf", "F32", "--output", str(tmp_path / "m.gguf"), "--pre", "gpt-2"]) == 0
    assert "the text of a gemma3 model alone" in capsys.readouterr().out
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    table = load_model(str(folder)).get_input_embeddings().weight
    assert torch.equal(torch.from_numpy(tensors["token_embd.weight"].data.copy()), table)


@pytest.mark.parametrize("folder", ["qwen3_5", "qwen3_vl"], indirect=True)
def test_what_llama_cpp_does_not_have_is_refused(folder, tmp_path, capsys):
    assert main(["export", str(folder), "--gguf", "F32", "--output", str(tmp_path / "m.gguf")]) == 2
    assert "_text' is not one of the architectures" in capsys.readouterr().err
