"""Every recipe runs: two steps each through the command line's main function, with tiny models of its architecture."""

import json
import shutil
import subprocess
import sys

import pytest

from dudi.config.recipe_files import list_recipes
from dudi.distill.recipe import load_run_config
from dudi.evaluation.records import read_evaluations
from dudi.program.cli import main
from helpers import CHATML, DATED, ROWS, THINKING, make_model, make_tokenizer, slow_but, words_read_by

ARCHITECTURES = {"qwen2.5": ("qwen2", CHATML), "qwen3": ("qwen3", THINKING), "llama": ("llama", DATED)}
MINI = [name for name in list_recipes() if name.startswith("mini/")]
PAPER = [name for name in list_recipes() if name != "smollm2" and not name.startswith(("mini/", "real/"))]

QUICK = ("table3/qwen3-0.6b/dudi", "table3/llama3.2-1b/dudi", "table5/jsd", "table6/teacher-written", "table7/dft-gkd")


def architecture(name):
    model = load_run_config(name).student.model.lower()
    return next(kind for kind in ARCHITECTURES if kind in model)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """One student and one teacher folder per architecture, as `save_pretrained` leaves them, and a file of rows."""
    root = tmp_path_factory.mktemp("tiny")
    for name, (kind, template) in ARCHITECTURES.items():
        for role, size, seed in (("student", 16, 1), ("teacher", 32, 2)):
            make_model(kind, seed=seed, hidden_size=size).save_pretrained(root / name / role)
            tokenizer = make_tokenizer(template=template)
            if name == "llama" and role == "student":
                tokenizer.chat_template = None  # the base model has none
            tokenizer.save_pretrained(root / name / role)
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    (root / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


def words(name, folders, output):
    place = folders / architecture(name)
    given = [
        f"student.model={place}/student",
        f"teacher.model={place}/teacher",
        f"data.train={folders}/rows.jsonl",
        "max_steps=2",
        "per_device_train_batch_size=2",
        "gradient_accumulation_steps=2",
        "max_new_tokens=4",
        "max_length=256",
        "use_cpu=true",
        "disable_tqdm=true",
    ]
    return ["train", name, *words_read_by(load_run_config(name).method, given), "--output", str(output)]


def check_run(folder, method):
    for name in ("resolved.yaml", "env.json", "metrics.jsonl", "report.html", "README.md", "model/config.json"):
        assert (folder / name).is_file(), name
    assert (folder / "checkpoints" / "step-2" / "manifest.json").is_file()
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["step"] for record in records if record["stage"] == method] == [1, 2]


@pytest.mark.parametrize(
    "name",
    [  # Table 3 is Table 2 with other students, and the others vary one key of its last row
        name if name.startswith(("table2/", "extra/")) or name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in PAPER
    ],
)
def test_a_recipe_runs_two_steps(name, folders, tmp_path):
    assert main(words(name, folders, tmp_path / "run")) == 0
    check_run(tmp_path / "run", load_run_config(name).method)


@pytest.mark.parametrize(
    "name",
    slow_but(("mini/dudi", "mini/gated"), MINI),
)
def test_a_mini_recipe_runs_two_steps_with_the_models_of_the_package(name, tmp_path):
    small = ["max_steps=2", "per_device_train_batch_size=4", "benchmark.per_split=1", "max_new_tokens=8"]
    small += ["languages=[id, my]", "data.tasks=[currency]", "data.rows_per_language=66"]  # an answer to each row costs
    asked = name in ("mini/dudi", "mini/gated")
    small = [*words_read_by(load_run_config(name).method, small), *([] if asked else ["benchmark=null"])]
    assert main(["train", name, *small, "use_cpu=true", "--output", str(tmp_path / "run")]) == 0
    check_run(tmp_path / "run", load_run_config(name).method)
    if not asked:
        return
    found = read_evaluations(tmp_path / "run" / "evaluation.json")
    cold = load_run_config(name).settings["cold_start"] == "sft"
    assert [one.subject for one in found] == ["base", *["cold_start"] * cold, "student", "teacher"]
    assert all(one.seeds == [42] and one.guessing() for one in found)


