"""What leaves the machine: the model, its card, the recipe. The upload itself is looked at in place of a hub."""

import json
import shutil
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from peft import LoraConfig

import dudi
from dudi import DudiTrainer
from dudi.errors import ConfigError
from dudi.program.cli import main
from helpers import ROWS, make_args, make_model

MODEL = {"config.json", "generation_config.json", "model.safetensors"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
ADAPTER = {"adapter_config.json", "adapter_model.safetensors", "generation_config.json"}


@pytest.fixture
def uploads(monkeypatch, tmp_path):
    """Every folder that is sent, as it was when it was sent."""
    sent = []

    def upload_folder(self, *, folder_path, run_as_future, **about):
        kept = tmp_path / "sent" / str(len(sent))
        shutil.copytree(folder_path, kept)
        sent.append(SimpleNamespace(folder=kept, files={p.name for p in kept.rglob("*")}, about=about))
        future = Future()
        future.set_result("done")
        return SimpleNamespace(is_done=lambda: True, wait_until_done=lambda: None) if run_as_future else "done"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, **_: SimpleNamespace(repo_id=f"me/{name}"))
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return sent


def make_trainer(folder, tokenizer, method="dudi", peft_config=None, **keys):
    args = make_args(folder, method, **{"push_to_hub": True, "save_strategy": "steps", "save_steps": 1, **keys})
    teacher = make_model(seed=2, hidden_size=48)
    return DudiTrainer(make_model(seed=1), teacher, args, ROWS[:8], None, tokenizer, peft_config=peft_config)


def says_nothing_of_the_rows(folder):
    """Neither a row nor what a model wrote; and nothing that could run."""
    for file in folder.rglob("*"):
        assert file.suffix not in (".bin", ".pt", ".pkl"), file
        text = file.read_bytes()
        if file.suffix not in (".safetensors",) and file.name != "tokenizer.json":
            assert not any(row["completion"].encode() in text for row in ROWS), file


@pytest.mark.parametrize("method", ["dudi", "seqkd", "spin", "sdft"])
def test_each_save_sends_the_model_and_its_card(method, uploads, tmp_path, tokenizer):
    trainer = make_trainer(tmp_path / "run", tokenizer, method)
    trainer.train()
    trainer.push_to_hub()
    assert len(uploads) == 3
    for sent in uploads:
        assert sent.files == MODEL | TOKENIZER | {"README.md"}
        says_nothing_of_the_rows(sent.folder)
        assert sent.about["repo_id"] == "me/run"
    assert not (tmp_path / "run" / ".hub").exists()
    loaded = make_model().from_pretrained(uploads[-1].folder).state_dict()
    assert all((loaded[name] == value).all() for name, value in trainer.model.state_dict().items())


def test_metrics_go_along_when_they_are_asked_for(uploads, tmp_path, tokenizer):
    trainer = make_trainer(tmp_path / "run", tokenizer, hub_logs=True, hub_strategy="end")
    trainer.train()
    assert uploads == []
    trainer.push_to_hub(commit_message="mine", revision="draft", blocking=False)
    assert uploads[0].files == MODEL | TOKENIZER | {"README.md", "metrics.jsonl"}
    assert uploads[0].about["commit_message"] == "mine" and uploads[0].about["revision"] == "draft"
    says_nothing_of_the_rows(uploads[0].folder)


@pytest.mark.parametrize("start", ["merge", "none"])
def test_an_adapter_goes_alone_where_others_have_its_base(start, uploads, tmp_path, tokenizer):
    make_model(seed=1).save_pretrained(tmp_path / "base")
    adapter = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    student = make_model().from_pretrained(tmp_path / "base")
    keys = {"cold_start": "none"} if start == "none" else {"cold_start_adapter": "merge"}
    args = make_args(tmp_path / "run", "dudi", push_to_hub=True, hub_strategy="end", **keys)
    trainer = DudiTrainer(student, make_model(seed=2), args, ROWS[:8], None, tokenizer, peft_config=adapter)
    trainer.train()
    trainer.push_to_hub()
    expected = ADAPTER if start == "none" else MODEL
    assert uploads[0].files == expected | TOKENIZER | {"README.md"}


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_checkpoints_are_not_sent(strategy, uploads, tmp_path, tokenizer):
    with pytest.raises(ConfigError, match="hub_strategy"):
        make_trainer(tmp_path, tokenizer, hub_strategy=strategy)


def test_a_run_of_the_command_line_sends_its_recipe_and_its_card(uploads, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    mini = dudi.__path__[0] + "/mini"
    words = [f"student={mini}/base", f"teacher={mini}/teacher", f"data={rows}", "method=dudi", "max_steps=1"]
    words += ["push_to_hub=true", "hub_model_id=org/name", "max_new_tokens=8", "languages=[id, vi]", "save_steps=1"]
    (tmp_path / "r.yaml").write_text("student: x\ndata: y\n")
    assert main(["train", str(tmp_path / "r.yaml"), *words, "--output", str(tmp_path / "run")]) == 0
    last = uploads[-1]
    assert last.about["repo_id"] == "me/org/name"
    assert last.files == MODEL | TOKENIZER | {"README.md", "resolved.yaml"}
    assert (last.folder / "README.md").read_text() == (tmp_path / "run" / "README.md").read_text()
    for sent in uploads:
        says_nothing_of_the_rows(sent.folder)
    assert "hub      me/org/name" in capsys.readouterr().out


def test_a_card_in_python_takes_what_trl_takes_and_names_the_method(tmp_path, tokenizer):
    make_model(seed=1).save_pretrained(tmp_path / "small-student")
    args = make_args(tmp_path / "run", "sft")
    trainer = DudiTrainer(tmp_path / "small-student", None, args, ROWS[:8], processing_class=tokenizer)
    trainer.create_model_card(model_name="mine", dataset_name="me/rows", tags="thai")
    text = (tmp_path / "run" / "README.md").read_text()
    assert "# mine" in text and "trained from small-student on the me/rows dataset." in text
    assert "\nIt was trained with dudi's method `sft`.\n\n## Model description" in text
    assert all(f"- {tag}\n" in text.partition("---\n\n")[0] for tag in ("thai", "dudi"))
    trainer.create_model_card()
    text = (tmp_path / "run" / "README.md").read_text()
    assert "# run" in text and "trained from small-student." in text
    assert "scratch" not in text and "unknown" not in text
