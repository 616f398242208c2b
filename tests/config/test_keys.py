"""Keys: each declared once, honoured or refused; what a method does not read; what a machine or a shell gets wrong."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from accelerate.state import AcceleratorState
from transformers import HfArgumentParser, TrainingArguments

from dudi import DudiConfig
from dudi.distill.keys import PARTS, DudiKeys
from dudi.distill.recipe import load_run_config
from dudi.errors import ConfigError
from dudi.objective.methods import METHODS, MethodName
from dudi.program.cli import main
from dudi.stacking.arguments import StackArguments
from dudi.stacking.recipe import STACK
from dudi.training.arguments import binding_keys
from dudi.training.keys import INHERITED, Rule, RunKeys, declared_rule, key, rules_of
from dudi.training.values import choices, render
from helpers import ROWS, make_args, make_model, make_tokenizer

MINIMAL = "student: small\ndata: rows.jsonl\n"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(text, *words, **files):
        for name, content in files.items():
            Path(f"{name}.yaml").write_text(content, encoding="utf-8")
        Path("recipe.yaml").write_text(text, encoding="utf-8")
        return load_run_config("recipe.yaml", words)

    return load


def config(tmp_path, **keys):
    return DudiConfig(output_dir=str(tmp_path / "run"), **keys)


# --- every key is classified


def inherited_fields():
    return {field.name for field in dataclasses.fields(TrainingArguments) if field.init}


def test_every_field_of_training_arguments_is_honoured_or_refused():
    """A field that a new version of transformers brings has to be looked at: does it have an effect here?"""
    own = {field.name for field in dataclasses.fields(RunKeys) if declared_rule(field)}
    assert inherited_fields() - own == INHERITED.keys()


def test_a_field_that_nobody_has_classified_is_noticed(monkeypatch):
    grown = dataclasses.make_dataclass("Grown", [("new_field", int, 3)], bases=(TrainingArguments,))
    monkeypatch.setattr(sys.modules[__name__], "TrainingArguments", grown)
    with pytest.raises(AssertionError):
        test_every_field_of_training_arguments_is_honoured_or_refused()
    assert rules_of(grown)["new_field"].resume == "binding"


def test_an_own_key_says_its_stage_and_what_a_resume_makes_of_it():
    for given in ({}, {"stage": "any"}, {"resume": "free"}):
        with pytest.raises(TypeError):
            key(1, "A new key.", **given)
    for kind in (DudiConfig, StackArguments):
        added = set().union(*(c.__annotations__ for c in kind.__mro__ if c.__module__.startswith("dudi.")))
        for field in dataclasses.fields(kind):
            if field.init and field.name in added and not (field.name in INHERITED and INHERITED[field.name].refused):
                assert isinstance(declared_rule(field), Rule), f"{field.name} is declared without key()"
                assert field.metadata["help"].endswith(".")


def test_keys_name_parts_that_there_are_and_every_part_is_read_by_somebody():
    named = {part for rule in rules_of(DudiKeys).values() for part in rule.read_by}
    assert named == PARTS.keys()


def test_the_names_of_methods_are_those_of_the_table():
    assert choices(MethodName) == tuple(METHODS)


def test_a_resumed_run_may_change_what_moves_no_weight_and_lengths(tmp_path):
    binding = binding_keys(make_args(tmp_path)).keys()
    assert {"learning_rate", "seed", "method", "alpha", "use_vllm", "bf16", "optim", "languages"} <= binding
    free = {"max_steps", "num_train_epochs", "save_steps", "eval_steps", "vllm_mode", "alarm_steps", "cache_dir"}
    assert not binding & {*free, "output_dir", "hub_token", "save_only_model", "logging_steps", "report_to"}


# --- refused, since it would have no effect

OTHER = {float: 0.2, str: "other", list: ["other"], type(None): "inductor"}
OF_ITS_TYPE = {"eval_accumulation_steps": 2, "label_names": ["labels"]}


@pytest.mark.parametrize("name", [name for name, rule in rules_of(DudiConfig).items() if rule.refused])
def test_what_would_have_no_effect_is_refused_in_python_and_in_a_recipe(name, tmp_path, recipe):
    field = next(field for field in dataclasses.fields(DudiConfig) if field.name == name)
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    value = not default if isinstance(default, bool) else OF_ITS_TYPE.get(name, OTHER[type(default)])
    for kind in (DudiConfig, StackArguments):
        kind(output_dir=str(tmp_path), use_cpu=True, **{name: default})
        with pytest.raises(ConfigError, match=f"^{name}: .* is refused: "):
            kind(output_dir=str(tmp_path), use_cpu=True, **{name: value})
    with pytest.raises(ConfigError, match=rf"^recipe.yaml:3: {name}: .* is refused: "):
        recipe(MINIMAL + f"{name}: {render(value)}\n")
    assert STACK.training()[name].rule.refused
    recipe(MINIMAL + f"{name}: {render(default)}\n").dudi_config("out")  # it says what holds anyway


def test_noise_on_embeddings_has_its_effect(tmp_path):
    """One that is honoured by transformers' hooks, beneath our own forward."""

    def weights(**keys):
        from dudi import DudiTrainer

        args = make_args(tmp_path / str(len(keys)), "sft", max_steps=1, **keys)
        trainer = DudiTrainer(make_model(), None, args, ROWS[:8], processing_class=make_tokenizer())
        trainer.train()
        return torch.cat([p.detach().flatten() for p in trainer.inner_model().parameters()])

    assert not torch.equal(weights(), weights(neftune_noise_alpha=5.0))


