"""`dudi eval --benchmark seahelm` against a stand-in for SEA-HELM and a real small server, both real processes."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from seahelm_stand_ins import make_checkout, make_model, make_server

from dudi.errors import ConfigError, EnvironmentFault
from dudi.evaluation.records import read_evaluations
from dudi.evaluation.seahelm import evaluate, vllm
from dudi.evaluation.seahelm.catalogue import DEFAULT_SET, read_catalogue, select
from dudi.evaluation.seahelm.evaluate import SeaHelm
from dudi.evaluation.seahelm.processes import last_lines, start, stop
from dudi.evaluation.seahelm.server import Server, ask
from dudi.evaluation.seahelm.table import seahelm_table
from dudi.evaluation.seahelm.vllm import StartedServer, served_name
from dudi.program.cli import main

PYTHON = Path(sys.executable)


class Place:
    """A checkout, a model and a server to evaluate with; `asked` says what the server was asked."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.checkout = make_checkout(folder / "SEA-HELM")
        self.model = make_model(folder / "final")
        self.pids_file, self.questions_file = folder / "pids", folder / "questions"
        monkeypatch.setenv("PYTHONPATH", str(make_server(folder / "packages")))
        monkeypatch.setattr(evaluate, "POLL", 0.02)
        monkeypatch.setattr(vllm, "POLL", 0.02)
        self.server()

    def server(self, **how):
        how = {"pids": str(self.pids_file), "questions": str(self.questions_file), **how}
        self.monkeypatch.setenv("STAND_IN", json.dumps(how))

    def start(self, **given):
        return StartedServer(str(self.model), self.folder / "log", **{"python": PYTHON, "timeout": 60, **given})

    def evaluate(self, seeds=(0,), tasks=(DEFAULT_SET,), languages=None, name="final", server=None, limit=None):
        catalogue = read_catalogue(self.checkout)
        seahelm = SeaHelm(
            server=server or self.start(),
            catalogue=catalogue,
            chosen=select(catalogue, tasks, languages),
            python=PYTHON,
            output=self.folder / "out",
            limit=limit,
        )
        return seahelm.evaluate(name, seeds)

    @property
    def asked(self):
        """The questions of SEA-HELM, without our own at the start."""
        lines = self.questions_file.read_text().splitlines() if self.questions_file.exists() else []
        return [line for line in lines if "/" in line]

    @property
    def starts(self):
        return len(self.pids_file.read_text().splitlines()) if self.pids_file.exists() else 0

    def nothing_runs(self):
        """Servers, their children and SEA-HELM are gone: nothing that knows of our folder is left."""
        known = [int(pid) for line in self.pids_file.read_text().splitlines() for pid in line.split()]
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and (left := [*filter(_runs, known), *self._of_ours()]):
            time.sleep(0.02)
        return not left

    def _of_ours(self):
        others = (process for process in psutil.process_iter(["cmdline"]) if process.pid != os.getpid())
        return [other.pid for other in others if str(self.folder) in " ".join(other.info["cmdline"] or [])]


def _runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it may go between one question and the next
        return False


@pytest.fixture
def place(tmp_path, monkeypatch):
    return Place(tmp_path, monkeypatch)


def test_two_seeds_from_start_to_end(place):
    evaluation = place.evaluate(seeds=(0, 4), limit=2, name="student")
    assert place.nothing_runs()
    assert place.starts == 1  # one server for both seeds
    assert [run.seed for run in evaluation.runs] == [0, 4]
    assert evaluation.values("score", "by_language", "id") == [10.0, 14.0]  # the stand-in answers by its seed
    assert evaluation.runs[0].scores["by_task"]["id/guard_response"] == {"score": 10.0, "tasks": 1, "asked": 1}
    assert evaluation.benchmark["tasks"] == {
        "id": ["qa", "guard_prompt", "guard_response"],
        "th": ["qa", "guard_prompt"],
    }
    assert evaluation.benchmark["decoding"] == {"server": "vllm", "words": [], "max_tokens": "of each task"}
    assert evaluation.about["without"] == ["open_clip"]  # `vllm` is there: the stand-in
    assert {"python", "torch"} <= set(evaluation.about["versions"])
    assert read_evaluations(place.folder / "out" / "evaluation.json") == [evaluation]
    assert "12.0 ±2.8" in seahelm_table(evaluation)
    assert "a trial, no result" in seahelm_table(evaluation)


