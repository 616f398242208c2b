"""Files that appear whole or not at all: what is left when a write fails, their modes, and folders that cannot sync."""

import errno
import hashlib
import itertools
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dudi.errors import EnvironmentFault
from dudi.files import (
    atomic_file,
    sha256_of,
    sha256_of_files,
    sha256_of_json,
    sync,
    write_json,
    write_json_lines,
    write_text,
)
from dudi.training.checkpoints import save_file, seal, verify


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    assert write_text(path, "one\n") == path
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "one\n" and [p.name for p in path.parent.iterdir()] == ["a.txt"]
    write_text(path, "a \ud800 b")  # half of a letter in somebody's data
    assert path.read_text() == "a \\ud800 b"


def test_hashes_on_which_committed_results_stand(tmp_path):
    """Written out: what is hashed in another way is another run, another checkpoint and another cache."""
    value = {"b": [1, 0.5, None, "ကျပ်"], "a": {"path": Path("x"), "\ud800": True}}
    assert sha256_of_json(value) == "1e8f6bda029c0c2ccaf110da246eef219a9121daa6920ecfb50609307f07e7f5"
    assert sha256_of_json(dict(reversed(value.items()))) == sha256_of_json(value)
    for name in ("b.bin", "a.bin"):
        (tmp_path / name).write_bytes(name.encode())
    assert (
        sha256_of_files(sorted(tmp_path.iterdir()))
        == "50468cbc64c76c08b1c544a6e0fac8990257a3ae9c093192b62b11451627a98e"
    )


def test_json_and_lines(tmp_path):
    write_json(tmp_path / "a.json", {"b": tmp_path, "a": "ကျပ်"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == f'{{\n "b": "{tmp_path}",\n "a": "ကျပ်"\n}}\n'
    write_json_lines(tmp_path / "a.jsonl", ({"n": n} for n in range(2)))
    assert [json.loads(line)["n"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [0, 1]
    assert sha256_of(tmp_path / "a.jsonl") == hashlib.sha256(b'{"n": 0}\n{"n": 1}\n').hexdigest()


def test_what_cannot_be_written_says_where(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match=r"cannot write .*file/a.json: File exists"):
        write_json(tmp_path / "file" / "a.json", 1)


@pytest.mark.slow
def test_files_have_the_mode_that_the_umask_asks_for(tmp_path):
    """safetensors writes through a temporary file of mode 0600, which would keep a model from everybody else."""
    code = (
        "import os, pathlib, sys, torch\n"
        "from dudi.files import write_text\n"
        "from dudi.training.checkpoints import save_file, seal\n"
        "for umask in map(int, sys.argv[2:]):\n"
        "    os.umask(umask)\n"
        "    folder = pathlib.Path(sys.argv[1]) / str(umask)\n"
        "    folder.mkdir(mode=0o700)\n"
        "    seal(folder / 'model', lambda p: save_file({'w': torch.zeros(2)}, p / 'model.safetensors'), {})\n"
        "    write_text(folder / 'a.txt', 'a')\n"
    )
    umasks = (0o022, 0o027, 0o077)
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *map(str, umasks)], check=True)
    for umask, name in itertools.product(umasks, ("model/model.safetensors", "model/manifest.json", "a.txt")):
        assert mode_of(tmp_path / str(umask) / name) == 0o666 & ~umask, (oct(umask), name)


def refusing(monkeypatch, number, wanted=os.path.isdir):
    """As a file system that answers `number` to a sync of what `wanted` says."""
    own = os.fsync

    def fsync(descriptor):
        if wanted(os.readlink(f"/proc/self/fd/{descriptor}")):
            raise OSError(number, os.strerror(number))
        own(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_folder_that_cannot_be_synced_is_said_once_and_stops_nothing(tmp_path, monkeypatch):
    refusing(monkeypatch, errno.EINVAL)
    with pytest.warns(UserWarning, match="cannot sync a folder") as told:
        write_text(tmp_path / "a.txt", "a")
        write_text(tmp_path / "b.txt", "b")
    assert len([one for one in told if str(one.message).startswith(str(tmp_path))]) == 1
    with pytest.warns(UserWarning, match="cannot sync a folder"):
        seal(tmp_path / "step-1", lambda p: save_file({"w": torch.zeros(2)}, p / "model.safetensors"), {"step": 1})
    assert verify(tmp_path / "step-1")["step"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("number", "wanted"), [(errno.EIO, os.path.isdir), (errno.ENOSPC, os.path.isfile), (errno.EINVAL, os.path.isfile)]
)
def test_a_disk_that_fails_does(tmp_path, monkeypatch, number, wanted):
    refusing(monkeypatch, number, wanted)
    with pytest.raises(EnvironmentFault, match=os.strerror(number)):
        write_text(tmp_path / "a.txt", "a")
    with pytest.raises(OSError, match=os.strerror(number)):
        sync(tmp_path if wanted is os.path.isdir else Path(__file__))
