"""Studies: what runs, once, in which order; what the page says of it; and one small study from start to end."""

import argparse
import dataclasses
import json
import math
import os
import pickle
import re
import shlex
import shutil
import signal
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
import yaml

from dudi.comparison.bootstrap import Lead
from dudi.comparison.packed import pack
from dudi.config.recipe_files import list_recipes
from dudi.errors import ConfigError, DataError
from dudi.evaluation.records import Evaluation, SeedScores, keep_evaluations, read_evaluations
from dudi.program.cli import main
from dudi.program.study import shown
from dudi.study import results as collected
from dudi.study import scheduler
from dudi.study.figures import curves, sizes
from dudi.study.grid import StudyRow, read_studies, read_study, shipped_studies
from dudi.study.identity import files_of
from dudi.study.jobs import FLOPS, cost_job, every_job, job_of, key_of, missing
from dudi.study.ordering import ordered_pairs
from dudi.study.page import page
from dudi.study.results import expected_seconds
from dudi.study.scheduler import _leave_with

ROOT = Path(__file__).parents[2]
HEAD = "title: T\nrecipe: base.yaml\nseeds: 2\n"
BASE = """
extends: mini/dudi
data: {rows_per_language: 128, tasks: [currency, official_language]}
benchmark: {per_split: 1}
languages: [id, en]
cold_start_epochs: 0.1
num_train_epochs: 0.1
per_device_train_batch_size: 8
learning_rate: 1e-3
"""


def shipped(name):
    return next(study for study in read_studies([]) if study.name == name)


@pytest.fixture
def study_file(tmp_path):
    def write(text, base=BASE):
        (tmp_path / "base.yaml").write_text(base.replace("mini/dudi", recipe_file("mini/dudi")), encoding="utf-8")
        file = tmp_path / "tiny.yaml"
        file.write_text(HEAD + text, encoding="utf-8")
        return file

    return write


def recipe_file(name):
    return str(ROOT / "recipes" / f"{name}.yaml")


