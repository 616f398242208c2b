"""What a stage will need, held against what torch counts when it runs."""

import dataclasses

import pytest
import torch
from stack_helpers import TASK, make_llm, make_llm_tokenizer, make_mt, make_nllb_tokenizer
from torch.utils.flop_counter import FlopCounterMode

from dudi.errors import EnvironmentFault
from dudi.program.cli import main
from dudi.stacking import LoraSettings, build_stack
from dudi.stacking.lora import add_lora
from dudi.stacking.planning import plan_stage
from dudi.stacking.recipe import load_stack_config

LENGTH, ROWS = 32, 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("plan")
    for name, model, tokenizer in (
        ("mt", make_mt(), make_nllb_tokenizer()),
        ("llm", make_llm(), make_llm_tokenizer()),
    ):
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    (root / "recipe.yaml").write_text(
        f"encoder: {{model: {root}/mt}}\nllm: {{model: {root}/llm}}\ndata: {{train: {root}/rows.jsonl}}\n"
        f"lora: {{r: 1}}\ntask: {{labels: [{', '.join(TASK.labels)}]}}\nmax_length: {LENGTH}\nmax_steps: 100\n"
        f"per_device_train_batch_size: {ROWS}\nuse_cpu: true\n",
        encoding="utf-8",
    )
    return root


def planned(place, stage, *words, **options):
    return plan_stage(load_stack_config(str(place / "recipe.yaml"), stage, words), **options)


def counted(place, encoder, whole):
    """FLOPs of one step: (encoder and what is on it forward, and back)."""
    stack = build_stack(f"{place}/mt" if encoder else None, f"{place}/llm")
    if whole:
        stack.llm.requires_grad_(True)
    else:
        add_lora(stack.llm, LoraSettings(r=1))
    if encoder:
        stack.encoder.requires_grad_(False)
    for part in (stack.encoder, stack.llm):
        if part is not None:
            part.set_attn_implementation("eager")  # torch does not count the fused one on a CPU
    ids = torch.full((ROWS, LENGTH), 7)
    with FlopCounterMode(display=False) as counter:
        stack(input_ids=ids, attention_mask=torch.ones_like(ids)).vectors.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("stage", "words", "whole"),
    [("align", (), False), ("align", ("lora=null",), True), ("finetune", (), False), ("teach", (), False)],
)
def test_flops_of_a_step_are_those_that_torch_counts(place, stage, words, whole):
    plan = planned(place, stage, *words)
    own = sum(one.flops for one in plan.passes if not one.name.startswith("teacher"))
    assert own == pytest.approx(counted(place, stage != "teach", whole), rel=0.15)
    taught = [one.flops for one in plan.passes if one.name.startswith("teacher")]
    assert taught == [one.flops for one in plan.passes if one.name.endswith("forward")] * (stage == "align")


def test_parts_and_what_is_trained_are_counted(place):
    llm, encoder = make_llm().model, make_mt().get_encoder()
    plan = planned(place, "align")
    assert {role: count for role, _, count in plan.parts} == {
        "encoder": encoder.num_parameters(),
        "LLM": llm.num_parameters(),
    }
    add_lora(llm, LoraSettings(r=1))
    adapter = sum(weight.numel() for weight in llm.parameters() if weight.requires_grad)
    connector = (encoder.config.d_model + 1) * llm.config.hidden_size
    assert plan.trained == adapter + connector
    assert planned(place, "distill", "train_connector=false").trained == adapter
    assert planned(place, "teach").trained == adapter
    whole = planned(place, "align", "lora=null")
    embeddings = llm.config.vocab_size * llm.config.hidden_size
    assert whole.trained == make_llm().model.num_parameters() - embeddings + connector
    assert "the LLM as it was, which teaches" in dict(whole.held)
    assert dict(whole.held)["optimizer's states"] == 8 * whole.trained


def test_steps_and_hours(place):
    assert planned(place, "align").steps == 100
    assert planned(place, "teach", "max_steps=-1").steps is None
    assert planned(place, "teach", "max_steps=-1", rows=41, gpus=2).steps == 3 * 6
    plan = planned(place, "align", gpu="T4")
    assert plan.hours == pytest.approx(plan.step_flops * 100 / (0.35 * 65e12) / 3600)  # a T4 computes in float16
    assert planned(place, "align").hours is None


def test_a_later_stage_is_planned_from_the_earlier_ones_folder(place, tmp_path):
    build_stack(f"{place}/mt", f"{place}/llm").save_pretrained(tmp_path / "model")
    plan = planned(place, "finetune", f"start={tmp_path}")
    assert [count for _, _, count in plan.parts] == [count for _, _, count in planned(place, "finetune").parts]
    with pytest.raises(EnvironmentFault, match="known from its weights alone"):
        planned(place, "align", "llm.gguf_file=model.gguf")


def test_a_stage_fits_with_the_room_that_dudi_plan_wants(place):
    plan = planned(place, "align", gpu="T4")
    for memory, full in ((plan.memory, True), (round(plan.memory / 0.94), False)):
        device = dataclasses.replace(plan.gpu, memory=memory)
        assert ("Does not fit" in dataclasses.replace(plan, gpu=device).text()) == full


def test_the_words(place, capsys):
    recipe = str(place / "recipe.yaml")
    assert main(["plan", recipe, "--stage", "align", "--gpu", "H100"]) == 0
    shown = capsys.readouterr().out
    for text in ("align on 1 x H100", "encoder", "teacher: the LLM on its own tokens", "100 steps"):
        assert text in shown
    assert max(map(len, shown.splitlines())) <= 80
    long = dataclasses.replace(plan_stage(load_stack_config(recipe, "align")), parts=(("LLM", "a/folder/" * 9, 7),))
    assert "...der/a/folder/" in long.text()  # a name that is cut says so
    assert main(["plan", "stack/mini/align"]) == 2
    assert "dudi plan --stage" in capsys.readouterr().err
    (place / "rows.jsonl").write_text('{"text": "a", "language": "eng_Latn"}\n' * 3, encoding="utf-8")
    assert main(["stack", "align", recipe, "--dry-run"]) == 0
    assert "align on 1 x CPU, float32" in capsys.readouterr().out
