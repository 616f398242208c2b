"""Recipes: layers, types, origins, errors, and the shipped files."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dudi.config.layers import suggest_key
from dudi.config.recipe_files import find_recipe, list_recipes
from dudi.config.schema import REFUSED
from dudi.config.yaml_tree import parse_yaml
from dudi.distill.keys import METHOD_KEYS, method_default
from dudi.distill.recipe import DUDI, FAMILIES, SECTIONS, RunConfig, load_run_config, training_keys
from dudi.errors import ConfigError
from dudi.objective.methods import METHODS
from dudi.training.values import render

ROOT = Path(__file__).parents[2]
MINIMAL = "student: small\ndata: rows.jsonl\n"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Writes files into a folder that is the working directory; returns a loader of `recipe.yaml`."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *overrides: str, **files: str) -> RunConfig:
        for name, content in files.items():
            (tmp_path / f"{name}.yaml").write_text(content, encoding="utf-8")
        (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
        return load_run_config("recipe.yaml", overrides)

    return load


def refused(load, *words: str, match: str) -> str:
    with pytest.raises(ConfigError, match=match) as caught:
        load(*words)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert message.count("\n") <= 1
    return message


# --- values and layers


def test_a_minimal_recipe_has_defaults(recipe):
    config = recipe(MINIMAL)
    assert (config.student.model, config.data.train, config.teacher.model) == ("small", "rows.jsonl", None)
    assert config.training == {}
    assert config.settings["learning_rate"] == 2e-5
    assert config.settings["verbalizer"] == "cross_lingual"
    assert config.lora is None


def test_exponents_without_a_point_are_numbers_in_files_and_words(recipe):
    config = recipe(MINIMAL + "learning_rate: 2e-5\nweight_decay: 1E-2\n", "max_grad_norm=1e+1")
    assert config.training == {"learning_rate": 2e-5, "weight_decay": 0.01, "max_grad_norm": 10.0}


def test_lambda_becomes_lmbda(recipe):
    for key in ("lambda", "lmbda"):
        assert recipe(MINIMAL + f"{key}: 0.25\n").training == {"lmbda": 0.25}
        assert recipe(MINIMAL, f"{key}=0.75").training == {"lmbda": 0.75}
    refused(recipe, MINIMAL + "lambda: 0.1\nlmbda: 0.2\n", match=r"recipe.yaml:4: 'lambda' is given twice .*:3")


def test_words_are_booleans_or_text_as_the_key_wants(recipe):
    config = recipe(MINIMAL + "share_rollouts: yes\neval_strategy: no\nlanguages: [no, id]\n", "eval_on_start=off")
    assert config.training == {
        "share_rollouts": True,
        "eval_strategy": "no",
        "languages": ["no", "id"],
        "eval_on_start": False,
    }
    free = recipe(MINIMAL + "chat_template_kwargs: {enable_thinking: no, date: 26 Jul 2024, quoted: 'no'}\n")
    assert free.training["chat_template_kwargs"] == {"enable_thinking": False, "date": "26 Jul 2024", "quoted": "no"}


def test_whole_floats_fit_whole_numbers(recipe):
    assert recipe(MINIMAL, "max_steps=1e3").training["max_steps"] == 1000
    assert isinstance(recipe(MINIMAL, "num_train_epochs=2").training["num_train_epochs"], float)


def test_null_is_a_value_where_a_key_may_be_empty(recipe):
    config = recipe(MINIMAL + "alpha: null\nteacher: null\n", "data.eval=null", "student.revision=")
    assert config.settings["alpha"] == 0.1
    assert config.origin("alpha") == "method"
    refused(recipe, MINIMAL + "max_steps: null\n", match=r"recipe.yaml:3: max_steps: expected a whole number, got null")


def test_a_mapping_adds_and_text_replaces(recipe):
    base = "student: {model: big, revision: abc, keep_layers: 4}\ndata: rows.jsonl\n"
    added = recipe("extends: base.yaml\nstudent: {keep_layers: [0, 3]}\n", base=base)
    assert (added.student.model, added.student.revision, added.student.keep_layers) == ("big", "abc", [0, 3])
    replaced = recipe("extends: base.yaml\nstudent: small\n", base=base)
    assert (replaced.student.model, replaced.student.revision, replaced.student.keep_layers) == ("small", None, None)


def test_lora_can_be_switched_on_and_off(recipe):
    assert recipe(MINIMAL + "lora: {}\n").lora.r == 16
    assert recipe(MINIMAL, "lora.r=4").lora.r == 4
    assert recipe(MINIMAL + "lora: {r: 8}\n", "lora=null").lora is None
    again = recipe("extends: base.yaml\nlora: {alpha: 3}\n", base=MINIMAL + "lora: null\n").lora
    assert (again.r, again.alpha) == (16, 3)


def test_extends_goes_up_a_chain_and_the_nearer_file_wins(recipe):
    config = recipe(
        "extends: middle.yaml\nmax_steps: 3\n",
        middle="extends: bottom.yaml\nmax_steps: 2\nseed: 2\n",
        bottom=MINIMAL + "max_steps: 1\nseed: 1\nkd_temperature: 0.5\n",
    )
    assert config.training == {"max_steps": 3, "seed": 2, "kd_temperature": 0.5}
    assert config.place("max_steps") == "recipe.yaml:2"
    assert config.place("seed") == "middle.yaml:3"
    assert config.place("kd_temperature") == "bottom.yaml:5"


def test_extends_takes_a_shipped_recipe_by_name(recipe):
    assert recipe("extends: table2/gkd\nstudent: mine\n").method == "gkd"


def test_the_last_word_wins(recipe):
    config = recipe(MINIMAL + "seed: 1\n", "seed=2", "seed=3", "student.keep_layers=[0, 1]", "student={revision: x}")
    assert config.training["seed"] == 3
    assert (config.student.keep_layers, config.student.revision) == ([0, 1], "x")


# --- origins


def test_origins(recipe):
    config = recipe(MINIMAL + "kd_temperature: 0.5\nlora: {r: 4}\n", "max_steps=3", "lambda=0.1")
    assert config.origin("kd_temperature") == "recipe"
    assert config.place("kd_temperature") == "recipe.yaml:3"
    assert config.origin("student.model") == "recipe"
    assert config.origin("lora.r") == "recipe"
    assert config.origin("lora.alpha") == "default"
    assert config.origin("max_steps") == config.origin("lambda") == config.origin("lmbda") == "command line"
    assert config.origin("alpha") == "method"
    assert config.origin("seed") == "default"
    assert config.place("seed") is None
    with pytest.raises(ConfigError, match="did you mean 'max_steps'"):
        config.origin("max_step")


@pytest.mark.parametrize("method", METHODS)
def test_another_method_brings_its_own_defaults_and_given_keys_win(recipe, method):
    config = recipe(MINIMAL + "method: dudi\nalpha: 0.7\n", f"method={method}")
    reads = "sequence" in METHODS[method].signals
    for key in METHOD_KEYS - ({"alpha"} if reads else set()):
        assert config.settings[key] == method_default(method, key)
        assert config.origin(key) == "method"
    assert config.settings["alpha"] == (0.7 if reads else method_default(method, "alpha"))
    assert config.dropped == ({} if reads else {"alpha": 0.7})
    config.dudi_config("out")


def test_spin_shows_the_epochs_that_it_will_run(recipe):
    config = recipe(MINIMAL + "method: spin\nnum_train_epochs: 3\n", "spin_iterations=2")
    assert config.settings["num_train_epochs"] == 2.0
    assert config.origin("num_train_epochs") == "method"
    assert config.dudi_config("out").num_train_epochs == 2.0


def test_resolved_yaml_is_complete_commented_and_loads_equal(recipe, tmp_path):
    config = recipe(
        MINIMAL + "chat_template_kwargs: {enable_thinking: false, note: 'yes: #1'}\nlearning_rate: 1e-5\n",
        "lambda=0.3",
        "lora.r=4",
        "teacher.quantization={load_in_4bit: true}",
    )
    text = config.resolved_yaml()
    (tmp_path / "resolved.yaml").write_text(text, encoding="utf-8")
    again = load_run_config(tmp_path / "resolved.yaml")
    assert again == config and again.digest() == config.digest()
    assert again != recipe(MINIMAL)
    plain = yaml.safe_load(text)  # any YAML 1.1 reader finds the same values
    assert plain["learning_rate"] == 1e-5
    assert plain["chat_template_kwargs"] == {"enable_thinking": False, "note": "yes: #1"}
    assert set(plain) == {*SECTIONS, *FAMILIES, "dtype", *training_keys()}
    for line in text.splitlines():
        if line and not line.startswith("#") and line.rstrip(":") not in SECTIONS:
            assert line.rsplit("  # ", 1)[1].split(" ")[0] in {"default", "method", "recipe", "command"}
    assert "lambda: 0.3  # command line" in text
    assert "learning_rate: 1.0e-05  # recipe recipe.yaml:4" in text
    assert "alpha: 0.1  # method" in text


def test_dudi_config_knows_what_was_given(recipe, tmp_path):
    args = recipe(MINIMAL + "method: gkd\nlambda: 0.25\n").dudi_config(tmp_path / "run", logging_steps=1)
    assert (args.lmbda, args.divergence, args.mixing, args.logging_steps) == (0.25, "jsd", "sample", 1)
    assert args.output_dir == str(tmp_path / "run")


def test_dudi_config_places_its_errors(recipe):
    config = recipe(MINIMAL + "languages: []\n")
    with pytest.raises(ConfigError, match=r"^recipe.yaml:3: languages: name at least one"):
        config.dudi_config("out")
    with pytest.raises(ConfigError, match=r"contradict each other: .*eval"):
        best = "load_best_model_at_end: true\neval_strategy: steps\neval_steps: 3\nsave_steps: 2\n"
        recipe(MINIMAL + best, "data.eval=held.jsonl").dudi_config("o")


# --- errors


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rat: 1", "recipe.yaml:3: unknown key 'learning_rat' (did you mean 'learning_rate'?)"),
        ("lr: 1", "recipe.yaml:3: unknown key 'lr' (did you mean 'learning_rate'?)"),
        ("gguf_file: x", "recipe.yaml:3: unknown key 'gguf_file' (did you mean 'student.gguf_file'?)"),
        ("teacher:\n  devise: cpu", "recipe.yaml:4: unknown key 'teacher.devise' (did you mean 'teacher.device'?)"),
        ("teacher: {max_steps: 1}", "recipe.yaml:3: unknown key 'teacher.max_steps' (did you mean 'max_steps'?)"),
        ("teacher.qantization: {}", "unknown key 'teacher.qantization' (did you mean 'teacher.quantization'?)"),
        ("max_steps: few", "recipe.yaml:3: max_steps: expected a whole number, got few (text)"),
        ("max_steps: 2.5", "recipe.yaml:3: max_steps: expected a whole number, got 2.5 (a number)"),
        ("max_steps: true", "recipe.yaml:3: max_steps: expected a whole number, got true (true or false)"),
        ("learning_rate: '1e-5'", 'expected a number, got "1e-5" (text)'),
        ("languages: id", "languages: expected a list of text, got id (text); write languages: [id]"),
        ("languages: [1]", "languages: expected a list of text, got [1] (a list)"),
        ("share_rollouts: 1", "share_rollouts: expected true or false, got 1 (a whole number)"),
        ("chat_template_kwargs: 3", "chat_template_kwargs: expected a mapping, got 3 (a whole number)"),
        ("teacher_weight: {my: no}", "teacher_weight: expected a number or a mapping to numbers or one of auto"),
        (
            "teacher_weight.my: 0",
            "unknown key 'teacher_weight.my'; teacher_weight is one value: teacher_weight={my: ...}",
        ),
        ("dtype: half", "recipe.yaml:3: dtype: 'half' is not one of auto, float32, bfloat16, float16"),
        ("student: {dtype: int8}", "student.dtype: 'int8' is not one of auto"),
        ("student: [a]", "recipe.yaml:3: student: expected a mapping, or text for student.model"),
        ("lora: 3", "recipe.yaml:3: lora: expected a mapping or null"),
        ("lora: {r: 0}", "recipe.yaml:3: lora.r: should be greater than or equal to 1, got 0"),
        ("data.max_rejected_share: 2", "data.max_rejected_share: should be less than or equal to 1, got 2.0"),
        ("kd_temperature: 0", "recipe.yaml:3: kd_temperature: must be above 0, got 0.0"),
        ("lambda: 2", "recipe.yaml:3: lambda: must be at most 1, got 2.0"),
        ("optim: adamw", "recipe.yaml:3: optim: 'adamw' is not one of adamw_torch, "),
        ("without: [sequenc]", "recipe.yaml:3: without: 'sequenc' is not one of"),
        ("seed: 99999999999", "recipe.yaml:3: seed: must be below 4294967296"),
        ("method: gdk", "recipe.yaml:3: method: 'gdk' is not one of sft, dft"),
        ("verbalizer: crosslingual", "(did you mean 'cross_lingual'?)"),
        (
            "cold_start: teacher_sf",
            "neither one of none, sft, dft, teacher_sft nor a folder (did you mean 'teacher_sft'?)",
        ),
        ("seed: 1\nseed: 2", "recipe.yaml:4: 'seed' is given twice (before on line 3)"),
        ("seed: !!python/object/apply:os.system [ls]", "recipe.yaml:3: the tag '!!python/object/apply:os.system'"),
        ("seed: !!timestamp 2001-01-01", "recipe.yaml:3: the tag '!!timestamp' is refused"),
        ("1: x", "recipe.yaml:3: a key must be text"),
        ("? [a]\n: x", "recipe.yaml:3: a key must be text"),
        ("seed: [1", "recipe.yaml:4: not valid YAML"),
        ("seed: 1\n---\nseed: 2", "not valid YAML: but found another document"),
        ("run_name: a\x07b", "recipe.yaml:3: a character that YAML does not allow (U+0007)"),
        ("hub_token: hf_x", "hub_token: not a key of a recipe: a recipe is no place for a secret"),
        ("extends: 3", "recipe.yaml:3: extends: expected the path of one file"),
        ("extends: gone.yaml", "recipe.yaml:3: extends: gone.yaml: no such file"),
        ("extends: recipe.yaml", "recipe.yaml:3: extends: recipe.yaml is already part of the chain: a circle"),
    ],
)
def test_errors_say_what_and_where(recipe, line, message):
    text = MINIMAL.replace("student: small\n", "\n") if line.startswith("student") else MINIMAL
    with pytest.raises(ConfigError) as caught:
        recipe(text + line + "\n")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("max_steps", "command line: 'max_steps' is not of the form key=value"),
        ("=3", "is not of the form key=value"),
        ("max_step=3", "command line: unknown key 'max_step' (did you mean 'max_steps'?)"),
        ("student.modle=x", "command line: unknown key 'student.modle' (did you mean 'student.model'?)"),
        ("max_steps=few", "command line: max_steps: expected a whole number, got few (text)"),
        ("without=[on", "not valid YAML"),
        ("output_dir=x", "output_dir: not a key of a recipe: the run's folder is given with --output DIR"),
        ("extends=x.yaml", "extends belongs inside a recipe file"),
    ],
)
def test_errors_of_words(recipe, word, message):
    with pytest.raises(ConfigError) as caught:
        recipe(MINIMAL, word)
    assert message in str(caught.value)


def test_an_error_in_a_base_names_the_base(recipe):
    with pytest.raises(ConfigError, match=r"^base.yaml:3: seed: expected a whole number"):
        recipe("extends: base.yaml\n", base=MINIMAL + "seed: x\n")


def test_circles_over_several_files(recipe):
    with pytest.raises(ConfigError, match=r"other.yaml:1: extends: recipe.yaml is already part of the chain"):
        recipe("extends: other.yaml\n", other="extends: recipe.yaml\n")


def test_what_must_be_there(recipe):
    refused(recipe, "data: x\n", match="student.model is missing: name the model to train")
    refused(recipe, "student: x\n", match="data.train is missing: name the rows to train on")
    refused(recipe, "", match="student.model is missing")
    refused(recipe, "student: null\ndata: x\n", match="student.model is missing")
    refused(recipe, "- a\n", match="a recipe is a mapping")


def test_hostile_files(recipe, tmp_path):
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
    )
    refused(recipe, laughs, match="too many or too deeply nested")
    refused(recipe, "a: &a [*a]\n", match="too many or too deeply nested|not valid YAML")
    refused(recipe, "a: " + "[" * 5000, match="nested too deeply|not valid YAML")
    refused(recipe, "a: " + "x" * 300_000, match="too many for a recipe")
    (tmp_path / "latin.yaml").write_bytes(b"student: a\ndata: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin.yaml:2: not UTF-8"):
        load_run_config("latin.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfstudent: a\ndata: b\n")
    assert load_run_config("bom.yaml").student.model == "a"


def test_missing_recipes_are_named(recipe, tmp_path):
    with pytest.raises(ConfigError, match=r"smollm3: no such recipe \(did you mean 'smollm2'\?\)"):
        load_run_config("smollm3")
    with pytest.raises(ConfigError, match="is a folder"):
        load_run_config(tmp_path)
    with pytest.raises(ConfigError, match="no such recipe"):
        load_run_config(tmp_path / "gone.yaml")


def test_suggestions_prefer_the_same_section():
    assert suggest_key("revison", "teacher", DUDI) == "teacher.revision"
    assert suggest_key("revison", "student", DUDI) == "student.revision"
    assert suggest_key("trian", "data", DUDI) == "data.train"
    assert suggest_key("qqqqqqqqqqqqqq", "", DUDI) is None
    assert len(DUDI.known_keys()) == len(set(DUDI.known_keys()))


# --- YAML in and out


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_rendered_values_read_back_by_us_and_by_yaml_1_1(value):
    text = f"key: {render(value)}  # a comment\n"
    assert parse_yaml(text, "x").plain() == {"key": value}
    assert yaml.safe_load(text) == {"key": value}


@pytest.mark.parametrize(
    "text", ["no", "Yes", "1e-5", "2024-01-01", "1:30", "0x1f", "null", "~", "y", "010", ".5", "<<", "="]
)
def test_text_that_looks_like_something_else_stays_text(text):
    assert parse_yaml(f"key: {render(text)}", "x").plain() == {"key": text}
    assert yaml.safe_load(f"key: {render(text)}") == {"key": text}


def test_numbers_follow_yaml_1_2():
    tree = parse_yaml("{a: 010, b: 0x1F, c: 0o17, d: 1_000, e: 1:30, f: -.inf, g: .nan, h: 1., i: +3}", "x").plain()
    assert math.isnan(tree.pop("g"))
    assert tree == {"a": 10, "b": 31, "c": 15, "d": 1000, "e": "1:30", "f": -math.inf, "h": 1.0, "i": 3}


# --- the shipped recipes

TABLE2 = {f"table2/{method}": {"method": method} for method in METHODS if method != "gated"}
TABLE3 = {
    f"table3/{pair}/{method}": {"method": method}
    for pair in ("qwen2.5-1.5b", "qwen3-0.6b", "llama3.2-1b")
    for method in ("sft", "dft", "spin", "gkd", "dudi")
}
ABLATIONS = {
    "table4/without-sequence": {"without": ["sequence"]},
    "table4/without-off-policy": {"without": ["off_policy"]},
    "table4/without-on-policy": {"without": ["on_policy"]},
    "table4/without-verbalizer": {"verbalizer": "none"},
    "table4/without-english": {"exclude_targets": ["en"]},
    "table5/verbalizer-none": {"verbalizer": "none"},
    "table5/verbalizer-english": {"verbalizer": "english"},
    "table5/verbalizer-multilingual": {"verbalizer": "multilingual"},
    "table5/verbalizer-mix": {"verbalizer": "mix"},
    "table5/forward-kl": {"divergence": "forward_kl"},
    "table5/jsd": {"divergence": "jsd"},
    "table6/teacher-written": {"cold_start": "teacher_sft"},
    "table6/none": {"cold_start": "none"},
    "table7/dft-spin": {"method": "spin", "cold_start": "dft"},
    "table7/dft-gkd": {"method": "gkd", "cold_start": "dft"},
    "table7/dft-dudi": {"cold_start": "dft"},
    "table9/sdft-without-cold-start": {"method": "sdft", "cold_start": "none"},
    "table9/seqkd-without-cold-start": {"method": "seqkd", "cold_start": "none"},
    "table9/gkd-without-cold-start": {"method": "gkd", "cold_start": "none"},
    "table9/dudi-without-cold-start": {"cold_start": "none"},
    "extra/sdft-authors": {"method": "sdft", "temperature": 1.0, "max_new_tokens": 1024, "loss_average": "sequence"},
    "extra/spin-original": {
        "method": "spin",
        "spin_learning_rates": [5e-7, 5e-7, 1e-7],
        "optim": "rmsprop",
        "cold_start_optim": "adamw_torch",
        "warmup_steps": 0.1,
        "temperature": 1.0,
    },
    "extra/gated": {"method": "gated"},
    "extra/seqkd-kim-rush": {"method": "seqkd", "off_policy_loss": "cross_entropy"},
}
MINI = [f"mini/{method}" for method in METHODS]
REAL = [f"real/{file.stem}" for file in sorted((ROOT / "recipes" / "real").glob("*.yaml"))]
PAIRS = {
    "qwen2.5-0.5b": ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-3B-Instruct"),
    "qwen2.5-1.5b": ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-3B-Instruct"),
    "qwen3-0.6b": ("Qwen/Qwen3-0.6B-Base", "Qwen/Qwen3-4B"),
    "llama3.2-1b": ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-3B-Instruct"),
}


def test_the_list_of_recipes_is_the_papers_tables():
    assert set(list_recipes()) == {*TABLE2, *TABLE3, *ABLATIONS, *MINI, *REAL, "smollm2"}


@pytest.mark.parametrize(("name", "difference"), [*TABLE2.items(), *TABLE3.items(), *ABLATIONS.items()])
def test_a_row_differs_from_its_pair_in_the_keys_it_says(name, difference, tmp_path):
    pair = name.split("/")[1] if name.startswith("table3/") else "qwen2.5-0.5b"
    config, base = load_run_config(name), load_run_config(ROOT / "recipes" / "base" / f"{pair}.yaml")
    expected = {"method": "dudi"} | difference
    assert {key: value for key, value in config.training.items() if base.training.get(key) != value} == expected | {
        key: value for key, value in expected.items() if key not in base.training
    }
    assert (
        base.training.items()
        <= (config.training | {key: base.training[key] for key in difference if key in base.training}).items()
    )
    assert (config.student.model, config.teacher.model) == PAIRS[pair]
    assert (config.student, config.teacher, config.data, config.lora) == (base.student, base.teacher, base.data, None)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_bases_hold_the_papers_setting(pair):
    settings = load_run_config(ROOT / "recipes" / "base" / f"{pair}.yaml").settings
    assert settings["learning_rate"] == 2e-5
    assert settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] == 32
    assert (settings["num_train_epochs"], settings["max_length"], settings["max_new_tokens"]) == (3, 1024, 256)
    assert (settings["temperature"], settings["kd_temperature"]) == (0.9, 1.0)
    assert (settings["chat_template_kwargs"] == {"enable_thinking": False}) == (pair == "qwen3-0.6b")


@pytest.mark.parametrize("name", [*TABLE2, *TABLE3, *ABLATIONS, *MINI, "smollm2"])
def test_every_recipe_becomes_a_dudi_config_and_resolves_to_itself(name, tmp_path):
    config = load_run_config(name)
    assert config.dudi_config(tmp_path / "run").signals
    (tmp_path / "resolved.yaml").write_text(config.resolved_yaml(), encoding="utf-8")
    assert load_run_config(tmp_path / "resolved.yaml") == config


def test_recipe_names_work_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = ROOT / "recipes" / "table2" / "dudi.yaml"
    for name in ("table2/dudi", "table2/dudi.yaml", "recipes/table2/dudi.yaml"):
        assert find_recipe(name) == file


def test_each_row_says_which_row_it_is():
    for name in [*TABLE2, *TABLE3, *ABLATIONS]:
        comment = find_recipe(name).read_text(encoding="utf-8").splitlines()[0]
        table, number = name.split("/")[0][:-1], name.split("/")[0][-1]
        assert comment.startswith(f"# Table {number}" if table == "table" else "# S")


def test_the_recipes_readme_names_every_recipe():
    text = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    for name in [*TABLE2, *ABLATIONS, *MINI, "smollm2"]:
        short = name.split("/")[-1].removeprefix("verbalizer").removesuffix("without-cold-start")
        assert name in text or f"`{short}" in text, name


# --- the page and the imports


def test_config_reference_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import config_reference

    monkeypatch.setattr(sys, "argv", ["config_reference.py", "--check"])
    assert config_reference.main() == 0, "run python scripts/config_reference.py"
    monkeypatch.setattr(config_reference, "METHODS", {})
    assert config_reference.main() == 1


def test_importing_config_does_not_import_torch():
    code = "import sys, dudi.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_field_is_a_key_or_refused():
    import dataclasses

    from dudi.distill.arguments import DudiConfig

    names = {field.name for field in dataclasses.fields(DudiConfig) if field.init}
    assert names == {key.name for key in training_keys().values()} | set(REFUSED)
