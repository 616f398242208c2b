"""Checkpoints: whole or refused, restored bit for bit, and without a pickle."""

import json
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import dudi
from dudi.errors import ConfigError
from dudi.files import write_json_inside
from dudi.training import checkpoints
from dudi.training.checkpoints import (
    MANIFEST,
    hash_parameters,
    load_optimizer,
    newest_valid,
    random_states,
    read_json,
    restore_random_states,
    rotate,
    save_optimizer,
    seal,
    set_aside_after,
    verify,
)
from dudi.training.run_folder import starting_point
from helpers import make_model


def fill(folder):
    save_file({"w": torch.arange(100.0)}, folder / "model.safetensors")
    write_json_inside(folder / "state.json", {"step": 3, "loss": 0.1})
    (folder / "adapter").mkdir()
    save_file({"a": torch.ones(7)}, folder / "adapter" / "weights.safetensors")
    (folder / "notes.txt").write_text("ok\n")


def make_checkpoint(parent, step=3):
    folder = parent / f"step-{step}"
    seal(folder, fill, {"step": step, "identity": {"seed": 1}})
    return folder


FILES = ["model.safetensors", "state.json", "adapter/weights.safetensors", "notes.txt", MANIFEST]


def flip(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x04
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": flip,
    "flipped_at_the_start": lambda path: flip(path, 0.0),
    "flipped_at_the_end": lambda path: flip(path, 1.0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "replaced_by_a_folder": lambda path: (path.unlink(), path.mkdir()),
}


class TestSeal:
    def test_a_whole_folder(self, tmp_path):
        folder = make_checkpoint(tmp_path / "checkpoints")
        manifest = verify(folder)
        assert manifest["step"] == 3 and manifest["identity"] == {"seed": 1}
        assert set(manifest["files"]) == set(FILES) - {MANIFEST}
        assert load_file(folder / "model.safetensors")["w"].tolist() == list(range(100))
        assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-3"]  # nothing is left beside it

    def test_every_file_is_in_the_manifest(self, tmp_path):
        folder = make_checkpoint(tmp_path)
        there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert there == set(FILES)

    def test_what_stood_there_is_replaced(self, tmp_path):
        folder = make_checkpoint(tmp_path)
        seal(folder, lambda partial: write_json_inside(partial / "only.json", 1), {"step": 9})
        assert verify(folder)["step"] == 9
        assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, "only.json"]

    def test_a_crash_while_writing_leaves_what_stood_there(self, tmp_path):
        folder = make_checkpoint(tmp_path)

        def crash(partial):
            fill(partial)
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            seal(folder, crash, {"step": 4})
        assert verify(folder)["step"] == 3
        assert newest_valid(tmp_path) == (folder, [])
        # What the crash left does not hinder the next attempt, and no file of it gets in.
        seal(folder, lambda partial: write_json_inside(partial / "only.json", 1), {"step": 5})
        assert set(verify(folder)["files"]) == {"only.json"}

    def test_a_crash_before_the_rename_leaves_no_folder_that_is_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr(
            "dudi.training.checkpoints.os.replace", lambda *a: (_ for _ in ()).throw(OSError("power cut"))
        )
        with pytest.raises(OSError, match="power cut"):
            make_checkpoint(tmp_path, 1)
        assert newest_valid(tmp_path) == (None, [])


class TestVerify:
    @pytest.mark.parametrize("damage", DAMAGES)
    @pytest.mark.parametrize("name", FILES)
    def test_each_damage_to_each_file_is_named(self, tmp_path, name, damage):
        folder = make_checkpoint(tmp_path)
        DAMAGES[damage](folder / name)
        with pytest.raises(ConfigError) as caught:
            verify(folder)
        message = str(caught.value)
        assert str(folder) in message and name in message
        assert "\n" not in message

    def test_every_byte_of_the_manifest_counts(self, tmp_path):
        folder = make_checkpoint(tmp_path)
        whole = (folder / MANIFEST).read_bytes()
        for place in range(0, len(whole), 3):
            changed = bytearray(whole)
            changed[place] ^= 0x01
            (folder / MANIFEST).write_bytes(changed)
            with pytest.raises(ConfigError, match="manifest"):
                verify(folder)
        (folder / MANIFEST).write_bytes(whole)
        verify(folder)

    @pytest.mark.parametrize("content", ["[]", "null", '{"files": []}', "{}", '{"files": {"a": 1}}', '"x"', "\ud800"])
    def test_a_manifest_that_is_none(self, tmp_path, content):
        folder = make_checkpoint(tmp_path)
        (folder / MANIFEST).write_bytes(content.encode("utf-8", "surrogatepass"))
        with pytest.raises(ConfigError, match="not a whole checkpoint"):
            verify(folder)

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(ConfigError, match="not a whole checkpoint"):
            verify(tmp_path / "step-1")