class TestStudyFiles:
    def test_the_shipped_ones_are_read_and_their_rows_resolve(self):
        studies = read_studies([])
        assert [study.name for study in studies][:2] == ["0-learning-rates", "1-methods"]
        assert len(every_job(studies)) > 160

    def test_they_are_no_recipes(self):
        assert not [name for name in list_recipes() if name.startswith("study/")]

    def test_every_table_has_its_seeds(self):
        seeds = {study.name: study.seeds for study in read_studies([])}
        assert seeds["1-methods"] == 8
        assert all(seeds[name] >= 4 for name in ("2-components", "3-verbalizer", "4-cold-start", "5-small", "6-llama"))

    def test_the_main_table_has_the_seven_methods_and_two_controls(self):
        names = [row.name for row in shipped("1-methods").rows]
        assert names == ["SFT", "DFT", "SFT, continued", "DFT, continued", "SPIN", "SDFT", "SeqKD", "GKD", "DuDi"]

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("rows: []\nseed: 3\n", ":5: seed: Extra inputs are not permitted (did you mean 'seeds'?)"),
            (
                "rows:\n- name: A\n- {key: {}}\n",
                ":6: rows.1.key: Extra inputs are not permitted (did you mean 'keys'?)",
            ),
            ("rows:\n- name: A\n- {keys: {}}\n", ":6: rows.1.name: Field required"),
            ("about: x\n", "tiny.yaml: rows: Field required"),
            ("rows: []\nviews:\n- split\n- tasks\n", ":7: views.1: Input should be 'language'"),
            ("rows:\n- {name: A, keys: {}}\n- {name: A}\n", ":6: two rows are called 'A'"),
            ("rows: [{name: DuDi}]\nbaseline: Dudi\n", ":5: baseline: there is no row 'Dudi' (did you mean 'DuDi'?)"),
            ("rows: [{name: DuDi}]\ncandidate: Dudi\n", ":5: candidate: there is no row 'Dudi'"),
            ("rows: [{name: D}]\ncandidate: D\nrivals:\n- Dd\n", ":7: rivals: there is no row 'Dd'"),
            ("rows: [{name: A}, {name: B}]\nrivals: [B]\n", ":5: rivals: are the others that a `candidate` is tested"),
            ("rows:\n- name: A\n  score: teacher\n", ":6: rows.0.score"),
            ("rows:\n- name: A\n  translate: x\n", ":6: row 'A': a stack is asked about rows"),
            ("rows: [}\n", ":4: not valid YAML"),
            ("rows: []\nrows: []\n", ":5: 'rows' is given twice (before on line 4)"),
            ("rows:\n- &a {name: A}\n- {<<: *a, name: B}\n", ":6: '<<' merges nothing here; write the keys out"),
            ("about: !!set {a}\nrows: []\n", ":4: the tag '!!set' is refused"),
            ("name: x\nrows: []\n", ":4: name: is not a key of a study: its name is the file's"),
        ],
    )
    def test_what_is_wrong_is_said_with_the_file_and_the_line(self, study_file, text, told):
        file = study_file(text)
        with pytest.raises(ConfigError, match=re.escape(told)) as error:
            read_study(file)
        assert str(error.value).startswith(f"{file}:")

    @pytest.mark.parametrize("content", ["", "- 1\n", "{}\n"])
    def test_a_file_that_is_no_mapping(self, tmp_path, content):
        (tmp_path / "no.yaml").write_text(content, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"no\.yaml: a study is a mapping with title"):
            read_study(tmp_path / "no.yaml")
        with pytest.raises(ConfigError, match=r"gone\.yaml: no such file"):
            read_study(tmp_path / "gone.yaml")

    def test_values_are_read_as_a_recipe_reads_them(self, study_file):
        """PyYAML made text of `1e-5`, 8 of `010` and a boolean of `no`."""
        keys = (
            "method: dudi, learning_rate: 1e-5, max_steps: 010, eval_strategy: no, share_rollouts: off, x: [no, {a: b}]"
        )
        file = study_file(f"rows:\n- name: 2024-01-01\n  keys: {{{keys}}}\n")
        (row,) = read_study(file).rows
        assert row.name == "2024-01-01"
        assert row.keys["learning_rate"] == 1e-5 and row.keys["max_steps"] == 10
        words = ('method="dudi"', "learning_rate=1e-05", "max_steps=10", "eval_strategy=no", "share_rollouts=off")
        assert row.words == (*words, 'x=[no, {"a": "b"}]')
        file.write_text(file.read_text(encoding="utf-8").replace(", x: [no, {a: b}]", ""), encoding="utf-8")
        config = job_of(study := read_study(file), study.rows[0], 0).config()
        settings = config.settings
        assert (settings["learning_rate"], settings["max_steps"], settings["eval_strategy"]) == (1e-5, 10, "no")
        assert settings["share_rollouts"] is False

    def test_the_shipped_ones_mean_what_any_reader_of_yaml_says(self):
        """The identity of a finished run hashes its keys."""
        files = [file for file in (ROOT / "recipes/study").rglob("*.yaml") if file.name != "held_out.yaml"]
        assert len(files) > 20
        for file in files:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            for row, theirs in zip(read_study(file).rows, content["rows"], strict=True):
                parts = [(row, theirs), *zip(row.stages, theirs.get("stages", ()), strict=True)]
                for part, said in parts:
                    words = [
                        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in said.get("keys", {}).items()
                    ]
                    assert list(part.words) == words

    def test_a_recipe_that_is_not_there(self, study_file):
        file = study_file("rows: []\n")
        (file.parent / "base.yaml").unlink()
        with pytest.raises(ConfigError, match="there is no file"):
            read_study(file)

    def test_an_unknown_key_of_a_row_is_the_recipes_error(self, study_file, capsys):
        file = study_file("rows: [{name: A, keys: {method: dudi, alhpa: 1}}]\n")
        assert main(["study", "run", str(file), "--dry-run"]) == 2
        assert f"{file}:4: unknown key 'alhpa' (did you mean 'lora.alpha'?)" in capsys.readouterr().err

    def test_a_value_that_its_recipe_refuses_has_the_studys_line(self, study_file, capsys):
        file = study_file("rows:\n- name: A\n  keys:\n    method: dudi\n    learning_rate: abc\n")
        assert main(["study", "run", str(file), "--dry-run"]) == 2
        assert f"{file}:8: learning_rate: expected a number, got abc (text)" in capsys.readouterr().err
        file = study_file("rows:\n- name: A\n  keys:\n    method: dudi\n    student.trust_remote_code: true\n")
        assert main(["study", "run", str(file), "--dry-run"]) == 2
        assert f"{file}:8: student.trust_remote_code: a file may not" in capsys.readouterr().err

    def test_a_job_keeps_its_lines_on_the_way_to_another_process(self, study_file):
        study = read_study(study_file("rows:\n- name: A\n  keys: {method: dudi}\n"))
        job = job_of(study, study.rows[0], 0)
        again = pickle.loads(pickle.dumps(job))
        assert again == job and [word.place for word in again.words] == [f"{study.file}:6"]


