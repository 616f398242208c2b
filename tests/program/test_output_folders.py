"""What a run's folder may hold before the run: nothing that the run would replace, and nothing that it reads itself."""

import json
import shutil

import pytest

from dudi.errors import ConfigError
from dudi.program.cli import main
from dudi.training import checkpoints
from dudi.training.run_folder import REPLACED, check_output
from helpers import ROWS, make_model, make_tokenizer


def content_of(folder):
    return {p.relative_to(folder).as_posix(): checkpoints.sha256_of(p) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project as people have it: a model beside its rows, where they work."""
    make_model(seed=1, hidden_size=16).save_pretrained(tmp_path / "student")
    make_tokenizer().save_pretrained(tmp_path / "student")
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS[:8]]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text("method: sft\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(*more, student="student", data="rows.jsonl"):
    keys = ["max_steps=2", "per_device_train_batch_size=4", "gradient_accumulation_steps=1", "use_cpu=true"]
    keys += ["max_length=256", "disable_tqdm=true", f"student={student}", f"data={data}"]
    return ["train", "recipe.yaml", *keys, *more]


def test_a_model_that_no_run_has_written_stays(project, capsys):
    (project / "student").rename(project / "model")
    before = content_of(project)
    assert main(words("--output", ".", student="model")) == 2
    assert "would replace model (student.model)" in capsys.readouterr().err
    assert main(words("--output", ".", student=str(shutil.copytree("model", project / "elsewhere")))) == 2
    assert "holds model, and no run of dudi" in capsys.readouterr().err
    shutil.rmtree("elsewhere")
    assert content_of(project) == before


@pytest.mark.parametrize("name", [name for name in REPLACED if "." in name])
def test_a_file_that_a_run_would_replace_is_refused(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"--output: .* holds {name}, and no run of dudi"):
        check_output(tmp_path, "auto", {})
    check_output(tmp_path, "never", {})  # all of it is moved aside, and lost nothing


def test_what_a_run_leaves_alone_may_lie_there(project, capsys):
    (project / "model").mkdir()
    before = content_of(project)
    assert main(words("--output", ".")) == 0
    assert before.items() <= content_of(project).items()
    assert main(words("--output", ".")) == 0
    assert "holds this run, finished" in capsys.readouterr().out


def test_every_file_of_a_run_is_one_that_is_looked_for(project):
    assert main(words("--output", "run")) == 0
    own = {
        "identity.json",
        "rejected.jsonl",
        "sources.json",
        "figures",
    }  # of figures a few files, by the names of charts
    assert {path.name for path in (project / "run").iterdir()} <= {*REPLACED, *own}


@pytest.mark.parametrize("spelling", ["student", "./student", "link"])
def test_the_student_is_no_place_for_its_run(spelling, project, capsys):
    (project / "link").symlink_to("student")
    before = content_of(project)
    for more in ((), ("--resume", "never")):
        assert main(words("--output", spelling, *more)) == 2
        assert "is the folder of student.model itself" in capsys.readouterr().err
    assert content_of(project) == before


def test_what_the_run_reads_is_not_moved_aside(project, capsys):
    (project / "sub").mkdir()
    shutil.copytree("student", "sub/s")
    assert main(words("--output", "sub", "--resume", "never", student="sub/s")) == 2
    assert "holds sub/s (student.model), which would be moved away" in capsys.readouterr().err
    assert not (project / "sub.old-1").exists()
    assert main(words("--output", "sub", student="sub/s")) == 0


def test_a_stack_goes_by_the_same_rule(project, capsys):
    (project / "metrics.jsonl").write_text("mine")
    (project / "stack.yaml").write_text("stage: adapt\n")
    assert main(["stack", "adapt", "stack.yaml", "llm=student", "data=rows.jsonl", "--output", "."]) == 2
    assert "holds metrics.jsonl, and no run of dudi" in capsys.readouterr().err
    assert main(["stack", "adapt", "stack.yaml", "llm=student", "data=rows.jsonl", "--output", "student"]) == 2
    assert "is the folder of llm.model itself" in capsys.readouterr().err
