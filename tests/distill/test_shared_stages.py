"""Runs that need the same stage at the same time: one makes it, the others wait."""

import threading
from types import SimpleNamespace

from filelock import FileLock

from dudi.distill.stages.cache import alone


def run_of(cache, world_size=1):
    return SimpleNamespace(args=SimpleNamespace(cache_dir=str(cache), world_size=world_size))


def test_one_waits_until_the_other_is_done(tmp_path, capsys):
    inside, order = threading.Event(), []

    def other():
        inside.wait(5)
        with alone(run_of(tmp_path), "cold_start", "key"):
            order.append("second")

    thread = threading.Thread(target=other)
    thread.start()
    with alone(run_of(tmp_path), "cold_start", "key"):
        inside.set()
        thread.join(0.5)
        assert thread.is_alive()
        with alone(run_of(tmp_path), "cold_start", "other"):  # another stage is nobody's business
            order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert "another run makes this cold start: waiting for it" in capsys.readouterr().out


def test_a_lock_is_left_after_an_error(tmp_path):
    try:
        with alone(run_of(tmp_path), "cold_start", "key"):
            raise RuntimeError
    except RuntimeError:
        pass
    FileLock(tmp_path / "cold_start" / "key.lock").acquire(timeout=0)


def test_several_processes_of_one_run_do_not_wait(tmp_path):
    """Their other ranks would stand in a collective meanwhile."""
    with alone(run_of(tmp_path), "cold_start", "key"), alone(run_of(tmp_path, world_size=2), "cold_start", "key"):
        pass


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with alone(run_of(tmp_path / "file"), "cold_start", "key"):
        pass