# --- what the method does not read

UNREAD = [
    ("sft", "alpha", 0.7, "the sequence signal"),
    ("sft", "max_new_tokens", 8, "the student's rollouts or answers that the teacher writes"),
    ("sft", "verbalizer", "english", "the on-policy signal"),
    ("dft", "spin_iterations", 5, "a method in iterations"),
    ("dft", "divergence", "jsd", "a divergence from a teacher"),
    ("dft", "cold_start_epochs", 2, "a cold start"),
    ("spin", "lambda", 0.3, "a token signal"),
    ("spin", "num_train_epochs", 7, "spin_iterations"),
    ("spin", "exclude_targets", ["en"], "the on-policy signal"),
    ("sdft", "mixing", "sample", "both token signals"),
    ("sdft", "spin_beta", 0.3, "the sequence signal"),
    ("seqkd", "teacher_max_length", 100, "the on-policy signal"),
    ("seqkd", "use_vllm", True, "the student's rollouts"),
    ("gkd", "share_rollouts", True, "both kinds of rollout"),
    ("gkd", "ema_rate", 0.5, "a teacher that is the student's average"),
    ("dudi", "beta", 0.3, "a divergence that is jsd"),
    ("sft", "off_policy_divergence", "jsd", "a divergence on the targets"),
    ("sdft", "teacher_weight", 0.5, "a second model as teacher"),
]


@pytest.mark.parametrize(("method", "name", "value", "belongs"), UNREAD)
def test_a_key_that_the_method_does_not_read_is_an_error(method, name, value, belongs, tmp_path, recipe):
    message = f"{name}: method {method} does not read it: it belongs to "
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, method=method, **{"lmbda" if name == "lambda" else name: value})
    assert str(caught.value).startswith(message) and belongs in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        recipe(MINIMAL + f"method: {method}\n{name}: {render(value)}\n")
    assert str(caught.value).startswith(f"recipe.yaml:4: {message}") and belongs in str(caught.value)
    with pytest.raises(ConfigError, match=f"^command line: {name}: method {method}"):
        recipe(MINIMAL + "method: dudi\n", f"method={method}", f"{name}={render(value)}")
    with pytest.raises(ConfigError, match=f"^command line: {name}: method {method}"):
        recipe(MINIMAL + f"method: {method}\n", f"{name}={render(value)}")