class TestNewest:
    def test_by_number_and_not_by_name(self, tmp_path):
        for step in (9, 10, 100, 20):
            make_checkpoint(tmp_path, step)
        assert newest_valid(tmp_path) == (tmp_path / "step-100", [])

    def test_it_falls_back_and_says_why(self, tmp_path):
        for step in (1, 2, 3):
            make_checkpoint(tmp_path, step)
        flip(tmp_path / "step-3" / "model.safetensors")
        (tmp_path / "step-2" / MANIFEST).unlink()
        found, skipped = newest_valid(tmp_path)
        assert found == tmp_path / "step-1"
        assert len(skipped) == 2
        assert "step-3/model.safetensors" in skipped[0] and "damaged" in skipped[0]
        assert "step-2" in skipped[1] and "not a whole checkpoint" in skipped[1]

    def test_none_at_all(self, tmp_path):
        assert newest_valid(tmp_path / "nowhere") == (None, [])
        assert newest_valid(tmp_path) == (None, [])
        (tmp_path / "step-7").mkdir()
        (tmp_path / "step-x").mkdir()
        found, skipped = newest_valid(tmp_path)
        assert found is None and len(skipped) == 1  # the other one is none of ours


class TestRotate:
    @pytest.mark.parametrize(
        ("keep", "left"),
        [(1, [100]), (2, [20, 100]), (9, [3, 9, 20, 100]), (None, [3, 9, 20, 100]), (0, [3, 9, 20, 100])],
    )
    def test_the_newest_stay(self, tmp_path, keep, left):
        for step in (9, 100, 20, 3):
            make_checkpoint(tmp_path, step)
        (tmp_path / "other").mkdir()
        rotate(tmp_path, keep)
        assert sorted(int(p.name[5:]) for p in tmp_path.glob("step-*")) == left
        assert (tmp_path / "other").is_dir()

    THEIRS = ("step-3-keep", "step-4.good", "step-", "step-007", "step-9 (copy)", "step-٣", ".step-4.good.gone")

    def test_what_people_keep_beside_them_is_theirs(self, tmp_path):
        for step in (3, 4, 5):
            make_checkpoint(tmp_path, step)
        for name in self.THEIRS:
            shutil.copytree(tmp_path / "step-3", tmp_path / name)
        rotate(tmp_path, 1)
        assert {p.name for p in tmp_path.iterdir()} == {"step-5", *self.THEIRS}
        shutil.rmtree(tmp_path / "step-5")
        assert newest_valid(tmp_path) == (None, [])  # nobody goes on from a copy by itself
        set_aside_after(tmp_path, 0)
        assert {p.name for p in tmp_path.iterdir()} == set(self.THEIRS)

    def test_a_step_that_has_to_stay_stays(self, tmp_path):
        for step in (3, 4, 5, 6):
            make_checkpoint(tmp_path, step)
        rotate(tmp_path, 2, {6, 3})
        assert {p.name for p in tmp_path.iterdir()} == {"step-6", "step-3"}


class TestRandomStates:
    def draw(self):
        return (
            [random.gauss(0, 1) for _ in range(3)],
            np.random.standard_normal(3).tolist(),  # noqa: NPY002
            torch.randn(3).tolist(),
        )

    def test_they_survive_json_exactly(self, tmp_path):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
        self.draw()  # an odd number of normals: Python and NumPy hold the second half of a pair
        write_json_inside(tmp_path / "random.json", random_states())
        first = self.draw()
        random.seed(2), np.random.seed(2), torch.manual_seed(2)  # noqa: NPY002
        assert self.draw() != first
        restore_random_states(read_json(tmp_path / "random.json"))
        assert self.draw() == first
        restore_random_states(read_json(tmp_path / "random.json"))
        assert json.loads(json.dumps(random_states())) == read_json(tmp_path / "random.json")

    def test_reading_them_moves_nothing(self):
        torch.manual_seed(3)
        first = random_states()
        assert random_states() == first


def optimize(model, optimizer, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        ids = torch.randint(0, 90, (2, 6), generator=generator)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


class TestOptimizer:
    @pytest.mark.parametrize("amsgrad", [False, True])
    def test_adamw_survives_bit_for_bit(self, tmp_path, amsgrad):
        def make(seed):
            model = make_model(seed=seed, vocab_size=90)
            decay = [p for p in model.parameters() if p.dim() > 1]
            rest = [p for p in model.parameters() if p.dim() < 2]
            groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
            return model, torch.optim.AdamW(groups, lr=1e-3, betas=(0.8, 0.95), amsgrad=amsgrad)

        model, optimizer = make(1)
        optimize(model, optimizer, 3)
        save_optimizer(tmp_path, optimizer.state_dict())
        weights = {k: v.clone() for k, v in model.state_dict().items()}

        before, after = optimizer.state_dict(), load_optimizer(tmp_path)
        assert after["param_groups"] == before["param_groups"]
        assert after["state"].keys() == before["state"].keys()
        for index, values in before["state"].items():
            assert after["state"][index].keys() == values.keys()
            assert all(same_bits(after["state"][index][name], value) for name, value in values.items())

        other, resumed = make(2)
        other.load_state_dict(weights)
        resumed.load_state_dict(after)
        optimize(model, optimizer, 2, seed=9)
        optimize(other, resumed, 2, seed=9)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))

    def test_numbers_that_are_no_tensors(self, tmp_path):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.SGD([weight], lr=0.1 + 0.2, momentum=0.9)
        weight.grad = torch.tensor([1.0, 2.0, 3.0])
        optimizer.step()
        state = optimizer.state_dict()
        state["state"][0]["count"] = 7
        save_optimizer(tmp_path, state)
        loaded = load_optimizer(tmp_path)
        assert loaded["state"][0]["count"] == 7
        assert loaded["param_groups"][0]["lr"] == 0.1 + 0.2
        assert torch.equal(loaded["state"][0]["momentum_buffer"], state["state"][0]["momentum_buffer"])


