"""Another run's checkpoint is refused with the difference shown, and nothing is touched, unless it is allowed."""

import json
import shutil

import pytest
from kills import cut_before_a_save

from dudi.training import checkpoints
from helpers import CHATML, ROWS, make_model, make_tokenizer

ROW = "resume with something changed: refused with the difference, exit 2, nothing touched"


def content_of(folder):
    return {p.relative_to(folder).as_posix(): checkpoints.sha256_of(p) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def others(lab):
    """Students and rows that differ in one thing each."""
    for name, seed, template, texts in (
        ("weights", 9, CHATML, None),
        ("template", 1, CHATML.replace("assistant\n", "assistant:\n"), None),
        ("tokenizer", 1, CHATML, ["a tokenizer that was trained on another text " * 20]),
    ):
        make_model(seed=seed, hidden_size=32, dropout=0.1).save_pretrained(lab.folder / f"other-{name}")
        make_tokenizer(template=template, texts=texts).save_pretrained(lab.folder / f"other-{name}")
    lab.write_rows("other-rows.jsonl", [{**ROWS[0], "completion": "Surabaya."}, *ROWS[1:16]])
    lab.write_rows("other-languages.jsonl", [{**ROWS[0], "language": "ms"}, *ROWS[1:16]])
    return lab.folder


CHANGES = {
    "data": "data.train={}/other-rows.jsonl",
    "data (a language alone)": "data.train={}/other-languages.jsonl",
    "tokenizers": "student.model={}/other-tokenizer",
    "chat_templates": "student.model={}/other-template",
    "student": "student.model={}/other-weights",
    "seed": "seed=4",
    "learning_rate": "learning_rate=2e-3",
    "gradient_accumulation_steps": "gradient_accumulation_steps=4",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_run_is_refused(lab, others, promise, tmp_path, change):
    run, word = cut_before_a_save(lab).copy(tmp_path / "run"), CHANGES[change].format(others)
    before, name = content_of(run), change.partition(" ")[0]
    child = lab.run(lab.words(run, "sft", word))
    assert child.code == 2, child.said
    last = child.said.splitlines()[-1]
    assert last.startswith("error: ") and f"{name}: " in last and "->" in last and "--allow-changed" in last
    promise(ROW, 1, content_of(run) != before, "changes", change)


def test_before_there_is_a_checkpoint(lab, others, promise, tmp_path):
    """A cold start of hours must not be lost to a changed key either."""
    run = tmp_path / "run"
    cut = {"folder": str(run), "at": 1, "only": ["stages/cold_start/model"]}
    lab.run(lab.words(run, "gkd"), plant={"boundaries": cut}, cache=tmp_path / "cache")
    before = content_of(run)
    child = lab.run(lab.words(run, "gkd", "learning_rate=2e-3"), cache=tmp_path / "cache")
    assert child.code == 2 and "learning_rate: 0.001 -> 0.002" in child.said, child.said
    promise(ROW, 1, content_of(run) != before, "changes", "learning_rate, during the cold start")


def test_another_teacher(lab, promise, tmp_path):
    make_model(seed=7, hidden_size=48, dropout=0.1).save_pretrained(lab.folder / "other-teacher")
    make_tokenizer().save_pretrained(lab.folder / "other-teacher")
    run, keys = tmp_path / "run", ["cold_start=none", "max_steps=3"]
    assert lab.run(lab.words(run, "gkd", *keys)).code == 0
    child = lab.run(lab.words(run, "gkd", *keys[:1], "max_steps=4", f"teacher.model={lab.folder}/other-teacher"))
    promise(ROW, 1, child.code != 2 or "teacher: " not in child.said, "changes", "the teacher's weights")


def test_another_world_size(lab, promise, tmp_path):
    run = cut_before_a_save(lab).copy(tmp_path / "run")
    before = content_of(run)
    ranks = lab.run_ranks(lab.words(run, "sft"))
    assert [rank.code for rank in ranks] == [2, 2], ranks[0].said
    assert all("world_size: 1 -> 2" in rank.said.splitlines()[-1] for rank in ranks)
    promise(ROW, 1, content_of(run) != before, "changes", "world_size")


def test_what_is_allowed_goes_on(lab, tmp_path):
    run = cut_before_a_save(lab).copy(tmp_path / "run")
    words = lab.words(run, "sft", "seed=4", "learning_rate=2e-3")
    child = lab.run([*words, "--allow-changed", "seed"])
    assert child.code == 2 and "learning_rate" in child.said and "seed: 3" not in child.said
    child = lab.run([*words, "--allow-changed", "lerning_rate"])
    assert child.code == 2 and "did you mean" in child.said, child.said
    child = lab.run([*words, "--allow-changed", "seed,learning_rate"])
    assert child.code == 0 and "going on from" in child.said, child.said
    assert json.loads((run / "identity.json").read_text())["keys"]["seed"] == 4


@pytest.mark.parametrize(
    "name",
    [
        "optimizer.safetensors",
        "optimizer.json",
        "scheduler.json",
        "random.json",
        "trainer_state.json",
        "model.safetensors",
    ],
)
def test_a_checkpoint_without_a_part_of_the_state(lab, promise, tmp_path, name):
    """Sealed anew without the file, so that only the missing part is wrong with it."""
    run = cut_before_a_save(lab).copy(tmp_path / "run")
    newest = run / "checkpoints" / "step-6"
    manifest = checkpoints.read_manifest(newest)
    about = {key: value for key, value in manifest.items() if key not in ("files", "sha256")}
    shutil.copytree(newest, tmp_path / "taken")
    (tmp_path / "taken" / name).unlink()
    (tmp_path / "taken" / "manifest.json").unlink()
    checkpoints.seal(newest, lambda partial: shutil.copytree(tmp_path / "taken", partial, dirs_exist_ok=True), about)
    child = lab.run(lab.words(run, "sft"))
    assert child.code == 2, child.said
    promise(
        "checkpoint without a part of the state: refused by name", 1, name not in child.said.splitlines()[-1], "parts"
    )