@pytest.mark.parametrize(("method", "name", "value", "belongs"), UNREAD)
def test_what_a_base_gave_to_another_method_is_left_behind(method, name, value, belongs, recipe, tmp_path):
    base = MINIMAL + "teacher: large\nmethod: dudi\n" + f"{name}: {render(value)}\n"
    base = base.replace("method: dudi", "method: sdft") if name == "ema_rate" else base
    base = base.replace("method: dudi", "method: spin") if name == "spin_iterations" else base
    base = base.replace("method: dudi", "method: dudi\ndivergence: jsd") if name == "beta" else base
    base = base + "verbalizer: none\n" if name == "share_rollouts" else base
    load_run_config(tmp_path / "base.yaml") if (tmp_path / "base.yaml").exists() else None
    words = [f"method={method}", *(["divergence=reverse_kl"] if name == "beta" else [])]
    for found in (recipe(base, *words), recipe(f"extends: base.yaml\nmethod: {method}\n", *words, base=base)):
        args = found.dudi_config("out")
        python = "lmbda" if name == "lambda" else name
        assert python not in found.training
        assert getattr(args, python) != value
        assert found.origin(name) in ("default", "method")
        (tmp_path / "resolved.yaml").write_text(found.resolved_yaml(), encoding="utf-8")
        assert load_run_config(tmp_path / "resolved.yaml") == found


def test_a_value_that_holds_anyway_says_nothing_and_is_no_error(tmp_path, recipe):
    config(tmp_path, method="sft", alpha=0.0, max_new_tokens=256, verbalizer="none", exclude_targets=[])
    recipe(MINIMAL + "method: sft\nalpha: 0\nspin_iterations: 3\n").dudi_config("out")


@pytest.mark.parametrize("method", METHODS)
def test_a_config_can_be_made_anew_from_its_own_values(method, tmp_path):
    first = config(tmp_path, method=method, use_cpu=True)
    kept = {name: value for name, value in first.to_dict().items() if name != "hub_token"}
    assert DudiConfig(**kept) == first == dataclasses.replace(first)


@pytest.mark.parametrize("kind", [DudiConfig, StackArguments])
def test_scripts_read_every_key_from_the_command_line(kind, tmp_path):
    """As TRL's scripts begin: `TrlParser` is an `HfArgumentParser`."""
    parser = HfArgumentParser(kind)
    (parsed,) = parser.parse_args_into_dataclasses(["--output_dir", str(tmp_path), "--use_cpu"])
    assert parsed == kind(output_dir=str(tmp_path), use_cpu=True) and "--max_length" in parser.format_help()


@pytest.mark.parametrize(
    ("text", "value"), [("auto", "auto"), ("0.5", 0.5), ("1", 1.0), ('{"th": 0.2}', {"th": 0.2}), (None, 1.0)]
)
def test_a_key_of_several_types_is_read_from_text(text, value, tmp_path):
    words = ["--output_dir", str(tmp_path), "--use_cpu", "--method", "gkd", "--languages", "id", "th"]
    words += ["--without", "on_policy", *([] if text is None else ["--teacher_weight", text])]
    (parsed,) = HfArgumentParser(DudiConfig).parse_args_into_dataclasses(words)
    assert (parsed.teacher_weight, type(parsed.teacher_weight)) == (value, type(value))
    assert (parsed.languages, parsed.without) == (["id", "th"], ["on_policy"])


def test_text_that_is_no_value_of_a_key_of_several_types_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="teacher_weight: 'atuo' is not one of auto"):
        config(tmp_path, method="gkd", teacher_weight="atuo")


def test_what_decides_is_the_run_as_it_is_put_together(tmp_path):
    config(tmp_path, method="sft", cold_start="teacher_sft", temperature=0.5, max_new_tokens=8)
    config(tmp_path, method="sft", cold_start="sft", cold_start_epochs=2)
    config(tmp_path, method="gkd", beta=0.3)
    config(
        tmp_path, method="dudi", without=["sequence"], alpha=0.3, spin_beta=0.2
    )  # a signal that is left out is there
    config(tmp_path, method="gkd", lmbda=0.0, temperature=0.5)


def test_the_epochs_of_a_base_are_those_of_spins_cold_start(recipe, tmp_path):
    base = MINIMAL + "num_train_epochs: 5\n"
    found = recipe(base + "method: dudi\n", "method=spin")
    assert found.settings["num_train_epochs"] == 3.0
    assert (found.settings["cold_start_epochs"], found.place("cold_start_epochs")) == (5.0, "recipe.yaml:3")
    assert found.dudi_config("out").for_cold_start("stage").num_train_epochs == 5.0
    (tmp_path / "again.yaml").write_text(found.resolved_yaml(), encoding="utf-8")
    assert load_run_config("again.yaml").dudi_config("out").for_cold_start("stage").num_train_epochs == 5.0
    assert "cold_start_epochs" not in recipe(base + "method: dudi\n", "method=spin", "cold_start=none").training


