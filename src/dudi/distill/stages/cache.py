"""The folders of stages: whose they are, and the cache that runs share."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from filelock import FileLock, Timeout

from dudi.command import say
from dudi.distill.state import Run
from dudi.distill.teacher_setup import identity_of
from dudi.errors import ConfigError
from dudi.files import sha256_of_json
from dudi.training import checkpoints
from dudi.training.ranks import from_first

UNSHARED = ("checkpoints*", "runs", ".*")


def teacher_hash(run: Run) -> str:
    """The identity of the second model; of several, of all of them, their templates, and who of them judges what."""
    teachers = run.setup.teachers
    if teachers.main is None:
        raise ConfigError(f"method {run.args.method}: teacher-written answers need a teacher")
    if not teachers.several:
        return identity_of(teachers.main.model)
    models = [(identity_of(one.model), one.chat.digest) for one in teachers.members.values()]
    return hash_of({"models": models, "judges": judges(run)})


def judges(run: Run) -> list[Any]:
    """What decides who of several teachers judges a completion: the keys, what a probe found, and what rows say."""
    teachers = run.setup.teachers
    rows = [] if run.setup.train is None else run.setup.train.examples
    named = {one.row.id: one.row.teacher for one in rows if one.row.teacher in teachers.routes}
    return [teachers.routes, teachers.chosen, named]


def hash_of(value: Any) -> str:
    """A key of 32 characters for what a stage depends on, the same whatever the order of its names."""
    return sha256_of_json(value)[:32]


def holds(folder: Path, key: str) -> bool:
    """Whether a folder is whole and belongs to this key."""
    checkpoints.settle(folder)
    if not (folder / checkpoints.MANIFEST).is_file():
        return False
    try:
        return checkpoints.verify(folder).get("key") == key
    except ConfigError:
        return False


def stands(folder: Path, key: str) -> bool:
    """`holds`, as rank 0 sees it: ranks that looked for themselves could disagree while rank 0 writes, and hang."""
    return from_first(lambda: holds(folder, key))


def seal_stage(run: Run, folder: Path, key: str, fill: Callable[[Path], object]) -> None:
    """Let the rank that saves write a stage's folder, whole or not at all; it belongs to a key (`holds`)."""
    run.write_once(lambda: checkpoints.seal(folder, fill, {"key": key}))


def _cache(run: Run, kind: str, key: str) -> Path | None:
    """Where a stage is shared; None for a user without a home."""
    root = run.args.cache_dir or os.environ.get("DUDI_CACHE")
    try:
        return (Path(os.path.expanduser(root)) if root else Path.home() / ".cache" / "dudi") / kind / key
    except RuntimeError:
        return None


def fetch(run: Run, kind: str, key: str, folder: Path, part: str = "model") -> bool:
    """Take a stage from the cache into this run, if it is there and can be read."""
    shared = _cache(run, kind, key)
    if shared is None or not from_first(lambda: _is_shared(shared, part, key)):
        return False
    taken = True
    if run.args.should_save:
        try:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(shared, folder, copy_function=_link)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            taken = False
    return all(gather_object([taken]))


@contextlib.contextmanager
def alone(run: Run, kind: str, key: str) -> Iterator[None]:
    """Keep other runs on this machine out while a stage is looked for and made: they wait, and find it in the cache.

    Runs of several processes do not wait: their other ranks would, in a collective, until it gives up.
    """
    shared = _cache(run, kind, key)
    with contextlib.nullcontext() if shared is None else locked(run, f"{shared}.lock", kind.replace("_", " ")):
        yield


@contextlib.contextmanager
def locked(run: Run, file: str | Path, what: str) -> Iterator[None]:
    """Hold a lock while something (`what`) is looked for and made, unless this is one of several processes."""
    lock = FileLock(file)
    try:
        if run.args.world_size == 1:
            Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
    except Timeout:
        say(f"another run makes this {what}: waiting for it")
        lock.acquire()
    except OSError:  # a cache that cannot be written is no reason to stop
        pass
    try:
        yield
    finally:
        lock.release()


def _is_shared(shared: Path, part: str, key: str) -> bool:
    """`holds`, of a folder that may be somebody else's."""
    try:
        return holds(shared / part, key)
    except OSError:
        return False


def share(run: Run, kind: str, key: str, folder: Path, part: str = "model") -> None:
    """Offer a finished stage to other runs; a cache that cannot be read or written is no reason to stop."""
    shared = _cache(run, kind, key)
    if shared is None or not run.args.should_save or _is_shared(shared, part, key):
        return
    partial = shared.with_name(f".{key}.{os.getpid()}")
    try:
        shutil.copytree(folder, partial, copy_function=_link, ignore=shutil.ignore_patterns(*UNSHARED))
        shutil.rmtree(shared, ignore_errors=True)  # damaged, if it is there at all
        os.replace(partial, shared)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
