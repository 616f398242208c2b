"""Hostile files through the real commands: none runs code, leads out of its folder or fills the machine."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

import dudi
from dudi.data.chat import chat_format
from dudi.errors import ConfigError, DataError, DudiError
from dudi.models.load import load_tokenizer, locate
from dudi.models.screening import no_pickles
from dudi.program.cli import main
from dudi.report import write_report
from helpers import make_tokenizer
from hostile_corpus import (
    CHECKPOINTS,
    FAILING,
    MARKER,
    MODELS,
    PASSED_OVER,
    REACHES,
    RECIPES,
    evil_module,
    evil_pickle,
    own_code,
)

RECIPE = """
student: {model}
data: {rows}
languages: [id]
method: sft
cold_start: none
max_steps: 1
per_device_train_batch_size: 2
gradient_accumulation_steps: 1
max_length: 64
save_steps: 1
use_cpu: true
"""
ROWS = [{"id": str(n), "language": "id", "prompt": f"Apa {n}?", "completion": "Ya."} for n in range(4)]


@pytest.fixture
def bench(tmp_path):
    """A folder with a good model, rows and a recipe; nothing may ever make the marker below it."""
    shutil.copytree(locate("package:dudi/mini/small"), tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=tmp_path / "model", rows=tmp_path / "rows.jsonl"))
    yield tmp_path
    assert not list(tmp_path.rglob(MARKER))


def train(folder, *words):
    return main(["train", str(folder / "recipe.yaml"), "--output", str(folder / "run"), *words])


def one_message(capsys):
    """What was said on stderr: one error of at most two lines, and no traceback."""
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") <= 2 and "Traceback" not in text
    return text


@pytest.mark.parametrize(("change", "code", "words"), [m[1:] for m in MODELS], ids=[m[0] for m in MODELS])
def test_a_hostile_model_is_refused_by_name(bench, capsys, change, code, words):
    change(bench / "model")
    assert train(bench) == code
    assert words in one_message(capsys)
    assert not (bench / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("change", [m[1] for m in PASSED_OVER], ids=[m[0] for m in PASSED_OVER])
def test_code_beside_a_known_model_is_passed_over(bench, change):
    change(bench / "model")
    assert train(bench, "--dry-run") == 0


@pytest.mark.parametrize(("text", "code", "words"), [r[1:] for r in RECIPES], ids=[r[0] for r in RECIPES])
def test_a_hostile_recipe_is_refused_by_name(bench, capsys, monkeypatch, text, code, words):
    own_code(bench / "model")
    os.mkfifo(bench / "pipe")
    for place in (bench / "script" / "script.py", bench / "evil_package" / "__init__.py"):
        place.parent.mkdir()
        place.write_text(evil_module(bench))
    monkeypatch.syspath_prepend(bench)
    (bench / "recipe.yaml").write_text(text.format(folder=bench, marker=bench / MARKER))
    assert train(bench, "method=sft") == code
    assert words in one_message(capsys)


def test_a_study_may_not_let_a_model_run_its_code_either(bench):
    from dudi.study.jobs import _config

    own_code(bench / "model")
    with pytest.raises(ConfigError, match="may not let a model run its own code"):
        _config(str(bench / "recipe.yaml"), ("student.trust_remote_code=true",))


def test_a_person_may(bench, capsys):
    own_code(bench / "model")
    (bench / "model" / "evil.py").write_text("raise ImportError('it was read, and that was asked for')\n")
    assert train(bench, "student.trust_remote_code=true", "--dry-run") in (1, 2, 3)
    assert "it was read" in one_message(capsys)


@pytest.mark.parametrize("template", REACHES + FAILING)
def test_a_hostile_chat_template_is_refused(tmp_path, template):
    tokenizer = make_tokenizer(template=template.replace("{marker}", str(tmp_path / MARKER)))
    with pytest.raises((DataError, ConfigError)) as caught:
        chat_format(tokenizer, {}, "the model")
    message = str(caught.value)
    assert message.startswith("the model: its chat template") and len(message) < 300
    assert "root:" not in message and "<class" not in message
    assert not (tmp_path / MARKER).exists()


# --- checkpoints


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of one step, with its checkpoint."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(locate("package:dudi/mini/small"), folder / "model")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "recipe.yaml").write_text(RECIPE.format(model=folder / "model", rows=folder / "rows.jsonl"))
    assert train(folder) == 0
    return folder


@pytest.mark.parametrize(("change", "code", "words"), [c[1:] for c in CHECKPOINTS], ids=[c[0] for c in CHECKPOINTS])
def test_a_hostile_checkpoint_is_refused_by_name(finished, tmp_path, capsys, change, code, words):
    checkpoint = tmp_path / "step-1"
    shutil.copytree(finished / "run" / "checkpoints" / "step-1", checkpoint)
    change(checkpoint)
    found = train(finished, "max_steps=2", "--resume", str(checkpoint), "--output", str(tmp_path / "again"))
    assert found == code
    assert words in one_message(capsys)
    assert not list(tmp_path.rglob(MARKER)) and not list(finished.rglob(MARKER))


def test_nothing_is_unpickled_where_models_are_read(tmp_path):
    (tmp_path / "rng_state.pth").write_bytes(evil_pickle(tmp_path))
    with no_pickles(), pytest.raises(DataError, match=r"rng_state\.pth: a pickle"):
        torch.load(tmp_path / "rng_state.pth", weights_only=False)
    assert not (tmp_path / MARKER).exists()


# --- what is written, and where


def test_a_report_replaces_a_link_and_does_not_write_through_it(make):
    run = make("run")
    outside = run.parent / "precious"
    outside.write_text("mine")
    (run / "report.html").unlink(missing_ok=True)
    (run / "report.html").symlink_to(outside)
    write_report([run])
    assert outside.read_text() == "mine" and not (run / "report.html").is_symlink()


def test_a_report_of_a_hostile_run_imports_nothing(make, monkeypatch):
    run = make("run")
    package = run.parent / "evil_package"
    package.mkdir()
    (package / "__init__.py").write_text(evil_module(run.parent))
    monkeypatch.syspath_prepend(run.parent)
    text = (run / "resolved.yaml").read_text()
    (run / "resolved.yaml").write_text(re.sub(r"model: .*", "model: package:evil_package.inside", text))
    assert main(["report", str(run)]) == 0
    assert not (run.parent / MARKER).exists()


def test_names_from_outside_cannot_drive_the_terminal(tmp_path, capsys):
    assert main(["train", "\x1b]0;owned\x07\x1b[2J\u202enwod.yaml"]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\x07" not in said and "\u202e" not in said and "\\x1b[2J" in said


def test_a_template_cannot_drive_the_terminal_in_a_dry_run(bench, capsys):
    template = bench / "model" / "chat_template.jinja"
    template.write_text("\x1b]0;owned\x07\x1b[2J" + template.read_text(encoding="utf-8"), encoding="utf-8")
    assert train(bench, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\x07" not in said and "\\x1b]0;owned" in said


# --- our own code

FORBIDDEN = {
    r"\bpickle\b(?!\w)(?=\.|\s+import|\s*$)": "pickle",
    r"import pickle|from pickle|cloudpickle|\bdill\b|joblib": "pickle",
    r"\btorch\.load\((?!.*weights_only=True)": "torch.load without weights_only",
    r"weights_only\s*=\s*False": "weights_only=False",
    r"trust_remote_code\s*=\s*True|trust_remote_code\"?\]?\s*=\s*True": "trust_remote_code=True",
    r"yaml\.(unsafe_load|full_load|load_all|Loader\b|FullLoader|UnsafeLoader)": "unsafe YAML",
    r"yaml\.load\((?!.*Loader=_LOADER)": "yaml.load",
    r"(?<![\w.])(eval|exec|compile)\(": "eval, exec or compile",
    r"shell\s*=\s*True|os\.system|os\.popen": "a shell",
    r"\b(zipfile|tarfile|shutil\.unpack_archive)\b": "an archive",
    r"allow_pickle\s*=\s*True|np\.load\(": "numpy's pickles",
    r"__import__\(": "__import__",
    r"0\.0\.0\.0": "a server for everybody",
}


def own_files():
    root = Path(dudi.__file__).parent
    repository = root.parents[1]
    found = [*root.rglob("*.py")]
    for folder in ("scripts", "examples"):
        found += (repository / folder).rglob("*.py")
    assert len(found) > 100
    return found


@pytest.mark.parametrize(("pattern", "what"), FORBIDDEN.items(), ids=list(FORBIDDEN.values()))
def test_our_code_has_no_way_to_run_what_it_reads(pattern, what):
    for file in own_files():
        if what == "an archive" and file.name == "wheels.py":  # reads named members of wheels whose sums it knows
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            assert not re.search(pattern, line.partition("  #")[0]), f"{file}:{number}: {what}"


def test_the_gate_finds_what_it_is_for():
    bad = [
        "import pickle", "torch.load(path)", "torch.load(path, weights_only=False)", "load(trust_remote_code=True)",
        "yaml.load(text)", "yaml.unsafe_load(text)", "eval(text)", "run(words, shell=True)", "import zipfile",
        "np.load(path)", "exec(text)", "os.system(text)",
    ]  # fmt: skip
    assert all(any(re.search(pattern, line) for pattern in FORBIDDEN) for line in bad)
    assert not any(re.search(pattern, "model.eval()") for pattern in FORBIDDEN)


def test_recipes_trust_no_model():
    for file in (Path(dudi.__file__).parents[2] / "recipes").rglob("*.yaml"):
        assert "trust_remote_code" not in file.read_text(encoding="utf-8")


def test_a_tokenizer_reads_no_file_outside(bench):
    """Without our screening, transformers itself takes the repository's file and not the one that the config names."""
    with pytest.raises(DudiError, match="tokenizer_file"):
        model = bench / "model"
        (model / "tokenizer.json").rename(bench / "secret.json")
        settings = json.loads((model / "tokenizer_config.json").read_text()) | {"tokenizer_file": "../secret.json"}
        (model / "tokenizer_config.json").write_text(json.dumps(settings))
        load_tokenizer(str(model))
