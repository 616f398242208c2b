"""`dudi eval`: what it writes, what it prints, what it refuses, and whom it can ask."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model

from dudi.command import Verb, dispatch, guarded
from dudi.data.cldr import LANGUAGES
from dudi.data.cldr.benchmark import questions
from dudi.distill.recipe import load_run_config
from dudi.errors import ConfigError
from dudi.evaluation.cldr_qa import fingerprint
from dudi.evaluation.records import read_evaluations
from dudi.evaluation.source import source_of
from dudi.program.eval import run
from dudi.program.eval_options import add_arguments
from helpers import CHATML, make_model, make_tokenizer

ROWS = [
    {"id": "a", "language": "th", "prompt": "สกุลเงินของไทยคืออะไร", "references": ["บาท", "บาทไทย"], "split": "easy"},
    {"id": "b", "language": "th", "prompt": "เมืองหลวงของไทยคือเมืองใด", "answer": "กรุงเทพ", "split": "hard"},
    {"id": "c", "language": "id", "question": "Mata uang Indonesia?", "answer": "Rupiah"},
]
SAMPLED = ("--temperature", "0.9", "--max-new-tokens", "4")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_model(seed=4).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file(tmp_path):
    return write_rows(tmp_path / "mine.jsonl", ROWS)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def dudi(*words):
    """The exit code of `dudi eval`."""
    verb = Verb("ask a model", add_arguments, run)
    return guarded(lambda: dispatch(["eval", *map(str, words)], "dudi", {"eval": verb}, ""), False)


def of_file(model, file, *words):
    return dudi(model, "--benchmark", file, "--device", "cpu", *words)


def read_evaluation(path):
    (one,) = read_evaluations(path)
    return one


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# What it writes


def test_a_file_over_two_seeds(model, file, tmp_path, capsys):
    assert of_file(model, file, "--seeds", 2, *SAMPLED, "--top-p", "0.9", "--name", "mine") == 0
    folder = tmp_path / "evals" / "mine"
    found, answers = read_evaluation(folder / "evaluation.json"), lines_of(folder / "answers.jsonl")
    assert (found.name, found.model, found.seeds) == ("mine", str(model), [0, 1])
    assert found.benchmark["name"] == "mine" and len(found.benchmark["fingerprint"]) == 64
    assert found.benchmark["decoding"] == {"temperature": 0.9, "max_new_tokens": 4, "top_p": 0.9}
    assert [(one["seed"], one["id"]) for one in answers] == [(seed, row["id"]) for seed in (0, 1) for row in ROWS]
    assert {one["subject"] for one in answers} == {"mine"}
    assert answers[0]["alternatives"] == ["บาทไทย"]
    for run_, seed in zip(found.runs, (0, 1), strict=True):
        own = [one for one in answers if one["seed"] == seed]
        assert run_.scores["overall"]["chrf"] == pytest.approx(sum(one["chrf"] for one in own) / 3)
        assert run_.scores["by_language_and_split"]["th"]["hard"]["questions"] == 1
    assert set(found.about["versions"]) >= {"dudi", "torch", "transformers"}
    out = capsys.readouterr().out
    assert max(map(len, out.split(str(folder.relative_to(tmp_path)))[0].splitlines())) <= 80
    assert "mine on mine: 3 questions, temperature 0.9, 2 seeds" in out and "±" in out and "evaluation.json" in out


def test_the_batch_size_changes_no_answer(model, file, tmp_path):
    for size in (1, 8):
        assert of_file(model, file, *SAMPLED, "--batch-size", size, "--output", tmp_path / str(size)) == 0
    alone, together = (lines_of(tmp_path / size / "answers.jsonl") for size in ("1", "8"))
    assert [one["answer"] for one in alone] == [one["answer"] for one in together]
    assert len({one["answer"] for one in alone}) == 3


def test_the_built_in_benchmark(model, tmp_path, capsys):
    words = ("--languages", "th,en", "--tasks", "currency", "--per-split", 1, "--part", "validation")
    assert dudi(model, *words, "--max-new-tokens", 2) == 0
    found = read_evaluation(tmp_path / "evals" / "tiny" / "evaluation.json")
    asked = questions(["th", "en"], ["currency"], part="validation", per_split=1, trained=LANGUAGES)
    assert found.benchmark["fingerprint"] == fingerprint(asked)
    assert found.benchmark["part"] == "validation" and found.seeds == [0]
    assert set(found.runs[0].scores["by_split"]) == {"seen", "transfer", "unseen"}
    out = capsys.readouterr().out
    assert "guessing" in out and "greedy, seed 0" in out


def test_rejected_rows_are_told_and_too_many_stop_it(model, tmp_path, capsys):
    many = [{"id": str(n), "language": "en", "prompt": f"{n}?", "answer": "y"} for n in range(3)]
    file = write_rows(tmp_path / "q.jsonl", [*many, {"language": "en", "prompt": "x"}])
    assert of_file(model, file, *SAMPLED, "--output", "out") == 3
    error = capsys.readouterr().err
    assert "1 of 4 rows were rejected" in error and "missing_key" in error
    assert [one["line"] for one in lines_of(tmp_path / "out" / "rejected.jsonl")] == [4]
    assert not (tmp_path / "out" / "evaluation.json").exists()
    assert of_file(model, file, *SAMPLED, "--output", "out", "--max-rejected-share", "0.3") == 0
    assert read_evaluation(tmp_path / "out" / "evaluation.json").about["rejected"] == {"missing_key": 1}
    assert of_file(model, write_rows(tmp_path / "r.jsonl", many), *SAMPLED, "--output", "out", "--force") == 0
    assert not (tmp_path / "out" / "rejected.jsonl").exists()


def test_what_an_earlier_attempt_rejected_does_not_stay(model, tmp_path, capsys):
    bad = write_rows(tmp_path / "q.jsonl", [ROWS[0], {"language": "en", "prompt": "x"}])
    assert of_file(model, bad, *SAMPLED, "--output", "out") == 3
    assert (tmp_path / "out" / "rejected.jsonl").exists()
    write_rows(bad, ROWS)
    assert of_file(model, bad, *SAMPLED, "--output", "out") == 0
    assert not (tmp_path / "out" / "rejected.jsonl").exists()


def test_several_benchmarks_stand_in_one_folder(model, file, tmp_path, capsys):
    """No evaluation writes over another: neither in one command, nor in one after the other."""
    other = write_rows(tmp_path / "other.jsonl", ROWS[:2])
    assert of_file(model, file, "--benchmark", other, *SAMPLED) == 0
    out = capsys.readouterr().out
    assert "tiny on mine: 3 questions" in out and "tiny on other: 2 questions" in out
    third = write_rows(tmp_path / "third.jsonl", ROWS[2:])
    assert of_file(model, third, *SAMPLED, "--seed", 5) == 0
    folder = tmp_path / "evals" / "tiny"
    found = {one.benchmark["name"]: one for one in read_evaluations(folder / "evaluation.json")}
    assert {name: one.seeds for name, one in found.items()} == {"mine": [0], "other": [0], "third": [5]}
    lines = [(one["benchmark"], one["id"]) for one in lines_of(folder / "answers.jsonl")]
    assert lines == [*(("mine", x) for x in "abc"), ("other", "a"), ("other", "b"), ("third", "c")]
    capsys.readouterr()
    assert of_file(model, other, *SAMPLED, "--temperature", "0.5", "--force") == 0
    again = {one.benchmark["name"]: one for one in read_evaluations(folder / "evaluation.json")}
    assert again["mine"] == found["mine"] and again["other"].benchmark["decoding"]["temperature"] == 0.5
    assert len(lines_of(folder / "answers.jsonl")) == 6


def test_two_files_of_one_name_are_told_apart(model, file, tmp_path, capsys):
    (tmp_path / "more").mkdir()
    twin = write_rows(tmp_path / "more" / "mine.jsonl", ROWS[:2])
    assert of_file(model, file, "--benchmark", twin, *SAMPLED) == 2
    assert "two of them are called 'mine'" in capsys.readouterr().err
    assert of_file(model, file, *SAMPLED) == 0
    assert of_file(model, twin, *SAMPLED) == 2
    assert "holds another evaluation" in capsys.readouterr().err


def test_a_folder_of_another_model_is_not_mixed_with(model, file, tmp_path, capsys):
    other = write_rows(tmp_path / "other.jsonl", ROWS[:2])
    assert of_file(model, file, *SAMPLED, "--output", "out") == 0
    assert of_file(model, other, *SAMPLED, "--output", "out", "--name", "else") == 2
    assert "called differs" in capsys.readouterr().err
    assert of_file(model, other, *SAMPLED, "--output", "out", "--name", "else", "--force") == 0
    assert [one.name for one in read_evaluations(tmp_path / "out" / "evaluation.json")] == ["else"]
    assert {one["benchmark"] for one in lines_of(tmp_path / "out" / "answers.jsonl")} == {"other"}


# Once more


def test_what_is_there_is_not_run_again(model, file, tmp_path, capsys, monkeypatch):
    assert of_file(model, file, *SAMPLED) == 0
    result = tmp_path / "evals" / "tiny" / "evaluation.json"
    before = result.read_bytes()
    first = capsys.readouterr().out
    monkeypatch.setattr("dudi.program.eval.evaluate", lambda *_, **__: pytest.fail("asked again"))
    assert of_file(model, file, *SAMPLED) == 0
    again = capsys.readouterr().out
    assert "holds this evaluation; --force runs it again" in again
    assert again.split("evals/")[0] == first.split("evals/")[0]
    assert result.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seed", "1"), "seeds"),
        (("--temperature", "0.8"), "decoding.temperature"),
        (("--languages", "th"), "languages"),
        (("--name", "other", "--output", "evals/tiny"), "called"),
        (("--dtype", "bfloat16"), "dtype"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_another_evaluation_is_not_overwritten(model, file, tmp_path, capsys, words, said):
    assert of_file(model, file, *SAMPLED) == 0
    result = tmp_path / "evals" / "tiny" / "evaluation.json"
    before = result.read_bytes()
    capsys.readouterr()
    assert of_file(model, file, *SAMPLED, *words) == 2
    error = capsys.readouterr().err
    assert "holds another evaluation" in error and said in error and "--force" in error
    assert len(error.splitlines()) == 1
    assert result.read_bytes() == before


def test_force_replaces_it(model, file, tmp_path):
    assert of_file(model, file, *SAMPLED) == 0
    assert of_file(model, file, *SAMPLED, "--seed", 3, 1, "--force") == 0
    assert read_evaluation(tmp_path / "evals" / "tiny" / "evaluation.json").seeds == [1, 3]


def test_other_weights_in_the_same_folder_are_another_model(model, file, tmp_path, capsys):
    own = shutil.copytree(model, tmp_path / "own")
    assert of_file(own, file, *SAMPLED) == 0
    make_model(seed=5).save_pretrained(own)
    assert of_file(own, file, *SAMPLED) == 2
    assert "weights" in capsys.readouterr().err


# What it refuses


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--per-split", "1", "--seeds", "4"), "4 seeds with temperature 0 give 4 times the same answers"),
        (("--seeds", "0"), "--seeds: must be at least 1"),
        (("--seeds", "2", "--seed", "1"), "give one of them"),
        (("--per-split", "1", "--seed", "1", "1", "--temperature", "1"), "each once"),
        (("--per-split", "1", "--top-p", "0.5"), "temperature 0 samples nothing"),
        (("--per-split", "1", "--temperature", "-1"), "temperature must be"),
        (("--per-split", "0"), "--per-split: must be at least 1"),
        (("--batch-size", "0"), "--batch-size/-b: must be at least 1"),
        (("--max-new-tokens", "0"), "--max-new-tokens: must be at least 1"),
        (("--max-rejected-share", "2"), "between 0 and 1"),
        (("--part", "tests"), "did you mean 'test'"),
        (("--tasks", "curency"), "did you mean 'currency'"),
        (("--languages", "xx"), "no questions in 'xx'"),
        (("--language", "th"), "takes --languages"),
        (("--benchmark", "cldr-qa"), "did you mean 'cldr-qa-1'"),
        (("--benchmark", "none.jsonl"), "no such file of questions"),
        (("--dtype", "float23"), "did you mean 'float32'"),
        (("--chat-template", "none.jinja"), "cannot read none.jinja"),
        (("--base-url", "http://127.0.0.1:1/v1"), "--base-url: only --benchmark seahelm reads it"),
        (("--workers", "2"), "--workers: only --benchmark seahelm reads it"),
        (("--limit", "2"), "only the benchmark lm-eval takes options of this kind"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refusals(model, words, said, capsys, monkeypatch):
    monkeypatch.setattr("dudi.program.eval.evaluate", lambda *_, **__: pytest.fail("asked"))
    assert dudi(model, *words) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_a_part_of_a_file(model, file, capsys):
    assert of_file(model, file, "--part", "test") == 2
    assert "--part is for benchmarks that have parts" in capsys.readouterr().err


def test_a_model_that_is_not_there(tmp_path, file, capsys):
    (tmp_path / "empty").mkdir()
    assert of_file("./empty", file) == 2
    assert "cannot be loaded from this folder" in capsys.readouterr().err


def test_a_device_that_is_not_there(model, file, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert dudi(model, "--benchmark", file, "--device", "cuda") == 2
    assert "--device cuda" in capsys.readouterr().err


def test_a_model_without_a_chat_template_takes_one_from_a_file(model, file, tmp_path, capsys):
    plain = shutil.copytree(model, tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    assert of_file(plain, file, *SAMPLED) == 2
    assert "--chat-template FILE" in capsys.readouterr().err
    (tmp_path / "chatml.jinja").write_text(CHATML)
    assert of_file(plain, file, *SAMPLED, "--chat-template", "chatml.jinja") == 0
    assert of_file(model, file, *SAMPLED) == 0
    own, other = (lines_of(tmp_path / "evals" / name / "answers.jsonl") for name in ("plain", "tiny"))
    assert [one["answer"] for one in own] == [one["answer"] for one in other]


# Whom it asks


def make_run(folder, model, *overrides):
    shutil.copytree(model, folder / "model")
    config = load_run_config("mini/dudi", overrides)
    (folder / "resolved.yaml").write_text(config.resolved_yaml(), encoding="utf-8")
    return folder


def test_a_run_folder_is_its_model_its_languages_and_its_tasks(model, tmp_path):
    made = make_run(
        tmp_path / "runs" / "first", model, "languages=[th, en]", "data.tasks=[currency]", "benchmark.tasks=null"
    )
    source = source_of(str(made))
    assert (source.model, source.name) == (str(made / "model"), "first")
    assert (source.trained.languages, source.trained.tasks) == (["th", "en"], ["currency"])
    assert dudi(made, "--per-split", 1, "--max-new-tokens", 2) == 0
    found = read_evaluation(tmp_path / "evals" / "first" / "evaluation.json")
    assert found.benchmark["fingerprint"] == fingerprint(questions(["th", "en"], ["currency"], per_split=1))
    assert found.model.endswith("first/model")


def test_the_template_arguments_of_a_run_are_kept(model, tmp_path):
    made = make_run(tmp_path / "run", model, "chat_template_kwargs={student: {enable_thinking: true}}")
    assert source_of(str(made)).chat().kwargs["enable_thinking"] is True


def test_what_a_run_keeps_is_asked_as_the_run_and_called_after_it(model, tmp_path):
    words = ("languages=[th]", "chat_template_kwargs={student: {enable_thinking: true}}")
    made = make_run(tmp_path / "runs" / "first", model, *words)
    names = {
        "checkpoints/step-24": "first-step-24",
        "stages/cold_start/model": "first-cold_start",
        "stages/cold_start/checkpoints/step-2": "first-cold_start-step-2",
        "model": "first",
    }
    for place, name in names.items():
        (made / place).mkdir(parents=True, exist_ok=True)
        source, run = source_of(str(made / place)), source_of(str(made))
        assert (source.model, source.name) == (str(made / place), name)
        assert (source.trained, source.template_kwargs) == (run.trained, run.template_kwargs)
        assert source.trained.languages == ["th"] and source.template_kwargs["enable_thinking"] is True
    (made / "resolved.yaml").write_text("llm:\n  model: x\n", encoding="utf-8")  # a stack's
    assert source_of(str(made / "checkpoints" / "step-24")).name == "step-24"
    assert source_of(str(made / "model")).name == "first"


def test_a_run_that_is_not_finished(model, tmp_path, capsys):
    made = make_run(tmp_path / "run", model)
    shutil.rmtree(made / "model")
    assert dudi(made) == 2
    assert "no final model" in capsys.readouterr().err
    for step in ("step-8", "step-16"):
        shutil.copytree(model, made / "checkpoints" / step)
    for folder in (made, made / "checkpoints"):
        assert dudi(folder) == 2
        assert f"name one: {made / 'checkpoints' / 'step-16'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("org/some-model", "some-model"),
        ("package:dudi/mini/teacher", "teacher"),
        ("package:dudi", "dudi"),
        ("runs/x/model", "x"),
    ],
)
def test_what_a_model_is_called(word, name):
    assert source_of(word).name == name


def test_an_adapter_is_asked_with_its_base(model, file, tmp_path):
    torch.manual_seed(1)
    base = make_model(seed=4)
    base.name_or_path = base.config._name_or_path = str(model)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = get_peft_model(base, config)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    make_tokenizer().save_pretrained(tmp_path / "merged")
    answers = {}
    for name in ("adapter", "merged", "tiny"):
        assert of_file(model if name == "tiny" else tmp_path / name, file, *SAMPLED) == 0
        answers[name] = [one["answer"] for one in lines_of(tmp_path / "evals" / name / "answers.jsonl")]
    assert answers["adapter"] == answers["merged"] != answers["tiny"]


def test_another_base_makes_another_adapter(model, file, tmp_path, capsys):
    """An adapter's own weights stay the same when its base is trained further: its answers do not."""
    base = shutil.copytree(model, tmp_path / "base")
    loaded = make_model(seed=4)
    loaded.name_or_path = loaded.config._name_or_path = str(base)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(loaded, config).save_pretrained(tmp_path / "adapter")
    assert of_file(tmp_path / "adapter", file, *SAMPLED) == 0
    assert of_file(tmp_path / "adapter", file, *SAMPLED) == 0
    assert "holds this evaluation" in capsys.readouterr().out
    make_model(seed=5).save_pretrained(base)
    assert of_file(tmp_path / "adapter", file, *SAMPLED) == 2
    assert "base_weights differs" in capsys.readouterr().err


def test_an_adapter_without_peft(model, tmp_path, monkeypatch):
    made = shutil.copytree(model, tmp_path / "adapter")
    (made / "adapter_config.json").write_text("{}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'dudi\[peft\]'"):
        source_of(str(made)).load()