# --- what the rows' source does not read


@pytest.mark.parametrize(("name", "value"), [("rows_per_language", 5), ("tasks", ["currency"])])
def test_a_key_of_built_in_sources_is_an_error_beside_other_rows(name, value, recipe):
    word, line = f"data.{name}={render(value)}", f"  {name}: {render(value)}\n"
    said = rf"data.{name}: rows.jsonl does not read it: it belongs to the built-in source .*cldr-qa-1; take it out$"
    with pytest.raises(ConfigError, match=f"^command line: {said}"):
        recipe(MINIMAL, word)
    with pytest.raises(ConfigError, match=f"^recipe.yaml:4: {said}"):
        recipe(f"student: small\ndata:\n  train: rows.jsonl\n{line}")
    with pytest.raises(ConfigError, match=f"^recipe.yaml:3: {said}"):
        recipe(f"extends: base.yaml\ndata:\n{line}", base=MINIMAL)
    with pytest.raises(ConfigError, match=f"^command line: {said}"):
        recipe("student: small\ndata: cldr-qa-1\n", word, "data.train=rows.jsonl")


@pytest.mark.parametrize(("name", "value"), [("rows_per_language", 5), ("tasks", ["currency"])])
def test_what_a_base_gave_to_a_built_in_source_is_left_behind(name, value, recipe):
    base = f"student: small\ndata:\n  train: cldr-qa-1\n  {name}: {render(value)}\n"
    above = "extends: base.yaml\ndata:\n  train: rows.jsonl\n"
    for found in (recipe(base, "data.train=rows.jsonl"), recipe(above, base=base)):
        assert getattr(found.data, name) is None
        assert found.origin(f"data.{name}") == "default"
        Path("again.yaml").write_text(found.resolved_yaml(), encoding="utf-8")
        assert load_run_config("again.yaml") == found
    Path("resolved.yaml").write_text(base.replace("cldr-qa-1", "rows.jsonl"), encoding="utf-8")
    assert getattr(load_run_config("resolved.yaml").data, name) is None  # of a run that was made when both could stand


def test_what_a_built_in_source_reads_may_stand(recipe):
    assert recipe(MINIMAL, "data.train=cldr", "data.rows_per_language=5").data.rows_per_language == 5
    held_out = recipe(MINIMAL, "data.eval=cldr-qa-1", "data.tasks=[currency]", "eval_strategy=epoch")
    assert held_out.data.tasks == ["currency"]
    with pytest.raises(ConfigError, match=r"^command line: data.tasks: cldr does not read it: .* cldr-qa-1; take it"):
        recipe(MINIMAL, "data.train=cldr", "data.tasks=[currency]")


def test_a_method_without_a_teacher_diverges_from_nobody(tmp_path):
    with pytest.raises(ConfigError, match=r"^off_policy_loss: method sft has no teacher"):
        config(tmp_path, method="sft", off_policy_loss="divergence")


# --- key=value


@pytest.mark.parametrize("name", ["my rows #2.jsonl", "123", "[v1] rows.jsonl", "a: b.jsonl", "2024-01-01", "no", "&x"])
@pytest.mark.parametrize("key_", ["data", "data.train"])
def test_text_on_the_command_line_is_text_as_it_stands(name, key_, recipe):
    assert recipe("student: small\n", f"{key_}={name}").data.train == name


def test_text_may_still_be_quoted_or_null(recipe):
    assert recipe(MINIMAL, 'run_name="a #b"').training["run_name"] == "a #b"
    assert recipe(MINIMAL, "run_name='it''s'").training["run_name"] == "it's"
    assert recipe(MINIMAL + "run_name: x\n", "run_name=null").training["run_name"] is None
    assert recipe(MINIMAL, "student={model: m, revision: r}").student.revision == "r"
    assert recipe(MINIMAL, "data.language_column=#lang").data.language_column == "#lang"


