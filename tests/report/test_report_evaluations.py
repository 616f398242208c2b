"""`dudi report` over folders that `dudi eval` wrote: several models, benchmarks, seeds, languages and tasks."""

import dataclasses
import json
import re

import pytest

from dudi.errors import ConfigError, DudiError
from dudi.evaluation.records import Evaluation, SeedScores, keep_evaluations, write_evaluations
from dudi.evaluation.tables import benchmark_tables, evaluation_tables
from dudi.report import write_report
from report_helpers import build_asked, page_of

TASKS = {"sib200": "acc", "ntrex_bits": "bits_per_byte"}


def leaf(metric, value, questions=4):
    return {"questions": questions, metric: value, "stderr": {metric: value / 10}}


def of_tasks(name, shift, **benchmark):
    """Two tasks in two languages, with a group."""
    cells = {code: {task: leaf(metric, 0.2 + shift) for task, metric in TASKS.items()} for code in ("th", "en")}
    whole = {"questions": 16, "acc": 0.2 + shift, "bits_per_byte": 0.2 + shift, "stderr": {"acc": 0.05}}
    scores = {
        "overall": whole,
        "by_language": dict.fromkeys(cells, whole),
        "by_task": {task: leaf(metric, 0.2 + shift) for task, metric in TASKS.items()},
        "by_group": {"topics": leaf("acc", 0.25 + shift)},
        "by_language_and_task": cells,
    }
    how = {"name": "lm-eval", "version": "0.4.13", "tasks": ["sib200 1.0"], "questions": 16, "decoding": {}}
    about = {"seconds": 3.0, "versions": {"torch": "2"}, "subject": {"dtype": "float32"}, "notes": ["x: no task in my"]}
    return Evaluation(name, f"models/{name}", how | benchmark, (SeedScores(1234, scores),), about)


def of_questions(name, seeds=(0, 1)):
    """Answers to a file of questions, over seeds."""
    runs = []
    for seed in seeds:
        own = {"questions": 4, "exact_match": 0.5 + seed / 4, "chrf": 50.0, "bits_per_byte": 1.0}
        runs.append(SeedScores(seed, {"overall": own, "by_language": {"th": own}, "by_split": {}, "by_task": {}}))
    how = {"name": "mine.jsonl", "questions": 4, "fingerprint": "f", "decoding": {"temperature": 0.9}}
    return Evaluation(name, f"models/{name}", how, tuple(runs))


def written(folder, *evaluations, answer="right"):
    folder.mkdir(parents=True)
    write_evaluations(evaluations, folder / "evaluation.json")
    lines = []
    for one in evaluations:
        for number in range(5):
            right = number % 2 == 0
            line = {"benchmark": one.benchmark["name"], "subject": one.name, "seed": one.seeds[0], "task": "sib200"}
            line |= {"id": f"q{number}", "language": "th", "question": f"<b>Q {number}</b>", "reference": "right"}
            lines.append(line | {"answer": answer, "exact": right, "scores": {"acc": float(right)}, "weights": {}})
        lines.append({**lines[-1], "id": "text", "answer": ""})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "answers.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def evals(tmp_path):
    """A folder as `dudi eval` makes it: `one` on two benchmarks, `two` on one of them."""
    written(tmp_path / "evals" / "one", of_tasks("one", 0.3), of_questions("one"))
    written(tmp_path / "evals" / "two", of_tasks("two", 0.1))
    return tmp_path / "evals"


def test_one_model_on_two_benchmarks(evals):
    text = page_of(evals / "one").text
    assert (evals / "one" / "report.html").is_file()
    assert "Benchmark lm-eval" in text and "Benchmark mine.jsonl" in text
    assert "Accuracy in %: 50.0 ± 5.0" in text and "Exact match in %: 62.5 ± 17.7" in text  # error; over seeds
    for words in ("Bits per byte", "By group", "topics", "55.0 ±5.5", "By language", "x: no task in my", "Over all"):
        assert words in text, words
    assert "models/one" in text and "float32" in text and "<b>Q" in text and "✓ right" in text
    figures = {file.name for file in (evals / "one" / "figures").iterdir()}
    assert figures == {"accuracy-by-language.svg", "exact-match-by-language.svg"}


def test_models_side_by_side(evals):
    """The folder above stands for all in it, and the same page comes of both folders named."""
    page = page_of(evals)
    assert (evals / "report.html").is_file() and "one, two" in page.text
    for words in ("By language", "By task", "By group", "By language: Bits per byte", "Each task in each language"):
        assert words in page.text, words
    assert "two: Accuracy, in %" in page.text and page.text.count("Some answers") == 1
    again = page_of(evals / "one", evals / "two", output=evals / "again.html")
    assert [text for text in again.texts if "written" not in text and "figures" not in text] == [
        text for text in page.texts if "written" not in text and "figures" not in text
    ]


