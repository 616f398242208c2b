"""SIGKILL at any moment: the same command goes on, and the run ends with the same bits."""

import shutil
import subprocess
import sys

import pytest
from kills import cut_before_a_save, differences, kill_at_random, whole_run
from lab import METHODS_OF_THE_PROMISE, weights_of

ROW = "SIGKILL at any moment, resume, same final weights, metrics and samples"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", METHODS_OF_THE_PROMISE)
def test_random_moments(lab, promise, method, seed):
    trial = kill_at_random(lab, method, seed)
    promise(f"{ROW} ({method})", 1, bool(trial["lost"]), note=f"{'; '.join(trial['killed'])} {trial['lost'] or ''}")


@pytest.mark.parametrize("part", range(3))
def test_every_file_operation_of_a_save(lab, promise, tmp_path, part):
    """The save of step 9, with the rotation that deletes step 3: killed before each of its file operations."""
    whole, save = whole_run(lab, "sft"), cut_before_a_save(lab)
    lost, places = [], range(1 + part, len(save.operations) + 1, 3)
    for place in places:
        run = save.copy(tmp_path / "run")
        child = lab.run(
            lab.words(run, "sft"), plant={"boundaries": {"folder": str(run), "at": place, "only": save.only}}
        )
        last = lab.run(lab.words(run, "sft"))
        if child.code != -9 or last.code != 0 or differences(run, whole):
            lost.append(save.operations[place - 1])
        shutil.rmtree(run)
    promise("SIGKILL before each file operation of a save", len(places), len(lost), "operations", " ".join(lost))


def test_warnings_of_collapse(lab, promise, tmp_path):
    """The alarm averages over steps, of which some lie before the kill."""
    keys = ("cold_start=none", "alarm_steps=8", "alarm_unended_rate=0", "alarm_wrong_language_rate=0")
    whole, run = whole_run(lab, "sdft", *keys), tmp_path / "run"
    assert {record["step"] for record in whole.numbers if "warnings" in record} == {8}
    cut = {"folder": str(run), "at": 1, "only": [".step-6.partial"]}
    assert lab.run(lab.words(run, "sdft", *keys), plant={"boundaries": cut}).code == -9
    assert lab.run(lab.words(run, "sdft", *keys)).code == 0
    promise(f"{ROW} (sdft)", 1, len(differences(run, whole)), note="the alarms for collapse")


def test_processes_of_their_own(lab, promise, tmp_path):
    """The same with `python -m dudi` started from nothing, as people do: no fork, another hash seed each time."""
    whole = whole_run(lab, "dudi")
    run, env = tmp_path / "run", {**lab.quiet_environment, "DUDI_CACHE": str(tmp_path / "cache")}
    words = [sys.executable, "-m", "dudi", *lab.words(run, "dudi")]
    for seconds_after_its_first_step in (0.0, 2.0):
        with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                lab.wait_for(run / "metrics.jsonl", process)
                process.wait(seconds_after_its_first_step)
            process.kill()
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert weights_of(run) == whole.weights
    promise(f"{ROW} (own processes)", 2, len(differences(run, whole)))