def run_as_a_process(name, folders, output):
    command = [sys.executable, "-m", "dudi", *words(name, folders, output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    check_run(output, load_run_config(name).method)


@pytest.mark.slow
def test_a_recipe_runs_as_a_process_of_its_own(folders, tmp_path):
    """One of each architecture is `tests/trust/test_processes.py`'s."""
    run_as_a_process("table2/dudi", folders, tmp_path / "run")


def test_the_method_can_be_changed_on_the_command_line(folders, tmp_path):
    assert main([*words("table2/dudi", folders, tmp_path / "run"), "method=gkd"]) == 0
    check_run(tmp_path / "run", "gkd")
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert not any("loss/sequence" in record for record in records)
    assert "gkd" in (tmp_path / "run" / "resolved.yaml").read_text(encoding="utf-8")


def test_a_finished_run_is_left_alone_and_another_method_is_refused(folders, tmp_path, capsys):
    command = words("table2/sft", folders, tmp_path / "run")
    assert main(command) == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert main(command) == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert main([*command, "learning_rate=1e-3"]) == 2
    assert "learning_rate" in capsys.readouterr().err
    assert main([*command, "method=dft"]) == 2
    assert main([*command, "--resume", "never"]) == 0
    assert (tmp_path / "run.old-1" / "metrics.jsonl").read_bytes() == before


def test_rows_that_were_moved_resume_and_changed_ones_are_refused(folders, tmp_path, capsys):
    run, moved = tmp_path / "run", tmp_path / "elsewhere" / "moved.jsonl"
    command = [*words("table2/sft", folders, run), "save_steps=1"]
    assert main(command) == 0
    before = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    for gone in ("model", "checkpoints/step-2"):
        shutil.rmtree(run / gone)
    moved.parent.mkdir()
    text = (folders / "rows.jsonl").read_text(encoding="utf-8")
    for changed in (text.replace("Jakarta.", "Bandung."), text.replace('"language": "id"', '"language": "ms"')):
        moved.write_text(changed, encoding="utf-8")
        assert main([*command, f"data.train={moved}"]) == 2
        assert "data: " in capsys.readouterr().err
    moved.write_text("\n" + text, encoding="utf-8")  # other lines too
    assert main([*command, f"data.train={moved}"]) == 0
    assert f"going on from {run}/checkpoints/step-1" in capsys.readouterr().out
    assert [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()] == before


def test_dry_run_shows_prompts_and_trains_nothing(folders, tmp_path, capsys):
    assert main([*words("table2/dudi", folders, tmp_path / "run"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for language in ("id", "vi", "th", "ta", "tl", "ms", "my"):
        assert f" {language} " in shown
    assert "read by the teacher, z" in shown
    assert "Berikut ini contoh jawabannya" in shown
    assert "tokens/character" in shown
    assert "command line" in shown
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_dry_run_looks_for_the_weights(role, folders, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(folders / architecture("table2/dudi") / role, bare)
    (bare / "model.safetensors").unlink()
    command = words("table2/dudi", folders, tmp_path / "run")
    assert main([*command, f"{role}.model={bare}", "--dry-run"]) == 2
    assert f"{bare}: holds no weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "code", "said"),
    [
        (["teacher=null"], 2, "needs a teacher"),
        (["student.model=/no/such/folder"], 2, "/no/such/folder"),
        (["data.train=/no/such/rows.jsonl"], 2, "rows.jsonl"),
        (["max_length=20"], 3, "max_length"),
        (["divergence=revers_kl"], 2, "reverse_kl"),
        (["alhpa=1"], 2, "alpha"),
        (["alpha=many"], 2, "alpha"),
        (["lambda=2"], 2, "lambda"),
        (["method=dpo"], 2, "sft, dft, spin"),
        (["exclude_targets=[en, id, vi, th, ta, tl, ms, my]"], 2, "exclude_targets"),
        (["--resume", "/no/such/checkpoint"], 2, "/no/such/checkpoint"),
    ],
)
def test_wrong_input_is_one_line_and_an_exit_code(extra, code, said, folders, tmp_path, capsys):
    assert main([*words("table2/dudi", folders, tmp_path / "run"), *extra]) == code
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "Traceback" not in error
    assert len(error.splitlines()) <= 2, error
