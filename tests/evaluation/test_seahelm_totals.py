"""SEA-HELM's results read back, and the totals against numbers worked by hand."""

import json

import pytest
from seahelm_stand_ins import make_checkout

from dudi.evaluation.records import Evaluation, SeedScores
from dudi.evaluation.seahelm.catalogue import read_catalogue
from dudi.evaluation.seahelm.results import NEVER, TaskResult, answer_errors, missing, read_run
from dudi.evaluation.seahelm.table import cell, seahelm_table
from dudi.evaluation.seahelm.totals import pragmatics, scores


@pytest.fixture
def catalogue(tmp_path):
    return read_catalogue(make_checkout(tmp_path / "SEA-HELM"))


def measured(**own):
    return {name.replace("_", "-") if "guard" not in name else name: TaskResult(score) for name, score in own.items()}


def test_tasks_groups_competencies_languages_total(catalogue):
    results = {
        "id": measured(qa=20.0, sentiment=40.0, guard_prompt=10.0, guard_response=30.0, half=60.0),
        "th": measured(qa=8.0, guard_prompt=12.0),
    }
    table = scores(results, catalogue)
    # id: nlu (20 + 40) / 2 = 30; safety: the group's (10 + 30) / 2 = 20; knowledge 60; (30 + 20 + 60) / 3
    assert table["by_language_and_competency"]["id"]["nlu"] == {"score": 30.0, "tasks": 2, "asked": 2}
    assert table["by_language_and_competency"]["id"]["safety"]["score"] == 20.0
    assert table["by_language"]["id"]["score"] == pytest.approx(110 / 3)
    # th: nlu 8, safety 12
    assert table["by_language"]["th"]["score"] == 10.0
    assert table["overall"] == {"score": pytest.approx((110 / 3 + 10) / 2), "tasks": 7, "asked": 7}
    assert table["by_competency"]["nlu"]["score"] == (30 + 8) / 2
    assert table["by_competency"]["knowledge"]["score"] == 60.0  # th has none, and it is no 0


def test_a_group_is_one_among_the_tasks_of_its_competency(catalogue):
    """A group of two beside a task of its own: (mean of the group + task) / 2, not the mean of three."""
    results = {"id": {**measured(guard_prompt=0.0, guard_response=20.0), "kalahi": TaskResult(70.0)}}
    grouped = dict(catalogue.tasks)
    kalahi = grouped["kalahi"]
    grouped["kalahi"] = type(kalahi)("kalahi", "safety", kalahi.metric, None, kalahi.languages, None, False)
    other = type(catalogue)(catalogue.checkout, catalogue.version, grouped, catalogue.sets)
    assert scores(results, other)["by_competency"]["safety"]["score"] == (10 + 70) / 2


def test_missing_counts_for_nothing_and_is_flagged(catalogue):
    results = {
        "id": {"qa": TaskResult(20.0), "sentiment": TaskResult(None, "no data")},
        "th": {"qa": TaskResult(None, "no data")},
    }
    table = scores(results, catalogue)
    assert table["by_language"]["id"] == {"score": 20.0, "tasks": 1, "asked": 2}
    assert table["by_language"]["th"] == {"score": None, "tasks": 0, "asked": 1}
    assert table["overall"] == {"score": 20.0, "tasks": 1, "asked": 3}
    assert table["by_task"]["th/qa"]["score"] is None
    assert missing(results) == {"id/sentiment": "no data", "th/qa": "no data"}


def test_cultural_and_multi_turn_stand_apart_unless_counted(catalogue):
    results = {"id": {"qa": TaskResult(20.0), "kalahi": TaskResult(80.0), "mt-bench": TaskResult(50.0)}}
    table = scores(results, catalogue)
    assert table["overall"] == {"score": 20.0, "tasks": 1, "asked": 1}
    assert table["by_competency"]["cultural"]["score"] == 80.0
    assert scores(results, catalogue, ("nlu", "cultural", "multi-turn"))["overall"]["score"] == 50.0


def test_linguistic_diagnostics_pools_the_pragmatic_tasks(catalogue):
    single = TaskResult(None, counts={"scalar_implicatures": (6, 10), "presuppositions": (9, 10)})
    pair = TaskResult(None, counts={"scalar_implicatures": (12, 20), "presuppositions": (9, 15)})
    own = {
        "mp-r": TaskResult(30.0),
        "pragmatic-single": single,
        "pragmatic-pair": pair,
        "syntax-criteria": TaskResult(99.0),
    }
    # 18 / 30 = 0.6 and 18 / 25 = 0.72; mean 0.66; (0.66 - 0.5) / 0.5 = 0.32
    assert pragmatics(own).score == pytest.approx(32.0)
    table = scores({"id": own}, catalogue)
    assert table["by_competency"]["linguistic-diagnostics"] == {"score": pytest.approx(31.0), "tasks": 3, "asked": 3}
    assert table["by_task"]["id/syntax-criteria"]["score"] == 99.0  # shown; SEA-HELM does not count it either
    assert table["by_task"]["id/pragmatics"]["score"] == pytest.approx(32.0)
    assert "id/pragmatic-single" not in table["by_task"]