class TestJobs:
    def test_rows_of_the_same_keys_are_one_run(self):
        """The row SFT is what DuDi starts from: one run gives both scores."""
        study = shipped("1-methods")
        jobs = [job for job in every_job([study], seeds=1) if job.kind == "run"]
        assert len(jobs) == len(study.rows) - 1
        assert jobs[0].subjects == ("cold_start", "base", "teacher", "student")
        assert [job.subjects for job in jobs[1:]] == [("cold_start",), *[("student",)] * 6]

    def test_what_two_tables_share_runs_once(self):
        methods, components = shipped("1-methods"), shipped("2-components")
        ids = [{job.id for job in every_job([study], seeds=1) if job.kind == "run"} for study in (methods, components)]
        assert len(ids[0] & ids[1]) == 1
        both = [job.id for job in every_job([methods, components], seeds=1) if job.kind == "run"]
        assert len(both) == len(ids[0] | ids[1])

    def test_without_verbalizer_and_no_verbalizer_are_one_run(self):
        one = job_of(shipped("2-components"), _row("2-components", "without the verbalizer"), 0)
        other = job_of(shipped("3-verbalizer"), _row("3-verbalizer", "no verbalizer"), 0)
        assert one.id == other.id

    def test_saying_a_default_changes_nothing(self):
        study, row = shipped("2-components"), _row("2-components", "DuDi")
        said = row.model_copy(update={"keys": {"method": "dudi", "alpha": 0.1, "verbalizer": "cross_lingual"}})
        assert job_of(study, said, 0).id == job_of(study, row, 0).id

    @pytest.mark.parametrize(
        "keys",
        [
            {"alpha": 0.2},
            {"learning_rate": 0.002},
            {"num_train_epochs": 2},
            {"cold_start_epochs": 3},
            {"student.model": "package:dudi/mini/teacher"},
            {"benchmark.per_split": 3},
        ],
        ids=str,
    )
    def test_a_changed_value_is_another_run(self, keys):
        study, row = shipped("2-components"), _row("2-components", "DuDi")
        changed = row.model_copy(update={"keys": {"method": "dudi", **keys}})
        assert job_of(study, changed, 0).id != job_of(study, row, 0).id

    @pytest.mark.parametrize("key", ["data.train", "data.eval", "benchmark.name"])
    def test_a_file_with_other_rows_is_another_run(self, key, tmp_path):
        study, row, ids = shipped("2-components"), _row("2-components", "DuDi"), []
        file = tmp_path / "rows.jsonl"
        for text in ("{}\n", "{}\n{}\n"):
            file.write_text(text, encoding="utf-8")
            for kept in (key_of, files_of):
                kept.cache_clear()  # each is a new start of the program
            more = {"eval_strategy": "epoch"} if key == "data.eval" else {}
            changed = row.model_copy(update={"keys": {"method": "dudi", key: str(file), **more}})
            ids.append(job_of(study, changed, 0).id)
        assert ids[0] != ids[1]

    def test_seeds_are_runs_of_their_own(self):
        study, row = shipped("1-methods"), _row("1-methods", "DuDi")
        assert job_of(study, row, 0).key == job_of(study, row, 1).key
        assert job_of(study, row, 0).id != job_of(study, row, 1).id

    def test_no_job_is_there_twice(self):
        ids = [job.id for job in every_job(read_studies([]))]
        assert len(ids) == len(set(ids))

    def test_the_time_is_told_from_what_such_jobs_took_here(self):
        jobs = [job for job in every_job([shipped("1-methods")], seeds=2) if job.kind == "run"]
        assert expected_seconds(jobs, {}) == 0.0
        dudi = [job for job in jobs if job.config().method == "dudi"]
        done = _result(0.1, dudi[0].id, seconds=20.0, training={"wall": 500.0, "cpu": 400.0})
        done = dataclasses.replace(done, name="dudi")
        assert expected_seconds(dudi[1:], {(dudi[0].id, "student"): done}) == 520.0

    def test_the_lines_for_a_cluster_are_dudi_train(self, study_file, tmp_path, capsys):
        file = study_file(
            "cost: true\nrows:\n  - {name: SFT, keys: {method: gkd}, score: cold_start}\n"
            "  - {name: GKD, keys: {method: gkd}}\n  - {name: DuDi, keys: {method: dudi, exclude_targets: [my]}}\n"
        )
        words = ["study", "run", str(file), "--seeds", "2", "--runs", "r", "--output", str(tmp_path), "--print"]
        assert main(words) == 0
        lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
        assert len(lines) == 4 and not (tmp_path / "r").exists()
        program, verb, recipe, method, targets, seed, cache, _, folder = lines[1]
        assert (program, verb, recipe) == ("dudi", "train", str(tmp_path / "base.yaml"))
        assert (method, targets, seed, cache) == (
            'method="dudi"',
            'exclude_targets=["my"]',
            "seed=0",
            "cache_dir=r/cache",
        )
        assert folder == f"r/run-{key_of(recipe, (method, targets))}/seed-0"


