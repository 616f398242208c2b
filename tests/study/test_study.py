"""Studies: what runs, once, in which order; what the page says of it; and one small study from start to end."""

import argparse
import json
import math
import os
import pickle
import re
import signal
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from dudi.config.recipe_files import list_recipes
from dudi.errors import ConfigError
from dudi.program.cli import main
from dudi.program.study import shown
from dudi.study import collected, scheduler
from dudi.study.costs import SECONDS, expected_seconds, sort_of
from dudi.study.figures import curves, sizes
from dudi.study.grid import Row, read_studies, read_study, shipped_studies
from dudi.study.jobs import RESULT, Job, cost_job, every_job, finished, jobs_of, missing, reference_job
from dudi.study.ordering import ordered_pairs
from dudi.study.page import page
from dudi.study.scheduler import _leave_with, _ready

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
        (tmp_path / "base.yaml").write_text(base.replace("mini/dudi", _recipe("mini/dudi")), encoding="utf-8")
        file = tmp_path / "tiny.yaml"
        file.write_text(HEAD + text, encoding="utf-8")
        return file

    return write


def _recipe(name):
    return str(Path(__file__).parents[2] / "recipes" / f"{name}.yaml")


class TestStudyFiles:
    def test_the_shipped_ones_are_read_and_their_rows_resolve(self):
        studies = read_studies([])
        assert [study.name for study in studies][:2] == ["0-learning-rates", "1-methods"]
        assert len(every_job(studies)) > 200

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
            ("rows: []\nseed: 3\n", "seed: Extra inputs"),
            ("rows: [{name: A, keys: {}}, {name: A}]\n", "two rows are called 'A'"),
            ("rows: [{name: DuDi}]\nbaseline: Dudi\n", "there is no row 'Dudi' (did you mean 'DuDi'?)"),
            ("rows: [{name: A, score: teacher}]\n", "rows.0.score"),
            ("rows: [}\n", "is not YAML"),
            ("name: x\nrows: []\n", "its name is the file's"),
        ],
    )
    def test_what_is_wrong_is_said_with_the_file(self, study_file, text, told):
        file = study_file(text)
        with pytest.raises(ConfigError, match=re.escape(told)) as error:
            read_study(file)
        assert str(file) in str(error.value)

    def test_a_recipe_that_is_not_there(self, study_file):
        file = study_file("rows: []\n")
        (file.parent / "base.yaml").unlink()
        with pytest.raises(ConfigError, match="there is no file"):
            read_study(file)

    def test_an_unknown_key_of_a_row_is_the_recipes_error(self, study_file, capsys):
        file = study_file("rows: [{name: A, keys: {method: dudi, alhpa: 1}}]\n")
        assert main(["study", "run", str(file), "--dry-run"]) == 2
        assert "alhpa" in capsys.readouterr().err