@pytest.mark.parametrize("word", ["seed=3 # the third", "languages=[id] #x", "lora={r: 4} # small", "lora.r=4 # small"])
def test_a_comment_on_the_command_line_is_refused(word, recipe):
    with pytest.raises(ConfigError, match=f"^command line: {word.split('=')[0]}: '#' begins a comment"):
        recipe(MINIMAL, word)


# --- a leading ~


def test_a_home_is_expanded_once_in_every_key_of_a_path(recipe, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/someone")
    text = "student: {model: ~/s, chat_template: ~/t.jinja}\nteacher: ~/t\ndata: {train: ~/r.jsonl, eval: ~/e.jsonl}\n"
    found = recipe(text + "cold_start: ~/c\ncache_dir: ~/cache\neval_strategy: epoch\n")
    paths = [found.student.model, found.student.chat_template, found.teacher.model, found.data.train, found.data.eval]
    assert paths == [f"/home/someone/{name}" for name in ("s", "t.jinja", "t", "r.jsonl", "e.jsonl")]
    args = found.dudi_config("~/run")
    assert (args.cold_start, args.cache_dir) == ("/home/someone/c", "/home/someone/cache")
    assert args.folder == Path("/home/someone/run")
    assert recipe(MINIMAL, "data.train=~/x", "student=~/y").data.train == "/home/someone/x"
    assert config(tmp_path, cache_dir="~/c", cold_start=Path("~/d")).cold_start == "/home/someone/d"
    assert recipe(MINIMAL, "data.train=~nobody9/r.jsonl").data.train == "~nobody9/r.jsonl"


def test_output_in_a_home_is_one_folder(recipe, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    small = ["max_steps=1", "benchmark=null", "languages=[id, my]", "data.tasks=[currency]", "use_cpu=true"]
    assert main(["train", "mini/sft", *small, "data.rows_per_language=66", "--output=~/run"]) == 0
    assert (tmp_path / "home/run/model").is_dir() and (tmp_path / "home/run/resolved.yaml").is_file()
    assert not (tmp_path / "~").exists() and not Path("~").exists()


def test_a_probe_reads_evaluation_rows_and_needs_no_evaluation(tmp_path):
    rows = tmp_path / "held.jsonl"
    rows.write_text(json.dumps({"language": "id", "prompt": "Apa?", "completion": "Ya."}) + "\n", encoding="utf-8")
    assert load_run_config("mini/gated", [f"data.eval={rows}"]).data.eval == str(rows)
    with pytest.raises(ConfigError, match=r"data\.eval: nothing is evaluated on it"):
        load_run_config("mini/gated", [f"data.eval={rows}", "teacher_weight=0.5"])


# --- found out before any model is loaded


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("eval_strategy=steps", "eval_strategy: there are no rows to evaluate on; set data.eval"),
        ("eval_on_start=true", "eval_on_start: there are no rows to evaluate on"),
        ("data.eval=held.jsonl", "data.eval: nothing is evaluated on it; set eval_strategy"),
        ("report_to=wandb", "report_to: wandb is not installed"),
        ("report_to=wand", "report_to: wand is not supported"),
        ("optim=adamw_8bit", "optim: You need to install `bitsandbytes`"),
        ("torch_compile=true", "torch_compile: True is refused: "),
        ("use_liger_kernel=true", "use_liger_kernel: needs the package liger-kernel"),
        ("lr_scheduler_type=cosine_with_min_lr", "lr_scheduler_type: One of min_lr or min_lr_rate should be set"),
        ("train_sampling_strategy=group_by_length", "train_sampling_strategy: 'group_by_length' is not one of random"),
        ("gradient_accumulation_steps=0", "gradient_accumulation_steps: must be at least 1"),
        ("per_device_train_batch_size=0", "per_device_train_batch_size: must be at least 1"),
        ("per_device_eval_batch_size=0", "per_device_eval_batch_size: must be at least 1"),
        ("seed=-1", "seed: must be at least 0"),
        ("learning_rate=-1", "learning_rate: must be at least 0"),
        ("max_steps=0", "max_steps: 0 steps train nothing"),
        ("adam_beta1=1", "adam_beta1: must be below 1"),
        ("deepspeed=ds.json", "deepspeed: there is no file ds.json"),
        ("fsdp_config=fsdp.json", "fsdp_config: there is no file fsdp.json"),
    ],
)
def test_what_cannot_run_is_said_at_the_start(word, said, recipe):
    missing = {"report_to=wandb": "wandb", "optim=adamw_8bit": "bitsandbytes", "use_liger_kernel=true": "liger_kernel"}
    if word in missing and transformers.utils.import_utils._is_package_available(missing[word])[0]:
        pytest.skip(f"{missing[word]} is installed here")
    with pytest.raises(ConfigError) as caught:
        recipe(MINIMAL, word).dudi_config("out")
    assert str(caught.value).startswith(f"command line: {said}")