def test_pragmatics_needs_both_tasks_and_both_phenomena(catalogue):
    single = TaskResult(None, counts={"scalar_implicatures": (6, 10), "presuppositions": (9, 10)})
    failed = TaskResult(None, "no data")
    assert pragmatics({"pragmatic-single": single}).score is None
    assert pragmatics({"pragmatic-single": single, "pragmatic-pair": failed}).score is None
    few = TaskResult(None, counts={"scalar_implicatures": (1, 2)})
    assert pragmatics({"pragmatic-single": few, "pragmatic-pair": few}).score is None
    worse = TaskResult(None, counts={"scalar_implicatures": (1, 10), "presuppositions": (1, 10)})
    assert pragmatics({"pragmatic-single": worse, "pragmatic-pair": worse}).score == 0.0  # below chance is 0
    table = scores({"id": {"mp-r": TaskResult(30.0), "pragmatic-single": single, "pragmatic-pair": failed}}, catalogue)
    assert table["by_competency"]["linguistic-diagnostics"] == {"score": 30.0, "tasks": 1, "asked": 3}


def write_results(folder, content, time="2026-01-02T00:00:00.000001"):
    (folder / "results").mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "results" / f"model_x_seahelm_results_{time}.json").write_text(text)


def test_a_run_is_read_from_its_newest_file(tmp_path, catalogue):
    folder = tmp_path / "model_x" / "run_0"
    write_results(folder, {"id": {"nlu": {"qa": {"normalized_f1": 1.0}}}}, "2026-01-01T23:59:59.999999")
    write_results(
        folder,
        {
            "id": {
                "nlu": {
                    "qa": {"normalized_f1": 25.0, "is_cached": [True]},
                    "sentiment": {"normalized_accuracy": 0, "error": "Failed to run evaluation for task"},
                    "total": 12.5,
                },
                "nlr": {"gated": {"inference_time_taken": [], "is_cached": []}},
                "knowledge": {"half": {"normalized_accuracy": float("nan")}},
                "linguistic-diagnostics": {
                    "pragmatic-single": {"subcategories": {"presuppositions": [3, 4]}},
                },
            },
            "total": 12.5,
        },
    )
    chosen = {"id": ["qa", "sentiment", "gated", "half", "pragmatic-single"], "th": ["qa"]}
    results = read_run(folder, catalogue, chosen)
    assert results["id"]["qa"] == TaskResult(25.0)
    assert results["id"]["sentiment"] == TaskResult(None, "Failed to run evaluation for task")
    assert results["id"]["gated"] == TaskResult(None, NEVER)
    assert results["id"]["half"] == TaskResult(None, "has no normalized_accuracy")
    assert results["id"]["pragmatic-single"] == TaskResult(None, None, {"presuppositions": (3.0, 4.0)})
    assert results["th"]["qa"] == TaskResult(None, NEVER)
    assert NEVER not in missing(read_run(folder, catalogue, {"id": ["qa", "sentiment"]})).values()


def test_the_log_says_why_a_task_failed(tmp_path, catalogue):
    folder = tmp_path / "model_x" / "run_0"
    write_results(folder, {"id": {"nlu": {"qa": {"normalized_f1": 0, "error": "Failed to run evaluation for task"}}}})
    (folder / "logs").mkdir()
    head = "2026-01-02 00:00:00 | ERROR    | seahelm_evaluation   | "
    lines = [
        "Failed to run inference for task qa and lang th",
        "another language",
        "Failed to run inference for task qa and lang id",
        "Couldn't reach 'a/dataset' on the Hub",
        "Failed to run evaluation for task qa and lang id",
        "'NoneType' object has no attribute 'dataframe'",
    ]
    (folder / "logs" / "logfile_2026-01-02T00:00:00.log").write_text("".join(f"{head}{line}\n" for line in lines))
    results = read_run(folder, catalogue, {"id": ["qa"]})
    assert missing(results) == {"id/qa": "Couldn't reach 'a/dataset' on the Hub"}


def test_a_file_that_was_cut_off_is_no_result(tmp_path, catalogue):
    folder = tmp_path / "model_x" / "run_0"
    write_results(folder, '{"id": {"nlu"')
    assert missing(read_run(folder, catalogue, {"id": ["qa"]})) == {"id/qa": NEVER}
    assert missing(read_run(tmp_path / "nowhere", catalogue, {"id": ["qa"]})) == {"id/qa": NEVER}


def test_answers_that_are_errors_are_counted(tmp_path):
    folder = tmp_path / "inferences" / "id" / "qa"
    folder.mkdir(parents=True)
    lines = [{"responses": "x", "errors": None}, {"responses": "", "errors": "no answer"}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"cut'
    (folder / "model_qa_id_turn1_batch_response.jsonl").write_text(text)
    assert answer_errors(tmp_path) == 1


def test_the_table_has_dashes_stars_and_deviations(catalogue):
    first = scores({"id": measured(qa=20.0, sentiment=40.0), "th": {"qa": TaskResult(None, "x")}}, catalogue)
    second = scores({"id": measured(qa=22.0, sentiment=42.0), "th": {"qa": TaskResult(None, "x")}}, catalogue)
    benchmark = {"version": "9.9.9", "limit": None, "counted": ["nlu"]}
    evaluation = Evaluation(
        "mine", "model", benchmark, (SeedScores(0, first), SeedScores(1, second)), {"missing": {"0": {"th/qa": "x"}}}
    )
    assert cell(evaluation, "by_language", "id") == "31.0 ±1.4"
    assert cell(evaluation, "by_language", "th") == "-"
    assert cell(evaluation, "overall") == "31.0 ±1.4*"
    text = seahelm_table(evaluation)
    assert "mine, 2 seeds" in text and "Missing (*): th/qa;" in text and "trial" not in text