def test_what_is_complete_is_not_run_again_and_new_seeds_get_runs_of_their_own(place):
    first = place.evaluate(seeds=(7,), tasks=("qa",))
    assert (place.starts, len(place.asked)) == (1, 6)
    again = place.evaluate(seeds=(7,), tasks=("qa",))
    assert (place.starts, len(place.asked)) == (1, 6)
    assert again == first
    assert again.values("score", "overall") == [17.0]
    more = place.evaluate(seeds=(2, 7), tasks=("qa",))  # a lower seed must not take up the answers of run 0
    assert (place.starts, len(place.asked)) == (2, 12)
    assert more.values("score", "overall") == [12.0, 17.0]
    settings = json.loads((place.folder / "out" / "seahelm" / "settings.json").read_text())
    assert settings["runs"] == {"7": 0, "2": 1}


def test_a_failed_task_is_missing_and_is_tried_again_with_the_rest_from_the_cache(place):
    first = place.evaluate(tasks=("qa", "gated"), languages=("id",))
    assert first.about["missing"] == {"0": {"id/gated": "Failed to run evaluation for task"}}
    assert first.runs[0].scores["by_task"]["id/gated"] == {"score": None, "tasks": 0, "asked": 1}
    assert first.benchmark["missing"] == ["id/gated"]  # so that it is not compared with one that has it
    assert first.values("score", "overall") == [10.0]  # and not 5.0, as SEA-HELM's own zero would make it
    assert "10.0*" in seahelm_table(first)
    assert "Missing (*): id/gated" in seahelm_table(first)
    (place.checkout / "seahelm_tasks" / "gate_open").touch()
    second = place.evaluate(tasks=("qa", "gated"), languages=("id",))
    assert second.about["missing"] == {} and "missing" not in second.benchmark
    assert sorted(place.asked) == [f"id/{name}/{n}" for name in ("gated", "qa") for n in range(3)]


def test_other_settings_are_not_mixed_with_what_is_there(place):
    place.evaluate(tasks=("qa",), limit=2)
    with pytest.raises(ConfigError, match="limit = 2, and this run has 3"):
        place.evaluate(tasks=("qa",), limit=3)
    with pytest.raises(ConfigError, match="holds results with decoding"):
        place.evaluate(tasks=("qa",), limit=2, server=place.start(temperature=0.0))
    (place.model / "model.safetensors").write_bytes(b"trained further")
    with pytest.raises(ConfigError, match="holds results with model"):
        place.evaluate(tasks=("qa",), limit=2)
    assert place.starts == 1


def test_a_server_that_dies_stops_seahelm_at_once(place):
    place.server(die_after=5)
    started = time.monotonic()
    with pytest.raises(
        EnvironmentFault, match=r"(?s)server is gone: it ended with code 3.*does not use offset"
    ) as raised:
        place.evaluate(limit=3)
    assert time.monotonic() - started < 30  # the stand-in alone would ask again for five minutes
    assert raised.value.exit_code == 1
    assert place.nothing_runs()
    assert not (place.folder / "out" / "evaluation.json").exists()
    place.server()
    assert place.evaluate(limit=3).values("score", "overall") == [10.0]
    assert place.asked.count("id/qa/0") == 1  # from before
    assert place.asked.count("id/guard_prompt/0") == 2  # that task was cut off


def test_a_server_that_falls_silent_is_dead_too(place):
    place.server(sick_after=2)
    server = place.start()
    server.patience = 0.2
    place.monkeypatch.setattr(evaluate, "POLL", 0.0)
    with pytest.raises(EnvironmentFault, match="server is gone: it was silent for"):
        place.evaluate(server=server, limit=400, tasks=("qa",))
    assert place.nothing_runs()


def test_a_server_that_never_gets_healthy(place):
    place.server(never_healthy=True)
    with pytest.raises(EnvironmentFault, match=r"(?s)not healthy after 1 s; see --startup-timeout.*loading"):
        place.evaluate(server=place.start(timeout=1))
    assert place.nothing_runs()


def test_a_server_that_cannot_start(place):
    place.server(leave=True)
    with pytest.raises(EnvironmentFault, match=r"(?s)ended with code 1 at start.*no room on the device"):
        place.evaluate()


def test_an_answer_that_repeats_its_question_is_refused(place):
    place.server(echo=True)
    with pytest.raises(EnvironmentFault, match="puts the question into its answer"):
        place.evaluate()
    assert place.asked == []
    assert place.nothing_runs()


