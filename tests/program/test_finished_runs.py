"""A finished run is this run while what it read is the same; the same command is refused once that has changed."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dudi.distill import run
from dudi.program.cli import main
from dudi.training import checkpoints
from helpers import CHATML, ROWS, make_model, make_tokenizer


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a student, a teacher, rows and a finished run of them."""
    place = tmp_path_factory.mktemp("finished")
    for role, seed in (("student", 1), ("teacher", 2)):
        make_model(seed=seed, hidden_size=16).save_pretrained(place / role)
        make_tokenizer().save_pretrained(place / role)
    write_rows(place, ROWS[:8])
    (place / "recipe.yaml").write_text("method: gkd\ncold_start: none\n")
    here = os.getcwd()
    os.chdir(place)
    assert main(WORDS) == 0
    os.chdir(here)
    return place


WORDS = ["train", "recipe.yaml", "student=student", "teacher=teacher", "data=rows.jsonl", "max_steps=1"]
WORDS += ["per_device_train_batch_size=4", "gradient_accumulation_steps=1", "max_new_tokens=4", "use_cpu=true"]
WORDS += ["max_length=256", "disable_tqdm=true", "--output", "run"]


def write_rows(place, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (place / "rows.jsonl").write_text(text, encoding="utf-8")


def other_weights(place):
    file = place / "model.safetensors"
    weights = load_file(file)
    save_file({name: torch.flip(one, (0,)).contiguous() for name, one in weights.items()}, file, {"format": "pt"})


CHANGES = {
    "data": lambda place: write_rows(place, ROWS[:9]),
    "student": lambda place: other_weights(place / "student"),
    "teacher": lambda place: other_weights(place / "teacher"),
    "chat_templates": lambda place: (place / "student" / "chat_template.jinja").write_text(
        CHATML.replace("assistant\n", "assistant:\n")
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_refused_with_the_difference(change, finished, tmp_path, monkeypatch, capsys):
    place = shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(place)
    CHANGES[change](place)
    before = {file: checkpoints.sha256_of(file) for file in (place / "run").rglob("*") if file.is_file()}
    assert main(WORDS) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{change}: " in last and "->" in last
    assert before == {file: checkpoints.sha256_of(file) for file in (place / "run").rglob("*") if file.is_file()}


def test_what_was_not_touched_is_known_without_loading_anything(finished, tmp_path, monkeypatch, capsys):
    place = shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(place)
    assert main(WORDS) == 0  # other times, the same content: looked into, and written down
    assert "holds this run, finished" in capsys.readouterr().out
    monkeypatch.setattr(run, "make_trainer", None)
    assert main(WORDS) == 0
    assert "holds this run, finished" in capsys.readouterr().out
