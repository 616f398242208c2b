"""What the tests share: a small real tokenizer, tiny models of the recipes' architectures, rows in eight languages."""

import functools
import gc
import itertools
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest

os.fsync = lambda descriptor: None
"""No test waits for the disk. That files come to it, and in which order, test_files.py and test_torn.py look at."""

# torch is imported where it is needed: the process that hands out the tests waits for it else, before any test begins.

REAL = "smollm2"
"""In the names of tests that read the real checkpoint: its vocabulary alone takes seconds, and is read once."""


@functools.cache
def _shares(file):
    """Whether tests of a file share what one of them makes: one process runs all of them, else each makes its own."""
    return 'scope="module"' in (Path(__file__).parents[1] / file).read_text(encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """`--dist loadgroup` by file: with pytest 9.2 the marks of pytest-xdist 3.8 have no effect."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class ByFile(LoadGroupScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return REAL if REAL in nodeid else file if _shares(file) else nodeid

    return ByFile(config, log)


def pytest_collection_finish(session):
    """Take what was imported out of garbage collection: each `gc.collect` of a training took 0.2 s for it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _caches(tmp_path_factory):
    root = tmp_path_factory.mktemp("caches")
    return (root / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _private_cache(_caches, monkeypatch):
    """No test reads the cold starts of another, or of the person who runs it. A folder each by `mktemp` took pytest
    longer with every one that was there."""
    monkeypatch.setenv("DUDI_CACHE", str(next(_caches)))


@pytest.fixture(scope="session")
def tokenizer():
    from helpers import make_tokenizer

    return make_tokenizer()


@pytest.fixture
def student():
    from helpers import make_model

    return make_model(seed=1)


@pytest.fixture
def teacher():
    from helpers import make_model

    return make_model(seed=2, hidden_size=48)


@pytest.fixture(scope="session")
def rows():
    from helpers import ROWS

    return ROWS


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests run side by side: threads that wait for each other's cores made tiny models fifty times slower."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def make(tmp_path):
    """A run folder for the report: `make("name", seed=1)`."""
    from report_helpers import build_run

    return lambda name="run", **options: build_run(tmp_path / name, **options)


@pytest.fixture
def make_asked(tmp_path):
    """The same with the benchmark's questions asked."""
    from report_helpers import build_asked

    return lambda name="run", **options: build_asked(tmp_path / name, **options)
