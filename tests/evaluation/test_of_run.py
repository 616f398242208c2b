"""What a recipe's `benchmark` asks for: a name, a file, or several; each keeps scores of its own."""

import json
import re

import pytest

from dudi.distill.loading import Loaded
from dudi.distill.recipe import load_run_config
from dudi.errors import ConfigError
from dudi.evaluation.of_run import asked_of, evaluate_run
from dudi.evaluation.records import read_evaluations
from dudi.evaluation.tables import benchmark_tables

WORDS = ["student=package:dudi/mini/small", "languages=[id,th]", "benchmark.per_split=1", "disable_tqdm=true"]


@pytest.fixture
def questions(tmp_path):
    file = tmp_path / "capitals.jsonl"
    rows = [
        {"id": "a", "language": "id", "question": "Apa ibu kota Jawa Barat?", "answer": "Bandung", "task": "capitals"},
        {"id": "b", "language": "th", "question": "เมืองหลวงของไทยคือเมืองใด", "answer": "กรุงเทพมหานคร"},
        {"id": "c", "language": "th"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def config_of(folder, *words):
    config = load_run_config("mini/dudi", [*WORDS, *words])
    return config, config.dudi_config(folder)


def test_a_run_asks_several_and_keeps_them_apart(questions, tmp_path):
    names = f"benchmark.name=[cldr-qa-1, {questions}]"
    config, args = config_of(tmp_path / "run", names, "data.max_rejected_share=0.5")
    found = evaluate_run(Loaded(config, args), ["base"])
    assert found == read_evaluations(tmp_path / "run" / "evaluation.json")
    assert [(one.benchmark["name"], one.subject) for one in found] == [("cldr-qa-1", "base"), ("capitals", "base")]
    assert found[0].keys("split") == ["seen", "transfer", "unseen"] and found[0].guessing() is not None
    assert found[1].keys("task") == ["capitals"] and found[1].guessing() is None
    assert found[1].about["rejected"] == {"missing_key": 1}
    lines = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text("utf-8").splitlines()]
    assert {(line["benchmark"], line["subject"]) for line in lines} == {("cldr-qa-1", "base"), ("capitals", "base")}
    (rejected,) = (tmp_path / "run" / "rejected-questions.jsonl").read_text("utf-8").splitlines()
    assert json.loads(rejected)["reason"] == "missing_key"


def test_each_of_several_teachers_is_asked(questions, tmp_path):
    several = "teachers={default: package:dudi/mini/teacher, my: package:dudi/mini/base, ta: package:dudi/mini/base}"
    words = [several, f"benchmark.name={questions}", "benchmark.max_new_tokens=4", "data.max_rejected_share=0.5"]
    config, args = config_of(tmp_path / "run", *words)
    everybody = evaluate_run(Loaded(config, args))
    assert [one.subject for one in everybody] == ["base", "teacher", "teacher_my+ta"]
    assert [one.model.rpartition("/")[2] for one in everybody] == ["small", "teacher", "base"]
    assert everybody[2].name == "teacher my+ta" and everybody[2].about["parameters"] != everybody[1].about["parameters"]
    assert "teacher my+ta" in benchmark_tables(everybody)
    assert [one.subject for one in evaluate_run(Loaded(config, args), ["teacher"])] == ["teacher"]  # as studies ask


@pytest.mark.parametrize("said", ["benchmark=cldr-qa-1", "benchmark={name: cldr-qa-1}", "benchmark=[cldr-qa-1]"])
def test_a_name_may_stand_alone(said, tmp_path):
    (asked,) = asked_of(*config_of(tmp_path, said, "benchmark.per_split=1"))
    assert asked.benchmark["name"] == "cldr-qa-1" and asked.benchmark["languages"] == ["id", "th"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["benchmark.name=cldr-qa"], "neither cldr-qa-1"),
        (["benchmark.name=nowhere.jsonl"], "nowhere.jsonl"),
        (["benchmark.name=seahelm"], "seahelm asks a server: dudi eval MODEL --benchmark seahelm"),
        (["benchmark.tasks=[units]"], "units would be asked and not trained"),
        (["benchmark.name=[cldr-qa-1, seahelm]", "benchmark.tasks=[currency]"], "Name one benchmark, or no task"),
        (["benchmark.name=cldr-qa-1", "benchmark.part=train"], "train"),
    ],
)
def test_what_cannot_be_asked_is_said(words, told, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(told)):
        asked_of(*config_of(tmp_path, *words))


def test_a_part_of_a_file_is_refused(questions, tmp_path):
    with pytest.raises(ConfigError, match="--part is for benchmarks that have parts"):
        asked_of(*config_of(tmp_path, f"benchmark.name={questions}", "benchmark.part=test"))


def test_no_section_asks_nothing(tmp_path):
    config, args = config_of(tmp_path, "benchmark=null")
    assert evaluate_run(Loaded(config, args)) == [] and not list(tmp_path.iterdir())
