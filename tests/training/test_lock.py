"""A run's folder belongs to one process at a time."""

import signal
import subprocess
import sys

import pytest

from dudi.errors import ConfigError
from dudi.training.lock import FolderLock
from dudi.training.run_folder import move_aside

HOLD = """
import sys, time
from pathlib import Path
from dudi.training.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds a folder, until it is ended."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_another_process_is_refused_and_told_who_holds_it(tmp_path, other):
    for place in (tmp_path / "run", tmp_path / "x" / ".." / "run"):
        with pytest.raises(ConfigError, match=rf"another process works in this folder \(process {other.pid}: .* -c "):
            FolderLock(place).__enter__()
    with FolderLock(tmp_path / "other"):
        pass


def test_the_lock_ends_with_its_process_however_that_ends(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    with FolderLock(tmp_path / "run"):
        pass


def test_a_process_may_hold_a_folder_twice(tmp_path):
    """A run holds it, and its trainer."""
    with FolderLock(tmp_path / "run"):
        with FolderLock(tmp_path / "run"):
            pass
        assert subprocess.run([sys.executable, "-c", HOLD, str(tmp_path / "run")], check=False).returncode != 0
    assert not (tmp_path / "run").exists()  # nothing was written into it


FORK = """
import os, sys, time
from pathlib import Path
from dudi.training.lock import FolderLock
FolderLock(Path(sys.argv[1])).__enter__()
child = os.fork() == 0
os.write(1, b".")
time.sleep(4 if child else 60)
"""


def test_a_fork_does_not_keep_the_lock_of_its_parent(tmp_path):
    """The workers of a data loader may outlive a process that is killed."""
    with subprocess.Popen([sys.executable, "-c", FORK, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.read(2) == b".."
        with pytest.raises(ConfigError):
            FolderLock(tmp_path).__enter__()
        parent.kill()
        parent.wait()
        with FolderLock(tmp_path):
            pass


def test_what_was_written_stays(tmp_path):
    with FolderLock(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_a_folder_that_is_moved_aside_is_held_under_its_name(tmp_path):
    folder = tmp_path / "run"
    with FolderLock(folder):
        move_aside(folder)  # there is nothing in it
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
        (folder / "metrics.jsonl").touch()
        move_aside(folder)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.old-1"]
        assert [path.name for path in (tmp_path / "run.old-1").iterdir()] == ["metrics.jsonl"]
        assert subprocess.run([sys.executable, "-c", HOLD, str(folder)], check=False).returncode != 0