class TestJobs:
    def test_a_cold_start_is_shared_by_all_methods_of_a_seed(self):
        study = shipped("1-methods")
        jobs = every_job([study], seeds=1)
        starts = [job for job in jobs if job.kind == "cold_start"]
        assert len(starts) == 2  # from SFT, and from DFT for its own row
        needed = {job.needs for job in jobs if job.kind == "method"}
        assert needed == {(starts[0].id,)}

    def test_what_two_tables_share_runs_once(self):
        methods, components = shipped("1-methods"), shipped("2-components")
        both = every_job([methods, components], seeds=1)
        own = [job for job in every_job([components], seeds=1) if job.kind == "method"]
        assert len([job for job in both if job.kind == "method"]) == 7 + len(own) - 1

    def test_without_verbalizer_and_no_verbalizer_are_one_run(self):
        one = jobs_of(shipped("2-components"), _row("2-components", "without the verbalizer"), 0)
        other = jobs_of(shipped("3-verbalizer"), _row("3-verbalizer", "no verbalizer"), 0)
        assert one[-1].id == other[-1].id

    def test_saying_a_default_changes_nothing(self):
        study, row = shipped("2-components"), _row("2-components", "DuDi")
        said = row.model_copy(update={"keys": {"method": "dudi", "alpha": 0.1, "verbalizer": "cross_lingual"}})
        assert jobs_of(study, said, 0)[-1].id == jobs_of(study, row, 0)[-1].id

    @pytest.mark.parametrize("keys", [{"alpha": 0.2}, {"learning_rate": 0.002}, {"num_train_epochs": 2}])
    def test_a_changed_value_is_another_run_from_the_same_cold_start(self, keys):
        study, row = shipped("2-components"), _row("2-components", "DuDi")
        own, plain = (jobs_of(study, r, 0) for r in (row.model_copy(update={"keys": {"method": "dudi", **keys}}), row))
        assert own[0].id == plain[0].id
        assert own[1].id != plain[1].id

    @pytest.mark.parametrize("keys", [{"cold_start_epochs": 3}, {"student.model": "package:dudi/mini/teacher"}])
    def test_a_changed_cold_start_is_another(self, keys):
        study, row = shipped("2-components"), _row("2-components", "DuDi")
        changed = row.model_copy(update={"keys": {"method": "dudi", **keys}})
        assert jobs_of(study, changed, 0)[0].id != jobs_of(study, row, 0)[0].id

    def test_seeds_are_runs_of_their_own(self):
        study, row = shipped("1-methods"), _row("1-methods", "DuDi")
        assert jobs_of(study, row, 0)[-1].key == jobs_of(study, row, 1)[-1].key
        assert jobs_of(study, row, 0)[-1].id != jobs_of(study, row, 1)[-1].id

    def test_each_job_stands_behind_what_it_needs(self):
        seen = set()
        for job in every_job(read_studies([])):
            assert set(job.needs) <= seen
            assert job.id not in seen
            seen.add(job.id)

    def test_ready_are_those_whose_needs_have_results(self, tmp_path):
        first, second = Job("cold_start", "a", 0, "r", ()), Job("method", "b", 0, "r", (), ("cold_start-a/seed-0",))
        assert _ready([first, second], tmp_path) == [first]
        _finish(first, tmp_path)
        assert _ready([second], tmp_path) == [second]
        assert finished(first, tmp_path) and not finished(second, tmp_path)

    def test_the_cost_is_told_from_what_such_jobs_took_here(self, tmp_path):
        jobs = [job for job in every_job([shipped("1-methods")], seeds=2) if job.kind == "method"]
        assert expected_seconds(jobs, jobs, tmp_path) == sum(SECONDS[sort_of(job)] for job in jobs)
        dudi = [job for job in jobs if sort_of(job) == "dudi"]
        _finish(dudi[0], tmp_path, seconds={"wall": 500.0}, asking_seconds={"wall": 20.0})
        assert expected_seconds(dudi[1:], jobs, tmp_path) == 520.0


def _row(study, name):
    return next(row for row in shipped(study).rows if row.name == name)


def _finish(job, runs, **result):
    folder = runs / job.id
    folder.mkdir(parents=True)
    (folder / RESULT).write_text(json.dumps(result), encoding="utf-8")


class TestOrder:
    ROWS = (Row(name="a", paper=3.0), Row(name="b", paper=2.0), Row(name="c", paper=2.0), Row(name="d"))

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
            job = jobs_of(study, row, seed)[-1]
            results[job.id] = _result(base + 0.01 * seed)
        counted = {"kind": "cost", "flops_per_step": 2e9, "flops_before": 1e9, "counted_steps": 8, "curves": {}}
        results[cost_job(study, row).id] = counted | {"torch": "2", "transformers": "5"}
    for which, value in (("student", 0.01), ("teacher", 0.9)):
        own = _result(value) | {"parameters": 1000, "floor": _scores(0.1)}
        results[reference_job(study, study.rows[0], which).id] = own
    return study, results


def _scores(value):
    leaf = {"questions": 5, "exact_match": value}
    return {
        "overall": leaf,
        "by_language": {"id": leaf, "my": leaf},
        "by_split": {"seen": leaf},
        "by_kind": {"currency": leaf},
    }


def _result(value):
    return {
        "benchmark": {
            "name": "cldr-qa-1",
            "part": "test",
            "questions": 5,
            "tasks": ["currency"],
            "fingerprint": "f" * 64,
            "babel_version": "2",
            "cldr_version": "47",
        },
        "scores": _scores(value),
        "steps": 100,
        "seconds": {"cpu": 10.0, "wall": 12.0},
        "curves": {"overlap@16": [0.1, 0.2, None, 0.4]},
        "torch": "2.13.0+cpu",
        "transformers": "5",
    }


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

    def test_the_papers_pairs(self, told):
        study, results = told
        text = page([study], results, findings="", commands=[])
        assert "Of the paper's 1 pairs, 1 hold here significantly, 0 are reversed" in text

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
        (line, _) = sizes([study, study], results)
        assert line.points[0][0] == 1000.0 and math.isclose(line.spread[0], 0.7071, rel_tol=1e-3)