def _row(study, name):
    return next(row for row in shipped(study).rows if row.name == name)


class TestOrder:
    ROWS = (
        StudyRow(name="a", paper=3.0),
        StudyRow(name="b", paper=2.0),
        StudyRow(name="c", paper=2.0),
        StudyRow(name="d"),
    )

    def test_pairs_that_hold_are_reversed_or_are_open(self):
        scores = {"a": [9.0, 9.1, 9.2, 9.3], "b": [1.0, 1.1, 1.2, 1.3], "c": [9.05, 9.15, 9.1, 9.4], "d": [0.0, 1.0]}
        found = {(pair.higher, pair.lower): pair for pair in ordered_pairs(self.ROWS, scores)}
        assert set(found) == {("a", "b"), ("a", "c")}  # the paper has b and c alike, and says nothing of d
        assert found["a", "b"].verdict == "holds" and math.isclose(found["a", "b"].difference, 8.0)
        assert found["a", "c"].verdict == "open"

    def test_reversed(self):
        scores = {"a": [1.0, 1.1, 1.2], "b": [5.0, 5.1, 5.2], "c": []}
        (pair,) = ordered_pairs(self.ROWS, scores)
        assert (pair.higher, pair.lower, pair.verdict) == ("a", "b", "reversed")
        assert pair.difference < 0

    @pytest.mark.parametrize(
        ("low", "verdict", "lost"), [(0.1, "holds", False), (-0.1, "open", True), (None, "holds", False)]
    )
    def test_where_answers_are_kept_items_must_carry_a_lead(self, low, verdict, lost):
        scores = {"a": [9.0, 9.1, 9.2, 9.3], "b": [1.0, 1.1, 1.2, 1.3], "c": []}
        asked = []

        def lead_of(*told):
            asked.append(told)
            return None if low is None else Lead(8.0, low, 9.0, 30, (4, 4))

        (pair,) = ordered_pairs(self.ROWS, scores, lead_of)
        assert (pair.verdict, pair.lost, pair.carried) == (verdict, lost, None if low is None else low > 0)
        assert asked == [("a", "b", 1)]

    def test_the_page_says_what_items_take_away(self, told):
        """Both rows' answers are there: two questions, of which one is answered by the second row alone."""
        study, results = told
        for row, right in ((study.rows[0], (0.0, 0.0)), (study.rows[1], (1.0, 0.0))):
            for seed in (0, 1):
                place = job_of(study, row, seed).id, row.score
                lines = [
                    {"id": str(number), "language": "id", "split": "seen", "scores": {"exact_match": value}}
                    for number, value in enumerate(right)
                ]
                about = results[place].about | {"answers": pack(lines, "exact_match")}
                results[place] = dataclasses.replace(results[place], about=about)
        text = page([study], results, findings="", commands=["dudi study run"])
        assert "Pairs that the paper orders: 1. Significantly so here: 0; significantly reversed: 0; open: 1." in text
        assert "Answers are kept of both rows in 1 of the pairs" in text
        assert "1 are open for that alone." in text

    def test_one_run_is_no_test(self):
        assert ordered_pairs(self.ROWS, {"a": [1.0], "b": [2.0, 3.0], "c": []}) == []


