"""`dudi report` of a folder that holds evaluations alone, as `dudi eval` and `dudi stack eval` leave it."""

import pytest

from dudi.errors import ConfigError, DataError
from dudi.evaluation.records import Evaluation, Run, keep_evaluations
from dudi.report import write_report
from report_helpers import ASKED, HOSTILE, scores_of


def accuracy(value):
    return {"accuracy": value, "macro_f1": value / 2, "questions": 10}


def stacked(name, value, seeds=(0,)):
    by_language = {"eng_Latn": accuracy(value), "ind_Latn": accuracy(value / 2)}
    scores = {"overall": accuracy(value / 2), "by_language": by_language}
    benchmark = {"name": "rows", "split": "test", "questions": 20, "source_language": "eng_Latn", "fingerprint": "f"}
    runs = tuple(Run(seed, scores) for seed in seeds)
    return Evaluation(name, f"runs/{name}", benchmark, runs, {"seconds": 3.0})


def test_systems_stand_side_by_side(tmp_path):
    keep_evaluations([stacked("MT-LLM", 0.8, (0, 1)), stacked("LLM", 0.4, (0, 1))], [], tmp_path)
    page = write_report([tmp_path]).read_text(encoding="utf-8")
    assert "Report of 2 evaluations" in page
    assert page.index("Who was asked") < page.index("runs/MT-LLM") < page.index("By language")
    for text in ("Accuracy in %", "Macro F1 in %", "learned in: eng_Latn", "0, 1", "3.0 s"):
        assert text in page
    assert "bits per byte" not in page.lower()
    assert (tmp_path / "figures").is_dir()


def test_each_benchmark_has_its_section(tmp_path):
    students = [
        Evaluation(name, "m", ASKED, (Run(0, scores_of(name, share)),), {"guessing": scores_of("floor", 0.1)})
        for name, share in (("own", 0.5), ("other", 0.25))
    ]
    keep_evaluations([*students, stacked("own", 0.5)], [], tmp_path)
    page = write_report([tmp_path], tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.index("Benchmark cldr-qa-1") < page.index("guessing") < page.index("Benchmark rows")
    assert (tmp_path / "page-figures").is_dir()


def test_names_of_others_are_text(tmp_path):
    keep_evaluations([stacked(name, 0.5) for name in HOSTILE], [], tmp_path)
    page = write_report([tmp_path]).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img" not in page


def test_a_folder_of_neither_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is it a run directory"):
        write_report([tmp_path])
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        write_report([tmp_path])