def test_the_folder_that_one_stands_in_is_not_moved_aside(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    words = ["max_steps=1", "benchmark=null", "languages=[id, my]", "data.tasks=[currency]", "use_cpu=true"]
    assert main(["train", "mini/sft", *words, "--output", ".", "--resume", "never"]) == 2
    assert "cannot be moved aside" in capsys.readouterr().err
    assert tmp_path.is_dir()


# --- precision

PRECISION = """
import os
from dudi import DudiConfig
from dudi.distill.recipe import load_run_config
from dudi.environment import choose_precision
from dudi.training.arguments import binding_keys, training_dtype
from accelerate.state import AcceleratorState
for launched, dtype in [("bf16", "float32"), ("no", "float32"), ("no", "bfloat16")]:
    AcceleratorState._reset_state(True)
    os.environ["ACCELERATE_MIXED_PRECISION"] = launched
    config = load_run_config("mini/sft", [f"dtype={dtype}", "use_cpu=true"])
    args = config.dudi_config("out")
    print(binding_keys(args)["bf16"], training_dtype(args), args.mixed_precision, end="; ")
    print(training_dtype(DudiConfig(output_dir="out", use_cpu=True)), end="; ")
    print(choose_precision(config.dtype, use_cpu=True).reason)
"""


@pytest.mark.slow
def test_a_precision_that_the_launcher_asks_for_is_said_and_is_part_of_the_run(tmp_path):
    """In a process of its own: the launcher's words hold from its first accelerator on."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, "-c", PRECISION]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.stdout.splitlines() == [
        "True bfloat16 bf16; bfloat16; ACCELERATE_MIXED_PRECISION=bf16 wins over dtype: float32",
        "False float32 no; float32; asked for",
        "True bfloat16 bf16; float32; asked for",
    ], done.stderr


def test_a_precision_that_the_launcher_invents_is_refused(monkeypatch, recipe):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(ConfigError, match="ACCELERATE_MIXED_PRECISION: fp8 is not one of no, bf16, fp16"):
        recipe(MINIMAL).dudi_config("out")
    with pytest.raises(ConfigError, match="ACCELERATE_MIXED_PRECISION: fp8"):
        DudiConfig(output_dir="out", use_cpu=True)
    AcceleratorState._reset_state(True)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a machine without an accelerator")
def test_bfloat16_on_a_machine_without_a_gpu_needs_no_other_key(recipe, tmp_path):
    assert recipe(MINIMAL, "dtype=bfloat16").dudi_config("out").bf16
    assert config(tmp_path, bf16=True).use_cpu
    with pytest.raises(ConfigError, match="bf16: not a key of a recipe: write dtype: bfloat16"):
        recipe(MINIMAL, "bf16=true")


def test_a_cold_start_may_have_an_optimizer_of_its_own(tmp_path):
    """SPIN's authors train with rmsprop, and not what they start from."""
    own = load_run_config("extra/spin-original", []).dudi_config(tmp_path)
    stage = own.for_cold_start(str(tmp_path / "stage"))
    assert (own.optim, stage.optim, stage.cold_start_optim) == ("rmsprop", "adamw_torch", None)
    assert config(tmp_path, method="dudi", optim="sgd").for_cold_start("x").optim == "sgd"
    with pytest.raises(ConfigError, match=r"cold_start_optim: 'adamw_touch' is no optimizer .*'adamw_torch'"):
        config(tmp_path, method="dudi", cold_start_optim="adamw_touch")