@pytest.fixture
def told(study_file):
    """A study of three rows, of which one was not run, with results made up by hand."""
    file = study_file(
        "candidate: DuDi\ncurves: ['overlap@16']\ncost: true\nsize: true\nviews: [language, split, kind]\nrows:\n"
        "  - {name: SFT, keys: {method: dudi}, score: cold_start, paper: 1.0}\n"
        "  - {name: DuDi, keys: {method: dudi}, paper: 2.0}\n"
        "  - {name: GKD, keys: {method: gkd}, paper: 1.5}\n"
    )
    study = read_study(file)
    results = {}
    for row, base in ((study.rows[0], 0.2), (study.rows[1], 0.4)):
        for seed in (0, 1):
            job = job_of(study, row, seed)
            results[job.id, row.score] = _result(base + 0.01 * seed, job.id, row.score, seed)
        counted = {"per_step": 2e9, "before": 1e9, "counted_steps": 8}
        job = cost_job(study, row)
        runs = (SeedScores(0, {"cold_start": counted, "student": counted}),)
        results[job.id, FLOPS] = Evaluation("dudi", "", {"name": "flops"}, runs, {"job": job.id}, FLOPS)
    first = job_of(study, study.rows[0], 0)
    for which, value in (("base", 0.01), ("teacher", 0.9)):
        results[first.id, which] = _result(value, first.id, which, guessing=_scores(0.1))
    return study, results


def _scores(value):
    leaf = {"questions": 5, "exact_match": value}
    return {
        "overall": leaf,
        "by_language": {"id": leaf, "my": leaf},
        "by_split": {"seen": leaf},
        "by_kind": {"currency": leaf},
    }


ASKED = {
    "name": "cldr-qa-1",
    "part": "test",
    "questions": 5,
    "tasks": ["currency"],
    "fingerprint": "f" * 64,
    "babel_version": "2",
    "cldr_version": "47",
}


def _result(value, job, subject="student", seed=0, **about):
    told = {
        "job": job,
        "steps": {"cold_start": 100, "student": 100},
        "training": {"cpu": 10.0, "wall": 12.0},
        "curves": {"overlap@16": [0.1, 0.2, None, 0.4]},
        "versions": {"torch": "2.13.0+cpu", "transformers": "5"},
        "parameters": 1000,
    }
    return Evaluation(subject.replace("_", " "), "", ASKED, (SeedScores(seed, _scores(value)),), told | about, subject)


def test_shipped_studies_are_found_from_anywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("study/1-methods", "recipes/study/1-methods.yaml"):
        (study,) = read_studies([Path(name)])
        assert study.shown_file == "recipes/study/1-methods.yaml"
    (tmp_path / "study").mkdir()
    assert main(["study", "run", "study/1-method", "--dry-run"]) == 2
    assert "study/1-method: no such study (did you mean 'study/1-methods'?)" in capsys.readouterr().err
    assert main(["study", "run", "mine.yaml", "--dry-run"]) == 2
    assert "mine.yaml: no such file" in capsys.readouterr().err


