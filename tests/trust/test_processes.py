"""Processes that import everything anew, as people start them: recipes of each architecture, the pool of a study."""

import os

import pytest
import torch
from test_recipes import folders, run_as_a_process  # noqa: F401  # folders is a fixture
from test_study import study_file  # noqa: F401  # a fixture

from dudi.study.grid import read_study
from dudi.study.jobs import every_job, missing
from dudi.study.scheduler import _pool, run_jobs


@pytest.mark.parametrize("name", ["table2/gkd", "table3/qwen3-0.6b/gkd", "table3/llama3.2-1b/sft"])
def test_a_recipe_runs_as_a_process_of_its_own(name, folders, tmp_path):  # noqa: F811
    run_as_a_process(name, folders, tmp_path / "run")


def test_a_study_has_processes_with_threads_of_their_own():
    with _pool(2, 1) as pool:
        assert pool.submit(os.getpid).result() != os.getpid()
        assert pool.submit(torch.get_num_threads).result() == 1


def test_the_jobs_of_a_study_run_in_them(study_file, tmp_path):  # noqa: F811
    """Two at once, which wait for one cold start, and the results come back."""
    rows = "rows:\n  - {name: GKD, keys: {method: gkd}}\n  - {name: DuDi, keys: {method: dudi}}\n"
    jobs = every_job([read_study(study_file(rows))], seeds=1)
    told = {}
    left = run_jobs(
        jobs, tmp_path, at_once=2, threads=1, keep_models=False, told=lambda job, result: told.update({job: result})
    )
    assert left == [] and missing(jobs, tmp_path) == []
    assert set(told) == set(jobs) and not [one for one in told.values() if isinstance(one, BaseException)]
    first = [(tmp_path / job.id / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0] for job in jobs]
    assert sorted("cached" in line for line in first) == [False, True]  # one trained it, the other took it