class TestNoPickle:
    def test_only_safetensors_and_json_are_written(self, tmp_path):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.AdamW([weight])
        weight.grad = torch.ones(3)
        optimizer.step()

        def everything(folder):
            save_optimizer(folder, optimizer.state_dict())
            write_json_inside(folder / "random.json", random_states())

        seal(tmp_path / "step-1", everything, {})
        for path in (tmp_path / "step-1").iterdir():
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            else:
                assert path.suffix == ".safetensors"
                assert load_file(path)

    def test_the_source_neither_writes_nor_reads_one(self):
        sources = list(Path(dudi.__file__).parent.rglob("*.py"))
        assert len(sources) > 20
        forbidden = re.compile(
            r"\b(import (pickle|dill|cloudpickle|joblib|shelve|marshal)|torch\.(save|load)\(|allow_pickle=True)"
        )
        assert [str(p) for p in sources if forbidden.search(p.read_text(encoding="utf-8"))] == []


class TestHashOfParameters:
    def test_it_is_the_identity_of_the_weights(self):
        model = make_model(seed=1)
        first = hash_parameters(model)
        assert hash_parameters(make_model(seed=1)) == first
        assert hash_parameters(make_model(seed=2)) != first
        with torch.no_grad():
            value = model.lm_head.weight[3, 4]
            value.copy_(torch.nextafter(value, torch.tensor(9.0)))
        assert hash_parameters(model) != first
        assert hash_parameters(make_model(seed=1).bfloat16()) != first


def test_a_copied_checkpoint_is_still_whole(tmp_path):
    folder = make_checkpoint(tmp_path)
    shutil.copytree(folder, tmp_path / "elsewhere" / "step-3")
    assert verify(tmp_path / "elsewhere" / "step-3")["step"] == 3


class TestHashedOnce:
    """A resume looks at its checkpoint three times; the files are read once, and again after any change."""

    @pytest.fixture
    def read(self, monkeypatch):
        read, own = [], checkpoints.sha256_of
        monkeypatch.setattr(checkpoints, "sha256_of", lambda path: read.append(path.name) or own(path))
        return read

    @pytest.fixture
    def old(self, tmp_path, monkeypatch):
        folder = make_checkpoint(tmp_path)
        now = checkpoints.time.time_ns()
        monkeypatch.setattr(checkpoints.time, "time_ns", lambda: now + 60 * 10**9)
        return folder

    def test_what_has_not_changed_is_not_read_again(self, old, read):
        manifest = verify(old)
        assert len(read) == len(FILES) - 1
        assert verify(old) == manifest and newest_valid(old.parent) == (old, [])
        assert len(read) == len(FILES) - 1

    def test_what_has_just_been_written_is(self, tmp_path, read):
        """Within a tick of the file system's clock a second change may leave the times as they are."""
        folder = make_checkpoint(tmp_path)
        read.clear()
        verify(folder), verify(folder)
        assert len(read) == 2 * (len(FILES) - 1)

    @pytest.mark.parametrize("name", FILES)
    def test_a_change_is_seen_though_size_and_time_of_writing_stay(self, old, name):
        verify(old)
        before = (old / name).stat()
        flip(old / name)
        os.utime(old / name, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(ConfigError):
            verify(old)

    def test_another_file_in_its_place_is_seen(self, old):
        verify(old)
        other, file = old.parent / "other", old / "notes.txt"
        other.write_text("no\n")
        os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
        os.replace(other, file)
        with pytest.raises(ConfigError, match=r"notes\.txt"):
            verify(old)


def test_what_is_named_to_go_on_from_and_is_no_checkpoint_is_said_with_those_that_there_are(tmp_path):
    step = tmp_path / "run" / "checkpoints" / "step-10"
    with pytest.raises(ConfigError, match=r"nope: no such folder; the run has none yet"):
        starting_point(tmp_path / "run", str(tmp_path / "nope"), ["sft"])
    step.mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"nope: no such folder; name one: {re.escape(str(step))}"):
        starting_point(tmp_path / "run", str(tmp_path / "nope"), ["sft"])
    for folder in (step.parent, step.parent.parent):
        with pytest.raises(ConfigError, match=f"holds checkpoints and is none; name one: {re.escape(str(step))}"):
            starting_point(tmp_path / "run", str(folder), ["sft"])
    with pytest.raises(ConfigError, match="not a whole checkpoint"):
        starting_point(tmp_path / "run", str(step), ["sft"])