def test_groups_stand_in_the_tables_of_a_run_and_of_a_command():
    one = dataclasses.replace(of_tasks("one", 0.3), subject="student")
    assert re.search(r"By group\n +one\ntopics: acc, % +55.0 ±5.5\n", benchmark_tables([one]))
    assert re.search(r"By group\n +acc, %\ntopics +55.0 ±5.5\n", evaluation_tables(one))


def test_models_that_were_not_asked_the_same(tmp_path):
    one = written(tmp_path / "one", of_tasks("one", 0.3))
    two = written(tmp_path / "two", of_tasks("two", 0.1, fingerprint="other"))
    assert "The models were not asked the same: fingerprint differs" in page_of(one, two).text


def test_one_model_in_two_folders_is_called_after_them(tmp_path):
    for name in ("plain: 1", "chat"):
        written(tmp_path / name, of_tasks("one", 0.3))
    text = page_of(tmp_path / "plain: 1", tmp_path / "chat").text
    assert "plain: 1, chat" in text and "chat: Accuracy, in %" in text


def test_a_folder_of_several_models(tmp_path):
    both = written(tmp_path / "both", of_tasks("one", 0.3), of_tasks("two", 0.1))
    assert "one, two" in page_of(both).text


def test_what_is_refused(evals, tmp_path):
    run = build_asked(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"one was written by dudi eval, and .*run was not; dudi compare shows both"):
        write_report([evals / "one", run])
    assert "Benchmark" in page_of(run).text  # a run with scores is a run
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="is it a run directory"):
        write_report([tmp_path / "empty"])
    written(tmp_path / "other" / "one", of_tasks("one", 0.2))
    with pytest.raises(ConfigError, match="another folder is called 'one' too; rename one"):
        write_report([evals / "one", tmp_path / "other" / "one"])


def test_a_file_of_another_is_not_trusted(tmp_path):
    one = of_tasks("<i>one", 0.3)
    odd = dataclasses.replace(one, about={"notes": 3, "rejected": "x", "versions": [], "subject": "s", "seconds": "x"})
    text = write_report([written(tmp_path / "odd", odd)]).read_text(encoding="utf-8")
    assert "<i>one" not in text and "&lt;i&gt;one" in text and "<b>Q" not in text
    broken = dataclasses.replace(
        one, runs=(SeedScores(1, {"overall": {"acc": "much"}, "by_language": {"th": {"acc": []}}}),)
    )
    with pytest.raises(DudiError):
        write_report([written(tmp_path / "broken", broken)])


def of_stack(name, value):
    """A stack of two seeds, asked in the language that it learned in and in another."""

    def leaf(share):
        return {"accuracy": share, "macro_f1": share / 2, "questions": 10}

    scores = {
        "overall": leaf(value / 2),
        "by_language": {"eng_Latn": leaf(value), "ind_Latn": leaf(value / 2)},
        "by_split": {},
        "by_task": {},
    }
    how = {"name": "rows", "split": "test", "questions": 20, "source_language": "eng_Latn", "fingerprint": "f"}
    return Evaluation(name, f"runs/{name}", how, tuple(SeedScores(seed, scores) for seed in (0, 1)), {"seconds": 3.0})


def test_answers_of_stacks_show_what_was_asked_and_right(tmp_path):
    """It used to say "not recorded" of both; lines of earlier versions have a row's name and label."""
    line = {"benchmark": "rows", "subject": "MT-LLM", "seed": 0, "language": "ind_Latn", "task": "classification"}
    line |= {"id": "ind_Latn/1", "label": "animal", "answer": "animal", "right": True}
    new = line | {"id": "ind_Latn/2", "question": "kucing <tidur>", "label": "thing", "right": False}
    keep_evaluations([of_stack("MT-LLM", 0.8)], [line, new], tmp_path)
    page = " ".join(write_report([tmp_path]).read_text(encoding="utf-8").split())
    assert "not recorded" not in page
    for text in (">ind_Latn/1</dd>", ">kucing &lt;tidur&gt;</dd>", ">animal</dd>", ">thing</dd>", "✓ right", "✗ wrong"):
        assert text in page


def test_stacks_of_one_call_stand_side_by_side(tmp_path):
    write_evaluations([of_stack("MT-LLM", 0.8), of_stack("LLM", 0.4)], tmp_path / "evaluation.json")
    page = write_report([tmp_path]).read_text(encoding="utf-8")
    assert page.index("At a glance") < page.index("runs/MT-LLM") < page.index("By language")
    for text in ("Accuracy in %: 40.0", "Macro F1 in %", "the mean over languages without eng_Latn", "0, 1", "3.0 s"):
        assert text in page
    assert "bits per byte" not in page.lower()
    assert (tmp_path / "figures").is_dir()
