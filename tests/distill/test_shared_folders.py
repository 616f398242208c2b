"""One folder for two runs, and one cache for several people."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dudi import DudiTrainer
from dudi.errors import ConfigError
from dudi.training.lock import FolderLock
from helpers import ROWS, make_args, make_model

HOLD = """
import sys
from pathlib import Path
from dudi.training.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")


def make_trainer(folder, tokenizer, method="dudi", **keys):
    teacher = make_model(seed=2, hidden_size=48)
    args = make_args(folder, method, **{"max_steps": 1, **keys})
    return DudiTrainer(make_model(seed=1), teacher, args, ROWS[:8], None, tokenizer)


def test_two_trainers_do_not_write_into_one_folder(tmp_path, tokenizer):
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"another process works in this folder .process {other.pid}: "):
            make_trainer(tmp_path, tokenizer, "sft").train()
        other.stdin.close()
    make_trainer(tmp_path, tokenizer, "sft").train()
    with FolderLock(tmp_path):  # let go at the end of training
        pass


def cached(folder):
    return '"cached": true' in (folder / "metrics.jsonl").read_text()


def test_a_user_without_a_home_trains_without_a_cache(tmp_path, tokenizer, monkeypatch):
    monkeypatch.delenv("DUDI_CACHE")

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    make_trainer(tmp_path, tokenizer).train()
    assert not cached(tmp_path)


def as_somebody_else(place, work):
    """Do something as a user who owns one folder in `place`, and may read the rest."""
    for folder in (place, *place.parents):
        if folder.stat().st_mode & 0o055 != 0o055:
            folder.chmod(0o755)
    home = place / "home"
    home.mkdir()
    os.chown(home, 12345, 12345)
    os.seteuid(12345)
    try:
        work(home)
    finally:
        os.seteuid(0)


@as_root
@pytest.mark.parametrize("mode", [0o700, 0o711, 0o755], ids=["closed", "unlisted", "unwritable"])
def test_a_cache_that_is_somebody_elses_stops_nobody(mode, tmp_path, tokenizer, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("DUDI_CACHE", str(cache))
    make_trainer(tmp_path / "first", tokenizer).train()
    (cache / "cold_start").chmod(mode)
    as_somebody_else(tmp_path, lambda home: make_trainer(home / "second", tokenizer).train())
    assert cached(tmp_path / "home" / "second") == (mode != 0o700)


@as_root
def test_a_file_that_cannot_be_read_is_made_anew(tmp_path, tokenizer, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("DUDI_CACHE", str(cache))
    make_trainer(tmp_path / "first", tokenizer).train()
    for file in cache.rglob("*.safetensors"):
        file.chmod(0o600)
    as_somebody_else(tmp_path, lambda home: make_trainer(home / "second", tokenizer).train())
    assert not cached(tmp_path / "home" / "second")


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_what_is_saved_is_as_readable_as_the_umask_says(umask, tmp_path, tokenizer):
    before = os.umask(umask)
    try:
        trainer = make_trainer(tmp_path, tokenizer, save_strategy="steps", save_steps=1)
        trainer.train()
        trainer.save_final(tmp_path / "model", {})
    finally:
        os.umask(before)
    for folder in ("model", "checkpoints/step-1", "stages/cold_start/model"):
        files = [file for file in (tmp_path / folder).rglob("*") if file.is_file()]
        assert {file.stat().st_mode & 0o777 for file in files} == {0o666 & ~umask}, folder