def test_seahelm_that_breaks_in_the_middle_is_an_error_and_at_the_end_is_not(place):
    words = r"(?s)ended with code 1 before it was through.*out of memory in SEA-HELM"
    with pytest.raises(EnvironmentFault, match=words):
        place.evaluate(tasks=("qa", "crash"), languages=("id",))
    assert place.nothing_runs()
    evaluation = place.evaluate(tasks=("qa", "breaks-at-the-end"), languages=("id",))
    assert evaluation.about["missing"] == {}
    assert evaluation.values("score", "by_competency", "knowledge") == [10.0]


def test_answers_that_are_errors_are_counted(place):
    evaluation = place.evaluate(tasks=("half",))
    assert evaluation.about["answer_errors"] == {"0": 2}  # one in each of two languages
    assert "2 answers are errors of the server" in seahelm_table(evaluation)


@pytest.mark.slow
def test_sigterm_stops_everything_and_leaves_with_130(place):
    words = [
        "eval",
        str(place.model),
        "--benchmark",
        "seahelm",
        "--seahelm",
        str(place.checkout),
        "--seahelm-python",
        str(PYTHON),
    ]
    more = ["--server-python", str(PYTHON), "--output", str(place.folder / "out"), "--limit", "100000", "--tasks", "qa"]
    process = subprocess.Popen([PYTHON, "-m", "dudi", *words, *more], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(place.asked) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(place.asked) >= 3
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted: SIGTERM"
    assert place.nothing_runs()


def test_the_verb(place, capsys):
    words = ["eval", str(place.model), "--benchmark", "seahelm", "--seahelm", str(place.checkout)]
    more = ["--seahelm-python", str(PYTHON), "--server-python", str(PYTHON), "--output", str(place.folder / "out")]
    more += ["--tasks", "qa,half", "--languages", "id", "--seeds", "2", "--limit", "2"]
    assert main([*words, *more]) == 0
    told = capsys.readouterr()
    assert "SEA-HELM 9.9.9: final, 2 seeds" in told.out and "10.5 ±0.7" in told.out
    assert main([*words, *more, "--force"]) == 0
    assert place.starts == 2
    assert main([*words, *more, "--top-p", "0.9"]) == 2
    assert main(["eval", str(place.model), "--benchmark", "seahelm"]) == 2
    assert main([*words, "--seahelm-python", str(place.folder / "nowhere")]) == 2
    assert "--seahelm-python" in capsys.readouterr().err


def test_a_server_that_runs_already_is_used_and_left_alone(place, capsys):
    own = place.start()
    words = ["eval", own.model, "--benchmark", "seahelm", "--seahelm", str(place.checkout), "--tasks", "qa"]
    words += ["--seahelm-python", str(PYTHON), "--output", str(place.folder / "out"), "--base-url"]
    try:
        assert main([*words, own.up()]) == 0
        assert own.trouble() is None
    finally:
        own.stop()
    (evaluation,) = read_evaluations(place.folder / "out" / "evaluation.json")
    assert evaluation.values("score", "overall") == [10.0]
    assert evaluation.benchmark["decoding"]["server"] == "given"
    assert main([*words, own.url, "--temperature", "0.5"]) == 2
    assert "--temperature does nothing here: the server decides" in capsys.readouterr().err
    for idle in (["--num-fewshot", "2"], ["--batch-size", "4"], ["--server-args=--seed 1"], ["--write-out"]):
        assert main([*words, own.url, *idle]) == 2
        assert f"{idle[0].partition('=')[0]} does nothing here: the server decides" in capsys.readouterr().err
    assert Server("http://127.0.0.1:9/v1", "mine", patience=0.0).trouble() is not None
    with pytest.raises(EnvironmentFault, match="does not answer for the model 'mine'"):
        Server(own.url, "mine", patience=2.0).up()
    assert ask(own.url, "x", 1.0).startswith("URLError")


def test_checkpoints_of_one_name_do_not_collide(tmp_path):
    one, two = make_model(tmp_path / "a" / "final", b"one"), make_model(tmp_path / "b" / "final", b"two")
    moved = make_model(tmp_path / "c" / "final", b"one")
    assert served_name(str(one)) != served_name(str(two))
    assert served_name(str(one)) == served_name(str(moved))
    assert served_name(str(one)).startswith("final-")


def test_the_words_of_the_server(place):
    server = place.start(words=["--enforce-eager"], temperature=0.0)
    assert server.words[1:7] == [
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(place.model),
        "--served-model-name",
        served_name(str(place.model)),
    ]
    own = ["--enforce-eager", "--override-generation-config", '{"temperature": 0.0}']
    assert server.words[7:] == ["--host", "127.0.0.1", *own]
    assert server.decoding["words"] == own
    assert StartedServer("org/some-model", place.folder / "log", PYTHON).model == "some-model"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_CHILD_SUBREAPER is Linux's")
def test_a_child_that_nobody_reaps_does_not_hold_up_the_end(tmp_path):
    """As in a container whose first process reaps nobody: here that is this process."""
    libc, subreaper = ctypes.CDLL(None), 36
    assert libc.prctl(subreaper, 1) == 0
    try:
        process = start(["sh", "-c", "sleep 600 & echo $!; wait"], tmp_path / "log", cwd=tmp_path)
        while not (said := (tmp_path / "log").read_text()).endswith("\n"):
            time.sleep(0.01)
        began = time.monotonic()
        stop(process, grace=20.0)
        assert time.monotonic() - began < 10
        assert os.waitpid(int(said), 0)[0] == int(said)  # it has ended; the kernel may take a moment to say so
    finally:
        libc.prctl(subreaper, 0)


def test_wrong_folders_and_interpreters(place, tmp_path, capsys):
    def refused(*more, code=2, checkout=place.checkout):
        words = ["eval", str(place.model), "--benchmark", "seahelm", "--seahelm", str(checkout)]
        assert main([*words, "--output", str(tmp_path / "out"), *map(str, more)]) == code
        return capsys.readouterr().err

    python = ("--seahelm-python", PYTHON, "--server-python", PYTHON)
    assert "is not a checkout of SEA-HELM" in refused(*python, checkout=tmp_path / "nowhere")
    assert "/python: no such file" in refused("--seahelm-python", tmp_path / "python")
    assert "name SEA-HELM's interpreter with --seahelm-python" in refused()
    assert "--server-python" in refused("--seahelm-python", PYTHON, "--server-python", tmp_path / "python")
    assert "--limit must be at least 1" in refused(*python, "--limit", 0)
    (place.checkout / "src" / "serving" / "__init__.py").write_text("import omegaconf_is_missing")
    assert "'omegaconf_is_missing'" in refused(*python, code=1)
    assert place.nothing_runs()


def test_the_end_of_a_log_comes_with_the_errors_before_it(tmp_path):
    log = tmp_path / "log"
    noise = '"GET /health HTTP/1.1" 200 OK\n'
    log.write_text("(Worker) ValueError: no memory left\n\n" + "".join(f"  File {n}\n{noise}" for n in range(40)))
    lines = last_lines(log).splitlines()
    assert lines[:2] == ["  (Worker) ValueError: no memory left", "  ..."]
    assert lines[2:] == [f"    File {n}" for n in range(25, 40)]
    assert last_lines(tmp_path / "nowhere") == "  (no output)"


def test_a_run_stands_for_its_model(place, tmp_path):
    run = make_model(tmp_path / "run" / "model").parent
    (run / "resolved.yaml").write_text("student: a\nteacher: b\ndata: rows.jsonl\n")
    assert StartedServer(str(run), tmp_path / "log", PYTHON).model.startswith("model-")
    (run / "model" / "config.json").unlink()
    with pytest.raises(ConfigError, match="no final model"):
        StartedServer(str(run), tmp_path / "log", PYTHON)


def test_tasks_are_selected_by_set_group_and_name(tmp_path):
    catalogue = read_catalogue(make_checkout(tmp_path / "SEA-HELM"))
    assert catalogue.version == "9.9.9"
    assert select(catalogue, ["seahelm"])["id"] == ["qa", "guard_prompt", "guard_response"]  # a judge is left out
    assert select(catalogue, ["seahelm"], judges=True)["id"][-1] == "mt-bench"
    assert select(catalogue, ["mt-bench"], ["id"]) == {"id": ["mt-bench"]}  # unless it is named
    assert select(catalogue, ["guard"]) == {"id": ["guard_prompt", "guard_response"], "th": ["guard_prompt"]}
    assert select(catalogue, ["seahelm"], ["th"], skip=["guard"]) == {"th": ["qa"]}
    assert catalogue.tasks["qa-logprobs"].competency == "nlu"  # by reference
    for names, languages, words in (
        (["seahlm"], None, "did you mean 'seahelm'"),
        (["qa"], ["id", "xx"], "in: xx"),
        (["logprobs"], None, "name the task without -logprobs"),
    ):
        with pytest.raises(ConfigError, match=words):
            select(catalogue, names, languages)
    with pytest.raises(ConfigError, match="no task is left"):
        select(catalogue, ["qa"], skip=["qa"])