class TestCollected:
    def test_a_file_keeps_what_the_runs_no_longer_have(self, told, tmp_path):
        study, results = told
        file = tmp_path / "study.json"
        collected.write(results, file)
        again = collected.collect([study], tmp_path / "no-runs", file)
        assert again == {name: results[name] for name in again} and len(again) == len(results)

    def test_runs_win_and_are_shortened(self, told, tmp_path):
        study, results = told
        file, job = tmp_path / "study.json", jobs_of(study, study.rows[1], 0)[-1]
        collected.write(results, file)
        fuller = _result(0.7)
        fuller["scores"]["by_language"] = {"id": {"questions": 5, "exact_match": 0.7, "chrf": 3.0}}
        _finish(job, tmp_path, **fuller)
        kept = collected.collect([study], tmp_path, file)[job.id]
        assert kept["scores"]["by_language"] == {"id": {"exact_match": 0.7}}
        assert kept["scores"]["overall"]["exact_match"] == 0.7

    def test_results_of_other_studies_stay_in_the_file(self, told, tmp_path):
        _, results = told
        file, (first, *_) = tmp_path / "study.json", results
        collected.write(results, file)
        collected.write({first: results[first]}, file)
        assert json.loads(file.read_text(encoding="utf-8")) == results

    def test_the_page_shows_every_shipped_table_when_one_is_named(self, told):
        every = read_studies([])
        assert [study.name for study in shown(every[1:2])] == [study.name for study in every]
        assert shown([told[0]]) == [told[0]]

    def test_a_broken_file_is_named(self, told, tmp_path):
        (tmp_path / "study.json").write_text("{", encoding="utf-8")
        with pytest.raises(Exception, match=r"study\.json: is not JSON"):
            collected.collect([told[0]], tmp_path, tmp_path / "study.json")


class InThisProcess:
    """A pool that starts no process, which would import everything again."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
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
    assert "1 table, 2 scores" in capsys.readouterr().out and not (tmp_path / "runs").exists()
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "[6/6]" in said and "GFLOP a step" in said
    results = {path.parent.parent.name: json.loads(path.read_text()) for path in tmp_path.rglob(RESULT)}
    method = next(one for name, one in results.items() if name.startswith("method-"))
    assert method["steps"] == 4 and method["scores"]["overall"]["questions"] == 6
    costs = [one["flops_per_step"] for name, one in results.items() if name.startswith("cost-")]
    assert len(costs) == 2 and max(costs) > 1.5 * min(costs)  # a step of GKD generates and asks the teacher
    assert not list((tmp_path / "runs").rglob("model/model.safetensors")) or not list(
        (tmp_path / "runs").glob("method-*/*/run/model")
    )
    text = (tmp_path / "docs" / "study.md").read_text(encoding="utf-8")
    assert "| GKD |" in text and "teacher" in text
    assert main(words) == 0
    assert "0 are left" in capsys.readouterr().out


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


def test_what_the_file_of_results_holds_is_not_run_again(told, tmp_path, capsys):
    """From a fresh clone only what is missing runs, and the cold starts whose weights that needs."""
    study, _ = told
    jobs = every_job([study])
    assert missing(jobs, tmp_path, {job.id for job in jobs}) == []
    method = next(job for job in jobs if job.kind == "method")
    known = {job.id for job in jobs} - {method.id}
    assert [job.id for job in missing(jobs, tmp_path, known)] == [*method.needs, method.id]
    assert missing(jobs, tmp_path, ()) == jobs


@pytest.mark.parametrize(("option", "left"), [([], "0 are left"), (["--again"], "7 are left")])
def test_again_runs_what_is_known(study_file, tmp_path, capsys, option, left):
    file = study_file("cost: true\nrows:\n  - {name: SFT, keys: {method: sft}}\n  - {name: GKD, keys: {method: gkd}}\n")
    jobs = every_job([read_study(file)], 1)
    collected.write({job.id: {} for job in jobs}, tmp_path / "study.json")
    assert main(["study", "run", str(file), "--seeds", "1", "--output", str(tmp_path), *option, "--dry-run"]) == 0
    assert left in capsys.readouterr().out
