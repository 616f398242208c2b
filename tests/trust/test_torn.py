"""Torn checkpoints never load: each damage to each file is found and named, and the previous checkpoint is used."""

import shutil
import sys

import pytest
from kills import cut_before_a_save, differences, whole_run

from dudi.training.checkpoints import newest_valid

ROW = "torn checkpoint: found, named, the previous one used"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a byte flipped": flip,
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
}


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_each_damage_to_each_file(lab, promise, tmp_path):
    save = cut_before_a_save(lab)
    names = files_of(save.run / "checkpoints" / "step-6")
    assert len(names) > 10
    lost = []
    for name in names:
        for damage, do in DAMAGES.items():
            root = tmp_path / "checkpoints"
            shutil.copytree(save.run / "checkpoints", root)
            do(root / "step-6" / name)
            found, skipped = newest_valid(root)
            if found != root / "step-3" or len(skipped) != 1 or name not in skipped[0]:
                lost.append(f"{name} {damage}: {found} {skipped}")
            shutil.rmtree(root)
    promise(ROW, len(names) * len(DAMAGES), len(lost), "damages", " ".join(lost))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_everything_is_on_the_disk_before_the_rename(lab, promise, tmp_path):
    """A power cut, as far as it can be tried here: the order of fsync and rename, and the logs before both."""
    run, record = tmp_path / "run", tmp_path / "order"
    words = lab.words(run, "dudi", "cold_start=none", "max_steps=3", "num_train_epochs=1", "samples_per_step=1")
    assert lab.run(words, plant={"order_of_syncs": {"folder": str(run), "record": str(record)}}).code == 0
    order, partial = record.read_text().splitlines(), "checkpoints/.step-3.partial"
    done = order.index(f"rename {partial}")
    needed = ["metrics.jsonl", "samples.jsonl", partial]
    needed += [f"{partial}/{name}" for name in files_of(run / "checkpoints" / "step-3")]
    late = [name for name in needed if f"sync {name}" not in order[:done]]
    late += [] if "sync checkpoints" in order[done:] else ["checkpoints"]
    promise(
        "synced before the rename: each file, the folders, the logs",
        len(needed) + 1,
        len(late),
        "paths",
        " ".join(late),
    )


@pytest.mark.parametrize("part", range(2))
def test_each_file_through_the_command_line(lab, promise, tmp_path, part):
    whole, save, lost = whole_run(lab, "sft"), cut_before_a_save(lab), []
    names = files_of(save.run / "checkpoints" / "step-6")[part::2]
    for number, name in enumerate(names):
        run = save.copy(tmp_path / f"run-{number}")
        list(DAMAGES.values())[number % len(DAMAGES)](run / "checkpoints" / "step-6" / name)
        child = lab.run(lab.words(run, "sft"))
        lines = [line for line in child.said.splitlines() if line.startswith("skipped: ")]
        named = len(lines) == 1 and name in lines[0]
        if child.code != 0 or not named or "step-3\n" not in child.said or differences(run, whole):
            lost.append(name)
    promise(f"{ROW} (command line, same final weights)", len(names), len(lost), "damages", " ".join(lost))


@pytest.mark.parametrize("needed", ["answers.jsonl", "reference/opponent.safetensors", "manifest.json"])
def test_what_a_checkpoint_of_spin_needs(lab, promise, tmp_path, needed):
    """The opponent and its answers lie outside the checkpoint: one without them is as good as torn."""
    whole, run = whole_run(lab, "spin"), tmp_path / "run"
    cut = {"folder": str(run), "at": 1, "only": [f"{run}/checkpoints/.step-9.partial"]}
    assert lab.run(lab.words(run, "spin"), plant={"boundaries": cut}, cache=tmp_path / "cache").code == -9
    flip(run / "stages" / "spin" / "iteration-1" / needed)
    child = lab.run(lab.words(run, "spin"), cache=tmp_path / "cache")
    assert child.code == 0 and f"iteration-1/{needed}" in child.said, child.said
    assert "step-3\n" in child.said
    promise(f"{ROW} (command line, same final weights)", 1, len(differences(run, whole)), "damages")


def test_a_final_model_that_is_damaged_is_saved_again(lab, promise, tmp_path):
    whole, run = whole_run(lab, "sft"), tmp_path / "run"
    assert lab.run(lab.words(run, "sft")).code == 0
    flip(run / "model" / "model.safetensors")
    child = lab.run(lab.words(run, "sft"))
    assert child.code == 0 and "model.safetensors: its content is not" in child.said
    promise(f"{ROW} (command line, same final weights)", 1, len(differences(run, whole)), "damages")