def test_words_are_for_every_row_and_a_rows_own_keys_stand_above_them(study_file, tmp_path, capsys):
    file = study_file("rows:\n  - {name: A, keys: {method: sft, seed: 3}}\n  - {name: B, keys: {method: gkd}}\n")
    (study,) = read_studies([file], ["max_steps=2", "method=dft"])
    assert [row.words for row in study.rows] == [
        ("max_steps=2", "method=dft", 'method="sft"', "seed=3"),
        ("max_steps=2", "method=dft", 'method="gkd"'),
    ]
    assert main(["study", "run", str(file), "max_steps=two", "--output", str(tmp_path), "--dry-run"]) == 2
    assert "command line: max_steps: expected a whole number" in capsys.readouterr().err
    # The row that needs one, and not the others: it was found by its run.
    assert main(["study", "run", str(file), "teacher=null", "--output", str(tmp_path), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert f"{file}:" in error
    assert "row 'B': method gkd needs a teacher" in error


class TestPage:
    def test_tables_marks_and_dashes(self, told):
        study, results = told
        text = page([study], results, findings="We found it.", commands=["dudi study run"])
        row = next(line for line in text.splitlines() if line.startswith("| DuDi") and "±" in line)
        assert "**40.5 ± 0.7**" in row
        gkd = [line for line in text.splitlines() if line.startswith("| GKD")]
        assert gkd and all(set(line.replace("GKD", "").replace("1.5", "")) <= set("|– ") for line in gkd)
        assert "We found it." in text and "    dudi study run" in text
        assert re.search(r"guessing .*10\.0", text) and re.search(r"teacher .*90\.0", text)

    def test_a_candidate_and_its_rivals_have_a_line_each(self, told):
        """Rivals that were not run yet have none."""
        study, results = told
        study = study.model_copy(update={"rivals": ("SFT", "GKD")})
        text = page([study], results, findings="", commands=[])
        assert r"| DuDi (eps\_min) |" in text and "DuDi is better than each of SFT (ASO" in text
        (line, *_) = [line for line in text.splitlines() if line.startswith("| less SFT")]
        assert line.count("+20.0 (") == line.count("|") - 2 and "| less GKD" not in text

    def test_the_papers_pairs(self, told):
        study, results = told
        text = page([study], results, findings="", commands=[])
        assert "Pairs that the paper orders: 1. Significantly so here: 1; significantly reversed: 0" in text

    def test_cost_adds_the_cold_start(self, told):
        study, results = told
        text = page([study], results, findings="", commands=[])
        assert "| DuDi | 100 | 10 | 12 | 2.0 | 0.20 | 0.40 |" in text
        assert "| SFT | 100 | 10 | 12 | 2.0 | 0.20 | 0.20 |" in text
        assert "| GKD | – | – | – | – | – | – |" in text

    def test_nothing_run_yet(self, study_file):
        study = read_study(study_file("rows: [{name: A, keys: {method: sft}}]\n"))
        text = page([study], {}, findings="", commands=[])
        assert "Nothing has been run yet." in text and "Not run yet." in text

    def test_curves_are_means_over_seeds_without_gaps(self, told):
        study, results = told
        (first, second) = curves(study, "overlap@16", results)
        assert [y for _, y in first.points] == [0.1, 0.2, 0.4] and [x for x, _ in first.points] == [12.5, 37.5, 87.5]
        assert second.label == "DuDi"

    def test_size_needs_two_sizes(self, told):
        study, results = told
        assert sizes([study], results) == []
        (line, _) = sizes([study, study], results)  # of the same size twice
        assert line.points[0][0] == 1000.0 and math.isclose(line.spread[0], 0.7071, rel_tol=1e-3)


class TestCollected:
    def test_a_file_keeps_what_the_runs_no_longer_have(self, told, tmp_path):
        study, results = told
        file = tmp_path / "study.json"
        collected.write(results, file)
        again = collected.collect([study], tmp_path / "no-runs", file)
        assert again == {place: results[place] for place in again} and len(again) == len(results)

    def test_runs_win_and_are_shortened(self, told, tmp_path):
        study, results = told
        file, job = tmp_path / "study.json", job_of(study, study.rows[1], 0)
        collected.write(results, file)
        scores = _scores(0.7) | {"by_language": {"id": {"questions": 5, "exact_match": 0.7, "chrf": 3.0}}}
        fuller = dataclasses.replace(_result(0.7, "x", curves=None), runs=(SeedScores(0, scores),))
        keep_evaluations([fuller], [], tmp_path / job.id)
        lines = [
            {"stage": "cold_start", "step": 1},
            *({"stage": "dudi", "step": n, "overlap@16": n} for n in range(48)),
        ]
        (tmp_path / job.id / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        kept = collected.collect([study], tmp_path, file)[job.id, "student"]
        assert kept.runs[0].scores["by_language"] == {"id": {"exact_match": 0.7}}
        assert kept.values("exact_match", "overall") == [0.7]
        assert kept.about["steps"] == {"cold_start": 1, "student": 48}
        assert kept.about["curves"]["overlap@16"][:2] == [0.5, 2.5] and len(kept.about["curves"]["overlap@16"]) == 24
        assert kept.about["training"] is None  # nobody held a clock: a line of --print

    def test_results_of_other_studies_stay_in_the_file(self, told, tmp_path):
        _, results = told
        file, (first, *_) = tmp_path / "study.json", results
        collected.write(results, file)
        collected.write({first: results[first]}, file)
        assert collected.read(file) == results

    def test_the_page_shows_every_shipped_table_when_one_is_named(self, told):
        every = read_studies([])
        assert [study.name for study in shown(every[1:2])] == [study.name for study in every]
        assert shown([told[0]]) == [told[0]]

    def test_a_broken_file_is_named(self, told, tmp_path):
        (tmp_path / "study.json").write_text("{", encoding="utf-8")
        with pytest.raises(DataError, match=r"study\.json: is not JSON"):
            collected.collect([told[0]], tmp_path, tmp_path / "study.json")


class InThisProcess:
    """A pool that starts no process, which would import everything again."""

    def shutdown(self, **how):
        return None

    def submit(self, call, *words):
        done = Future()
        done.set_result(call(*pickle.loads(pickle.dumps(words))))
        return done


def test_a_small_study_from_start_to_end(study_file, tmp_path, capsys, monkeypatch):
    """Cold start, a method on it, both models as they are, FLOPs, the page; and nothing again the second time.

    `tests/trust/test_processes.py` has the pool of processes.
    """
    monkeypatch.setattr(scheduler, "_pool", lambda at_once, threads: InThisProcess())
    file = study_file(
        "cost: true\nrows:\n"
        "  - {name: SFT, keys: {method: sft, cold_start: sft}, score: cold_start, paper: 1.0}\n"
        "  - {name: GKD, keys: {method: gkd}, paper: 2.0}\n"
    )
    words = ["study", "run", str(file), "--seeds", "1", "--jobs", "1"]
    words += ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "docs")]
    assert main([*words, "--dry-run"]) == 0
    assert "1 table, 2 scores from 4 jobs" in capsys.readouterr().out and not (tmp_path / "runs").exists()
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "[4/4]" in said and "GFLOP a step" in said
    study = read_study(file)
    results = collected.read(tmp_path / "docs" / "study.json")
    starts, method = (results[job_of(study, row, 0).id, row.score] for row in study.rows)
    assert method.about["steps"] == {"cold_start": 4, "student": 4} and starts.about["steps"]["student"] == 0
    assert method.runs[0].scores["overall"]["questions"] == 6
    assert method.about["training"]["cpu"] > 0 and method.about["parameters"] > 1e6
    assert "overlap@16" in method.about["curves"] and "overlap@16" not in starts.about["curves"]
    sft, gkd = (results[cost_job(study, row).id, FLOPS] for row in study.rows)
    assert gkd.values("per_step", "student")[0] > 1.5 * sft.values("per_step", "student")[0]  # it generates, and asks
    assert sft.values("per_step", "cold_start") == gkd.values("per_step", "cold_start")
    folder = tmp_path / "runs" / job_of(study, study.rows[1], 0).id
    assert not (folder / "model").exists()
    cached = [json.loads(line).get("cached") for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert cached[:4] == [True] * 4 and not any(cached[4:])  # the cold start is the other row's
    text = (tmp_path / "docs" / "study.md").read_text(encoding="utf-8")
    assert "| GKD |" in text and "teacher" in text and "guessing" in text
    assert main(words) == 0
    assert "0 are left" in capsys.readouterr().out


@pytest.mark.slow
def test_a_line_for_a_cluster_gives_what_the_study_gives(study_file, tmp_path, capsys):
    file = study_file(
        "rows:\n  - {name: SFT, keys: {method: gkd}, score: cold_start}\n  - {name: GKD, keys: {method: gkd}}\n"
    )
    words = ["study", "run", str(file), "--seeds", "1", "--runs", str(tmp_path / "runs"), "--output", str(tmp_path)]
    assert main([*words, "--print"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert main([*shlex.split(line)[1:], "max_steps=2"]) == 0
    capsys.readouterr()
    assert main([*words, "--dry-run"]) == 0
    assert "0 are left" in capsys.readouterr().out
    study = read_study(file)
    found = collected.collect([study], tmp_path / "runs", tmp_path / "study.json")
    asked = read_evaluations(tmp_path / "runs" / job_of(study, study.rows[0], 0).id / "evaluation.json")
    assert (
        {subject for _, subject in found}
        == {one.subject for one in asked}
        == {"base", "cold_start", "student", "teacher"}
    )


def test_the_page_in_the_repository_is_what_its_command_prints(tmp_path):
    shutil.copytree(ROOT / "docs" / "results", tmp_path / "results")
    assert main(["study", "report", "--runs", str(tmp_path / "none"), "--output", str(tmp_path / "results")]) == 0
    for name in ("study.md", "study.json"):
        assert (tmp_path / "results" / name).read_bytes() == (ROOT / "docs" / "results" / name).read_bytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_worker_ends_with_the_process_that_asked_for_it():
    """A study that is killed leaves nobody behind who waits for work for ever."""
    reading, writing = os.pipe()
    parent = os.fork()
    if not parent:
        worker = os.fork()
        if not worker:
            _leave_with(os.getppid())
        os.write(writing, str(worker).encode())
        time.sleep(60)
        os._exit(0)
    worker = int(os.read(reading, 32))
    os.kill(worker, 0)  # it is there
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert _gone(worker, within=30.0)


def _gone(process, within):
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(process, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False


def test_shipped_studies_come_in_the_order_of_their_numbers():
    assert [file.name[0] for file in shipped_studies()] == sorted(file.name[0] for file in shipped_studies())


@pytest.mark.parametrize("option", ["--seeds", "--jobs", "--threads"])
def test_numbers_below_one_are_refused(option, capsys):
    assert main(["study", "run", "--dry-run", option, "0"]) == 2
    assert option in capsys.readouterr().err


def test_arguments_have_defaults():
    from dudi.program.study import run_arguments

    parser = argparse.ArgumentParser()
    run_arguments(parser)
    given = parser.parse_args([])
    assert given.threads == 1 and given.runs == Path("runs/study") and given.output == Path("docs/results")


def test_what_the_file_of_results_holds_is_not_run_again(told, tmp_path):
    study, _ = told
    jobs = every_job([study])
    every = {(job.id, subject) for job in jobs for subject in job.subjects}
    assert missing(jobs, tmp_path, every) == []
    first = jobs[0]
    (left,) = missing(jobs, tmp_path, every - {(first.id, "student")})
    assert (left.id, left.subjects) == (first.id, ("student",))
    keep_evaluations([_result(0.1, first.id)], [], tmp_path / first.id)
    assert missing(jobs, tmp_path, every - {(first.id, "student")}) == []
    assert missing(jobs[1:], tmp_path) == jobs[1:]


@pytest.mark.parametrize(("option", "left"), [([], "0 are left"), (["--again"], "4 are left")])
def test_again_runs_what_is_known(study_file, tmp_path, capsys, option, left):
    file = study_file("cost: true\nrows:\n  - {name: SFT, keys: {method: sft}}\n  - {name: GKD, keys: {method: gkd}}\n")
    jobs = every_job([read_study(file)], 1)
    known = {(job.id, who): _result(0.1, job.id, who) for job in jobs for who in job.subjects}
    collected.write(known, tmp_path / "study.json")
    assert main(["study", "run", str(file), "--seeds", "1", "--output", str(tmp_path), *option, "--dry-run"]) == 0
    assert left in capsys.readouterr().out
